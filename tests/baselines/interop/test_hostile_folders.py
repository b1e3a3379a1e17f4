"""Folders and settings of other code that somebody made to harm: one sentence each, and nothing is left."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles.score_sde import SlowScoreSDE, contents, save
from safetensors.torch import load_file, save_file

from lsgm import cli
from lsgm.errors import ConfigError, UserError
from lsgm_baselines.diffusers.model import UNet2D
from lsgm_baselines.diffusers.read import Folder, recipe_of
from lsgm_baselines.diffusers.recipe import UNet2DConfig
from lsgm_baselines.score_sde.convert import convert, read_checkpoint
from lsgm_baselines.score_sde.settings import find_config

SAFE = "diffusion_pytorch_model.safetensors"
NETWORK: dict[str, Any] = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 20,
    "clip_sample_range": 1.0,
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline's folder, without the library."""
    place = tmp_path / "pipeline"
    for part, name, content in (
        ("unet", "config.json", NETWORK),
        ("scheduler", "scheduler_config.json", SCHEDULER),
    ):
        (place / part).mkdir(parents=True)
        (place / part / name).write_text(json.dumps(content))
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in NETWORK.items() if key[0] != "_"}
    save_file(UNet2D(UNet2DConfig(**options)).state_dict(), place / "unet" / SAFE)
    return place


def refused(folder: Path, *options: str) -> str:
    """Import what must fail in a sentence and leave nothing; return the sentence."""
    out = folder.parent / "out"
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(UserError) as complaint:
        cli._dispatch(["import", "diffusers", str(folder), str(out), *options])
    assert sorted(folder.parent.rglob("*")) == before
    sentence = str(complaint.value)
    assert sentence.isprintable()
    assert len(sentence) < 700
    return sentence


def test_the_folder_itself_is_imported(folder: Path) -> None:
    assert cli._dispatch(["import", "diffusers", str(folder), str(folder.parent / "run")]) == 0


ODD: dict[str, Any] = {
    "text": "x",
    "list": [[]],
    "table": {"a": [1]},
    "nan": float("nan"),
    "infinity": float("inf"),
    "digits": 10**300,
    "million": 10**6,
    "negative": -1,
    "zero": 0,
    "truth": True,
    "escapes": "\x1b[31m\n",
    "nothing": None,
    "lists": [10**6] * 1000,
}


@pytest.mark.parametrize("value", ODD)
def test_an_option_of_any_value_is_taken_or_refused_in_a_sentence(value: str) -> None:
    places = (Path("config.json"), Path("scheduler_config.json"))
    options = {**SCHEDULER, "clip_sample": True, "beta_schedule": "linear", "prediction_type": "epsilon"}
    options |= {
        "beta_end": 0.02,
        "variance_type": "fixed_small",
        "trained_betas": [0.1] * 20,
        "thresholding": True,
    }
    for part, names in (
        (0, [*NETWORK, "dropout", "norm_eps", "time_embedding_dim", "act_fn"]),
        (1, list(options)),
    ):
        for name in names:
            both = [dict(NETWORK), dict(options)]
            both[part][name] = ODD[value]
            if name != "trained_betas":
                del both[1]["trained_betas"]
            sentence = ""
            try:
                recipe_of(
                    Folder(both[0], places[0], both[1], places[1], {}, Path()), data="unknown", clip=True
                )
            except UserError as error:
                sentence = str(error)
            assert sentence.isprintable(), (name, sentence)
            assert len(sentence) < 700, name


def _json(name: str, content: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(
        content if isinstance(content, str) else json.dumps(content)
    )


def _weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / "unet" / SAFE)
        change(tensors)
        save_file(tensors, folder / "unet" / SAFE)

    return changed


def _bytes(content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / "unet" / SAFE).write_bytes(content)


def _header(table: Any, rest: bytes = b"") -> bytes:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + rest


def _as(dtype: torch.dtype) -> Callable[[Path], None]:
    return _weights(lambda tensors: tensors.update({"conv_in.bias": tensors["conv_in.bias"].to(dtype)}))


def _sharded(folder: Path) -> None:
    (folder / "unet" / SAFE).rename(folder.parent / "weights.safetensors")
    index = {"weight_map": {"conv_in.bias": "../../../../etc/passwd"}}
    (folder / "unet" / f"{SAFE}.index.json").write_text(json.dumps(index))


class Evil:
    """What unpickling would execute."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('executed')",))


def _pickled(folder: Path) -> None:
    (folder / "unet" / SAFE).unlink()
    torch.save({"conv_in.bias": Evil()}, folder / "unet" / "diffusion_pytorch_model.bin")


def _plain(folder: Path) -> None:
    (folder / "unet" / SAFE).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({1: [2]}, 2))


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
SPECIMENS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "deep network": (_json("unet/config.json", "[" * 10**5), "nests too deeply"),
    "network without end": (
        _json("unet/config.json", {**NETWORK, "layers_per_block": 10**6}),
        "layers_per_block|layers",
    ),
    "levels without end": (
        _json("unet/config.json", {**NETWORK, "block_out_channels": [8] * 10**5}),
        "levels",
    ),
    "images without end": (_json("unet/config.json", {**NETWORK, "sample_size": 2**30}), "sample_size"),
    "steps without end": (
        _json("scheduler/scheduler_config.json", {**SCHEDULER, "num_train_timesteps": 10**10}),
        "steps is 10000000000",
    ),
    "class of a list": (
        _json("unet/config.json", {**NETWORK, "_class_name": [[1]]}),
        r"describes a \[\[1\]\]",
    ),
    "no UTF-8": (lambda folder: (folder / "unet/config.json").write_bytes(b"\xff{}"), "not text in UTF-8"),
    "parts of a list": (_json("model_index.json", []), "is not a JSON object"),
    "a part with escapes": (_json("model_index.json", {"\x1b[31m": ["a", "b"]}), r"a part '\\x1b\[31m'"),
    "shards elsewhere": (_sharded, "several files"),
    "a pickle that calls": (_pickled, "names the class builtins.exec.*nothing of it was executed"),
    "a plain pickle": (_plain, "is truncated or no checkpoint"),
    "empty": (_bytes(b""), "truncated or damaged"),
    "a header of 2^62": (_bytes(struct.pack("<Q", 2**62)), "truncated or damaged"),
    "no tensor": (_bytes(_header({})), "is no state dict"),
    "overlapping": (_bytes(_header({"a": ONE, "b": ONE}, bytes(4))), "truncated or damaged"),
    "beyond the end": (
        _bytes(_header({"a": {**ONE, "data_offsets": [0, 400]}}, bytes(4))),
        "truncated or damaged",
    ),
    "backwards": (_bytes(_header({"a": {**ONE, "data_offsets": [4, 0]}}, bytes(4))), "truncated or damaged"),
    "another shape": (_bytes(_header({"a": {**ONE, "shape": [2**40]}}, bytes(4))), "truncated or damaged"),
    "no such type": (_bytes(_header({"a": {**ONE, "dtype": "F31"}}, bytes(4))), "truncated or damaged"),
    "deep header": (_bytes(_header(b"[" * 10**5)), "truncated or damaged"),
    "whole numbers": (_as(torch.int32), "'conv_in.bias' is of int32"),
    "truths": (_as(torch.bool), "'conv_in.bias' is of bool"),
    "complex": (_as(torch.complex64), "'conv_in.bias' is of complex64"),
    "eight bits": (_as(torch.float8_e5m2), "'conv_in.bias' is of float8_e5m2"),
    "not finite": (_weights(lambda tensors: tensors["conv_in.bias"].fill_(float("nan"))), "not finite"),
    "a name with escapes": (
        _weights(lambda tensors: tensors.update({"\x1b[31m": torch.ones(1)})),
        r"\\x1b\[31m",
    ),
}


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_hostile_folder_is_one_sentence(name: str, folder: Path) -> None:
    change, words = SPECIMENS[name]
    change(folder)
    sentence = refused(folder)
    assert re.search(words, sentence), sentence


def test_a_list_of_tensors_beyond_the_bound_names_the_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSGM_LARGEST_HEADER", "100")
    assert "set LSGM_LARGEST_HEADER=" in refused(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(
    "place", ["unet/config.json", f"unet/{SAFE}", "scheduler/scheduler_config.json", "model_index.json"]
)
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(place: str, folder: Path) -> None:
    (folder / place).unlink(missing_ok=True)
    os.mkfifo(folder / place)
    assert "is a named pipe, not a file" in refused(folder)


def test_links_of_a_cache_are_followed(folder: Path) -> None:
    """As the library's own download leaves them."""
    blob = folder.parent / "blob"
    (folder / "unet" / SAFE).rename(blob)
    (folder / "unet" / SAFE).symlink_to(blob)
    assert cli._dispatch(["import", "diffusers", str(folder), str(folder.parent / "run")]) == 0


SMALL: dict[str, Any] = {
    "image_size": 4,
    "nf": 4,
    "ch_mult": (1,),
    "num_res_blocks": 1,
    "attn_resolutions": (),
}
SETTINGS: dict[str, tuple[str, str]] = {
    "text": ('nf = "x"', "'nf' is 'x'; it must be a whole number"),
    "nan": ("sigma_min = nan", "sigma_min is nan"),
    "infinite": ("beta_max = inf", "beta"),
    "table": ("[nf]\na = 1", "'nf' is a table"),
    "unknown": ('"\\u001b[31m" = 1', "unknown key"),
    "digits": (f"nf = {10**400}", "whole number"),
    "blocks": ("num_res_blocks = 1000000", "layers or more|num.res.blocks|blocks"),
    "levels": (f"ch_mult = {[1] * 1000}", "."),
    "channels": ("nf = 4000000000", "."),
    "images": ("image_size = 1000000000", "."),
    "no channels": ("num_channels = 0", "."),
    "negative": ("nf = -4", "."),
    "no multipliers": ("ch_mult = []", "."),
    "deep": ("nf = " + "[" * 5000, "not valid TOML"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_any_kind_are_one_sentence(name: str, tmp_path: Path) -> None:
    settings, words = SETTINGS[name]
    (tmp_path / "it.toml").write_text(settings)
    checkpoint = read_checkpoint(save(contents(SlowScoreSDE(SMALL)), tmp_path / "f.pth"))
    with pytest.raises(UserError, match=words) as complaint:
        convert(checkpoint, find_config(str(tmp_path / "it.toml")))
    assert "\n" not in str(complaint.value)
    assert len(str(complaint.value)) < 700


def test_settings_that_are_no_text_or_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "b.toml").mkdir()
    for name, words in {
        "a.toml": "not text in UTF-8",
        "b.toml": "is a folder",
        "\0.toml": "cannot be read",
    }.items():
        with pytest.raises(ConfigError, match=words):
            find_config(str(tmp_path / name))


@pytest.mark.parametrize("value", [float("nan"), 10**400, "x", [1], True, None], ids=str)
def test_a_decay_that_is_none_is_not_recorded(value: Any, tmp_path: Path) -> None:
    content = contents(SlowScoreSDE(SMALL))
    content["ema"]["decay"] = value
    if value == 10**400:  # pickle writes it as more than 255 bytes only from 10^614 on
        assert value.bit_length() < 8 * 255
    assert read_checkpoint(save(content, tmp_path / "f.pth")).decay is None
