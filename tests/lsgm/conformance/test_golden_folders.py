"""`lsgm conformance` on the golden folders, whole and spoiled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from golden import FOLDERS, checkpoint_path, golden, needs_golden
from torch import Tensor

from lsgm.cli import main
from lsgm.conformance.folder import deviation, load, read_folder
from lsgm.conformance.stages import GRADIENTS

pytestmark = needs_golden


def conformance(*argv: object) -> int:
    return main(["conformance", *map(str, argv)])


def stages(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {row["stage"]: row for row in rows}


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a golden folder that may be written to."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in checkpoint_path(name).parent.iterdir():
            shutil.copyfile(file, folder / file.name)
        return folder

    return make


def spoil_values(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = safetensors.torch.load_file(folder / "io.safetensors")
    change(tensors)
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "io.safetensors")


def spoil_meta(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    change(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


def spoil_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    checkpoint, _, _ = golden(folder.name)
    change(checkpoint)
    torch.save(checkpoint, folder / "checkpoint.pt")


@pytest.mark.parametrize("name", FOLDERS)
def test_every_stage_of_every_folder_passes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance(checkpoint_path(name).parent, "--json") == 0
    found = stages(capsys)
    assert {row["verdict"] for row in found.values()} == {"PASS"}
    _, meta, tensors = golden(name)
    compared = set(found) | {key for key in tensors if key.startswith("step/grad/")}
    inputs = {"x_uint8", "prior/t", "prior/z0", "prior/noise", "step/rho", "step/diffusion_noise"}
    assert {key for key in tensors if key not in inputs and "encoder_noise" not in key} <= compared
    assert ("step/grad/vae" in found) == ("step" in meta)


@pytest.mark.parametrize(
    ("name", "part"), [("mnist", "vae"), ("cifar10_fid", "prior"), ("cifar10_nll", "vae")]
)
def test_gradients_agree_relative_to_their_own_size_too(name: str, part: str) -> None:
    """The folder's measure is absolute below 1, so that a wrong small gradient could pass."""
    folder = read_folder(checkpoint_path(name).parent)
    model = load(folder)
    prefix = f"step/grad/{part}/"
    theirs = {key: value for key, value in folder.tensors.items() if key.startswith(prefix)}
    ours = GRADIENTS.run(folder, model, sorted(theirs))
    assert GRADIENTS.translate is not None
    theirs = dict(GRADIENTS.translate(folder, model, theirs))
    for key, value in theirs.items():
        scale = float(value.abs().max())
        # Below this a gradient is what rounding leaves of zeros: the biases of keys cancel in a softmax.
        if scale > 1e-13:
            assert deviation(ours[key] / scale, value / scale).error < 1e-6, key


def test_one_perturbed_weight_fails_where_it_is_seen_first(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy("mnist")
    spoil_weights(folder, lambda c: c["dae_state_dict"]["all_modules.2.weight"].view(-1)[0].add_(1e-3))
    assert conformance(folder, "--json") == 1
    found = stages(capsys)
    assert found["prior/network_output"]["verdict"] == "FAIL"
    assert found["prior/z_t"]["verdict"] == found["vae_eval/decoder_params"]["verdict"] == "PASS"
    assert found["step/grad/prior"]["verdict"] == "FAIL"


def test_the_failed_stage_is_named_in_the_table(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy("mnist")
    spoil_values(folder, lambda t: t["decode/image"].view(-1)[5].mul_(1.001))
    assert conformance(folder) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "FAIL" in line]
    assert line.startswith("decode/image ")
    assert "25 of 26 stages pass, 1 fail" in out


def test_a_nan_among_the_golden_values_fails(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy("mnist")
    spoil_values(folder, lambda t: t["vae_eval/log_q/01"].view(-1)[0].fill_(torch.nan))
    assert conformance(folder, "--json") == 1
    assert stages(capsys)["vae_eval/log_q/01"]["verdict"] == "FAIL"


def test_a_stage_without_values_is_not_listed_as_a_pass(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy("mnist")
    spoil_values(folder, lambda t: [t.pop(key) for key in list(t) if key.startswith(("step/", "decode/"))])
    spoil_meta(folder, lambda meta: meta.pop("step"))
    assert conformance(folder, "--json") == 0
    assert not [key for key in stages(capsys) if key.startswith(("step/", "decode/"))]


def test_what_the_folder_cannot_say_of_the_step_is_skipped_with_the_reason(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy("mnist")
    spoil_meta(folder, lambda meta: meta["step"].pop("global_step"))
    assert conformance(folder, "--json") == 0
    row = stages(capsys)["step/grad/vae"]
    assert row["verdict"] == "SKIP"
    assert "global_step" in row["reason"]


@pytest.mark.parametrize("disjoint", [False, True])
def test_a_second_set_of_times_that_equals_the_first_changes_nothing(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str], disjoint: bool
) -> None:
    """With one weighting, one k = 1 and equal draws, algorithm 2 hands out the gradients of algorithm 1."""
    folder = copy("mnist")
    args = {"iw_sample_q": "ll_iw", "disjoint_training": disjoint}
    spoil_meta(folder, lambda meta: meta["args"].update(args))
    spoil_weights(folder, lambda c: vars(c["args"]).update(args))
    if not disjoint:
        assert conformance(folder, "--json") == 0
        reason = stages(capsys)["step/grad/vae"]["reason"]
        assert "times of its own, and the folder holds no step/rho_q" in reason

    def second(tensors: dict[str, Tensor]) -> None:
        tensors["step/rho_q"] = tensors["step/rho"].clone()
        tensors["step/t_q"] = tensors["step/t"].clone()
        if disjoint:
            tensors["step/diffusion_noise_q"] = tensors["step/diffusion_noise"].clone()

    spoil_values(folder, second)
    assert conformance(folder, "--json") == 0
    found = stages(capsys)
    assert len(found) == 27
    assert {row["verdict"] for row in found.values()} == {"PASS"}


def test_a_frozen_vae_leaves_the_priors_gradient_as_it_was(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy("mnist")
    spoil_meta(folder, lambda meta: meta["args"].update(train_vae=False))
    spoil_weights(folder, lambda c: vars(c["args"]).update(train_vae=False))
    conformance(folder, "--json")
    found = stages(capsys)
    assert found["step/grad/prior"]["verdict"] == found["step/kl"]["verdict"] == "PASS"
    assert found["step/grad/vae"]["verdict"] == "FAIL"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: spoil_values(f, lambda t: t.pop("prior/t")), "but not prior/t"),
        (lambda f: spoil_values(f, lambda t: t.pop("step/encoder_noise/01")), "step/encoder_noise/01"),
        (lambda f: spoil_values(f, lambda t: t.update({"prior/z0": t["prior/z0"][:, :2]})), "prior/z0 has"),
        (lambda f: spoil_values(f, lambda t: t.update(x_uint8=t["x_uint8"] // 2)), "than 0 and 255"),
        (
            lambda f: spoil_values(f, lambda t: t.update({"prior/var_t": t["prior/t"].clone()})),
            "prior/var_t has",
        ),
        (lambda f: spoil_meta(f, lambda m: m["args"].update(num_channels_enc=16)), "num_channels_enc = 8"),
        (lambda f: spoil_weights(f, lambda c: c["vae_state_dict"].pop("stem.bias")), "stem.bias"),
        (lambda f: (f / "checkpoint.pt").write_bytes(b"PK"), "checkpoint.pt"),
    ],
)
def test_a_bad_folder_is_refused_in_one_sentence(
    copy: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], Any],
    words: str,
) -> None:
    folder = copy("mnist")
    spoil(folder)
    assert conformance(folder) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert words in captured.err


def test_tolerances_are_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    folder = checkpoint_path("mnist").parent
    assert conformance(folder, "--tolerance", "1e-30", "--gradient-tolerance", "1e-30") == 1
    assert conformance(folder, "--tolerance", 0) == 2
    assert "tolerance is 0" in capsys.readouterr().err
