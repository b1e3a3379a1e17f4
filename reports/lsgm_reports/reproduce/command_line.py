"""A line of `lsgm` taken apart, changed option by option, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = ["CommandLine"]

FLAGS = ("json", "allow-failures", "control-variate", "sampler.denoise")
"""Options of the measuring commands that take no value; every other one takes one."""


@dataclass(frozen=True)
class CommandLine:
    """``lsgm COMMAND WORD... --NAME VALUE...``; options keep their order, and what repeats is there twice."""

    command: str
    words: tuple[str, ...] = ()
    options: tuple[tuple[str, str | None], ...] = ()
    """Names without dashes at the front, ``no-`` of a flag included; the value of a flag is None."""

    @classmethod
    def parse(cls, argv: Sequence[str]) -> CommandLine:
        """Take apart ``("lsgm", "eval", "glyphs", "--model", "a")``; ``--model=a`` and ``--a_b`` too."""
        words: list[str] = []
        options: list[tuple[str, str | None]] = []
        rest = list(argv[2:])
        while rest:
            word = rest.pop(0)
            if not word.startswith("--") or word == "--":
                words += [] if word == "--" else [word]
                continue
            name, equals, value = word[2:].partition("=")
            name = name.replace("_", "-")
            if name.removeprefix("no-") in FLAGS:
                options.append((name, None))
            else:
                options.append((name, value if equals else rest.pop(0) if rest else ""))
        return cls(argv[1], tuple(words), tuple(options))

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
        options = [
            part
            for name, value in self.options
            # A value that begins with a dash would be read as an option.
            for part in ([f"--{name}={value}"] if value and value.startswith("-") else [f"--{name}", value])
            if part is not None
        ]
        return ("lsgm", self.command, *self.words, *options)
