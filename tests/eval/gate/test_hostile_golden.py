"""A golden file from anybody is golden rows or one sentence: nothing is run, and no size is believed."""

from __future__ import annotations

import base64
import copy
import json
import time
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from eval.gate.golden_rows import GOLDEN, ROWS
from hostile_files import SPECIAL, json_values, outcome, place_special, says
from hypothesis import given
from hypothesis import strategies as st

from lsgm.errors import ConfigError, DataError, UserError
from lsgm.structure import to_dict
from lsgm_eval.commands import gate as command
from lsgm_eval.gate import verdict as judging
from lsgm_eval.gate.golden import FARTHEST, Golden, pack, read_golden, write_golden
from lsgm_eval.gate.measure import Measured, Repeat
from lsgm_eval.gate.verdict import GateOutcome, Verdict, judge, write_junit

PLAIN: dict[str, Any] = json.loads(json.dumps(to_dict(GOLDEN)))
ROW: dict[str, Any] = dict(ROWS)
IMAGES, ESTIMATE, REPLAY = ("rows", "replay/images"), ("rows", "nelbo_nats"), ("rows", "replay/nelbo")


def written(folder: Path, value: Any, *keys: str) -> Path:
    """Return a golden file with one value put in the place of another."""
    mapping = copy.deepcopy(PLAIN)
    inner = mapping
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path = folder / "g.json"
    path.write_text(json.dumps(mapping))
    return path


ZEROS = base64.b64encode(zlib.compress(bytes(10**8))).decode()


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("plan", "draws"), 10**9, "takes 512,000,0"),
        (("plan", "draws"), 10**9, "LSGM_MOST_GATE_WORK="),
        (("plan", "iw_samples"), 10**9, "most of them images x iw-samples"),
        (("plan", "images"), 10**12, "most of them images x iw-samples"),
        (("plan", "samples"), 10**12, "most of them samples x steps"),
        (("plan", "sampler"), {"name": "heun", "steps": 10**6}, "steps"),
        (("plan", "drawn"), 10**12, "most of them drawn x steps"),
        (("plan", "replay_draws"), 10**9, "most of them replay-images x replay-draws"),
        (("plan", "flow_steps"), 10**9, "most of them flow-images x flow-steps"),
        (("plan", "repeats"), 10**9, "repeats or reference-images is 1000000000"),
        (("plan", "draws"), -1, "must be at least 1"),
        (("plan", "drawn"), -1, "cannot be negative"),
        (("plan", "draws"), 10**30, "at most 2^63 - 1"),
        (("plan",), [], "'plan' is a list; it must be a table"),
        (("rows",), [1], "'rows' is a list; it must be a table"),
        (("rows",), {"": PLAIN["rows"]["nelbo_nats"]}, "a row has no name"),
        (ESTIMATE, {"kind": "other"}, "rows.nelbo_nats"),
        (ESTIMATE, None, "rows.nelbo_nats"),
        ((*ESTIMATE, "error"), float("nan"), "not finite"),
        ((*ESTIMATE, "value"), 1e200, "not finite, or as good as that"),
        ((*ESTIMATE, "df"), float("inf"), "not finite"),
        ((*ESTIMATE, "repeats"), -3, "at least 2 repeats"),
        ((*ESTIMATE, "per_image"), [1.0, "x"], "'rows.nelbo_nats.per_image[1]' is 'x'"),
        ((*REPLAY, "largest"), float("nan"), "not finite"),
        ((*REPLAY, "mean"), float("nan"), "0 < mean <= largest"),
        ((*REPLAY, "values"), [float("inf")], "not finite"),
        ((*IMAGES, "shape"), [10**6, 10**6], "at most 16,777,216 sub-pixels are kept"),
        ((*IMAGES, "shape"), [-2, -3], "images by sub-pixels"),
        ((*IMAGES, "shape"), [6], "images by sub-pixels"),
        ((*IMAGES, "packed"), ZEROS, "the drawn images are damaged (they are not the 6 levels"),
        ((*IMAGES, "packed"), pack(np.zeros(3, np.uint8)), "the drawn images are damaged"),
        ((*IMAGES, "flips"), -1, "flips cannot be negative"),
        (("format",), [1], "'format' is a list"),
        (("history",), "x", "'history' is 'x'; it must be a list"),
        (("spaces",), {"a": 1}, "'spaces.a' is 1; it must be text"),
    ],
)
def test_a_value_that_golden_rows_cannot_have_is_a_sentence_with_its_key(
    tmp_path: Path, keys: tuple[str, ...], value: Any, words: str
) -> None:
    begun = time.monotonic()
    path = written(tmp_path, value, *keys)
    with says(str(path), words, error=ConfigError):
        read_golden(path)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "text", ["[]", "null", "[" * 10**5, '{"a":' * 10**5, '{"format": 1' + "0" * 5000 + "}"]
)
def test_what_is_no_json_object_is_said_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "g.json").write_text(text)
    with says("g.json ", "or write it again by --update --reason TEXT", error=DataError):
        read_golden(tmp_path / "g.json")


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    with says("give a file", error=DataError):
        read_golden(place_special(tmp_path / "g.json", kind))


def test_golden_rows_of_latin_1_and_of_a_mark_at_the_beginning(tmp_path: Path) -> None:
    write_golden(tmp_path / "g.json", GOLDEN)
    text = (tmp_path / "g.json").read_text()
    (tmp_path / "g.json").write_bytes(text.encode("latin-1"))
    with says("g.json is not text in UTF-8", error=DataError):
        read_golden(tmp_path / "g.json")
    (tmp_path / "g.json").write_text("\ufeff" + text)
    assert read_golden(tmp_path / "g.json") == GOLDEN


KEYS = [
    *((key,) for key in PLAIN),
    *(("plan", key) for key in PLAIN["plan"]),
    *(("rows", name) for name in PLAIN["rows"]),
    *(("rows", name, key) for name, row in PLAIN["rows"].items() for key in row),
]


@given(st.sampled_from(KEYS), json_values)
def test_any_value_is_golden_rows_that_can_be_judged_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, keys: tuple[str, ...], value: Any
) -> None:
    path = written(tmp_path_factory.mktemp("g"), value, *keys)
    golden, refused = outcome(lambda: read_golden(path))
    if not refused:
        _, refused = outcome(
            lambda: json.dumps([asdict(v) for v in judge(golden, MEASURED)], allow_nan=False)
        )
        assert not refused or "golden row" in refused


MEASURED = Measured(
    {"replay/nelbo": np.array([1.25, -3.0])},
    {"replay/images": np.arange(6, dtype=np.uint8).reshape(2, 3)},
    {
        "nelbo_nats": Repeat(2.5, np.array([2.0, 3.0])),
        "frechet_glyphs": Repeat(4.0),
    },
)


def test_numbers_at_the_edge_of_what_is_allowed_give_verdicts_that_json_has_words_for() -> None:
    far: dict[str, Any] = {
        "replay/nelbo": replace(ROW["replay/nelbo"], values=(-FARTHEST, FARTHEST), largest=FARTHEST),
        "nelbo_nats": replace(
            ROW["nelbo_nats"], value=FARTHEST, error=FARTHEST, per_image=(-FARTHEST, FARTHEST),
            cut=(-FARTHEST, FARTHEST),
        ),
    }  # fmt: skip
    for retrained in (False, True):
        for verdict in judge(replace(GOLDEN, rows=far), MEASURED, retrained=retrained):
            assert json.dumps(asdict(verdict), allow_nan=False)


def test_images_of_another_shape_and_as_many_levels_are_not_compared() -> None:
    row: Any = replace(ROW["replay/images"], shape=(3, 2))
    with says("is of [3, 2] images by sub-pixels and [2, 3] were measured", error=UserError):
        judge(replace(GOLDEN, rows={"replay/images": row}), MEASURED)


def test_a_metric_that_nobody_measures_is_a_sentence() -> None:
    with says("the golden row 'accuracy' is not measured of this model by this version", error=UserError):
        judge(replace(GOLDEN, rows={"accuracy": ROW["nelbo_nats"]}), MEASURED)


@pytest.mark.parametrize("task", ["evil.toml", "glyphs@3.toml", "../evil.toml@1", "nothing@1", "", "\x1b[2J"])
def test_golden_rows_name_no_file_of_a_task(
    tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task's file may ask for a network that runs code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judging, "open_subject", lambda *_, **__: pytest.fail("it was opened"))
    (tmp_path / "evil.toml").write_text("name = 'evil'")
    write_golden(tmp_path / "g.json", replace(GOLDEN, task=task))
    for words in ([], ["--update", "--reason", "x"]):
        with says("which is none of `lsgm ls tasks`: name its TOML file by --task", error=UserError):
            command.run(["nothing", "--golden", "g.json", *words])


ODD = "nelbo\x1b[2J\u202e"


def verdict(name: str = ODD) -> Verdict:
    return Verdict(name, "estimate", "nats", 1.0, 2.0, 1.0, 0.1, False, f"{name} is 2 against 1")


def test_names_that_a_terminal_would_obey_are_spelt_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = GateOutcome(replace(GOLDEN, model=ODD), (verdict(),), (ODD,))
    monkeypatch.setattr(judging, "check", lambda *_, **__: found)
    assert command.run(["x", "--junit", str(tmp_path / "j.xml")]) == 1
    captured = capsys.readouterr()
    for line in (*captured.out.splitlines(), *captured.err.splitlines()):
        assert line.isprintable()
    case = ElementTree.parse(tmp_path / "j.xml").getroot()[0]
    assert case.get("name") == "nelbo\\x1b[2J\\u202e"


def test_a_link_in_the_place_of_the_xml_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "j.xml").symlink_to(tmp_path / "theirs")
    write_junit(tmp_path / "j.xml", "suite", [verdict("a")])
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert ElementTree.parse(tmp_path / "j.xml").getroot().tag == "testsuite"


def test_a_link_in_the_place_of_golden_rows_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "g.json").symlink_to(tmp_path / "theirs")
    write_golden(tmp_path / "g.json", GOLDEN)
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert isinstance(read_golden(tmp_path / "g.json"), Golden)


def test_a_checkpoint_whose_links_go_round_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with says("leads nowhere", error=UserError):
        command.run([str(tmp_path / "a")])
