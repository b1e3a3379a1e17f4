"""What a recorded command may say is entered option by option, as the commands have them."""

from __future__ import annotations

import dataclasses
import shlex
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsgm.data import dataset_names
from lsgm.errors import DataError
from lsgm_eval.commands import eval as eval_command
from lsgm_eval.commands import fid, nfe, nll
from lsgm_eval.features.extractor import FORMS, KINDS
from lsgm_reports.reproduce.allowed import DATASETS, OPTIONS, WORDS, CommandLine
from lsgm_reports.reproduce.apart import copied, foreign_code

COMMANDS = {
    "eval": eval_command.EvalOptions,
    "nll": nll.NllOptions,
    "nfe": nfe.NfeOptions,
    "fid": fid.FidOptions,
}
POSITIONAL = {
    "eval": {"task": "task"},
    "nll": {"models": "model"},
    "nfe": {},
    "fid": {"reference": "side", "samples": "side"},
}
TEXTS = {"text", "place", "task", "model", "side", "space", "device", "count"}
FITTING = {
    bool: {"flag"},
    int: {"count", "seed"},
    float: {"number"},
    Path: {"target"},
    str: TEXTS,
}
"""A type of an option -> what its value may be called; of texts only a person can say what they are."""


def options_of(cls: type[Any], prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield every option of a command with the kinds that its type allows."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        name = f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from options_of(hint, f"{name}.")
        elif hint == tuple[float, ...]:
            yield name, {"numbers"}
        else:
            yield name, FITTING[plain(hint)]


def plain(hint: Any) -> type[Any]:
    """Return the type of one value of an option."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return plain(next(arg for arg in args if arg is not type(None)))
    if origin is tuple:
        return plain(args[0])
    if origin is Literal:
        return type(args[0])
    assert isinstance(hint, type)
    return hint


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_measuring_command_is_classified_by_what_its_value_is(command: str) -> None:
    entered = {**OPTIONS[command], **POSITIONAL[command]}
    assert OPTIONS[command].keys().isdisjoint(POSITIONAL[command])
    found = dict(options_of(COMMANDS[command]))
    assert entered.keys() == found.keys()
    assert {name: kind for name, kind in entered.items() if kind not in found[name]} == {}
    assert tuple(POSITIONAL[command].values()) == WORDS[command]


def test_the_commands_are_those_that_measure_rows() -> None:
    assert OPTIONS.keys() == WORDS.keys() == COMMANDS.keys()


def test_the_data_sets_are_those_that_there_are() -> None:
    assert set(DATASETS) == set(dataset_names())


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_somebody_s_own_is_code_unless_it_is_known_to_be_none(kind: str) -> None:
    assert f"{kind}:" in FORMS or kind in ("glyphs", "inception", "inception-clean")
    line = CommandLine.parse(["lsgm", "eval", "glyphs", "--extractor", f"{kind}:file"]).checked()
    found = [each.word for each in foreign_code(line, Path("/"), Path("/"))]
    assert found == [f"{kind}:file"] * KINDS[kind].runs
    assert KINDS[kind].runs == (kind not in ("glyphs", "inception"))


REFUSED = [
    ([], "none of lsgm"),
    (["lsgm"], "none of lsgm"),
    (["python", "-c", "print()"], "none of lsgm"),
    (["lsgm", "train", "glyphs"], "`lsgm train`, which measures no row"),
    (["lsgm", "gate", "record"], "`lsgm gate`, which measures no row"),
    (["lsgm", "reproduce", "x", "--run"], "`lsgm reproduce`, which measures no row"),
    (["lsgm", "--help"], "measures no row"),
    (["lsgm", "nll", "--tyro-write-completion", "bash", "/x"], "--tyro-write-completion"),
    (["lsgm", "nll", "--tyro-print-completion=bash"], "--tyro-print-completion"),
    (["lsgm", "eval", "glyphs", "--config=evil.toml"], "--config"),
    (["lsgm", "eval", "glyphs", "--mod", "evil:factory"], "--mod, which is none"),
    (["lsgm", "eval", "glyphs", "--trust-code"], "--trust-code"),
    (["lsgm", "eval", "glyphs", "more"], "the word 'more', for which it has no place"),
    (["lsgm", "eval", "-h"], "'-h', which would be read as an option"),
    (["lsgm", "nll", "--", "--out=/x"], "'--out=/x', which would be read as an option"),
    (["lsgm", "eval", "glyphs", "--tier", "--out=/x"], "would be read as an option"),
    (["lsgm", "eval", "glyphs", "--tier=-x"], "would be read as an option"),
    (["lsgm", "eval", "glyphs", "--tier"], "an empty word"),
    (["lsgm", "eval", " "], "an empty word"),
    (["lsgm", "eval", "glyphs", "--tier", "quick\nrm -r x"], r"does not print as it is"),
    (["lsgm", "eval", "glyphs", "--tier", "\x1b[201~"], "does not print as it is"),
    (["lsgm", "eval", "\u202eshpylg"], "does not print as it is"),
    (["lsgm", "eval", "glyphs", "--device", "cpu;x"], "is not a device"),
    (["lsgm", "eval", "glyphs", "--device", "cpu\n"], "is not a device"),
    (["lsgm", "eval", "glyphs", "--batch-size", "1000000000000"], "a number of at most 9 digits"),
    (["lsgm", "eval", "glyphs", "--batch-size", "٣"], "a number of at most 9 digits"),
    (["lsgm", "nll", "a", "--tol", "nan"], "is not a number"),
    (["lsgm", "fid", "a", "b", "--sampler.times", "1", "x"], "is not numbers"),
    (["lsgm", "fid", "a", "b", "--seed", "-1"], "is not a whole number"),
]


@pytest.mark.parametrize(("argv", "said"), REFUSED, ids=lambda value: " ".join(value)[:40])
def test_what_is_no_measuring_or_no_data_is_refused_in_a_sentence(argv: list[str], said: str) -> None:
    with pytest.raises(DataError) as caught:
        CommandLine.parse(argv).checked()
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "lsgm eval glyphs --model a=runs/a --only quality --images all --reference inception=x.npz",
        "lsgm nll a=runs/a b=runs/b --task mnist --no-control-variate --tol 1e-5 --limit 500",
        "lsgm nfe --model a --task t.toml --samplers edm@edm:churn=5,heun --nfe 5,10 --tol 1e-1..1e-5",
        "lsgm fid cifar10:train mine=x.npz --sampler.times 1 0.5 1e-3 --sampler.no-denoise --seed 7",
    ],
)
def test_what_measures_is_taken_apart_checked_and_put_together(text: str) -> None:
    line = CommandLine.parse(text.split()).checked()
    assert line.argv == tuple(text.split())


def test_an_empty_value_stays_where_it_means_something() -> None:
    argv = ("lsgm", "nfe", "--model", "a", "--task", "t", "--tol", "", "--reach", "")
    assert CommandLine.parse(argv).checked().argv == argv


PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="=-"), min_size=1)


@given(st.lists(PLAIN), st.lists(st.tuples(st.sampled_from(["model", "tier", "only"]), st.text())))
def test_a_line_is_taken_apart_and_put_together(words: list[str], options: list[tuple[str, str]]) -> None:
    line = CommandLine("eval", tuple(words), tuple(options))
    assert CommandLine.parse(line.argv) == line


def test_both_spellings_of_an_option_and_flags_are_understood() -> None:
    line = CommandLine.parse(
        ["lsgm", "nll", "a", "--batch_size=5", "--json", "b", "--allow-failures", "--tier=full"]
    )
    assert (line.words, line.values("batch-size"), line.values("tier")) == (("a", "b"), ["5"], ["full"])
    assert line.without("json").argv == CommandLine.parse(line.without("json").argv).argv
    for flag in ("--control-variate", "--no-control-variate", "--no_control_variate"):
        flagged = CommandLine.parse(["lsgm", "nll", flag, "a"])
        assert (flagged.words, flagged.argv[3:]) == (("a",), (flag.replace("_", "-"),))


NAMES = sorted({name for options in OPTIONS.values() for name in options} | {"trust-code", "config", "help"})
VALUES = st.sampled_from(
    ["1", "all", "cpu", "a=b:c", "/x", "~", "../x", "-x", "--", "--out=/x", "$(id)", "a b", "'", "x\ny", "@x"]
)
WORD = VALUES | st.text(max_size=5)
PIECE = st.one_of(
    st.tuples(WORD),
    st.tuples(st.sampled_from([f"--{name}" for name in NAMES]), WORD),
    st.builds(lambda name, value: (f"--{name}={value}",), st.sampled_from(NAMES), WORD),
)


@given(st.sampled_from([*OPTIONS, "train"]), st.lists(PIECE, max_size=5))
def test_a_shown_command_measures_writes_below_and_is_read_by_a_shell_as_it_was_meant(
    command: str, pieces: list[tuple[str, ...]]
) -> None:
    line = copied(["lsgm", command, *(word for piece in pieces for word in piece)])
    assert bool(line.line) != bool(line.why)
    if not line.line:
        return
    assert line.line.isprintable()
    read = CommandLine.parse(shlex.split(line.line)).checked()
    assert read.command in OPTIONS
    assert not foreign_code(read, Path.cwd(), Path.cwd())
    for target in (*read.values("out"), *read.values("export-reference")):
        assert not target.startswith(("/", "~"))
        assert ".." not in target.split("/")
