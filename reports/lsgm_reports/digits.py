"""How many digits a number deserves: as many as its interval leaves certain."""

from __future__ import annotations

import math

__all__ = ["decimals_for", "error_bar", "fixed", "minus", "plain", "scaled"]

_LARGE, _SMALL = 1e15, 1e-9
"""Beyond these a number is shown with its power of ten."""
_LOPSIDED = 1.5
"""From this ratio of the two arms of an interval on, both are printed."""


def decimals_for(error: float) -> int:
    """Return the decimals at which a half-width keeps one significant digit, or two where the first is 1.

    Rounding 0.14 to 0.1 would lose 40 % of it, rounding 0.94 to 0.9 loses 4 %. Negative for errors of tens.
    """
    error = min(max(error, 1e-300), 1e300)  # whose powers of ten are floats
    exponent = math.floor(math.log10(error))
    leading = round(error / 10**exponent, 1)
    if leading >= 10:  # 0.99 is 1.0 at two digits
        exponent, leading = exponent + 1, 1.0
    return -exponent + (1 if leading < 2 else 0)


def fixed(value: float, decimals: int) -> str:
    """Return a number with that many decimals (negative: rounded to tens, hundreds), never ``-0``.

    What would be a long row of digits, which no float has, is shown with its power of ten.
    """
    if abs(value) >= _LARGE or decimals > 20:
        return minus(f"{value:.3g}")
    rounded = round(value, decimals)
    text = f"{rounded:.{max(decimals, 0)}f}"
    return text.removeprefix("-") if float(text) == 0 else minus(text)


def minus(text: str) -> str:
    """Return a number with a minus sign for a hyphen in front."""
    return f"−{text[1:]}" if text.startswith("-") else text


def plain(value: float) -> str:
    """Return a number without an interval: whole numbers whole, others with four significant digits."""
    if not math.isfinite(value):
        return minus(str(value))
    if value == int(value) and abs(value) < 1e15:
        return minus(f"{int(value):,}" if abs(value) >= 10_000 else str(int(value)))
    if abs(value) >= 1000:
        return fixed(value, 0)
    if abs(value) >= 1e-4:
        decimals = 3 - math.floor(math.log10(abs(value)))
        return fixed(value, min(decimals, 7))
    return minus(f"{value:.3g}")


def scaled(value: float, power: int) -> float:
    """Return a number times ten to a power, in two steps, since ``1e324`` is no float and ``1e-324`` zero."""
    first = power // 2
    return value * 10.0**first * 10.0 ** (power - first)


def error_bar(value: float, low: float | None, high: float | None) -> str:
    """Return ``117.3 ± 0.4``, or ``5.2 +0.9 −0.3`` where lopsided; the number alone without an interval."""
    if low is None or high is None or high == low or not math.isfinite(high / 2 - low / 2):
        return plain(value)
    largest = max(abs(value), abs(low), abs(high))
    if not _SMALL <= largest < _LARGE:
        power = int(f"{largest:e}".partition("e")[2])
        return f"({error_bar(*(scaled(number, -power) for number in (value, low, high)))})e{power}"
    # An interval at the level of rounding errors is none.
    if high - low <= 1e-12 * max(abs(value), 1e-100):
        return plain(value)
    up, down = high - value, value - low
    half = (high - low) / 2
    if min(up, down) <= 0 or max(up, down) > _LOPSIDED * min(up, down):
        smaller = min(arm for arm in (up, down) if arm > 0)
        # One arm may be next to nothing; digits follow the interval, not that arm.
        decimals = decimals_for(max(smaller, half / 10))
        arms = f"{_signed(up, decimals, '+')} {_signed(-down, decimals, '−')}"
        return f"{fixed(value, decimals)} {arms}"
    decimals = decimals_for(half)
    return f"{fixed(value, decimals)} ± {fixed(half, decimals)}"


def _signed(arm: float, decimals: int, usual: str) -> str:
    """Return one end of the interval relative to the value; an end beyond the value shows its true sign."""
    sign = ("+" if arm > 0 else "−") if round(arm, decimals) != 0 else usual
    return f"{sign}{fixed(abs(arm), decimals)}"
