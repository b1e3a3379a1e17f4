"""A line of `lsgm` taken apart, changed option by option, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lsgm.errors import DataError
from lsgm_reports.reproduce.allowed import OPTIONS, check_line, takes_no_value

__all__ = ["CommandLine"]


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
