"""``lsgm import diffusers``: folders in every layout become runs, and what cannot is refused in one line."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from bernoulli import ink
from ddpm_folders import library, pipeline, scheduler, unet
from safetensors.torch import load_file, save_file

from lsgm import cli
from lsgm.config import SamplerConfig
from lsgm.data import ImageSet, sha256_of
from lsgm.errors import ConfigError
from lsgm.kinds import find_kind, recipe_from
from lsgm.runs.checkpoint import find_checkpoint, read_state, read_weights
from lsgm.runs.load import load_model
from lsgm_eval.run import plan

TASK = """
name = "greys"
version = 1
summary = "grey pictures of 28 x 28"
dataset = "greys"
spaces = [{ extractor = "glyphs", name = "glyphs" }]
[tiers.quick]
n_samples = 40
nelbo_images = 10
ode_images = 0
sampler = { name = "heun", steps = 3 }
"""
SAFE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A pipeline's folder."""
    pipeline(tmp_path / "saved")
    return tmp_path / "saved"


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return read_weights(find_checkpoint(run), "ema")


def imported(folder: Path, out: str = "run", *options: str) -> Path:
    run = folder.parent / out
    assert cli.main(["import", "diffusers", str(folder), str(run), *options]) == 0
    return run


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes a key away."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Run an import that must fail in one line and leave nothing; return the line."""
    out = folder.parent / "refused"
    assert cli.main(["import", "diffusers", str(folder), str(out), *options]) == 2
    said = capsys.readouterr()
    assert not out.exists()
    (line,) = said.err.splitlines()
    return line


def test_what_was_found_is_said_and_written_down(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = imported(saved, "run", "--data", "bars")
    said = capsys.readouterr().out
    assert "UNet2DModel of 1 x 8^2 pixels" in said
    assert "20 training times, betas linear (DDPMScheduler)" in said
    assert "ancestral-posterior" in said
    meta = read_state(find_checkpoint(run))["meta"]
    assert meta["dataset"] == "bars"
    assert meta["imported"]["format"] == "diffusers"
    assert meta["imported"]["scheduler"]["num_train_timesteps"] == 20
    model = load_model(run)
    assert model.name == "run"
    assert "not clamped to [-1, 1]" in model.remark
    assert sum(model.parameters.values()) == sum(p.numel() for p in unet().parameters())


def test_every_command_takes_the_run(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = imported(saved)
    words = ["--n", "2", "--sampler.name", "ddim", "--sampler.steps", "4", "--device", "cpu", "--json"]
    capsys.readouterr()
    assert cli.main(["sample", str(run), *words]) == 0
    assert json.loads(capsys.readouterr().out)["nfe_max"] == 4
    assert cli.main(["export", str(run), str(saved.parent / "small")]) == 0
    exported = load_model(saved.parent / "small").sample([0], SamplerConfig("ddim", steps=4))
    assert exported.images.shape == (1, 1, 8, 8)


def flat(saved: Path) -> None:
    """All files side by side, as in the first folders that were published."""
    for part in ("unet", "scheduler"):
        for file in (saved / part).iterdir():
            file.rename(saved / file.name)
        (saved / part).rmdir()


def pickled(saved: Path) -> None:
    """Weights as torch saves them."""
    file = saved / "unet" / SAFE
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()


def legacy(saved: Path) -> None:
    """Attention's layers under their first names."""
    file = saved / "unet" / SAFE
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def old(name: str) -> str:
        for today, former in names.items():
            name = name.replace(today, former)
        return name

    save_file({old(name): tensor for name, tensor in load_file(file).items()}, file)


@pytest.mark.parametrize("change", [flat, pickled, legacy])
def test_older_layouts_are_the_same_model(change: Callable[[Path], None], saved: Path) -> None:
    expected = weights_of(imported(saved, "first"))
    change(saved)
    found = weights_of(imported(saved, "second"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_half_precision_becomes_single(saved: Path) -> None:
    file = saved / "unet" / SAFE
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    assert {tensor.dtype for tensor in weights_of(imported(saved)).values()} == {torch.float32}


def test_a_network_alone_has_the_librarys_default_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unet().save_pretrained(tmp_path / "unet-only")
    imported(tmp_path / "unet-only")
    assert "1000 training times, betas linear (the library's defaults)" in capsys.readouterr().out


def test_another_scheduler_can_be_given(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scheduler("DDIMScheduler", num_train_timesteps=7).save_pretrained(saved.parent / "other")
    imported(saved, "run", "--scheduler", str(saved.parent / "other" / "scheduler_config.json"))
    assert "7 training times" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"])
def test_schedulers_of_the_same_process_are_the_same_model(name: str, saved: Path) -> None:
    library()
    first = load_model(imported(saved, "first"))
    shutil.rmtree(saved / "scheduler")
    scheduler(name).save_pretrained(saved / "scheduler")
    assert load_model(imported(saved, "second")).prior.sde == first.prior.sde  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        ({"act_fn": "gelu"}, "act_fn = 'gelu'"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift"),
        ({"downsample_type": "resnet"}, "downsample_type"),
        ({"upsample_type": "resnet"}, "upsample_type"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"num_class_embeds": 10}, "num_class_embeds"),
        ({"time_embedding_type": "learned"}, "time_embedding_type"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "SkipDownBlock2D"),
        ({"mid_block_type": "Other"}, "mid_block_type"),
        ({"sample_size": [8, 16]}, "sample_size"),
        ({"sample_size": None}, "sample_size"),
        ({"out_channels": 2}, "out_channels = 2"),
        ({"warp": 3}, "'warp' = 3"),
        ({"layers_per_block": "two"}, "layers_per_block"),
        ({"layers_per_block": 2}, "lacks the tensor"),
        ({"add_attention": False}, "beyond what its config.json describes"),
        ({"time_embedding_dim": 16}, "must be"),
    ],
)
def test_networks_without_an_equal_are_refused(
    changes: dict[str, Any], named: str, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(saved / "unet" / "config.json", **changes)
    assert named in refused(saved, capsys)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
        ({"prediction_type": "flow_prediction"}, "flow_prediction"),
        ({"beta_schedule": "sigmoid"}, "sigmoid"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"beta_end": 1.5}, "1.5"),
        ({"trained_betas": [0.1, 0.2]}, "2 betas for 20"),
        ({"num_train_timesteps": 0}, "at least 1"),
    ],
)
def test_processes_without_an_equal_are_refused(
    changes: dict[str, Any], named: str, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(saved / "scheduler" / "scheduler_config.json", **changes)
    line = refused(saved, capsys)
    assert named in line
    assert "scheduler_config.json" in line


class Evil:
    """What unpickling would execute."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('executed')",))


def test_damaged_folders_are_named(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no folder" in refused(saved.parent / "nowhere", capsys)
    file = saved / "unet" / SAFE
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "truncated" in refused(saved, capsys)
    file.unlink()
    assert f"neither {SAFE} nor" in refused(saved, capsys)
    (saved / "unet" / f"{SAFE}.index.json").write_text("{}")
    assert "several files" in refused(saved, capsys)
    file.with_suffix(".bin").write_bytes(pickle.dumps(Evil()))
    assert "nothing of it was executed" in refused(saved, capsys)
    (saved / "unet" / "config.json").write_text("{")
    assert "is not valid JSON" in refused(saved, capsys)
    (saved / "unet" / "config.json").unlink()
    assert "config.json is missing" in refused(saved, capsys)


def test_pipelines_on_latents_are_refused(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(saved / "model_index.json", vqvae=["diffusers", "VQModel"])
    assert "a part 'vqvae'" in refused(saved, capsys)


def test_it_is_never_trained() -> None:
    recipe = recipe_from({"kind": "ddpm"}, "a recipe")
    with pytest.raises(ConfigError, match="never trained"):
        find_kind("ddpm").stages(recipe, torch.nn.Module())


def test_the_harness_measures_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lsgm eval` on grey pictures of the right size, and one sentence for a task of other pictures."""
    pictures = {split: ink(60, seed) for seed, split in enumerate(("train", "val", "test"))}
    images = ImageSet("greys", "1", sha256_of(*pictures.values()), "discrete", pictures)
    monkeypatch.setattr(plan, "load", lambda name, **options: images)
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "greys.toml").write_text(TASK)
    pipeline(tmp_path / "saved", unet(sample_size=28))
    run, out = imported(tmp_path / "saved"), tmp_path / "out"
    assert cli.main(["eval", str(tmp_path / "greys.toml"), "--model", str(run), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    values = {row["metric"]: row["value"] for row in rows if row["model"] == "run"}
    assert {"frechet_glyphs", "nelbo_bpd"} <= values.keys()
    assert all(isfinite(values[metric]) for metric in ("frechet_glyphs", "nelbo_bpd"))
