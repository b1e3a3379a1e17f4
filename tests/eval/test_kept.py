"""Whatever has become of what earlier calls left behind, it is measured again, and never believed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damaged_arrays import FILES, changed
from scoring import KnownModel, known_images
from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.distributed import World
from lsgm.errors import DataError
from lsgm.generative import Pixels, Samples
from lsgm.results.manifest import digest_of
from lsgm.rng import SeededNoise
from lsgm_eval import cache
from lsgm_eval.cache import CellStore, claim_results
from lsgm_eval.commands import nll
from lsgm_eval.likelihood import store as score_store
from lsgm_eval.likelihood.bound import Bound
from lsgm_eval.likelihood.scores import Scores, save_scores, score_images
from lsgm_eval.likelihood.store import ScoreStore, folder_tag, read_scores, scores_file
from lsgm_eval.metrics.precision_recall import nearest
from lsgm_eval.rows import Context
from lsgm_eval.run.steps import forget
from lsgm_eval.samples.collect import branches
from lsgm_eval.samples.gather import Pass, Share, StateFile, run_pass
from lsgm_eval.samples.reference import RowFile, all_features, open_rows, reference_features, write_rows

Said = pytest.CaptureFixture[str]
NELBO = DensityConfig(draws=4)
ALONE = World(0, 1, torch.device("cpu"))


def aside(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.aside-*"))


def assert_nothing_lost(path: Path, damage: str) -> None:
    if damage == "a folder":
        assert [(place / "mine").read_text() for place in aside(path)] == ["kept"]


# Scores of images.


def scored(folder: Path, model: KnownModel) -> Scores:
    store = ScoreStore(folder)
    return score_images(model, known_images(), NELBO, 12, batch_size=6, store=store, world=ALONE)


@pytest.mark.parametrize("damage", FILES)
def test_scores_in_a_damaged_file_are_measured_again(tmp_path: Path, damage: str, capsys: Said) -> None:
    first = scored(tmp_path, KnownModel())
    [path] = tmp_path.iterdir()
    FILES[damage](path)
    model = KnownModel()
    again = scored(tmp_path, model)
    assert np.array_equal(again["nats"], first["nats"])
    assert len(model.scored) == 12
    said = capsys.readouterr().err
    assert f"the finished scores {path} are damaged" in said or damage == "a link to nothing"
    model = KnownModel()
    assert np.array_equal(scored(tmp_path, model)["nats"], first["nats"])
    assert not model.scored


def test_no_array_of_scores_is_believed_that_does_not_fit(tmp_path: Path) -> None:
    first = scored(tmp_path, KnownModel())
    [path] = tmp_path.iterdir()
    for what in changed(path):
        same = what in ("error NaN", "probe_error NaN")  # as it was: this model does not tell
        assert bool(ScoreStore(tmp_path).finished()) == same, what
    assert np.array_equal(scored(tmp_path, KnownModel())["nats"], first["nats"])


def test_more_scores_than_the_limit_are_refused_and_none_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ScoreStore(tmp_path)
    for row in range(3):
        store.add({"rows": np.array([row]), "nats": np.ones(1)})
    monkeypatch.setenv(score_store.SCORES.variable, "1000")
    with pytest.raises(DataError, match="LSGM_LARGEST_ARRAYS"):
        store.compact()
    assert len(list(tmp_path.iterdir())) == 3


# Every image's bound, beside the rows.


def saved(path: Path) -> Path:
    scores = scored(path.parent / "store", KnownModel())
    save_scores(path, scores, task="known@1/quick", estimator="nelbo", levels_sha256="l" * 64)
    return path


@pytest.mark.parametrize("damage", FILES)
def test_a_damaged_file_of_bounds_is_none(tmp_path: Path, damage: str, capsys: Said) -> None:
    path = saved(tmp_path / "known-nelbo.npz")
    assert read_scores(path) is not None
    FILES[damage](path)
    assert read_scores(path, damaged="{path} is damaged ({why})") is None
    assert f"{path} is damaged" in capsys.readouterr().err or damage == "a link to nothing"
    saved(path)
    assert read_scores(path) is not None
    assert_nothing_lost(path, damage)


def test_no_bound_is_believed_that_does_not_fit(tmp_path: Path) -> None:
    path = saved(tmp_path / "known-nelbo.npz")
    needed = ("rows", "nats", "task", "levels_sha256", "estimator", "term_", "group_")
    believed = [
        what
        for what in changed(path)
        if read_scores(path) is not None
        and what.startswith(needed)
        and not what.endswith(("missing", "half", "one"))
    ]
    assert believed == []


# What a pass has gathered.


@dataclass
class Noise:
    """Images of 2x2 uniform colours, and how many were drawn."""

    name = "noise"
    sha256 = "n" * 64
    pixels = Pixels(3, 2, 2, "discrete")
    has_prior = True
    parameters = ()
    drawn: int = 0

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        self.drawn += len(seeds)
        images = (SeededNoise(seeds).uniform(3, 2, 2) * 256).to(torch.uint8)
        return Samples(images, torch.tensor(seeds) % 5, 0.5)


class Features:
    """Levels as features, with classes and spatial ones; `seen` counts the images."""

    name, sha256, dim, image_shape, resize, spatial_dim = "sums", "s" * 64, 12, (3, 2, 2), "", 4

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.flatten(1).float()

    def class_logits(self, features: Tensor) -> Tensor:
        return features[:, :3] / 64

    def with_spatial(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self(images), images[:, 0].flatten(1).float()


LABEL = f"sums@{'s' * 64}"


def drawn(model: Noise, state: Path) -> Pass:
    return run_pass(
        model, range(40), SamplerConfig("heun", steps=3), [Features()], batch_size=20, state_path=state
    )


@pytest.mark.parametrize("damage", FILES)
def test_a_damaged_state_of_a_pass_is_begun_again(tmp_path: Path, damage: str, capsys: Said) -> None:
    state = tmp_path / "passes" / "noise.npz"
    first = drawn(Noise(), state)
    FILES[damage](state)
    model = Noise()
    again = drawn(model, state)
    assert model.drawn == 40
    np.testing.assert_array_equal(again.of(Features()).stats.rows, first.of(Features()).stats.rows)
    said = capsys.readouterr().err
    assert f"the interrupted pass {state} is damaged" in said or damage == "a link to nothing"
    model = Noise()
    drawn(model, state)
    assert model.drawn == 0
    assert_nothing_lost(state, damage)


def test_no_array_of_a_state_is_believed_that_does_not_fit(tmp_path: Path) -> None:
    state = tmp_path / "noise.npz"
    drawn(Noise(), state)
    with np.load(state) as file:
        kept_state = StateFile(state, str(file["key"]))
    plan = branches([Features()], 40)
    share = Share((3, 2, 2), plan, 40)
    assert kept_state.read(share.load)
    for what in changed(state):
        same = what == "decoder_seconds NaN"  # as it was: this model does not tell
        assert (kept_state.read(share.load) is not None) == same, what


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("numbers", lambda x: x[:-1]),
        ("numbers", lambda x: x + 1),
        ("numbers", lambda x: np.where(x == 3, 4, x)),
        ("counts", lambda x: x + 1),
        ("nfe", lambda x: -x - 1),
        ("seconds", lambda x: -x),
        ("preview_numbers", lambda x: x[::-1]),
        (f"{LABEL}/features/count", lambda x: x + 1),
        (f"{LABEL}/features/index", lambda x: x + 1),
        (f"{LABEL}/features/index", lambda x: np.where(x == 3, 4, x)),
        (f"{LABEL}/features/scatter", lambda x: x + 1),
        (f"{LABEL}/spatial/count", lambda x: x - 5),
        (f"{LABEL}/classes/seen", lambda x: np.zeros_like(x)),
        (f"{LABEL}/classes/seen", lambda x: x.astype(np.int64)),
        (f"{LABEL}/classes/classes", lambda x: -x),
    ],
)
def test_a_state_of_other_images_is_begun_again(
    tmp_path: Path, name: str, change: Callable[[Any], Any]
) -> None:
    state = tmp_path / "noise.npz"
    drawn(Noise(), state)
    with np.load(state) as file:
        arrays: dict[str, Any] = {**file, name: change(file[name])}
    np.savez(state, **arrays)
    model = Noise()
    drawn(model, state)
    assert model.drawn == 40


# Features of the data.


class Means:
    """Three means of an image as features, and a count of the images seen."""

    name, sha256, dim, image_shape, resize = "means", "e" * 64, 3, (1, 28, 28), ""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        x = images.float()[:, 0]
        return torch.stack([x.mean((1, 2)), x[:, :14].mean((1, 2)), x[:, :, :14].mean((1, 2))], dim=1)


@pytest.mark.parametrize("damage", FILES)
def test_damaged_features_of_the_data_are_computed_again(
    bars: Any, own_cache: Path, damage: str, capsys: Said
) -> None:
    first = reference_features(bars, "val", 1, Means())
    [path] = (own_cache / "features").iterdir()
    FILES[damage](path)
    net = Means()
    again = reference_features(bars, "val", 1, net)
    assert net.seen == 50
    np.testing.assert_array_equal(again.stats.rows, first.stats.rows)
    said = capsys.readouterr().err
    assert f"the cached features {path} are damaged" in said or damage == "a link to nothing"
    reference_features(bars, "val", 1, net)
    assert net.seen == 50
    assert_nothing_lost(path, damage)


def test_no_array_of_cached_features_is_believed_that_does_not_fit(bars: Any, own_cache: Path) -> None:
    reference_features(bars, "val", 1, Means())
    [path] = (own_cache / "features").iterdir()
    for what in changed(path):
        net = Means()
        reference_features(bars, "val", 1, net)
        assert net.seen == 50, what


def test_features_under_the_name_of_others_are_computed_again(bars: Any, own_cache: Path) -> None:
    reference_features(bars, "val", 1, Means())
    [path] = (own_cache / "features").iterdir()
    reference_features(bars, "test", 1, Means())
    [other] = [found for found in (own_cache / "features").iterdir() if found != path]
    other.write_bytes(path.read_bytes())
    net = Means()
    assert len(reference_features(bars, "test", 1, net).stats.rows) == net.seen == 300


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _other_number(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(bytes(content))


def _another_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones((50, 3)))


ROWS = {name: damage for name, damage in FILES.items() if name != "encrypted"} | {
    "shorter": _shorter,
    "longer": _longer,
    "another number": _other_number,
    "another array": _another_array,
}


@pytest.mark.parametrize("damage", ROWS)
def test_damaged_rows_of_all_images_are_computed_again(
    bars: Any, own_cache: Path, damage: str, capsys: Said
) -> None:
    first = all_features(bars, "val", 1, Means())[:]
    [path] = (own_cache / "features").glob("*.f4")
    ROWS[damage](path)
    net = Means()
    np.testing.assert_array_equal(all_features(bars, "val", 1, net)[:], first)
    assert net.seen == 50
    said = capsys.readouterr().err
    assert f"the cached features {path} are damaged" in said or damage == "a link to nothing"
    assert len(all_features(bars, "val", 1, net)) == net.seen == 50
    assert_nothing_lost(path, damage)


def test_rows_that_are_cut_short_while_they_are_read_are_a_sentence(tmp_path: Path) -> None:
    """Where they were mapped, the process ended by SIGBUS."""
    path, rows = tmp_path / "rows.f4", np.arange(30_000, dtype=np.float32).reshape(-1, 3)
    with write_rows(path, rows.shape) as keep:
        keep(rows)
    found = open_rows(path, rows.shape)
    assert found is not None
    with path.open("r+b") as file:
        file.truncate(60_000)
    with pytest.raises(DataError, match="cut short while it was read"):
        nearest(rows[:5], found)


def test_rows_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.f4"
    rows = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    with write_rows(path, (5000, 4)) as keep:
        keep(rows[:7])
        keep(rows[7:])
    found = RowFile(path, (5000, 4))
    np.testing.assert_array_equal(np.fromfile(path, "<f4", rows.size).reshape(rows.shape), rows)
    np.testing.assert_array_equal(found[11:4711], rows[11:4711])
    np.testing.assert_array_equal(found[np.array([4, 4999, 4])], rows[[4, 4999, 4]])
    ours, theirs = nearest(rows[:50] + 1, found, 3), nearest(rows[:50] + 1, rows, 3)
    np.testing.assert_array_equal(ours.index, theirs.index)
    np.testing.assert_array_equal(ours.distance, theirs.distance)


# Finished measurements.

CONTEXT = Context("known@1/quick", "known", "c" * 64, "known@1@abc", "run")
KEY = digest_of({"of": "a test"})


def cell(out: Path) -> tuple[CellStore, Path]:
    store = CellStore(out / "cells")
    (out / "samples").mkdir(parents=True)
    (out / "samples" / "a.png").write_bytes(b"picture")
    store.rows(lambda: KEY, lambda: [CONTEXT.row("nelbo_nats", 3.5, n=4)], [out / "samples" / "a.png"])
    return store, out / "cells" / f"{KEY[:32]}.json"


def test_a_finished_measurement_is_read_as_it_was_written(tmp_path: Path) -> None:
    store, _ = cell(tmp_path)
    assert store.get(lambda: KEY) == [CONTEXT.row("nelbo_nats", 3.5, n=4)]
    (tmp_path / "samples" / "a.png").unlink()
    assert store.get(lambda: KEY) is None


@pytest.mark.parametrize("damage", FILES)
def test_a_damaged_cell_is_measured_again(tmp_path: Path, damage: str, capsys: Said) -> None:
    store, path = cell(tmp_path)
    FILES[damage](path)
    assert store.get(lambda: KEY) is None
    said = capsys.readouterr().err
    assert f"the finished measurement {path} is damaged" in said
    store.rows(lambda: KEY, lambda: [CONTEXT.row("nelbo_nats", 3.5)])
    assert store.get(lambda: KEY) is not None
    assert_nothing_lost(path, damage)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: [it],
        lambda it: it | {"rows": {}},
        lambda it: it | {"rows": ["a"]},
        lambda it: it | {"rows": [{}]},
        lambda it: it | {"rows": [it["rows"][0] | {"metric": 3}]},
        lambda it: it | {"rows": [it["rows"][0] | {"value": "3.5"}]},
        lambda it: it | {"rows": [it["rows"][0] | {"value": float("inf")}]},
        lambda it: it | {"rows": [it["rows"][0] | {"value": True}]},
        lambda it: it | {"rows": [it["rows"][0] | {"note": ["a"]}]},
        lambda it: it | {"rows": [it["rows"][0] | {"more": 1}]},
        lambda it: it | {"files": 3},
        lambda it: it | {"files": [3]},
        lambda it: it | {"key": digest_of({"of": "another"})},
        lambda it: {name: it[name] for name in ("rows", "files")},
        lambda it: it | {"rows": [it["rows"][0] | {"n": 10**400}]},
        lambda it: it | {"rows": [it["rows"][0] | {"n": "nan"}]},
        lambda it: it | {"rows": [it["rows"][0] | {"n_of": "4"}]},
        lambda it: it | {"rows": [it["rows"][0] | {"n": -1}]},
        lambda it: it | {"rows": [it["rows"][0] | {"model": ""}]},
        lambda it: it | {"rows": [it["rows"][0] | {"unit": 3}]},
        lambda it: it | {"rows": [it["rows"][0] | {"seconds": True}]},
        lambda it: it | {"rows": [it["rows"][0] | {"ci_low": 2.0, "ci_high": 1.0}]},
        lambda it: it | {"rows": [it["rows"][0] | {"bias": 1e301}]},
        lambda it: it | {"files": ["a" * 5000]},
    ],
)
def test_a_cell_of_another_form_is_measured_again(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    store, path = cell(tmp_path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert store.get(lambda: KEY) is None


# Where it lies.


@pytest.mark.parametrize("name", cache.FOLDERS)
def test_a_received_folder_with_a_link_in_it_is_refused_before_anything_is_measured(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link"):
        claim_results(tmp_path / "out")


def test_a_file_in_the_place_of_a_folder_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        claim_results(tmp_path)


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    store, path = cell(tmp_path / "out")
    path.unlink()
    path.symlink_to(tmp_path / "mine")
    claim_results(tmp_path / "out")
    assert store.get(lambda: KEY) is None
    store.rows(lambda: KEY, lambda: [CONTEXT.row("nelbo_nats", 3.5)])
    assert (tmp_path / "mine").read_text() == "mine"
    assert not path.is_symlink()


# Names.

ODD = ["../../../x", "/etc/passwd", "a\nb", "\x1b[2Jmine", "..", "*", "[a-z]", "nul", "é" * 100]


@pytest.mark.parametrize("name", ODD)
def test_whatever_a_model_is_called_its_files_lie_below_the_results(tmp_path: Path, name: str) -> None:
    """A checkpoint's state.json says what it is called."""
    out, model = tmp_path / "deep" / "er" / "out", KnownModel(name=name)
    tell = Context("known@1/quick", name, model.sha256, "known@1@abc", "run")
    for _ in range(2):
        Bound(model, known_images(), NELBO, 4).measure(out, context=tell, batch_size=4)
    assert len(model.scored) == 4
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent.parent.name for path in made} <= {"out", "scores"}
    assert read_scores(scores_file(out, name, "nelbo")) is not None


@pytest.mark.parametrize("name", ["lsgm", "my model.v2", "a=b", "Größe", "x(1)"])
def test_files_of_honest_names_are_called_as_ever(tmp_path: Path, name: str) -> None:
    assert scores_file(tmp_path, name, "iw", "-limit-5").name == f"{name}-iw-limit-5.npz"
    assert folder_tag(f"{name}@1@{'ab12cd34' * 8}") == f"@{name}-ab12cd34"


def test_what_is_forgotten_of_a_point_is_its_own(tmp_path: Path) -> None:
    """A name with brackets is no pattern."""
    for name in ("[ab]-point-1.npz", "a-point-1.npz", "[ab]-point-1-0-of-2.npz"):
        (tmp_path / name).write_bytes(b"")
    forget(tmp_path / "[ab]-point-1.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a-point-1.npz"]


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "mnist", "--model", "x=images.npy"],
        ["nll", "x=images.npy", "--task", "mnist"],
        ["nfe", "--model", "x=images.npy", "--task", "mnist"],
        ["fid", "images.npy", "images.npy"],
    ],
    ids=lambda words: words[0],
)
def test_a_command_refuses_a_received_folder_that_leads_elsewhere(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", np.full((40, 28, 28), 200, np.uint8))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifests").symlink_to(tmp_path / "elsewhere")
    command = importlib.import_module(f"lsgm_eval.commands.{words[0]}")
    with pytest.raises(DataError, match="manifests is a link"):
        command.run([*words[1:], "--device", "cpu", "--out", "out"])
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifests"]


@pytest.mark.parametrize("name", ["\x1b[2J\x1b[31mgone", "a\u202egnp.exe"])
def test_tables_print_a_name_as_what_it_is(name: str, capsys: Said) -> None:
    tell = Context("known@1/quick", name, "c" * 64, "known@1@abc", "run")
    print("\n".join(nll.table([tell.row("nelbo_nats", 3.5, n=4, note=f"of {name}")])))
    said = capsys.readouterr().out
    assert "nelbo_nats" in said
    assert all(letter.isprintable() for line in said.splitlines() for letter in line)
