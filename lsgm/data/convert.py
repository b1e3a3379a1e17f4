"""What ``--convert`` allows: files that are not plain 8-bit greyscale or RGB, and how each is turned."""

from __future__ import annotations

from dataclasses import dataclass

from lsgm.errors import ConfigError, did_you_mean

__all__ = ["WORDS", "Convert", "parse_convert"]

WORDS = {
    "grey": "greyscale files of a set with colours become RGB of three equal channels",
    "palette": "colours of a palette become RGB, greys greyscale",
    "cmyk": "CMYK and YCbCr become RGB, without a colour profile",
    "alpha": "transparent pixels are laid onto white",
    "alpha-black": "transparent pixels are laid onto black",
    "rotated": "the rotation or mirroring of an EXIF tag is done",
    "16bit": "values v of 16 bits become round(v / 257)",
    "frame": "of several frames the first is taken",
}
"""Word -> what it does."""
_ALL = {"grey", "palette", "cmyk", "alpha", "rotated", "16bit"}


@dataclass(frozen=True)
class Convert:
    """The words of ``--convert``; without any, every file that would need one is refused."""

    words: frozenset[str] = frozenset()

    def __contains__(self, word: str) -> bool:
        return word in self.words

    def __str__(self) -> str:
        return ",".join(sorted(self.words))

    @property
    def alpha(self) -> int | None:
        """The grey value of the background for transparent pixels, None where these are refused."""
        return 0 if "alpha-black" in self.words else 255 if "alpha" in self.words else None


def parse_convert(text: str) -> Convert:
    """Return what comma-separated words allow; ``all`` stands for everything but ``frame``.

    Raises ConfigError for an unknown word.
    """
    words: set[str] = set()
    for word in filter(None, (part.strip().lower() for part in text.split(","))):
        if word != "all" and word not in WORDS:
            hint = did_you_mean(word, WORDS) or f"; give all, or some of {', '.join(WORDS)}"
            raise ConfigError(f"convert has no '{word}'{hint}")
        words |= _ALL if word == "all" else {word}
    if "alpha-black" in words:
        words.discard("alpha")
    return Convert(frozenset(words))
