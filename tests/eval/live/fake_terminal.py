"""A terminal of a few lines of code: it obeys what the table writes, and shows what one would see."""

from __future__ import annotations

import io
import re

__all__ = ["FakeTerminal"]

TOKEN = re.compile(r"\x1b\[\??\d*[A-Za-z]|.|\n", re.DOTALL)


class FakeTerminal(io.StringIO):
    """Keeps the lines that are seen; knows line feeds, returns, moves up, wiped lines and a hidden cursor."""

    def __init__(self, width: int = 80) -> None:
        super().__init__()
        self.lines, self.row, self.column, self.width = [""], 0, 0, width
        self.hidden = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        for token in TOKEN.findall(text):
            self._obey(token)
        return len(text)

    @property
    def seen(self) -> list[str]:
        """The lines without blanks at their ends, up to the last that is not empty."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n").split("\n")

    def _obey(self, token: str) -> None:
        if token == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif token == "\r":
            self.column = 0
        elif token.endswith("A") and token[0] == "\x1b":
            self.row = max(0, self.row - int(token[2:-1] or 1))
        elif token == "\x1b[J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        elif token == "\x1b[2K":
            self.lines[self.row] = ""
        elif token in ("\x1b[?25l", "\x1b[?25h"):
            self.hidden = token.endswith("l")
        elif token[0] == "\x1b":
            raise AssertionError(f"the table wrote {token!r}, which no terminal here knows")
        else:
            self._print(token)

    def _print(self, letter: str) -> None:
        if self.column == self.width:
            self._obey("\n")
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + letter + line[self.column + 1 :]
        self.column += 1
