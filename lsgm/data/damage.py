"""One sentence for whatever a damaged file makes Pillow, zipfile or zlib raise."""

from __future__ import annotations

import contextlib
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator

from PIL import Image, UnidentifiedImageError

from lsgm.errors import DataError

__all__ = ["reading", "shown"]


def shown(name: str) -> str:
    """Return a file's name so that it can be printed: bytes that are no UTF-8 as ``\\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a damaged file makes Pillow, zipfile or zlib raise into a DataError that names it."""
    try:
        yield
    except UnidentifiedImageError as error:  # its own words name a buffer in memory
        raise DataError(f"{where} is no image, whatever its name says: replace it") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{where} claims more pixels than any image of a set: replace it") from error
    except OSError as error:
        raise DataError(f"{where} cannot be read ({error.strerror or error}): replace it") from error
    except (
        SyntaxError,  # Pillow's word for a broken PNG
        ValueError,
        TypeError,  # its word for a TIFF without a size
        LookupError,
        AttributeError,
        ArithmeticError,
        EOFError,
        MemoryError,
        RuntimeError,  # zipfile's word for an encrypted member
        struct.error,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
    ) as error:
        raise DataError(f"{where} cannot be read ({error or type(error).__name__}): replace it") from error
