"""Checkpoints that the authors' own code wrote: every one opens, and computes here what it does there.

They lie in ``upstream/`` of the reference folder. Where it is absent only files of our own making are read.
"""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lsgm.cli import main
from lsgm.errors import CheckpointError
from lsgm.interop.nvlabs.convert import convert
from lsgm.interop.nvlabs.read import read_checkpoint
from lsgm.model.lsgm import LSGM, build_lsgm
from lsgm.pickled.foreign import read_pickle
from lsgm.runs.load import load_model
from lsgm.vae.base import sum_per_sample

SHARED = Path(os.environ.get("LSGM_SHARED", Path(__file__).parents[3].parent / "shared"))
UPSTREAM = SHARED / "upstream" / "nvlabs"
FILES = sorted(UPSTREAM.rglob("checkpoint*.pt"))
FOLDERS = sorted({path.parent for path in FILES})
upstream = pytest.mark.skipif(not FILES, reason=f"the authors' own files are not here: {UPSTREAM}")

CLOSE = {"rtol": 1e-12, "atol": 1e-12}
"""The same float64 sums in another order, through some twenty layers of order one."""


def label(path: Path) -> str:
    return path.relative_to(UPSTREAM).as_posix()


def networks(path: Path, weights: str) -> LSGM:
    """Return the model of a file in float64, masks left out as the authors' evaluation does."""
    official = read_checkpoint(path)
    native = convert(official, reference_compat=True)
    model = build_lsgm(native.recipe, native.pixels).double()
    model.load_state_dict(native.raw if weights == "raw" else native.ema, strict=official.prior is not None)
    return model.eval()


@upstream
@pytest.mark.parametrize("path", FILES, ids=label)
def test_every_file_opens_and_says_which_kind_it_is(path: Path) -> None:
    official = read_checkpoint(path)
    kinds = {"stage1": "vae", "checkpoint_fid": "averaged", "checkpoint_nll": "averaged"}
    expected = kinds.get(path.parent.name) or kinds.get(path.stem, "raw")
    assert official.kind == expected
    assert official.args["num_total_iter"] > 0


@upstream
@pytest.mark.parametrize("path", FILES, ids=label)
def test_every_file_becomes_a_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    assert main(["import", "nvlabs", str(path), str(tmp_path / "run")]) == 0
    model = load_model(tmp_path / "run")
    assert model.has_prior == (path.parent.name == "stage2")


@upstream
@pytest.mark.parametrize("path", [f for f in FILES if f.parent.name == "stage2"], ids=label)
def test_files_of_averages_alone_hold_the_averages_of_the_files_beside_them(path: Path) -> None:
    beside, alone = (convert(read_checkpoint(file)) for file in (path.parent / "checkpoint.pt", path))
    for name, value in alone.ema.items():
        assert torch.equal(value, beside.ema[name]), name


@upstream
@pytest.mark.parametrize("folder", [f for f in FOLDERS if f.name == "stage2"], ids=label)
@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_the_prior_computes_what_the_authors_does(folder: Path, weights: str) -> None:
    expected = load_file(folder / "expected.safetensors")
    prior = networks(folder / "checkpoint.pt", weights).prior
    z_t, t = expected["prior/z_t"], expected["prior/t"]
    with torch.no_grad():
        found = {
            "network_output": prior.network(z_t, t),
            "eps_prediction": prior.eps(z_t, t),
            "ode_drift": prior.drift(z_t, t),
        }
    for name, value in found.items():
        wanted = expected[f"prior/{weights}/{name}"]
        # Their drift of the geometric SDE is a difference of terms of order g^2.
        scale = float(wanted.abs().max()) if name == "ode_drift" else 1.0
        torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-11 * max(1.0, scale))


@upstream
@pytest.mark.parametrize("folder", FOLDERS, ids=label)
def test_the_vae_computes_what_the_authors_does(folder: Path) -> None:
    expected = load_file(folder / "expected.safetensors")
    vae = networks(folder / "checkpoint.pt", "raw").vae
    pixels, padded = vae.pixels, expected["x_uint8"]
    pad = (padded.shape[-1] - pixels.width) // 2
    levels = padded[:, :, pad : pad + pixels.height, pad : pad + pixels.width].to(torch.uint8)
    levels = (levels > 0).to(torch.uint8) if pixels.kind == "binary" else levels >> (8 - pixels.bits)
    left = iter([expected[f"vae_eval/encoder_noise/{i:02d}"] for i in range(len(vae.groups.shapes))])
    with torch.no_grad():
        groups = vae.encode(levels, lambda *shape: next(left))
        nll = -sum_per_sample(vae.likelihood(tuple(group.z for group in groups)).log_prob(levels))
    for index, group in enumerate(groups):
        torch.testing.assert_close(group.z, expected[f"vae_eval/z/{index:02d}"], **CLOSE)
        torch.testing.assert_close(group.log_q, expected[f"vae_eval/log_q/{index:02d}"], **CLOSE)
    # Exact bins against the authors' density for bins below 1e-5: a few parts in a million of the whole.
    torch.testing.assert_close(nll, expected["vae_eval/recon_nll"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("value", [np.float64(2.5), np.float32(0.1), np.int64(-7), np.bool_(True)], ids=repr)
def test_numpys_numbers_are_read_as_pythons_under_both_names(tmp_path: Path, module: str, value: Any) -> None:
    """As `best_score_fid`, and the learning rate of a warm-up, lie in every such file."""
    path = tmp_path / "checkpoint.pt"

    class Pickle:
        """torch.save's pickle module, with the name that one NumPy gives to its constructor."""

        __name__ = "renaming"

        class Pickler(pickle._Pickler):
            def save_global(self, obj: Any, name: str | None = None) -> None:
                if getattr(obj, "__name__", "") != "scalar":
                    super().save_global(obj, name)
                    return
                self.write(f"c{module}\nscalar\n".encode())
                self.memoize(obj)

    torch.save({"best_score_fid": value}, path, pickle_module=Pickle)
    found = read_pickle(path, "tests")["best_score_fid"]
    assert type(found) is type(value.item())
    assert found == value.item()


def test_a_numpy_scalar_that_holds_an_object_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return np.float64(0).__reduce__()[0], (np.dtype("O"), argparse.Namespace())

    path = tmp_path / "checkpoint.pt"
    torch.save({"best_score_fid": Harmful()}, path)
    with pytest.raises(CheckpointError):
        read_pickle(path, "tests", argparse.Namespace)
