"""What a command from a results folder may say: the commands that measure rows, with values that are data.

Everything else is refused, so that no folder decides what is run or where it is written. A new option of
these commands has to be entered here, by the kind of its value; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lsgm.errors import DataError
from lsgm.files.names import shown

__all__ = ["DATASETS", "OPTIONS", "WORDS", "CommandLine", "Kind", "check_line", "kind_of", "takes_no_value"]

Kind = Literal[
    "flag", "text", "count", "seed", "number", "numbers", "device", "place", "target", "task", "model",
    "side", "space",
]  # fmt: skip
"""``place`` is read, ``target`` written; ``model``, ``side``, ``space`` and ``task`` may name code."""

_KINDS: Mapping[Kind, str] = {
    "flag": "allow-failures json control-variate sampler.denoise",
    "text": "tier save convert only report method step-control solver divergence dequantise samplers metric "
    "reach sampler.name sampler.grid",
    "count": "images batch-size limit samples times steps probes at-once reference-images sampler.steps "
    "sampler.corrector-steps",
    "seed": "seed first-seed",
    "number": "tol rtol atol time-budget sampler.rtol sampler.atol sampler.time-end sampler.temperature "
    "sampler.rho sampler.eta sampler.snr sampler.churn sampler.churn-min sampler.churn-max "
    "sampler.churn-noise",
    "numbers": "sampler.times",
    "device": "device",
    "place": "data reference",
    "target": "out export-reference",
    "task": "task",
    "model": "model",
    "space": "extractor",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}
_TAKEN = {
    "eval": "model tier out extractor reference export-reference save images data convert only batch-size "
    "device allow-failures json report",
    "nll": "task data convert method tier limit samples times control-variate tol rtol atol step-control "
    "solver steps probes divergence dequantise out batch-size at-once device json allow-failures",
    "nfe": "model task samplers nfe tol images metric reach extractor reference tier data convert out "
    "time-budget batch-size device json report",
    "fid": "images reference-images seed extractor out batch-size convert device json first-seed",
}
_TEXTS = {"nfe": ("nfe", "tol")}
"""Options that are numbers elsewhere and lists of them in one command."""

OPTIONS: Mapping[str, Mapping[str, Kind]] = {
    command: {
        **{name: "text" if name in _TEXTS.get(command, ()) else _KIND_OF[name] for name in names.split()},
        **{name: kind for name, kind in _KIND_OF.items() if command == "fid" and "sampler." in name},
    }
    for command, names in _TAKEN.items()
}
"""The commands that measure rows: option without dashes -> what its value is."""

WORDS: Mapping[str, tuple[Kind, ...]] = {
    "eval": ("task",),
    "nll": ("model",),
    "nfe": (),
    "fid": ("side", "side"),
}
"""What the words without an option are; the last kind is that of all further ones."""

DATASETS = ("glyphs", "mnist", "mnist-fixed", "omniglot", "omniglot-lake28", "cifar10", "celebahq256")
"""Names that stand before a colon and are no module: ``cifar10:train`` is a split."""

_PATTERNS: Mapping[str, tuple[str, str]] = {
    "count": (r"[0-9]{1,9}|all", "a number of at most 9 digits"),
    "seed": (r"[0-9]{1,19}", "a whole number"),
    "number": (r"[0-9.]{1,40}([eE][+-]?[0-9]{1,3})?|inf", "a number"),
    "numbers": (r"[0-9.eE+-]{1,40}( [0-9.eE+-]{1,40})*", "numbers"),
    "device": (r"[a-z]{1,20}(:[0-9]{1,3})?", "a device, such as cpu or cuda:1"),
}
_EMPTY = ("save", "tol", "reach")
"""Options of which an empty value means something."""


def takes_no_value(command: str, name: str) -> bool:
    """Say whether an option is a flag of a command: ``json``, ``no-json``, ``sampler.no-denoise``."""
    table, dot, flag = name.rpartition(".")
    return OPTIONS.get(command, {}).get(f"{table}{dot}{flag.removeprefix('no-')}") == "flag"


def kind_of(command: str, index: int) -> Kind | None:
    """Return what the word number ``index`` of a command is, None where it takes no such word."""
    kinds = WORDS.get(command, ())
    if index < len(kinds):
        return kinds[index]
    return "model" if command == "nll" else None


def check_line(
    command: str,
    words: tuple[str, ...],
    options: tuple[tuple[str, str | None], ...],
    whose: str = "the recorded command",
) -> None:
    """Raise DataError, which ``whose`` opens, unless a line measures rows and all that it says is data."""
    if command not in OPTIONS:
        raise DataError(
            f"{whose} is `lsgm {_part(command)}`, which measures no row; only {', '.join(OPTIONS)} are run "
            "again, so type anything else yourself if you know where it comes from"
        )
    problem = next((said for said in _problems(command, words, options) if said), "")
    if problem:
        raise DataError(
            f"{whose} `lsgm {command}` {problem}; it is not run: type what you want of it yourself"
        )


def _problems(
    command: str, words: tuple[str, ...], options: tuple[tuple[str, str | None], ...]
) -> Iterator[str]:
    """Yield what is wrong with each word and option of a command, nothing where it is data."""
    for index, word in enumerate(words):
        if kind_of(command, index) is None:
            yield f"has the word '{_part(word)}', for which it has no place"
        yield _of_text(word)
    for name, value in options:
        yield _of_option(command, name, value)


def _of_option(command: str, name: str, value: str | None) -> str:
    if takes_no_value(command, name):
        return ""
    kind = OPTIONS[command].get(name)
    if kind is None or value is None:
        return f"has the option --{_part(name)}, which is none that measuring needs"
    if value == "" and name in _EMPTY:
        return ""
    pattern, wanted = _PATTERNS.get(kind, (r"(?s).*", ""))
    if not re.fullmatch(pattern, value):
        return f"has --{name} '{_part(value)}', which is not {wanted}"
    return _of_text(value)


def _of_text(text: str) -> str:
    """Return what a parser would take for an option, or a terminal not print as it is."""
    if not text.strip():
        return "has an empty word"
    if text.startswith("-"):
        return f"has the value '{_part(text)}', which would be read as an option"
    if not text.isprintable():
        return f"has the value '{_part(text)}', which does not print as it is"
    return ""


def _part(text: str) -> str:
    return shown(text)[:60]


# A line of `lsgm` taken apart, changed option by option, and put together again


@dataclass(frozen=True)
class CommandLine:
    """``lsgm COMMAND WORD... --NAME VALUE...``; options keep their order, and what repeats is there twice."""

    command: str
    words: tuple[str, ...] = ()
    options: tuple[tuple[str, str | None], ...] = ()
    """Names without dashes at the front, ``no-`` of a flag included; the value of a flag is None."""

    @classmethod
    def parse(cls, argv: Sequence[str]) -> CommandLine:
        """Take apart ``("lsgm", "eval", "glyphs", "--model", "a")``; ``--model=a`` and ``--a_b`` too.

        Whether it may be run is not asked here but by `checked`. Raises DataError for no line of `lsgm`.
        """
        if len(argv) < 2 or argv[0] != "lsgm":
            raise DataError("the recorded command is none of lsgm; it is not run, and not shown")
        command, words, options = argv[1], list[str](), list[tuple[str, str | None]]()
        rest = list(argv[2:])
        while rest:
            word = rest.pop(0)
            if word == "--":
                words += rest
                break
            if not word.startswith("--"):
                words.append(word)
                continue
            name, equals, value = word[2:].partition("=")
            name = name.replace("_", "-")
            if takes_no_value(command, name):
                options.append((name, None))
                continue
            value = value if equals else rest.pop(0) if rest else ""
            if OPTIONS.get(command, {}).get(name) == "numbers":
                while rest and not rest[0].startswith("--"):
                    value += f" {rest.pop(0)}"
            options.append((name, value))
        return cls(command, tuple(words), tuple(options))

    def checked(self, whose: str = "the recorded command") -> CommandLine:
        """Return the line. Raises DataError unless it measures rows and all it says is data (`allowed`)."""
        check_line(self.command, self.words, self.options, whose)
        return self

    def values(self, name: str) -> list[str]:
        """Return what an option was given, once for each time."""
        return [value for key, value in self.options if key == name and value is not None]

    def without(self, *names: str) -> CommandLine:
        """Return the line without these options."""
        return replace(self, options=tuple(option for option in self.options if option[0] not in names))

    def with_values(self, name: str, *values: str) -> CommandLine:
        """Return the line with an option given these values and no other."""
        return replace(self, options=(*self.without(name).options, *((name, value) for value in values)))

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole line, ``lsgm`` first."""
        options = [part for name, value in self.options for part in self._option(name, value)]
        return ("lsgm", self.command, *self.words, *options)

    def _option(self, name: str, value: str | None) -> list[str]:
        if value is None:
            return [f"--{name}"]
        if OPTIONS.get(self.command, {}).get(name) == "numbers":
            return [f"--{name}", *value.split(" ")]
        # A value that begins with a dash would be read as an option.
        return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]
