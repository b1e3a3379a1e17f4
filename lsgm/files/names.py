"""The one way from a name that somebody chose to the name of a file."""

from __future__ import annotations

import hashlib
import re

__all__ = ["file_name"]

LONGEST = 120
"""Bytes of a file's name, endings and numbers of a caller's not counted."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_FORBIDDEN = frozenset('/\\:*?"<>|')


def file_name(name: str) -> str:
    """Return a name as one part of a path: it leads nowhere, hides nothing, and every system can hold it.

    A name that is all of this is returned as it is. In another, what cannot stay becomes ``-``, and eight
    digits of its sha256 follow, so that two names never share a file. Every text has such a name.
    """
    kept = "".join(c if c.isprintable() and c not in _FORBIDDEN else "-" for c in name)
    kept = kept.lstrip(".-~ ") if name[:1] in (".", "-", "~", " ") else kept
    kept = kept.rstrip(". ")
    while len(kept.encode()) > LONGEST:
        kept = kept[:-1]
    if kept == name and kept and not _RESERVED.fullmatch(kept):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{kept or 'name'}-{digest}" if not _RESERVED.fullmatch(kept) else f"name-{kept}-{digest}"
