"""One sentence for whatever a damaged file makes Pillow, zipfile or zlib raise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from PIL import Image, UnidentifiedImageError

from lsgm.errors import DataError, UserError
from lsgm.files.shown import said

__all__ = ["reading"]


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a damaged file makes Pillow, zipfile or zlib raise into a DataError that names it."""
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError as error:  # its own words name a buffer in memory
        raise DataError(f"{where} is no image, whatever its name says: replace it") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{where} claims more pixels than any image of a set: replace it") from error
    # A list of what is raised for damaged bytes would never be whole: SyntaxError for a PNG, TypeError for a
    # TIFF, RuntimeError for an encrypted zip, TokenError for an array's header, MemoryError for any size.
    except Exception as error:
        raise DataError(f"{where} cannot be read ({_words(error)}): replace it") from error


def _words(error: Exception) -> str:
    """Return what an error says, on one line and without the place that an OSError repeats."""
    return (isinstance(error, OSError) and error.strerror) or said(error)
