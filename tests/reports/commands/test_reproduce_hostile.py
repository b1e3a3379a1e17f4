"""`lsgm reproduce` on folders that others wrote: nothing of theirs runs, nothing is written elsewhere."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from reports.fake_manifest import fake_manifest, write_manifest

from lsgm.errors import ConfigError, DataError, UserError
from lsgm.results.manifest import Manifest, read_manifest
from lsgm_reports.commands.reproduce import run
from lsgm_reports.reproduce.again import training_again
from lsgm_reports.reproduce.apart import copied, run_apart

ROW = {
    "task": "glyphs@1/quick",
    "model": "vae",
    "metric": "nelbo_nats",
    "value": 1.0,
    "group": "likelihood",
    "manifest": "abcabcabcabc",
}


def typed(call: Manifest) -> str:
    return copied(call.command, call.directory, call.processes).line


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results in which code lies under every name by which some of it might be found."""
    folder, home = tmp_path / "received", tmp_path / "home"
    for place in (folder, folder / "hub", home):
        place.mkdir()
    mark = f"open({str(tmp_path / 'mark')!r}, 'w').close()\n"
    for name in ("evil", "hubconf", "hub/hubconf", "sitecustomize", "usercustomize", "conftest", "lsgm_eval"):
        (folder / f"{name}.py").write_text(f"{mark}def factory(*a, **k): pass\nm = factory\n")
    (folder / "matplotlibrc").write_text("backend: module://evil\n")
    (folder / "evil.toml").write_text('[[spaces]]\nextractor = "dinov2:hub:m"\n')
    (folder / "results.jsonl").write_text(json.dumps(ROW) + "\n")
    monkeypatch.chdir(home)
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("sys.path", ["", *sys.path])
    return folder


def record(folder: Path, command: list[str], **changes: Any) -> None:
    """Let a manifest say that the row was measured by this command, in the folder itself."""
    word = changes.pop("spec", "vae=.")
    model = fake_manifest()["models"][1] | {"spec": word, "path": changes.pop("path", str(folder))}
    given = {"command": command, "directory": str(folder), "models": [model]} | changes
    write_manifest(folder, fake_manifest(**given))


def refused(folder: Path, said: str, *more: str) -> None:
    """Assert that running the row again ends in a sentence, with nothing run and nothing written."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(UserError, match=said) as caught:
        run([str(folder), "--run", "--out", "new", *more])
    assert "\n" not in str(caught.value)
    assert not (folder.parent / "mark").exists()
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["lsgm", "train", "glyphs"], "`lsgm train`, which measures no row"),
        (["lsgm", "nll", "--tyro-write-completion", "bash", "x"], "--tyro-write-completion"),
        (["sh", "-c", "id"], "none of lsgm"),
        (["lsgm"], "none of lsgm"),
        (["lsgm", "eval", "glyphs", "--tier", "a\nb"], "does not print as it is"),
    ],
)
def test_a_command_that_measures_nothing_is_not_run(command: list[str], said: str, received: Path) -> None:
    record(received, command)
    refused(received, said, "--trust-code")
    with pytest.raises(UserError, match=said):
        run([str(received)])


CODE = [
    (["lsgm", "eval", "glyphs", "--model", "vae=."], "vae=evil:factory", r"evil\.py"),
    (["lsgm", "eval", "glyphs", "--model", "vae=."], "x=y=evil:factory", r"evil\.py"),
    (["lsgm", "nll", "vae=.", "--task", "glyphs"], "os:abort", r"abort\(\) of the module os"),
    (["lsgm", "nfe", "--model", ".", "--task", "glyphs", "--extractor", "dinov2:hub:m"], "vae=.", "hubconf"),
    (["lsgm", "eval", "glyphs", "--extractor", "torchscript:x.ts"], "vae=.", "TorchScript"),
    (["lsgm", "eval", "glyphs", "--extractor", "inception-clean:x.ts"], "vae=.", "TorchScript"),
    (["lsgm", "eval", "glyphs", "--extractor", "export:x.pt2"], "vae=.", "graph"),
    (["lsgm", "eval", "evil.toml"], "vae=.", "hubconf"),
    (["lsgm", "nll", "vae=.", "--task=./evil.toml"], "vae=.", "hubconf"),
    (["lsgm", "fid", "cifar10:train", "vae=evil:factory"], "vae=.", "evil:factory"),
]


@pytest.mark.parametrize(("command", "spec", "shown"), CODE)
def test_code_of_others_is_shown_and_not_run_unless_it_is_trusted(
    command: list[str], spec: str, shown: str, received: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    record(received, command, spec=spec, path=str(received) if spec == "vae=." else None)
    # Where the user is in the folder itself, its modules could be found.
    monkeypatch.chdir(received)
    refused(received, "the command runs code of others, .* add --trust-code")
    said = capsys.readouterr().out
    listed = said.split("it runs code of others:\n")[1]
    assert re.search(shown, listed)
    assert "lsgm eval" not in said
    assert run([str(received), "--trust-code"]) == 0
    assert f"lsgm {command[1]} " in capsys.readouterr().out.splitlines()[-2]
    assert not (received.parent / "mark").exists()
    assert not copied(command if spec == "vae=." else [*command, spec], str(received)).line


def test_a_model_that_is_a_place_and_is_named_like_an_option_is_no_option(received: Path) -> None:
    place = received / "--tyro-write-completion"
    place.mkdir()
    record(received, ["lsgm", "nll", "vae=.", "--task", "glyphs"], spec=place.name, path=str(place))
    refused(received, "would be read as an option")


def test_the_recorded_environment_sets_threads_and_data_alone(
    received: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LSGM_DATA", raising=False)
    evil = {"PYTHONPATH": ".", "LD_PRELOAD": "./x.so", "LSGM_CACHE": "/x", "LSGM_DATA": "/far/a b"}
    record(received, ["lsgm", "eval", "glyphs", "--model", "vae=."], environment=evil)
    assert run([str(received)]) == 0
    shell = capsys.readouterr().out.splitlines()[-2]
    assert shell.startswith(f"cd {received} && LSGM_DATA='/far/a b' lsgm eval glyphs ")
    for odd in ("a\nb", "", "\x1b[2J"):
        record(received, ["lsgm", "eval", "glyphs"], environment={"LSGM_DATA": odd})
        assert run([str(received)]) == 0
        assert "LSGM_DATA" not in capsys.readouterr().out
    record(received, ["lsgm", "eval", "glyphs"], environment={"LSGM_DATA": "~nobody-of-this-name:data"})
    assert run([str(received)]) == 0
    assert f"LSGM_DATA={received}/~nobody-of-this-name:{received}/data " in capsys.readouterr().out.replace(
        "'", ""
    )


def test_what_is_written_goes_to_the_folder_of_the_user_alone(
    received: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = ["--out", str(tmp_path / "a"), "--export-reference", str(tmp_path / "b"), "--save", "png"]
    record(received, ["lsgm", "eval", "glyphs", "--out=c", "--model", "vae=.", *targets])
    assert run([str(received), "--out", "new"]) == 0
    shell = capsys.readouterr().out.splitlines()[-2]
    assert shell.endswith(f"lsgm eval glyphs --model vae=. --device cpu --out {tmp_path}/home/new")


def test_a_link_that_leads_nowhere_is_no_fresh_folder(received: Path) -> None:
    record(received, ["lsgm", "eval", "glyphs"])
    Path("full").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="full is there and is no folder; choose a fresh"):
        run([str(received), "--run", "--out", "full"])


def test_a_link_in_the_folder_does_not_lead_its_measuring_elsewhere(
    received: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(received, ["lsgm", "eval", "glyphs"])
    (received / "results").symlink_to(tmp_path / "home")
    monkeypatch.chdir(received)
    with pytest.raises(ConfigError, match="results is a link"):
        run(["results.jsonl", "--run"])


def test_only_what_was_agreed_to_runs_and_no_module_of_the_folder_is_found(received: Path) -> None:
    # Each line is what a mistake further up would let through.
    for line in (
        ["lsgm", "eval", "glyphs", "--model", "evil:factory", "--device", "cpu"],
        ["lsgm", "eval", "evil.toml", "--model", "./x", "--device", "cpu"],
    ):
        out = Path("new").absolute()
        assert run_apart([*line, "--out", str(out)], received, {}, strangers=[received]) == 2
    assert run_apart(
        ["lsgm", "eval", "glyphs", "--model", "evil:factory", "--device", "cpu", "--out", str(out)],
        received,
        {},
        agreed=["evil:factory"],
        strangers=[received],
    ) == 2  # fmt: skip
    assert not (received.parent / "mark").exists()
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"hardware": {"threads": 10**9}},
        {"hardware": {"threads": True}},
        {"hardware": {"processes": "2; x"}},
        {"hardware": {"processes": 0}},
        {"command": []},
        {"command": [1]},
        {"models": {}},
        {"environment": []},
        {"directory": 3},
        {"format": True},
        {"format": 1.0},
        {"task": []},
        {"versions": {str(k): None for k in range(5000)}},
    ],
)
def test_a_manifest_of_another_form_is_a_sentence(changes: dict[str, Any], received: Path) -> None:
    record(received, **{"command": ["lsgm", "eval", "glyphs"], **changes})
    refused(received, r"; |none of lsgm")


@pytest.mark.parametrize(
    "changes",
    [
        {"directory": "~nobody-of-this-name/x"},
        {"directory": "x" * 5000},
        {"directory": "."},
        {"directory": "/\x1b[2J"},
        {"versions": {"": "1", "../..": "2", "\n": None}},
        {"git_revision": "x; rm -rf ~"},
        {"hardware": {"gpus": 5, "cores": [], "processor": {}}},
        {"task": fake_manifest()["task"] | {"data": "~nobody-of-this-name/x.zip"}},
        {"task": fake_manifest()["task"] | {"data": "x/" * 5000, "dataset": "\x1b]0;x\x07"}},
        {"path": "/" + "x" * 5000},
        {"path": "~nobody-of-this-name"},
        {"spec": "a" * 5000 + ".npz"},
    ],
)
def test_odd_values_are_told_and_printed_as_what_they_are(
    changes: dict[str, Any], received: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(received, ["lsgm", "eval", "glyphs"], **changes)
    assert run([str(received)]) == 0
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.splitlines())
    assert "git checkout x" not in said


def test_a_pipe_in_the_place_of_a_manifest_is_refused_at_once(received: Path) -> None:
    (received / "manifests").mkdir()
    os.mkfifo(received / "manifests" / "abcabcabcabc.json")
    refused(received, "is a named pipe, not a file")


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "x" * 3000, ".", "\x1b"])
def test_a_manifest_s_name_leads_nowhere(
    name: str, received: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (received / "results.jsonl").write_text(json.dumps(ROW | {"manifest": name}) + "\n")
    assert run([str(received)]) == 0
    said = capsys.readouterr().out
    assert "is not beside the row" in said
    assert all(line.isprintable() for line in said.splitlines())


@pytest.mark.parametrize(
    "task", ["--out=x@1/quick", "-h/quick", "a\nb/quick", "x" * 900 + "/quick", "glyphs@1/\x1b[2J"]
)
def test_a_row_without_a_manifest_is_printed_and_nothing_is_made_of_it(
    task: str, received: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (received / "results.jsonl").write_text(json.dumps(ROW | {"task": task, "manifest": None}) + "\n")
    assert run([str(received)]) == 0
    said = capsys.readouterr().out
    assert "lsgm eval" not in said
    assert all(line.isprintable() for line in said.splitlines())


def trained(folder: Path, **changes: Any) -> Path:
    """Write what is read of a training run, with changes to its manifest."""
    folder.mkdir(exist_ok=True)
    manifest = {"versions": {"python": "3"}, "dataset": {"name": "glyphs"}, "hardware": {"threads": 1}}
    (folder / "config.toml").write_text(changes.pop("config", 'kind = "vae"\n'))
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"versions": []},
        {"versions": {"python": 3}},
        {"dataset": "glyphs"},
        {"dataset": {"sha256": 5}},
        {"hardware": {"threads": "$(id)"}},
        {"hardware": {"threads": 10**6}},
        {"hardware": []},
        {"resumed": 5},
        {"git_revision": {}},
        {"config": "init_from = 5\n"},
        {"config": "init_from = ['a']\n"},
        {"config": "a = [" * 3000},
    ],
)
def test_a_training_run_of_another_form_is_a_sentence(changes: dict[str, Any], received: Path) -> None:
    folder = trained(received / "run", **changes)
    with pytest.raises(DataError, match="; "):
        run([str(folder), "--run", "--out", "new"])
    assert not Path("new").exists()


def test_what_a_training_run_reads_is_shown_and_its_command_is_quoted(
    received: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(received / "-x; id", config='init_from = "/gone/a"\n[data]\ndataset = "/else/where"\n')
    monkeypatch.chdir(received)
    training = training_again(Path("-x; id"), Path("new"))
    assert training.argv == ("lsgm", "train", "./-x; id/config.toml", "--out", "new")
    assert training.shell == "lsgm train './-x; id/config.toml' --out new"
    assert run(["./-x; id"]) == 0
    said = capsys.readouterr().out
    assert "read from /else/where" in said
    assert "it was begun from /gone/a, which holds no checkpoint here" in said


def test_a_page_shows_commands_that_measure_and_write_below_where_they_are_typed(tmp_path: Path) -> None:
    for target, shown in (
        ("results/a", "results/a"),
        ("/etc/x", "OUT"),
        ("a/../../b", "OUT"),
        ("~/x", "OUT"),
    ):
        line = copied(["lsgm", "eval", "glyphs", "--model", "a b", "--out", target]).line
        assert line == f"lsgm eval glyphs --model 'a b' --out {shown}"
    absent = copied(["lsgm", "eval", "evil.toml"], str(tmp_path))
    assert (absent.line, absent.why) == (
        "",
        f"its task is the file {tmp_path}/evil.toml, which may name code of others and is not here",
    )
    path = write_manifest(tmp_path, fake_manifest(command=["lsgm", "train", "x"]))
    assert typed(read_manifest(path)) == ""
