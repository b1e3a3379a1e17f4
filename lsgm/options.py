"""Command-line options from frozen dataclasses: one bridge over tyro, with errors of one clear line.

A positional argument is written ``recipe: Annotated[Positional[str], arg(metavar="RECIPE")]``.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro
from tyro.conf import Positional, arg

from lsgm.errors import ConfigError, did_you_mean
from lsgm.structure import refuse_huge

__all__ = ["Positional", "arg", "between_commas", "given_options", "parse"]

T = TypeVar("T")

_FRAME = re.compile(r"[─-╿]+")  # the characters that draw boxes
_RULE = re.compile(r"\s*-{3,}\s*")  # what stands for them where standard output is not UTF-8
_OPTION = re.compile(r"(?<![\w-])--[A-Za-z][\w.-]*")

_REWORDED = (
    (
        r"^Error parsing (\S+): invalid literal for int\(\) with .*: (.*)$",
        r"\1 is \2, not a whole number",
    ),
    (
        r"^Error parsing (\S+): no type matching \{None\}\|INT could be instantiated from \[(.*)\]$",
        r"\1 is \2, not a whole number",
    ),
    (
        r"^Error parsing (\S+): no type matching \{None\}\|FLOAT could be instantiated from \[(.*)\]$",
        r"\1 is \2; give a number",
    ),
    (
        r"^Error parsing (\S+): no type matching INT\|\{auto\} could be instantiated from \[(.*)\]$",
        r"\1 is \2; give a whole number, or auto",
    ),
    (r"^Error parsing (\S+): could not convert string to float: (.*)$", r"\1 is \2; give a number"),
    (r"^Missing value for argument '?([^']+)'?\..*$", r"\1 needs a value"),
    (r"^Missing from [^:]*: ((?:--\S+ )?\S+)\s*(.*?)\.?\s*\(required\).*$", r"\1 is missing (\2)"),
    (
        r"^invalid choice (.*) for argument '([^']+)'\. Expected one of \((.*?),?\)$",
        r"\2 is \1; give \3",
    ),
    (r"^Unrecognized options?: (.*)$", r"there is no place for '\1'"),
)


def between_commas(text: str) -> list[str]:
    """Return the words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def parse(
    config_type: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    examples: Sequence[str] = (),
    default: T | None = None,
    may_be_empty: Sequence[str] = (),
) -> T:
    """Return the ``config_type`` that ``argv`` describes, starting from ``default`` where one is given.

    Nested dataclasses become dotted options (``--stage1.optim.lr``); ``--help`` prints the description and
    the worked examples, then leaves with status 0 (SystemExit). ``may_be_empty`` are options of which an
    empty value means something.

    Raises ConfigError, one sentence, for unknown options (with a "did you mean"), for missing, empty or
    malformed values, whole numbers of more than 63 bits, and whatever a dataclass refuses on construction.
    """
    _refuse_empty(argv, prog, may_be_empty)
    shown = description
    if examples:
        shown += "\n\nexamples:\n" + "\n".join(f"  {line}" for line in examples)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = _tyro(config_type, argv, prog, shown, default)
        refuse_huge(parsed)
        return parsed
    except SystemExit as leaving:
        if not leaving.code:
            raise
        text = complaint.getvalue()
    sentence = _unknown_option(config_type, argv, prog, default) or _first_sentence(text)
    link = " " if sentence.endswith("?") else "; "
    raise ConfigError(f"{sentence}{link}`{prog} --help` lists the options")


def _refuse_empty(argv: Sequence[str], prog: str, allowed: Sequence[str]) -> None:
    """Raise ConfigError for an empty word, as a shell makes of a variable that is not set.

    Taken for a path it would be the working directory, and for a name no name at all.
    """
    for index, word in enumerate(argv):
        option, equals, value = word.partition("=")
        if not word.strip():
            option = argv[index - 1] if index else ""
        elif not equals or value.strip() or not _OPTION.fullmatch(option):
            continue
        if option not in allowed:
            what = option if _OPTION.fullmatch(option) else f"word {index + 1} after `{prog}`"
            raise ConfigError(f"{what} is empty; give it a value or leave it out")


def _tyro(config_type: type[T], argv: Sequence[str], prog: str, description: str, default: T | None) -> T:
    # A comment above a field is for readers of the code; only docstrings are help.
    # A union of tables (the VAE's two kinds) is settled by the recipe; it must not become subcommands.
    config = (tyro.conf.HelptextFromCommentsOff, tyro.conf.AvoidSubcommands)
    if default is None:
        return tyro.cli(config_type, args=list(argv), prog=prog, description=description, config=config)
    return tyro.cli(
        config_type, args=list(argv), prog=prog, description=description, default=default, config=config
    )


def _unknown_option(config_type: type[T], argv: Sequence[str], prog: str, default: T | None) -> str:
    """Return a sentence on the first option that does not exist, or an empty string."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        _tyro(config_type, ["--help"], prog, "", default)
    known = set(_OPTION.findall(page.getvalue()))
    for word in argv:
        if word == "--":
            break
        name = word.split("=")[0].replace("_", "-")
        if not _OPTION.fullmatch(name) or name in known:
            continue
        # `--lr` for `--stage1.optim.lr`: the last part alone is the commonest slip.
        tails = [option for option in sorted(known) if option.endswith(f".{name[2:]}")]
        if tails:
            return f"there is no option '{name}'; did you mean {' or '.join(tails[:3])}?"
        return f"there is no option '{name}'{did_you_mean(name, sorted(known))}"
    return ""


def _first_sentence(text: str) -> str:
    """Return what a framed complaint of tyro says, without frame, title and advice."""
    body: list[str] = []
    lines = text.splitlines()
    if "╭" not in text:  # the title is then the line above the first rule
        rules = [index for index, line in enumerate(lines) if _RULE.fullmatch(line)]
        lines = lines[rules[0] + 1 :] if rules else lines
    for line in lines:
        if line.startswith("╭"):
            continue
        inner = "" if _RULE.fullmatch(line) else _FRAME.sub("", line).strip()
        if not inner and body:
            break
        if inner:
            body.append(inner)
    sentence = " ".join(body).rstrip(".") or "the options could not be understood"
    for pattern, words in _REWORDED:
        sentence = re.sub(pattern, words, sentence)
    return sentence


def given_options(argv: Sequence[str], table: str) -> set[str]:
    """Return the fields of a nested table (``sampler``) that a command line names, also at their defaults."""
    words = (word.partition("=")[0].replace("-", "_") for word in argv)
    return {word.partition(".")[2] for word in words if word.startswith(f"__{table}.")}
