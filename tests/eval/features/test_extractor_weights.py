"""Published weights are found where they may lie, known by their hash, and otherwise say how to get them."""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import tempfile
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_files import SPECIAL, place_special, says
from scoring import KnownModel

import lsgm_eval
from lsgm.data.dataset import RemoteFile
from lsgm.errors import DataError
from lsgm.generative import Pixels
from lsgm_eval import models
from lsgm_eval.commands import eval as eval_command
from lsgm_eval.commands import nfe
from lsgm_eval.features import published, weights
from lsgm_eval.features.extractor import load_extractor
from lsgm_eval.features.weights import (
    CLEAN_INCEPTION,
    FIDELITY_INCEPTION,
    find_weights,
    open_network,
    open_own,
)
from lsgm_eval.run import plan
from lsgm_eval.run.calls import evaluate
from lsgm_eval.task import SpaceSpec, load_task

RAW = b"weights" * 100
UNREACHABLE = "http://127.0.0.1:9/net.pth"


def remote(url: str = UNREACHABLE) -> RemoteFile:
    return RemoteFile("net.pth", url, sha256=hashlib.sha256(RAW).hexdigest())


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let every place in which weights may lie be a folder of the test."""
    monkeypatch.setenv("LSGM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("lsgm.data.download.time.sleep", lambda seconds: None)
    return tmp_path


def put(path: Path, raw: bytes = RAW) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def test_the_hash_in_the_file_name_is_that_of_the_file() -> None:
    assert FIDELITY_INCEPTION.file.endswith(f"-{FIDELITY_INCEPTION.sha256[:8]}.pth")
    for known in (FIDELITY_INCEPTION, CLEAN_INCEPTION):
        assert len(bytes.fromhex(known.sha256)) == 32
        assert known.url.endswith(f"/{known.file}")


@pytest.mark.parametrize(
    "place",
    ["data/features", "data", "torch/hub/checkpoints", "temporary"],
    ids=lambda p: p.replace("/", "-"),
)
def test_weights_are_found_without_a_network(place: str, elsewhere: Path) -> None:
    path = put(elsewhere / place / "net.pth")
    assert find_weights(remote()) == path


def test_the_same_bytes_under_another_name_serve(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights.ALIASES, "net.pth", ("pt_net.pth",))
    path = put(elsewhere / "torch" / "hub" / "checkpoints" / "pt_net.pth")
    assert find_weights(remote()) == path


def test_a_damaged_file_is_named_with_both_hashes(elsewhere: Path) -> None:
    path = put(elsewhere / "data" / "net.pth", RAW[:-1])
    found = hashlib.sha256(RAW[:-1]).hexdigest()
    with pytest.raises(DataError, match=rf"{path} is .*{found} instead of {remote().sha256}; delete it and"):
        find_weights(remote())


def test_weights_are_downloaded_once_and_verified(elsewhere: Path, own_cache: Path) -> None:
    source = put(elsewhere / "server" / "net.pth")
    target = find_weights(remote(source.as_uri()))
    assert target == own_cache / "data" / "features" / "net.pth"
    assert target.read_bytes() == RAW
    source.unlink()
    assert find_weights(remote(source.as_uri())) == target


def test_a_download_of_other_bytes_is_not_kept(elsewhere: Path, own_cache: Path) -> None:
    source = put(elsewhere / "server" / "net.pth", b"<html>moved</html>")
    with pytest.raises(DataError, match="sent is not the file wanted"):
        find_weights(remote(source.as_uri()))
    assert not list((own_cache / "data" / "features").glob("net*"))


@pytest.mark.parametrize(
    ("spec", "module", "constant"),
    [
        ("inception", published, "FIDELITY_INCEPTION"),
        ("inception-clean", published, "CLEAN_INCEPTION"),
    ],
)
def test_without_file_and_network_the_error_says_what_to_run(
    spec: str,
    module: object,
    constant: str,
    elsewhere: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = replace(getattr(module, constant), url=UNREACHABLE)
    monkeypatch.setattr(module, constant, known)
    with pytest.raises(DataError) as caught:
        load_extractor(spec, (3, 32, 32))
    sentence = str(caught.value)
    hub = elsewhere / "torch" / "hub" / "checkpoints"
    for part in (
        f"the weights {known.file} are not here (looked in {elsewhere / 'data'}, {own_cache / 'data'}, {hub}",
        f"could not download {UNREACHABLE} (",
        f"run `lsgm data fetch {spec}` where there is a network",
        f"copy them to {own_cache / 'data' / 'features'}",
        "export:FILE.pt2",
    ):
        assert part in sentence
    assert "\n" not in sentence
    assert sentence.count(known.file) == 1, "the places are folders, said once"


def test_without_any_inception_one_sentence_names_both_files_and_one_command(
    elsewhere: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, constant in (
        (published, "FIDELITY_INCEPTION"),
        (published, "CLEAN_INCEPTION"),
    ):
        monkeypatch.setattr(module, constant, replace(getattr(module, constant), url=UNREACHABLE))
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    with pytest.raises(DataError) as caught:
        lsgm_eval.fid(images, images)
    sentence = str(caught.value)
    assert f"the weights {FIDELITY_INCEPTION.file} and {CLEAN_INCEPTION.file} are not here" in sentence
    assert "run `lsgm data fetch inception inception-clean` where there is a network" in sentence
    for once in ("looked in", "could not download", str(elsewhere / "data"), "copy them to", "--extractor"):
        assert sentence.count(once) == 1
    grey = torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8)
    with pytest.raises(DataError, match=r"that ship with the package: --extractor glyphs$"):
        lsgm_eval.fid(grey, grey)


@pytest.mark.parametrize("bad", [RAW[:-1], b"", b"<html>"], ids=["cut", "empty", "page"])
def test_a_bad_copy_hides_no_good_one_in_the_next_place(
    bad: bytes, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = put(elsewhere / "data" / "net.pth", bad)
    good = put(elsewhere / "torch" / "hub" / "checkpoints" / "net.pth")
    assert find_weights(remote()) == good
    assert f"lsgm: another copy is used, because {first} is truncated" in capsys.readouterr().err


def test_a_copy_that_may_not_be_read_hides_no_good_one(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, good = put(elsewhere / "data" / "net.pth"), put(elsewhere / "temporary" / "net.pth")
    read = os.open

    def refuse(path: Path | str, *args: Any, **options: Any) -> int:
        if str(path) == str(first):
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert find_weights(remote()) == good
    good.unlink()
    with pytest.raises(DataError, match=f"{first} cannot be read .Permission denied..*; the weights net.pth"):
        find_weights(remote())


def test_of_several_bad_copies_each_is_named(elsewhere: Path) -> None:
    copies = [put(elsewhere / place / "net.pth", RAW[:k]) for k, place in ((3, "data"), (4, "temporary"))]
    with pytest.raises(DataError) as error:
        find_weights(remote())
    for path in copies:
        assert f"{path} is truncated or corrupted" in str(error.value)
    assert "could not download" in str(error.value)


def test_a_download_takes_the_place_of_a_bad_copy_elsewhere(
    elsewhere: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = put(elsewhere / "data" / "net.pth", b"cut")
    source = put(elsewhere / "server" / "net.pth")
    assert find_weights(remote(source.as_uri())) == own_cache / "data" / "features" / "net.pth"
    assert f"is downloaded, because {bad} is truncated" in capsys.readouterr().err
    assert bad.read_bytes() == b"cut"


def test_weights_of_ones_own_are_looked_for_as_given_and_below_the_data(elsewhere: Path) -> None:
    path = put(elsewhere / "data" / "features" / "mine.pth")
    for word in ("mine.pth", str(path)):
        assert open_own(word, "mine", str) == (path, str(path))
    for spec in ("inception:other.pth", "inception-clean:other.pth"):
        with pytest.raises(DataError, match=r"the weights other.pth is not here; .*features/other.pth"):
            load_extractor(spec, (3, 32, 32))


@pytest.mark.parametrize("name", ["inception", "inception-clean"])
def test_lsgm_data_fetch_knows_the_weights_by_the_names_of_their_spaces(
    name: str, elsewhere: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = weights.PUBLISHED[name]
    source = put(elsewhere / "server" / "net.pth")
    known = weights._weights(remote(source.as_uri()))
    assert known.find() is None
    assert known.get() == known.find() == own_cache / "data" / "features" / "net.pth"
    put(elsewhere / "data" / "features" / "net.pth", b"damaged")
    assert known.find() == own_cache / "data" / "features" / "net.pth"
    for folder in (elsewhere / "data", own_cache / "data"):
        (folder / "features" / "net.pth").unlink()
    assert published.remote.sha256 in {FIDELITY_INCEPTION.sha256, CLEAN_INCEPTION.sha256}
    monkeypatch.setitem(weights.PUBLISHED, name, weights._weights(remote()))
    with pytest.raises(DataError, match=rf"run `lsgm data fetch {name}` where there is a network and copy"):
        find_weights(remote())


@pytest.mark.parametrize("command", ["nfe", "eval"])
def test_without_any_space_a_command_ends_before_the_data_are_read(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "FIDELITY_INCEPTION", remote())
    monkeypatch.setattr(published, "CLEAN_INCEPTION", remote())
    monkeypatch.setattr(plan, "load", lambda *_, **__: pytest.fail("data were read"))
    model = KnownModel("a", pixels=Pixels(3, 32, 32, "discrete", 8))
    monkeypatch.setattr(models, "open_model", lambda spec, device: model)
    words = ["--model", "a", "--out", str(tmp_path / "out"), "--device", "cpu"]
    run, more = {
        "nfe": (nfe.run, ["--task", "cifar10"]),
        "eval": (eval_command.run, ["cifar10", "--only", "quality", "--report", "no"]),
    }[command]
    with pytest.raises(DataError, match=r"the weights net\.pth are not here .*curl -L"):
        run([*more, *words])
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_a_space_that_is_asked_for_by_name_is_looked_for_before_the_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With likelihoods too, which need no network."""
    monkeypatch.setattr(published, "FIDELITY_INCEPTION", remote())
    monkeypatch.setattr(plan, "load", lambda *_, **__: pytest.fail("data were read"))
    model = KnownModel("a", pixels=Pixels(1, 28, 28, "binary", 1))
    task = replace(load_task("glyphs"), spaces=(SpaceSpec("inception"),))
    with pytest.raises(DataError, match=r"the weights net\.pth are not here"):
        evaluate([model], task, "smoke", tmp_path, insist=True)


@pytest.mark.parametrize(
    "environment", ["eval-mnist", "eval-cifar10", "eval-omniglot", "nfe-mnist", "nfe-cifar10"]
)
def test_an_environment_fetches_the_data_of_its_task_first(environment: str) -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(Path(__file__).parents[3] / "tox.ini")
    first, second, *_ = tox[f"testenv:{environment}"]["commands"].replace("\\\n", "").strip().splitlines()
    task = re.search(r"lsgm eval (\S+)|--task (\S+)", second)
    assert task is not None
    assert first == f"lsgm data fetch {load_task(task[1] or task[2]).dataset}"


# What everybody may exchange, and what changes between two looks.


def test_weights_in_a_folder_that_everybody_may_write_to_are_not_taken(elsewhere: Path) -> None:
    """clean-fid keeps its own in /tmp, where anybody may have put them first."""
    path = put(elsewhere / "temporary" / "net.pth")
    path.parent.chmod(0o1777)
    with pytest.raises(DataError, match=f"everybody may write to {path.parent}"):
        find_weights(remote())
    path.parent.chmod(0o755)
    assert find_weights(remote()) == path


def test_such_weights_do_not_hide_others(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = put(elsewhere / "data" / "features" / "net.pth")
    shared.parent.chmod(0o777)
    mine = put(elsewhere / "torch" / "hub" / "checkpoints" / "net.pth")
    assert find_weights(remote()) == mine
    assert f"everybody may write to {shared.parent}" in capsys.readouterr().err


@pytest.mark.parametrize("runs", [True, False])
def test_a_file_of_ones_own_is_not_looked_up_where_everybody_may_write(elsewhere: Path, runs: bool) -> None:
    put(elsewhere / "data" / "features" / "mine.pth").parent.chmod(0o777)
    with pytest.raises(DataError, match="everybody may write"):
        open_own("mine.pth", "the weights mine.pth", Path.read_bytes, runs=runs)


def test_a_program_is_not_taken_from_such_a_place_even_where_it_is_named(elsewhere: Path) -> None:
    path = put(elsewhere / "shared" / "mine.ts")
    path.parent.chmod(0o777)
    with pytest.raises(DataError, match="everybody may write"):
        open_own(str(path), "the script", Path.read_bytes, runs=True)
    assert open_own(str(path), "the weights", Path.read_bytes) == (path, RAW)


def test_published_weights_that_change_after_they_were_verified_are_not_opened(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(elsewhere / "data" / "net.pth")
    assert open_network("", "it", lambda path, raw: raw, published=remote()) == (path, remote().sha256, RAW)
    monkeypatch.setattr(weights, "find_weights", lambda remote: put(path, b"others"))
    with pytest.raises(DataError, match="has changed while it was read"):
        open_network("", "it", lambda path, raw: raw, published=remote())


def test_a_network_is_opened_from_the_bytes_that_were_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file is exchanged the moment after it was read."""
    path = tmp_path / "mine.ts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        net = torch.jit.trace(lambda x: x.float().mean((2, 3)), torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
        net.save(str(path))
    honest = hashlib.sha256(path.read_bytes()).hexdigest()
    whole = weights.read_bytes

    def exchanged(place: Path, *limits: Any) -> bytes:
        raw = whole(place, *limits)
        place.write_bytes(b"others")
        return raw

    monkeypatch.setattr(weights, "read_bytes", exchanged)
    assert load_extractor(f"torchscript:{path}", (3, 32, 32)).sha256 == honest
    assert path.read_bytes() == b"others"


@pytest.mark.parametrize("spec", ["inception", "inception-clean", "torchscript", "export"])
def test_a_network_beyond_the_limit_is_refused_with_what_raises_it(
    tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data/0", bytes(10**6))
    monkeypatch.setenv("LSGM_LARGEST_NETWORK", "100000")
    with pytest.raises(DataError, match="set LSGM_LARGEST_NETWORK=1000000"):
        load_extractor(f"{spec}:{path}", (3, 32, 32))


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("spec", ["inception", "inception-clean", "torchscript", "export"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, spec: str, kind: str) -> None:
    path = place_special(tmp_path / "net.pt", kind)
    with pytest.raises(DataError, match="not a file"):
        load_extractor(f"{spec}:{path}", (3, 32, 32))


class Runs:
    """Unpickled, it would make a folder."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(RUNS.name),))


RUNS = Path("made-by-a-pickle")


@pytest.mark.parametrize(
    "state",
    [
        {},
        [1],
        torch.zeros(3),
        {"fc.weight": 3},
        {3: torch.zeros(3)},
        {"fc.weight": torch.zeros(1008, 2048, dtype=torch.complex64)},
        {"fc.weight": torch.zeros(1008, 2048, dtype=torch.int64)},
        {"fc.weight": torch.zeros(1).expand(10**6, 10**6)},
        {"fc.weight": torch.eye(3).to_sparse()},
        {"fc.weight": torch.zeros(7)},
        Runs(),
    ],
    ids=lambda state: type(state).__name__,
)
def test_what_is_no_weights_is_refused_in_a_sentence_and_runs_nothing(
    tmp_path: Path, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(state, tmp_path / "net.pth")
    with says("does not hold the weights"):
        load_extractor(f"inception:{tmp_path / 'net.pth'}", (3, 32, 32))
    assert not (tmp_path / RUNS).exists()
