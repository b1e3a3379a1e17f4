"""Values that have no business where they are put: numbers, texts, names, and what would run if it could."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["CANARY", "NUMBERS", "TEXTS", "VALUES", "Many", "Raw", "nested"]


class Raw(NamedTuple):
    """Text that is written as it is, whether the format knows it or not."""

    text: str


class Many(NamedTuple):
    """An entry of a list that stands there so many times."""

    entry: Any
    count: int


CANARY = "executed"
"""The file that whatever is executed makes, beside the folder a command runs in."""


def nested(depth: int, opening: str = "[", closing: str = "]") -> Raw:
    """Return lists or tables within one another."""
    return Raw(opening * depth + closing * depth)


NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**6, 10**9,
    10**12, -(2**31), -(2**63), -(2**63) - 1, 10**400, -0.0, 0.5, 1e-320, 1e-12, 1e12, 1e300, 1.7e308,
    -1e308, 3.999, float("nan"), float("inf"), float("-inf"), Raw("1e999"), Raw("-1e999"),
    Raw("1" + "0" * 5000), Raw("-" + "9" * 5000), Raw("0." + "3" * 5000), Raw("1e" + "9" * 30), Raw("00"),
    Raw("0x10"),
)  # fmt: skip

TEXTS: tuple[str, ...] = (
    "", " ", "\n", "a\nb", "\r\n", "\t", "\0", "a\0b", "\x1b[2J\x1b]0;owned\x07", "\x7f", "\x85", "\u2028",
    "\u202egnp.exe", "\u2066evil\u2069", "\u200b", "\ufeff", "\ud800", "\udfff\ud800", "é" * 300,
    "e\u0301" * 60, "../../../beside/owned", "/beside/owned", "..", ".", "/", "//", "~", "~root/x",
    "../here/out", "./run", "C:\\owned", "\\\\server\\share", "con", "nul.txt", "x/../../beside/owned", "-",
    "--out", "--help", "--run", "=1+1", "=cmd|'/c calc'!A0", "+1", "-1+1", "@SUM(1)", "\t=1", '"', "'",
    "`touch executed`", "$(touch ../executed)", "; touch ../executed", "| touch ../executed", "%s%n%d",
    "{0.__class__}", "{}", "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "&lt;",
    "javascript:alert(1)", "\\input{/etc/passwd}", "\\write18{touch ../executed}", "$x_1$", "a & b \\\\ c",
    "|", "![x](http://x/y.png)", "evil:factory", "evil", "name=evil:factory", "here.evil:factory",
    "os:system", "torchscript:evil.ts", "torchscript:/beside/evil.ts", "dinov2:.:m", "dinov2:hub:m",
    "export:evil.pt2", "glyphs", "inception", "http://127.0.0.1:9/x", "file:///etc/passwd", "/dev/zero",
    "/dev/stdin", "/proc/self/mem", "/etc/passwd", "nan", "inf", "-inf", "1", "1.0", "true", "null", "None",
    "1e400", "0x10", "١٢", "𝟙", "1_000", "NaN", "float32", "float64", "complex64", "torch.float32", "cuda",
    "cuda:99", "cpu", "auto", "meta", "mps", "a" * 300, "a" * 5000, "x" * 10**6, "../" * 2000,
    "/".join("a" * 1000), "a:" * 500, "#" * 70, "1" * 5000,
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [{}], {"": None}, [None], {"a": 1}, [1, "a", None], [0.5, 1.5], ["a"],
    "a", [[1, 2], [3]], {"a": {"b": {"c": []}}}, {"__class__": "x"}, {"name": "a", "value": 1}, nested(50),
    nested(100_000), nested(100_000, '{"a":', ""), nested(2_000), [Many(0, 10**6)], [Many({}, 10**5)],
    [Many("a", 10**5)], [Many([[]], 10**5)], Raw(""), Raw("undefined"), Raw("[1,]"), Raw("{"),
    Raw("1979-05-27"), Raw("1979-05-27T07:32:00Z"), Raw("07:32:00"), Raw("'a'"), Raw('"\\ud800"'),
    Raw('"\\x41"'), Raw("// a"),
)  # fmt: skip
