"""Files of score_sde_pytorch: averages find their names, and nothing else is ever read or executed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles.score_sde import SlowScoreSDE, contents, save
from resaved import cast, on_cuda, prefixed, with_tensors
from upstream import stage1

from lsgm.errors import CheckpointError
from lsgm.interop.nvlabs.read import read_checkpoint as read_nvlabs
from lsgm_baselines.score_sde.convert import FREQUENCIES, convert, read_checkpoint
from lsgm_baselines.score_sde.settings import ScoreSDEConfig

SMALL: dict[str, Any] = {
    "image_size": 4,
    "nf": 4,
    "ch_mult": (1,),
    "num_res_blocks": 1,
    "attn_resolutions": (),
}


@pytest.mark.parametrize("sde", ["vpsde", "vesde"])
def test_averages_are_named_by_the_order_of_what_is_trained(sde: str, tmp_path: Path) -> None:
    slow = SlowScoreSDE({**SMALL, "sde": sde})
    found = read_checkpoint(save(contents(slow, step=12), tmp_path / "file.pth"))
    assert (found.step, found.decay) == (12, 0.999)
    assert found.sigmas is not None
    assert len(found.sigmas) == 1000
    assert (FREQUENCIES in found.raw) == (sde == "vesde")
    assert found.ema.keys() == found.raw.keys() == slow.weights.keys()
    assert all(torch.equal(found.ema[name].double(), value) for name, value in slow.weights.items())


def test_frequencies_may_have_an_average_and_levels_may_be_missing(tmp_path: Path) -> None:
    content = contents(SlowScoreSDE({**SMALL, "sde": "vesde"}))
    frequencies = content["model"][f"module.{FREQUENCIES}"]
    content["ema"]["shadow_params"].insert(0, frequencies)
    del content["model"]["module.sigmas"]
    found = read_checkpoint(save(content, tmp_path / "file.pth"))
    assert torch.equal(found.ema[FREQUENCIES], frequencies)
    assert found.sigmas is None


class Payload:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo owned > {self.victim}",)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    victim = tmp_path / "owned"
    file = save({**contents(SlowScoreSDE(SMALL)), "more": Payload(victim)}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"names the class .*system"):
        read_checkpoint(file)
    assert not victim.exists()


def test_files_that_are_no_such_checkpoint_are_refused(tmp_path: Path) -> None:
    content = contents(SlowScoreSDE(SMALL))
    shadow = content["ema"]["shadow_params"]

    def complaint(content: Any, size: int | None = None) -> str:
        file = save(content, tmp_path / "file.pth")
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(CheckpointError) as refused:
            read_checkpoint(file)
        return str(refused.value)

    assert "is truncated" in complaint(content, 2000)
    assert "it has no 'model', 'ema' and 'step'" in complaint({"state_dict": {}})
    assert "it has no 'model', 'ema' and 'step'" in complaint([1, 2])
    assert "its 'step' is not a count" in complaint({**content, "step": -1})
    assert "its 'model' is no state dict" in complaint({**content, "model": {}})
    assert "'a' in its 'model' is not a tensor" in complaint({**content, "model": {"a": 1}})
    assert "has no list 'shadow_params'" in complaint({**content, "ema": {}})
    fewer = complaint({**content, "ema": {"shadow_params": shadow[:-2]}})
    assert f"averages {len(shadow) - 2} tensors and its 'model' has {len(shadow)}" in fewer
    turned = [shadow[0].flatten(), *shadow[1:]]
    assert "the average of 'all_modules.0.weight' is [64] and" in complaint(
        {**content, "ema": {"shadow_params": turned}}
    )
    with pytest.raises(CheckpointError, match="there is no file"):
        read_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "_orig_mod.module."])
def test_wrappers_of_the_model_are_taken_off(prefix: str, tmp_path: Path) -> None:
    slow = SlowScoreSDE({**SMALL, "sde": "vesde"})
    content = contents(slow)
    bare = {name.removeprefix("module."): value for name, value in content["model"].items()}
    content["model"] = prefixed(bare, prefix)
    assert read_checkpoint(save(content, tmp_path / "file.pth")).ema.keys() == slow.weights.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sde", ["vpsde", "vesde"])
def test_half_precision_is_read_with_its_noise_levels(sde: str, dtype: torch.dtype, tmp_path: Path) -> None:
    settings = {**SMALL, "sde": sde}
    if sde == "vesde":
        settings |= {"scale_by_sigma": True, "embedding_type": "fourier", "centered": False}
    content = with_tensors(contents(SlowScoreSDE(settings)), cast(dtype))
    native = convert(read_checkpoint(save(content, tmp_path / "file.pth")), ScoreSDEConfig(**settings))
    assert {value.dtype for value in native.ema.values()} <= {torch.float32, torch.float64}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_files_from_a_gpu_and_of_either_format_are_read(zipped: bool, tmp_path: Path) -> None:
    """As in checkpoints/ and in checkpoints-meta/, which differ in their names alone."""
    slow = SlowScoreSDE(SMALL)
    (tmp_path / "checkpoints-meta").mkdir()
    file = tmp_path / "checkpoints-meta" / "checkpoint.pth"
    content = {**contents(slow), "step": torch.tensor(12)}
    del content["optimizer"]
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(on_cuda(file))
    assert found.step == 12
    assert all(torch.equal(found.ema[name].double(), value) for name, value in slow.weights.items())


def test_what_is_missing_alone_is_named_and_what_is_not_finite_too(tmp_path: Path) -> None:
    content = contents(SlowScoreSDE(SMALL))
    with pytest.raises(CheckpointError, match="it has no 'ema';"):
        read_checkpoint(save({k: v for k, v in content.items() if k != "ema"}, tmp_path / "file.pth"))
    content["ema"]["shadow_params"][0][0] = torch.nan
    checkpoint = read_checkpoint(save(content, tmp_path / "file.pth"))
    with pytest.raises(CheckpointError, match=r"'all_modules\.0\.weight' has entries that are not finite"):
        convert(checkpoint, ScoreSDEConfig(**SMALL))


def test_a_file_of_the_other_code_is_sent_to_its_importer(tmp_path: Path) -> None:
    torch.save(stage1(), tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="`lsgm import nvlabs` takes it"):
        read_checkpoint(tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="`lsgm import score-sde` takes it"):
        read_nvlabs(save(contents(SlowScoreSDE(SMALL)), tmp_path / "checkpoint.pth"))
