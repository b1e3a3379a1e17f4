"""state.json, weights and run directories of strangers: one sentence each, and nothing written elsewhere."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from sealed import restate, safetensors_of, seal
from tiny import load_weights
from torch import nn
from train_toy import run_toy

from lsgm.errors import CheckpointError, ConfigError, DataError, UserError
from lsgm.runs.checkpoint import find_checkpoint, read_state, read_weights, save_checkpoint
from lsgm.runs.directory import Run, read_metrics


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tensors = nn.Linear(2, 3).state_dict()
    return save_checkpoint(tmp_path / "checkpoints", {"step": 1, "stage": "a"}, tensors, tensors, {})


STATES: dict[str, Any] = {
    "format as text": {"format": "1"},
    "format 0": {"format": 0},
    "format as a truth value": {"format": True},
    "step as text": {"step": "x"},
    "step below 0": {"step": -1},
    "step beyond 64 bits": {"step": 2**80},
    "seconds that are no number": {"seconds": float("nan")},
    "infinite seconds": {"seconds": float("inf")},
    "stage as a number": {"stage": 3},
    "done as text": {"stage_done": "yes"},
    "seconds by stage as a list": {"seconds_by_stage": [1]},
    "negative seconds by stage": {"seconds_by_stage": {"a": -1.0}},
    "files as a list": {"files": ["ema.safetensors"]},
    "a file without a hash": {"files": {"ema.safetensors": {"bytes": 3}}},
    "a file's size as text": {"files": {"ema.safetensors": {"bytes": "3", "sha256": "0" * 64}}},
    "a negative size": {"files": {"ema.safetensors": {"bytes": -3, "sha256": "0" * 64}}},
    "a hash that is none": {"files": {"ema.safetensors": {"bytes": 3, "sha256": "../../x"}}},
    "a name that is a list": {"name": ["x"]},
    "a long name": {"name": "x" * 10**4},
    "meta as text": {"meta": "x"},
    "a recipe that is a list": {"meta": {"recipe": [1]}},
    "a dataset that is a number": {"meta": {"dataset": 5}},
    "parameters as text": {"parameters": {"vae": "many"}},
    "exported as true": {"exported": True},
    "limits as text": {"exported": {"limits": "none"}},
    "stages as numbers": {"exported": {"stages": [1, 2]}},
    "a validation as text": {"exported": {"validation": {"nelbo": "low"}}},
    "a log without sums": {"log": {"count": 3}},
    "sums as text": {"log": {"count": 3, "sums": ["x"]}},
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_of_wrong_types_is_damaged_and_says_where(checkpoint: Path, kind: str) -> None:
    restate(checkpoint, **STATES[kind])
    with pytest.raises(CheckpointError, match=r"state\.json is not the JSON that was written \(") as caught:
        read_state(checkpoint)
    assert next(iter(STATES[kind])).replace("_", "") in str(caught.value).replace("_", "").replace("-", "")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 10**5,
        b'{"format": ' + b"9" * 5000 + b"}",
        b'{"format": 1, "a": "\\ud800"}',
        b"\xff\xfe",
        b"",
        b"null",
    ],
    ids=["deep", "digits", "half a character", "no UTF-8", "empty", "null"],
)
def test_a_state_that_is_no_sane_json_is_damaged(checkpoint: Path, content: bytes) -> None:
    (checkpoint / "state.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.json is not the JSON that was written"):
        read_state(checkpoint)


def test_keys_of_later_versions_stay(checkpoint: Path) -> None:
    restate(checkpoint, later={"a": [1, None]}, meta={"later": 3})
    assert read_state(checkpoint)["later"] == {"a": [1, None]}
    assert read_state(checkpoint)["meta"] == {"later": 3}


@pytest.mark.parametrize("name", ["state.json", "ema.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    os.mkfifo(checkpoint / name)
    with pytest.raises(CheckpointError, match="is a named pipe, not a file"):
        read_weights(checkpoint)


F, ZEROS = "F32", bytes(24)
RIGHT = {"weight": (F, [3, 2], ZEROS), "bias": (F, [3], bytes(12))}
WEIGHTS: dict[str, tuple[bytes, str]] = {
    "no tensor": (save({}), "holds no tensor, and so no model"),
    "no tensor but a remark": (save({}, {"format": "pt"}), "holds no tensor"),
    "whole numbers": (
        save({"weight": torch.ones(3, 2).int(), "bias": torch.ones(3)}),
        "'weight' is int32 there and float32 here",
    ),
    "truth values": (
        save({"weight": torch.ones(3, 2).bool(), "bias": torch.ones(3)}),
        "'weight' is bool there",
    ),
    "complex numbers": (safetensors_of(RIGHT | {"bias": ("C64", [3], ZEROS)}), "'bias' is of type C64"),
    "numbers of 8 bits": (
        safetensors_of(RIGHT | {"bias": ("F8_E4M3", [3], bytes(3))}),
        "'bias' is of type F8_E4M3",
    ),
    "a type of tomorrow": (safetensors_of(RIGHT | {"bias": ("F2", [3], bytes(3))}), "is of type 'F2'"),
    "not a number": (
        save({"weight": torch.full((3, 2), torch.nan), "bias": torch.ones(3)}),
        "'weight' has numbers that are not finite",
    ),
    "infinity": (
        save({"weight": torch.ones(3, 2), "bias": torch.full((3,), torch.inf)}),
        "'bias' has numbers",
    ),
    "too large for 32 bits": (
        save({"weight": torch.full((3, 2), 1e300, dtype=torch.float64), "bias": torch.ones(3)}),
        "'weight' has numbers that float32 does not hold",
    ),
    "a tensor of size 0": (
        safetensors_of(RIGHT | {"bias": (F, [0], b"")}),
        r"'bias' is \[0\] there and \[3\] here",
    ),
    "one more of size 0": (
        safetensors_of(RIGHT | {"more": (F, [0], b"")}),
        "it has 'more', which this model has not",
    ),
    "one fewer": (safetensors_of({"weight": (F, [3, 2], ZEROS)}), "it lacks 'bias'"),
    "another shape": (
        safetensors_of(RIGHT | {"weight": (F, [2, 3], ZEROS)}),
        r"is \[2, 3\] there and \[3, 2\] here",
    ),
    "fewer bytes than its shape": (
        safetensors_of(RIGHT | {"bias": (F, [10**12], bytes(12))}),
        "claims the shape",
    ),
    "negative sides": (safetensors_of(RIGHT | {"bias": (F, [-1, -3], bytes(12))}), "claims the shape"),
    "a side as text": (safetensors_of(RIGHT | {"bias": (F, ["3"], bytes(12))}), "must be a whole number"),
    "sides without end": (safetensors_of(RIGHT | {"bias": (F, [1] * 500, bytes(4))}), "claims the shape"),
    "bytes left over": (
        safetensors_of(RIGHT) + b"12345678",
        "has 44 bytes of tensors and its header tells of 36",
    ),
    "an entry as a list": (safetensors_of(RIGHT, bias=[1]), "is not described by a table"),
    "an entry without a shape": (safetensors_of(RIGHT, bias={"dtype": F}), "'shape' is missing"),
    "overlap": (
        safetensors_of(
            {"weight": (F, [3, 2], ZEROS)}, bias={"dtype": F, "shape": [3], "data_offsets": [0, 12]}
        ),
        "overlap or leave gaps",
    ),
    "a header that is a list": (struct.pack("<Q", 2) + b"[]", "is not a JSON object"),
    "a header without end": (struct.pack("<Q", 2**63) + b"{}", "is not a safetensors file"),
    "a deep header": (struct.pack("<Q", 10**5) + b"[" * 10**5, "is not valid JSON"),
    "eight bytes": (bytes(8), "is not valid JSON"),
    "nothing": (b"", "is not a safetensors file"),
    "a zip": (b"PK\x03\x04" + bytes(100), "is not a safetensors file"),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_are_not_the_models_are_named_and_none_is_loaded(checkpoint: Path, kind: str) -> None:
    content, said = WEIGHTS[kind]
    seal(checkpoint, "ema.safetensors", content)
    module = nn.Linear(2, 3)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=said):
        load_weights(module, checkpoint)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_floating_point_weights_of_16_to_64_bits_are_taken(checkpoint: Path, dtype: torch.dtype) -> None:
    tensors = {"weight": torch.arange(6.0).reshape(3, 2).to(dtype), "bias": torch.ones(3).to(dtype)}
    seal(checkpoint, "ema.safetensors", save(tensors))
    module = nn.Linear(2, 3)
    load_weights(module, checkpoint)
    assert torch.equal(module.weight, torch.arange(6.0).reshape(3, 2))


def test_numbers_that_lie_askew_are_read_as_they_are(checkpoint: Path) -> None:
    header = safetensors_of(
        {"weight": (F, [3, 2], torch.arange(6.0).numpy().tobytes()), "bias": (F, [3], bytes(12))}
    )
    length = int.from_bytes(header[:8], "little")
    for padding in range(4):
        body = (length + padding).to_bytes(8, "little") + header[8 : 8 + length] + b" " * padding
        seal(checkpoint, "ema.safetensors", body + header[8 + length :])
        assert torch.equal(read_weights(checkpoint)["weight"], torch.arange(6.0).reshape(3, 2))


def test_a_sparse_file_of_10_gigabytes_takes_neither_time_nor_memory(checkpoint: Path) -> None:
    with (checkpoint / "ema.safetensors").open("r+b") as file:
        file.truncate(10**10)
    restate(checkpoint, files={"ema.safetensors": {"bytes": 10**10, "sha256": "0" * 64}})
    with pytest.raises(CheckpointError, match="LSGM_LARGEST_WEIGHTS=10000000000"):
        load_weights(nn.Linear(2, 3), checkpoint)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stage": "stage9"}, r"is of a stage 'stage9', and there is vae, joint to train"),
        ({"step": 5}, "is of step 5, as its state.json says"),
        ({"images": None}, "does not say 'images'"),
        ({"seconds_by_stage": None}, "does not say 'seconds_by_stage'"),
        ({"ema_updates": None}, "does not say 'ema_updates'"),
        ({"log": None}, "does not say 'log'"),
        ({"log": {"count": 1, "sums": [1.0]}}, "has sums of 1 numbers, and this stage logs"),
        ({"log": {"count": 1, "sums": []}}, "has sums of 0 numbers, and this stage logs"),
        ({"seed": None}, "was trained with seed None, not 1"),
    ],
)
def test_a_run_does_not_go_on_from_a_state_that_does_not_fit(
    run: Path, changes: dict[str, Any], said: str
) -> None:
    restate(find_checkpoint(run), **changes)
    with pytest.raises(CheckpointError, match=said):
        run_toy(run)


MANIFESTS: dict[str, Any] = {
    "resumed as text": {"resumed": "yes"},
    "resumed as numbers": {"resumed": [1]},
    "a dataset as text": {"dataset": "mnist"},
    "a hash as a number": {"dataset": {"sha256": 5}},
    "versions as a list": {"versions": ["torch"]},
    "hardware without cores": {"hardware": {"gpus": []}},
    "gpus as a number": {"hardware": {"gpus": 1, "processor": "x", "cores": 1, "threads": 1, "processes": 1}},
    "an origin as text": {"origin": "there"},
    "argv as text": {"argv": "lsgm train"},
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_of_wrong_types_is_one_sentence(run: Path, kind: str) -> None:
    path = run / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | MANIFESTS[kind]))
    with pytest.raises(ConfigError, match=r"manifest\.json: .*restore it from a copy"):
        run_toy(run)


@pytest.mark.parametrize("name", ["config.toml", "manifest.json"])
@pytest.mark.parametrize("content", [b"\xff", b"[" * 10**5, b"a = " + b"[" * 500, b'"a"', b"1" * 5000])
def test_files_of_a_run_that_are_no_tables_are_one_sentence(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        run_toy(run)


def test_rows_that_are_none_are_left_out_of_the_log(tmp_path: Path) -> None:
    rows = [
        b'{"step": 1, "stage": "a", "loss": 2.5}',
        b"\xff\xfe",
        b"[" * 10**5,
        b'{"step": "x"}',
        b"[]",
        b"3",
        b'{"step": -1}',
        b'{"step": true}',
        b'{"step": 2, "stage": 3}',
        b'{"step": 2, "loss": [1]}',
        b'{"loss": 1}',
        b'{"step": ' + b"9" * 400 + b"}",
        b'{"step": 3, "stage": "a", "val_nelbo": null}',
        b'{"step": 4, "sta',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(rows))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 3]


@pytest.mark.parametrize(
    "name", ["checkpoints", "samples", "tensorboard", ".lock", "metrics.jsonl", "config.toml"]
)
def test_a_run_directory_that_holds_a_link_is_refused_and_nothing_is_written_through_it(
    run: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    if (run / name).exists():
        (run / name).rename(elsewhere)
    elif name == "tensorboard":
        elsewhere.mkdir()
    else:
        elsewhere.write_text("mine")
    (run / name).symlink_to(elsewhere)
    before = {path: path.stat().st_mtime_ns for path in [elsewhere, *elsewhere.rglob("*")]}
    with pytest.raises(
        DataError, match=f"{run / name} is a link, and what is written into {run} stays there"
    ):
        run_toy(run)
    assert before == {path: path.stat().st_mtime_ns for path in [elsewhere, *elsewhere.rglob("*")]}


def test_a_lock_that_is_a_second_name_of_a_file_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (run / ".lock").unlink()
    (run / ".lock").hardlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="has a second name"):
        run_toy(run)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_damaged_older_checkpoint_neither_stops_a_run_nor_is_thrown_away(run: Path) -> None:
    (run / "checkpoints" / "step-0000001").mkdir()
    run_toy(run)
    assert (run / "checkpoints" / "step-0000001").is_dir()


def test_a_run_behind_a_link_is_trained(run: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(run)
    assert run_toy(tmp_path / "named").finished
    assert Run(run).newest() is not None


def test_a_state_in_a_folder_that_may_not_be_entered_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shut(path: object, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        for name in ("lstat", "stat"):
            patch.setattr(os, name, shut)
        with pytest.raises(CheckpointError, match=r"state.json cannot be read \(Permission denied\)"):
            read_state(tmp_path)
    with pytest.raises(CheckpointError, match=r"state.json cannot be read, as it is not there"):
        read_state(tmp_path)
