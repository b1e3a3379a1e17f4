"""Bytes of any file: flipped, cut, put in, taken out, put in another order."""

from __future__ import annotations

from fuzz.draws import Draws

__all__ = ["any_file"]

_PIECES = (
    b"\0",
    b"\xff" * 8,
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x7fELF",
    b"PK\x03\x04",
    b"\x80\x02.",
    b"%PDF",
    b"\r\n",
    b"\0" * 4096,
    b"\x1b[31m",
    b"\xed\xa0\x80",
    b"9" * 5000,
    b"[" * 50_000,
    b"\n" * 100_000,
)


def any_file(content: bytes, draws: Draws) -> bytes:
    """Return a file that differs by a few bytes, or by a piece."""
    out = bytearray(content)
    for _ in range(draws.pick([1, 1, 2, 5])):
        at = draws.whole(0, max(0, len(out) - 1))
        match draws.whole(0, 7):
            case 0 | 1 if out:
                out[at] ^= 1 << draws.whole(0, 7)
            case 2 if out:
                out[at] = draws.pick([0, 0xFF, 0x7F, 0x80, ord("-"), ord('"'), ord("9"), ord("\n")])
            case 3:
                del out[at:]
            case 4:
                out[at:at] = draws.pick([*_PIECES, draws.octets(20)])
            case 5:
                del out[at : at + draws.pick([1, 2, 8, 100])]
            case 6 if out:
                size = draws.pick([4, 8])
                number = draws.pick([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]) % 256**size
                out[at : at + size] = number.to_bytes(size, draws.pick(["little", "big"]))
            case _:
                out[at:at] = out[at : at + draws.pick([1, 16, 1000])]
    return bytes(out)
