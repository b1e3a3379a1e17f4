"""The command of a call becomes that of one of its numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsgm.results.row import Row
from lsgm_reports.reproduce.again import (
    models_of,
    narrowed,
    pair_of,
    with_models,
)
from lsgm_reports.reproduce.allowed import CommandLine

EVAL = "lsgm eval glyphs --model a=x --model b=y --tier quick --json --save png --only iw --only curve"
NLL = "lsgm nll a=x b=y --task t --method nelbo --method ode --times 2 --tol 1e-3 --limit 9 --allow-failures"
NFE = "lsgm nfe --model a=x --task t --samplers heun,edm@edm:churn=5,edm@edm:churn=9,edm --time-budget 5"


def row(metric: str, group: Any, sampler: str | None = None, **rest: Any) -> Row:
    return Row("t@1/quick", "a", metric, 1.0, group=group, sampler=sampler, **rest)


def told(text: str, of: Row, siblings: tuple[Row, ...] = ()) -> str:
    return " ".join(narrowed(CommandLine.parse(text.split()), of, siblings).argv)


def test_a_call_of_two_sides_stays_whole() -> None:
    text = "lsgm fid cifar10:train mine=runs/a --images 500 --sampler.denoise --out here --json"
    line = narrowed(CommandLine.parse(text.split()), row("fid", "quality"), ())
    again = "lsgm fid cifar10:train mine=runs/a --images 500 --sampler.denoise --out here"
    assert " ".join(with_models(line, ["mine=runs/a"]).argv) == again


WORD = st.text(st.characters(codec="utf-8", exclude_characters="=-"), min_size=1)


@given(st.lists(WORD), st.lists(st.tuples(st.sampled_from(["model", "tier", "only"]), st.text())))
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


@pytest.mark.parametrize(
    ("of", "only"),
    [
        (row("frechet_glyphs", "quality"), "quality"),
        (row("paired_frechet_glyphs", "quality"), "quality"),
        (row("parameters", "cost"), "quality"),
        (row("nelbo_bpd", "likelihood"), "nelbo"),
        (row("paired_iw_nats", "likelihood"), "iw"),
        (row("ode_nll_term_cross_entropy/top_nats", "terms"), "ode"),
    ],
)
def test_an_evaluation_is_narrowed_to_one_measurement(of: Row, only: str) -> None:
    assert told(EVAL, of) == f"lsgm eval glyphs --model a=x --model b=y --tier quick --only {only}"


def test_a_point_of_the_curve_that_the_headline_gives_needs_both() -> None:
    headline = row("frechet_glyphs", "quality", "heun(steps=9)")
    point, other = (row("frechet_glyphs", "curve", f"heun(steps={steps})") for steps in (9, 3))
    assert told(EVAL, point, (headline,)).endswith("--only quality --only curve")
    assert told(EVAL, other, (headline,)).endswith("--tier quick --only curve")


def test_settings_of_other_methods_are_left_out() -> None:
    shared = "lsgm nll a=x b=y --task t"
    assert told(NLL, row("nelbo_nats", "likelihood")) == (
        f"{shared} --times 2 --limit 9 --allow-failures --method nelbo"
    )
    assert told(NLL, row("ode_nll_bpd", "likelihood")) == (
        f"{shared} --tol 1e-3 --limit 9 --allow-failures --method ode"
    )


@pytest.mark.parametrize("flag", ["--control-variate", "--no-control-variate"])
def test_whether_there_was_a_control_variate_is_said_again_of_the_bound_that_has_one(flag: str) -> None:
    shared = "lsgm nll a=x --task t"
    line = f"{shared} --method nelbo --method iw {flag} --limit 9"
    assert told(line, row("nelbo_nats", "likelihood")) == f"{shared} {flag} --limit 9 --method nelbo"
    assert told(line, row("nelbo_term_tail_nats", "terms")) == f"{shared} {flag} --limit 9 --method nelbo"
    assert told(line, row("iw_nats", "likelihood")) == f"{shared} --limit 9 --method iw"


@pytest.mark.parametrize(
    ("sampler", "nfe", "asked"),
    [
        ("heun(steps=3)", 6.0, "--samplers heun --nfe 6 --tol none"),
        (
            "edm(steps=3, grid=edm, churn=9)",
            5.0,
            "--samplers edm@edm:churn=5,edm@edm:churn=9 --nfe 5 --tol none",
        ),
        ("edm(steps=3)", 5.0, "--samplers edm --nfe 5 --tol none"),
        ("dopri5(rtol=1e-05, atol=1e-05)", 71.3, "--samplers dopri5 --tol 1e-05"),
        ("ddim(steps=4, grid=logsnr, eta=1)", 4.0, "--samplers ddim@logsnr:eta=1 --nfe 4 --tol none"),
    ],
)
def test_a_sweep_is_narrowed_to_one_point(sampler: str, nfe: float, asked: str) -> None:
    assert told(NFE, row("fid", "curve", sampler, nfe_mean=nfe)) == f"lsgm nfe --model a=x --task t {asked}"


def test_what_is_derived_from_curves_keeps_them() -> None:
    assert told(NFE, row("nfe_to_reach", "reach", "heun(steps=3)")) == NFE.removesuffix(" --time-budget 5")


def test_the_models_of_a_row_are_its_own_or_both_it_compares() -> None:
    names = ["a", "b", "a - b"]
    assert models_of(row("fid", "quality"), names) == ["a"]
    difference = Row("t@1/quick", "a - b", "paired_fid", 1.0, group="quality")
    assert models_of(difference, ["a", "b", "c"]) == ["a", "b"]
    assert models_of(row("speedup_nfe", "reach"), names) == names
    custom = Row("t@1/quick-custom", "a", "nelbo_nats", 1.0, group="likelihood")
    assert models_of(custom, names) == names


def test_models_are_words_of_one_command_and_options_of_others() -> None:
    assert with_models(CommandLine.parse(NLL.split()), ["z"]).words == ("z",)
    assert with_models(CommandLine.parse(EVAL.split()), ["z"]).values("model") == ["z"]


@pytest.mark.parametrize("text", ["", "heun", "(steps=1)"])
def test_what_is_no_label_narrows_no_sweep(text: str) -> None:
    assert "--samplers heun,edm@edm:churn=5,edm@edm:churn=9,edm" in told(NFE, row("fid", "curve", text))


def test_the_two_of_a_difference_are_found_among_many_at_once() -> None:
    names = [f"m{k}" for k in range(30_000)]
    assert pair_of("m29999 - m7", names, (" - ", " / ")) == ["m29999", "m7"]
    assert pair_of("m29999 / m7", names, (" - ", " / ")) == ["m29999", "m7"]
    assert pair_of("m29999 / m7", names, (" - ",)) == []
    assert pair_of("a - b - c", ["c", "a - b", "a", "b - c"], (" - ",)) == ["a - b", "c"]
