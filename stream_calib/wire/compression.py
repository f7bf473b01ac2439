"""Files in gzip and zstd: their bytes from pieces, and what is said where they are damaged."""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import zstandard

from stream_calib.errors import InputError

PIECE_BYTES = 1024  # of what is compressed: 32 MB of what is not, at the worst


def unzstd(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress zstd frames, one after the other.

    Raises
    ------
    EOFError
        The last frame does not end: the library's own reader takes it for a complete one.
    """
    frame = None
    for piece in _small(pieces):
        data = piece
        while data:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(data)
            data = frame.unused_data
            if frame.eof:
                frame = None
    if frame is not None:
        raise EOFError


def _small(pieces: Iterable[bytes]) -> Iterator[bytes]:
    # four bytes may stand for 128 KiB, and all that a piece stands for comes at once
    for piece in pieces:
        for at in range(0, len(piece), PIECE_BYTES):
            yield piece[at : at + PIECE_BYTES]


@contextmanager
def reading(name: object) -> Iterator[None]:
    """Say in a sentence, an InputError, what keeps a file from being read."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError):
        raise InputError(f"{name}: its compressed data are damaged") from None
    except EOFError:
        raise InputError(f"{name}: it is cut off, its compressed data do not end") from None
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise InputError(f"{name}: cannot be read ({reason})") from None
