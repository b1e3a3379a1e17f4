"""Errors meant for the person at the keyboard: one clear sentence and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right. The command line prints it on one line and exits with status 2."""


class ConfigError(UserError):
    """A recipe or an option with an unknown name or a value out of range."""


class DataError(UserError):
    """A data file that is missing, truncated, unreadable or not the one it should be."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, of another model or of a newer format."""


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest candidate, or an empty string where none is close."""
    close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
