"""``lsgm sample``: an image for each seed, whatever the batch, the format or an interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import tiny
import torch
from beside import begin, two
from numpy.typing import NDArray
from PIL import Image
from worker import command_into

from lsgm import cli
from lsgm.config import SamplerConfig
from lsgm.generative import Pixels, Samples
from lsgm.model.diffusion import ScoreBasedModel
from lsgm.runs.checkpoint import checkpoints
from lsgm.runs.directory import Run
from lsgm.runs.load import load_model
from lsgm.sampling import keep
from lsgm.train.loop import train_recipe

HEUN = ["--sampler.steps", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "bars"
    train_recipe(tiny.recipe(), directory, images=tiny.bars())
    return directory


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that the model draws while a test runs."""
    seen: list[int] = []
    real = ScoreBasedModel.sample

    def sample(self: ScoreBasedModel, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        seen.extend(seeds)
        return real(self, seeds, sampler)

    monkeypatch.setattr(ScoreBasedModel, "sample", sample)
    return seen


def pictures(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Return all that anybody's reader would count as images of a folder."""
    return {file.name: np.asarray(Image.open(file)) for file in sorted(folder.rglob("*.png"))}


def in_npz(path: Path) -> NDArray[np.uint8]:
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file["arr_0"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def complaint(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return the one line with which a command is refused."""
    capsys.readouterr()
    assert cli.main(["sample", *map(str, words), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lsgm: ")
    assert said.count("\n") == 1
    return said


def sampled(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """Run the command and return what it says in JSON."""
    capsys.readouterr()
    assert cli.main(["sample", *map(str, words), *HEUN, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return dict(json.loads(line))


def test_a_folder_of_images_with_sheet_and_manifest_beside_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sample", str(run), "--n", "4", *HEUN]) == 0
    said = capsys.readouterr().out.splitlines()
    (place,) = [path for path in (run / "samples").iterdir() if path.is_dir()]
    assert place.name.startswith("bars-heun-")
    assert said[-1].startswith("4 images in ")
    assert said[-1].endswith(f" s, 4.0 network evaluations each: {place}")
    assert list(pictures(place)) == [f"00000{k}.png" for k in range(4)]
    manifest = json.loads(place.with_name(f"{place.name}.json").read_text())
    assert (manifest["model"], manifest["sha256"]) == ("bars", load_model(run).sha256)
    assert (manifest["sampler"]["name"], manifest["sampler"]["steps"]) == ("heun", 2)
    assert (manifest["n"], manifest["seeds"]) == (4, [[0, 3]])
    assert (manifest["nfe_mean"], manifest["nfe_max"]) == (4.0, 4)
    assert manifest["seconds"] > 0
    assert place.with_name(f"{place.name}.sheet.png").is_file()


def test_images_are_named_by_their_seeds_and_are_the_models_own(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "pictures"
    row = sampled(capsys, run, "--n", 3, "--first-seed", 1000, "--images", "--out", place)
    model = load_model(run)
    assert (row["model"], row["sha256"], row["seeds"]) == ("bars", model.sha256, [1000, 1002])
    assert (row["nfe_mean"], row["nfe_max"], row["sampler"]["name"]) == (4.0, 4, "heun")
    assert (row["images"], row["grid"]) == (str(place), f"{place}.sheet.png")
    drawn = pictures(place)
    assert list(drawn) == ["001000.png", "001001.png", "001002.png"]
    expected = model.sample(range(1000, 1003), SamplerConfig(steps=2)).images
    assert torch.equal(torch.from_numpy(np.stack(list(drawn.values()))), expected[:, 0])


def test_the_batch_changes_nothing_but_the_speed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for batch in (5, 2, 1, "auto"):
        sampled(capsys, run, "--n", 5, "--batch", batch, "--out", tmp_path / str(batch))
    together = pictures(tmp_path / "5")
    for folder in (tmp_path / "2", tmp_path / "1", tmp_path / "auto"):
        pieces = pictures(folder)
        assert pieces.keys() == together.keys()
        different = sum(int((pieces[name] != together[name]).sum()) for name in pieces)
        # 320 pixels, each within 1e-5 of its probability with a chance of 2e-5: one at the very most.
        assert different <= 1


def test_a_checkpoint_of_stage_1_decodes_its_normal_prior(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = checkpoints(Run(run).checkpoints)[0]
    assert cli.main(["sample", str(first), "--n", "2", "--out", str(tmp_path / "vae"), *HEUN]) == 0
    assert "one decoder pass each" in capsys.readouterr().out
    assert json.loads((tmp_path / "vae.json").read_text())["sampler"] == {"temperature": 1.0}


def test_two_models_and_two_samplers_never_share_a_default_place(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does one of them lie in a checkpoint's folder, which may be under version control."""
    monkeypatch.chdir(tmp_path)
    alone = Path("alone")
    shutil.copytree(checkpoints(Run(run).checkpoints)[-1], alone)
    shutil.copytree(checkpoints(Run(run).checkpoints)[0], tmp_path / "other")
    before = contents(alone)
    places = {
        sampled(capsys, model, "--n", 1, *words)["images"]
        for model in (alone, "other")
        for words in ([], ["--sampler.temperature", 0.9])
    }
    assert len(places) == 4
    assert {Path(place).parent for place in places} == {Path("samples")}
    assert contents(alone) == before


@pytest.mark.parametrize("place", ["pictures", "pictures.npz"])
def test_what_is_there_is_not_drawn_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[int], place: str
) -> None:
    """A larger n goes on; the same one does nothing, and neither does a smaller."""
    where = ("--out", tmp_path / place, "--batch", 2)
    sampled(capsys, run, "--n", 4, *where)
    assert drawn == [0, 1, 2, 3]
    sampled(capsys, run, "--n", 7, *where)
    assert drawn == list(range(7))
    before = contents(tmp_path)
    row = sampled(capsys, run, "--n", 7, *where)
    assert sampled(capsys, run, "--n", 3, *where)["seeds"] == [0, 2]
    assert drawn == list(range(7))
    assert (row["nfe_mean"], row["nfe_max"]) == (4.0, 4)
    now = contents(tmp_path)
    images = [name for name in before if name.endswith(".npz") or name.startswith("pictures/0")]
    assert all(now[name] == before[name] for name in images)
    whole = tmp_path / "whole" / place
    sampled(capsys, run, "--n", 7, "--out", whole, "--batch", 2)
    if place.endswith(".npz"):
        assert in_npz(tmp_path / place).shape == (7, 8, 8, 1)
        assert np.array_equal(in_npz(tmp_path / place), in_npz(whole))
    else:
        assert contents(whole).keys() == contents(tmp_path / place).keys()
        assert {k: v.tobytes() for k, v in pictures(whole).items()} == {
            k: v.tobytes() for k, v in pictures(tmp_path / place).items()
        }


def test_an_image_that_is_gone_is_drawn_again_and_no_other(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[int]
) -> None:
    sampled(capsys, run, "--n", 4, "--out", tmp_path / "pictures")
    before = (tmp_path / "pictures" / "000002.png").read_bytes()
    (tmp_path / "pictures" / "000002.png").unlink()
    drawn.clear()
    sampled(capsys, run, "--n", 4, "--out", tmp_path / "pictures")
    assert drawn == [2]
    assert (tmp_path / "pictures" / "000002.png").read_bytes() == before


def test_a_folder_takes_further_seeds_and_its_manifest_names_all(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "pictures"
    sampled(capsys, run, "--n", 2, "--out", place)
    sampled(capsys, run, "--n", 3, "--first-seed", 10, "--out", place)
    manifest = json.loads((tmp_path / "pictures.json").read_text())
    assert (manifest["n"], manifest["seeds"]) == (5, [[0, 1], [10, 12]])
    assert len(pictures(place)) == 5


def test_an_npz_holds_the_images_of_the_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sampled(capsys, run, "--n", 5, "--batch", 3, "--out", tmp_path / "a")
    row = sampled(capsys, run, "--n", 5, "--batch", 3, "--out", tmp_path / "a", "--format", "npz")
    assert row["images"] == str(tmp_path / "a.npz")
    images = in_npz(tmp_path / "a.npz")
    assert images.shape == (5, 8, 8, 1)
    assert np.array_equal(images[..., 0], np.stack(list(pictures(tmp_path / "a").values())))
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("a.")}
    assert left == {"a", ".a.npz.samples.jsonl"}


@pytest.mark.parametrize("place", ["pictures", "pictures.npz"])
def test_other_images_are_one_sentence_and_stay(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    where = ("--n", 2, "--out", tmp_path / place)
    sampled(capsys, run, *where)
    before = contents(tmp_path)
    said = complaint(capsys, run, *where, "--sampler.steps", 3)
    assert f"{place} holds images drawn with sampler.steps = 2, not 3: name another place" in said
    first = checkpoints(Run(run).checkpoints)[0]
    said = complaint(capsys, first, *where)
    assert f"{place} holds images of bars (weights {load_model(run).sha256[:12]}), not of bars (" in said
    if place.endswith(".npz"):
        said = complaint(capsys, run, *where, *HEUN, "--first-seed", 1)
        assert "holds images from seed 0 on, not from 1" in said
    assert contents(tmp_path) == before


def test_files_of_somebody_else_are_never_overwritten(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "me.png").write_bytes(b"mine")
    for name in ("mine.npz", "a.json", "b.sheet.png"):
        (tmp_path / name).write_bytes(b"mine")
    before = contents(tmp_path)
    for out, expected in (
        ("holiday", "holiday is not empty and what is in it are other images"),
        ("mine.npz", "mine.npz is there and is of other images"),
        ("a", "a.json is there and does not belong to these images"),
        ("b", "b.sheet.png is there and does not belong to these images"),
    ):
        assert expected in complaint(capsys, run, "--n", 1, "--out", tmp_path / out)
    assert contents(tmp_path) == before


def test_a_place_that_can_hold_no_images_is_told_as_it_is(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    before = contents(tmp_path)
    for out, n, expected in (
        ("/", 1, "out is /, which nothing can lie beside, and a sheet has to: name a folder"),
        (tmp_path / "file", 1, "file is a file and PNGs need a folder"),
        (tmp_path / "file" / "x", 1, "x cannot be written (Not a directory)"),
        (tmp_path / "x.npz", 2**63 - 1, "9,223,372,036,854,775,807 images are more than one file can hold"),
    ):
        assert expected in complaint(capsys, run, "--n", n, "--out", out)
    assert contents(tmp_path) == before


def test_what_was_drawn_is_described_however_many_are_asked_for(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ScoreBasedModel.sample

    def sample(self: ScoreBasedModel, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        if seeds[0] > 3:
            raise KeyboardInterrupt
        return real(self, seeds, sampler)

    monkeypatch.setattr(ScoreBasedModel, "sample", sample)
    out = tmp_path / "many"
    words = ["sample", str(run), "--n", str(2**62), "--batch", "2", "--out", str(out), *HEUN]
    assert cli.main(words) == 128 + signal.SIGINT
    assert "lsgm: interrupted; 4 of 4,611,686,018,427,387,904 images" in capsys.readouterr().err
    assert json.loads((tmp_path / "many.json").read_text())["seeds"] == [[0, 3]]


def test_a_sheet_has_at_most_a_hundred_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = sampled(capsys, run, "--n", 103, "--out", tmp_path / "many")
    width, height = Image.open(row["grid"]).size
    assert (width, height) == (8 * (10 * (8 + 2) + 2), 8 * (10 * (8 + 2) + 2))
    assert len(pictures(tmp_path / "many")) == 103


def test_memory_does_not_grow_with_the_number_of_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a batch is drawn, the one before last is on disk and forgotten."""
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0
    real = ScoreBasedModel.sample

    def sample(self: ScoreBasedModel, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        nonlocal most
        most = max(most, sum(reference() is not None for reference in alive))
        found = real(self, seeds, sampler)
        alive.append(weakref.ref(found.images))
        return found

    monkeypatch.setattr(ScoreBasedModel, "sample", sample)
    sampled(capsys, run, "--n", 12, "--batch", 2, "--out", tmp_path / "pictures")
    assert len(alive) == 6
    assert most <= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_command_leaves_what_it_drew_and_goes_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[int], number: int
) -> None:
    place = tmp_path / "pictures"
    # More than any machine draws before the signal comes.
    words = ["sample", str(run), "--n", "100000", "--batch", "2", "--out", str(place), *HEUN]
    process = begin(cli.main, words, said=tmp_path / "said.txt")
    limit = time.monotonic() + 120
    while len(list(place.glob("0*.png"))) < 6:
        assert process.is_alive()
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(120)
    said = (tmp_path / "said.txt").read_text()
    # A kill may leave the hidden beginning of a file, which the next call takes away.
    there = list(place.glob("0*.png")) if number == signal.SIGKILL else pictures(place)
    assert 6 <= len(there) < 100_000
    if number != signal.SIGKILL:
        assert process.exitcode == 128 + number
        assert (
            f"of 100,000 images are drawn and kept for {place}: run the same command again to go on" in said
        )
        manifest = json.loads((tmp_path / "pictures.json").read_text())
        assert len(there) - 2 <= manifest["n"] <= len(there)
        assert (tmp_path / "pictures.sheet.png").is_file()
    n = len(there) + 4
    sampled(capsys, run, "--n", n, "--batch", 2, "--out", place)
    # What was written and not yet recorded is drawn again: one batch at the most.
    assert n - 6 <= min(drawn)
    now = pictures(place)
    assert len(now) == n
    sampled(capsys, run, "--n", n, "--batch", 2, "--out", tmp_path / "whole")
    whole = pictures(tmp_path / "whole")
    assert all(np.array_equal(whole[name], now[name]) for name in whole)


def test_two_processes_share_the_work(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What both write holds the images of one process, drawn one by one, to the last bit."""
    words = ["sample", str(run), "--n", "7", "--batch", "1", *HEUN, "--out"]
    for place in ("two", "two.npz"):
        said = tmp_path / f"{place}.txt"
        two(command_into, [*words, str(tmp_path / place)], said, folder=tmp_path / "stderr")
        assert said.read_text().count("7 images in ") == 1
    sampled(capsys, run, "--n", 7, "--batch", 1, "--out", tmp_path / "one")
    one = pictures(tmp_path / "one")
    assert {name: image.tobytes() for name, image in pictures(tmp_path / "two").items()} == {
        name: image.tobytes() for name, image in one.items()
    }
    assert np.array_equal(in_npz(tmp_path / "two.npz")[..., 0], np.stack(list(one.values())))
    assert json.loads((tmp_path / "two.json").read_text())["seeds"] == [[0, 6]]


def test_a_process_that_writes_an_npz_leaves_the_rows_between_its_own_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 0 and 2 are of one process and 1 and 3 of another, which writes while the first is at it."""
    images = torch.arange(4 * 64, dtype=torch.uint8).reshape(4, 1, 8, 8) + 1
    mine, others = (
        keep.open_output(tmp_path / "x.npz", "key", range(4), Pixels(1, 8, 8, "discrete", 8))
        for _ in range(2)
    )
    mine.prepare(())
    real = keep.save_rows

    def meanwhile(file: IO[bytes], places: Sequence[int], rows: NDArray[np.uint8]) -> None:
        monkeypatch.setattr(keep, "save_rows", real)
        others.write(np.array([1, 3]), images[1::2])
        real(file, places, rows)

    monkeypatch.setattr(keep, "save_rows", meanwhile)
    mine.write(np.array([0, 2]), images[::2])
    mine.finish()
    assert torch.equal(mine.read(range(4)), images)


@pytest.mark.parametrize("place", ["pictures", "pictures.npz"])
def test_a_full_disk_is_one_sentence_and_what_was_drawn_stays(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    drawn: list[int],
    place: str,
) -> None:
    where = ("--n", 6, "--batch", 2, "--out", tmp_path / place)

    def full(file: Any, *arguments: Any, **options: Any) -> None:
        if len(drawn) > 4:
            raise OSError(28, "No space left on device")
        real(file, *arguments, **options)

    with monkeypatch.context() as patch:
        if place == "pictures":
            real: Any = Image.Image.save
            patch.setattr(Image.Image, "save", full)
        else:
            real = keep.save_rows
            patch.setattr(keep, "save_rows", full)
        said = complaint(capsys, run, *where, *HEUN)
    assert f"{place} cannot be written (No space left on device): what is there stays; make room" in said
    drawn.clear()
    sampled(capsys, run, *where)
    assert drawn == [4, 5]


def test_one_process_at_a_time_draws_into_a_place(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "pictures"
    sampled(capsys, run, "--n", 1, "--out", place)
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'ab'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('in', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(place / ".samples.jsonl")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"in\n"
    said = complaint(capsys, run, "--n", 2, "--out", place, *HEUN)
    other.kill()
    other.wait()
    assert "another process is drawing into" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--n", "0"], "n is 0; ask for at least 1 image"),
        (["--batch", "0"], "batch is 0; it must be at least 1"),
        (["--batch", "most"], "--batch is 'most'; give a whole number, or auto"),
        (["--execution", "fast"], "--execution is 'fast'; give 'eager', 'compiled', 'graphs'"),
        (["--first-seed", "-1"], "first-seed is -1; it cannot be negative"),
        (["--sampler.name", "huen"], "did you mean 'heun'?"),
        (["--sampler.stpes", "3"], "did you mean '--sampler.steps'?"),
        (["--sampler.time-end", "1"], "time-end must lie in [0, 1)"),
        (["--device", "tpu"], "there is no device 'tpu' here"),
        (["--no-images"], "images are written as they are drawn; leave it out"),
        (["--format", "jpg"], "--format is 'jpg'; give 'auto', 'png', 'npz'"),
        (["--format", "png", "--out", "a.npz"], "format is png and out is a.npz; name a folder"),
        (["--out", "a.zip"], "images cannot be kept as a.zip: name a folder for PNGs, or a file of .npz"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert cli.main(["sample", str(run), "--out", str(tmp_path / "new"), *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lsgm: ")
    assert said.count("\n") == 1
    assert expected in said
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_no_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", str(tmp_path)]) == 2
    assert f"{tmp_path} holds no checkpoint" in capsys.readouterr().err


def test_a_name_that_is_taken_by_a_file_is_said_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert cli.main(["sample", str(run), "--n", "1", "--out", str(tmp_path / "file"), *HEUN]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(tmp_path / "file") in said
    assert (tmp_path / "file").read_text() == "mine"
