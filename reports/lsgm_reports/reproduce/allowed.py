"""What a command from a results folder may say: the commands that measure rows, with values that are data.

Everything else is refused, so that no folder decides what is run or where it is written. A new option of
these commands has to be entered here, by the kind of its value; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lsgm.errors import DataError
from lsgm.files.names import shown

_KINDS = {
    "flag": "allow-failures json control-variate sampler.denoise",
    "text": "tier save convert only report method step-control solver divergence dequantise samplers metric "
    "reach sampler.name sampler.grid sampler.precision execution coordinate",
    "count": "images batch-size workers limit samples times steps probes at-once reference-images "
    "sampler.steps sampler.corrector-steps",
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
"""Kind of value -> options. ``place`` is read, ``target`` written; ``model``, ``space``, ``task`` and, of
words, ``side`` may name code."""
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}
_TAKEN = {
    "eval": "model tier out extractor reference export-reference save images data convert only batch-size "
    "workers execution device allow-failures json report first-seed",
    "nll": "task data convert method tier limit samples times control-variate tol rtol atol step-control "
    "coordinate solver steps probes divergence dequantise out batch-size at-once device json "
    "allow-failures",
    "nfe": "model task samplers nfe tol images metric reach extractor reference tier data convert out "
    "time-budget batch-size execution device json report first-seed",
    "fid": "images reference-images seed extractor out batch-size workers convert device json first-seed",
}
_TEXTS = {"nfe": ("nfe", "tol")}
"""Options that are numbers elsewhere and lists of them in one command."""

OPTIONS: Mapping[str, Mapping[str, str]] = {
    command: {
        **{name: "text" if name in _TEXTS.get(command, ()) else _KIND_OF[name] for name in names.split()},
        **{name: kind for name, kind in _KIND_OF.items() if command == "fid" and "sampler." in name},
    }
    for command, names in _TAKEN.items()
}
"""The commands that measure rows: option without dashes -> what its value is."""

WORDS: Mapping[str, tuple[str, ...]] = {
    "eval": ("task",),
    "nll": ("model",),
    "nfe": (),
    "fid": ("side", "side"),
}
"""What the words without an option are; the last kind is that of all further ones."""

DATASETS = ("glyphs", "mnist", "mnist-fixed", "omniglot", "omniglot-lake28", "cifar10", "celebahq256")
"""Names that stand before a colon and are no module: ``cifar10:train`` is a split."""

_PATTERNS = {
    "count": (r"[0-9]{1,9}|all|auto", "a number of at most 9 digits"),
    "seed": (r"[0-9]{1,19}", "a whole number"),
    "number": (r"[0-9.]{1,40}([eE][+-]?[0-9]{1,3})?|inf", "a number"),
    "numbers": (r"[0-9.eE+-]{1,40}( [0-9.eE+-]{1,40})*", "numbers"),
    "device": (r"[a-z]{1,20}(:[0-9]{1,3})?", "a device, such as cpu or cuda:1"),
}
_EMPTY = ("save", "tol", "reach")
"""Options of which an empty value means something."""


def _kind_of(command: str, name: str) -> str:
    """Return what the value of an option is, "" of none; a flag has two names: ``json`` and ``no-json``."""
    known = OPTIONS.get(command, {})
    table, dot, flag = name.rpartition(".")
    return "flag" if known.get(f"{table}{dot}{flag.removeprefix('no-')}") == "flag" else known.get(name, "")


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
            kind = _kind_of(command, name)
            if kind == "flag":
                options.append((name, None))
                continue
            value = value if equals else rest.pop(0) if rest else ""
            while kind == "numbers" and rest and not rest[0].startswith("--"):
                value += f" {rest.pop(0)}"
            options.append((name, value))
        return cls(command, tuple(words), tuple(options))

    def valued(self) -> Iterator[tuple[str, str, str | None]]:
        """Yield of every word, and then of every option, its kind ("" of none), its name and what it says."""
        kinds = WORDS.get(self.command, ())
        for index, word in enumerate(self.words):
            yield kinds[index] if index < len(kinds) else "model" * (self.command == "nll"), "", word
        for name, value in self.options:
            yield _kind_of(self.command, name), name, value

    def checked(self) -> CommandLine:
        """Return the line. Raises DataError unless it measures rows and all that it says is data."""
        if self.command not in OPTIONS:
            raise DataError(
                f"the recorded command is `lsgm {_part(self.command)}`, which measures no row; only "
                f"{', '.join(OPTIONS)} are run again, so type anything else yourself if you know where it "
                "comes from"
            )
        for each in self.valued():
            if problem := _problem(*each):
                raise DataError(
                    f"the recorded command `lsgm {self.command}` {problem}; it is not run: type what you "
                    "want of it yourself"
                )
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
        if _kind_of(self.command, name) == "numbers":
            return [f"--{name}", *value.split(" ")]
        # A value that begins with a dash would be read as an option.
        return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def _problem(kind: str, name: str, value: str | None) -> str:
    """Return why a word or an option is no data: also what a parser would take for an option."""
    if kind == "flag" or (value == "" and name in _EMPTY):
        return ""
    if value is None or (name and not kind):
        return f"has the option --{_part(name)}, which is none that measuring needs"
    if not kind:
        return f"has the word '{_part(value)}', for which it has no place"
    pattern, wanted = _PATTERNS.get(kind, (r"(?s).*", ""))
    if not re.fullmatch(pattern, value):
        return f"has --{name} '{_part(value)}', which is not {wanted}"
    if not value.strip():
        return "has an empty word"
    if value.startswith("-"):
        return f"has the value '{_part(value)}', which would be read as an option"
    return "" if value.isprintable() else f"has the value '{_part(value)}', which does not print as it is"


def _part(text: str) -> str:
    return shown(text)[:60]
