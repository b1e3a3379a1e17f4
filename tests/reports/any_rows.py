"""Rows that no one has seen: a hypothesis strategy for whatever `Row` allows."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lsgm.results.row import Row, row_from

__all__ = ["any_row", "any_rows"]

_WORDS = (
    "a",
    "lsgm",
    "<script>alert(1)</script>",
    "a|b_c & 50%",
    "[x](y)",
    "*",
    "\\",
    "--- | ---",
    'say "no", or',
)
texts = st.one_of(
    st.sampled_from(_WORDS), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
)
"""Any character that has an encoding but the zero byte: commas, quotes, line ends, escapes, emptiness."""
names = texts.filter(lambda text: bool(text.strip()))
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 0.1 + 0.2]),
    st.floats(-1e3, 1e3),
)
costs = st.one_of(st.sampled_from([0.0, 5e-324, 1.7e308]), st.floats(0, 1e6), st.floats(0, 1.7e308))
whole = st.one_of(st.integers(0, 10**6), st.integers(0, 2**63 - 1))
_METRICS = (
    *(
        "frechet_glyphs",
        "fid",
        "inception_score",
        "recall_glyphs",
        "nelbo_nats",
        "iw_bpd",
        "nfe",
        "parameters",
    ),
    *(
        "paired_nelbo_nats",
        "paired_frechet_glyphs",
        "nelbo_term_cross_entropy/0_nats",
        "iw_term_terminal_nats",
        "nelbo_term_tail_nats",
    ),
    *("nfe_to_reach", "flops_to_reach", "speedup_nfe", "speedup_vs_reference_seconds"),
)
_SAMPLERS = (
    *("heun(steps=20)", "dopri5(rtol=0.001, atol=0.001)"),
    *("iw(samples=1000)", "nelbo(times=16)", "nelbo(times=16, control_variate=off)"),
)
_TASKS = ("glyphs@1/quick", "cifar10@1/full", "omniglot-lake28@1/quick", "mnist@1/quick-limit-5")
_DATA = ("glyphs@1@ab", "cifar10@1@cd", "mnist@1@ef")


@st.composite
def any_row(draw: st.DrawFn) -> Row:
    """Draw a valid row; what most tables look at is often there."""

    def maybe(strategy: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | strategy)

    def word(known: tuple[str, ...]) -> st.SearchStrategy[str]:
        return st.one_of(st.sampled_from(known), names)

    low, high = sorted((draw(numbers), draw(numbers)))
    given = {
        "task": draw(word(_TASKS)),
        "model": draw(word(("lsgm", "vae", "a / b"))),
        "metric": draw(word(_METRICS)),
        "value": maybe(numbers),
        "bias": maybe(numbers),
        "ci_low": draw(st.sampled_from([None, low])),
        "ci_high": draw(st.sampled_from([None, high])),
        "group": maybe(st.sampled_from(["quality", "likelihood", "terms", "cost", "curve", "reach"])),
        "higher_is_better": maybe(st.booleans()),
        "sampler": maybe(word(_SAMPLERS)),
        "dataset": maybe(word(_DATA)),
        "target": maybe(word(("frechet_glyphs<=12.3",))),
        "nfe_mean": maybe(costs),
        "nfe_max": maybe(costs),
        "seconds": maybe(costs),
        "decoder_seconds": maybe(costs),
        "flops_per_image": maybe(costs),
        "decoder_flops_per_image": maybe(costs),
        "n": maybe(whole),
        "peak_bytes": maybe(whole),
    }
    rest = ("split", "extractor", "reference_sha256", "seeds", "git_revision", "run_id", "unit", "note")
    rest += ("levels_sha256", "versions", "checkpoint_sha256", "manifest")
    return row_from(given | {key: maybe(texts) for key in rest})


def any_rows(most: int = 8) -> st.SearchStrategy[list[Row]]:
    """Return lists of valid rows, the empty one among them."""
    return st.lists(any_row(), max_size=most)
