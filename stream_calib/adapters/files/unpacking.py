"""The bytes and lines of a file, whatever it is packed in: gzip, zstd, or a zip of several."""

import gzip
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from stream_calib.errors import InputError
from stream_calib.wire.compression import unzstd

CHUNK_BYTES = 256 * 1024
LINE_BYTES = 16 * 1024 * 1024  # beyond, it is not a file of lines
BOM = b"\xef\xbb\xbf"
PACKINGS = {".gz", ".zst"}


class Member(NamedTuple):
    """A file, or one of those in a zip: what errors call it, its name unpacked, its bytes."""

    label: str
    name: str
    chunks: Iterator[bytes]

    def lines(self) -> Iterator[list[bytes]]:
        """Yield the lines without their ends, a block at a time; a mark of UTF-8 is left out.

        Raises
        ------
        InputError
            A line is longer than LINE_BYTES.
        """
        rest, mark = b"", BOM
        for chunk in self.chunks:
            rest += chunk
            lines = rest.split(b"\n")
            rest = lines.pop()
            if lines:
                lines[0] = lines[0].removeprefix(mark)
                mark = b""
                yield [line.removesuffix(b"\r") for line in lines]
            if len(rest) > LINE_BYTES:
                raise InputError(f"{self.label}: it has no line ends where a record should end")
        if last := rest.removeprefix(mark).removesuffix(b"\r"):
            yield [last]


def unpacked_name(path: Path) -> str:
    """Return the name of a file without what it is compressed in."""
    return path.stem if path.suffix in PACKINGS else path.name


def members(path: Path, *, only_one: bool = False) -> Iterator[Member]:
    """Yield the file, or the files of a zip in the order of their names.

    Each is to be read before the next one is asked for.

    Raises
    ------
    InputError
        A zip is encrypted, compressed in a way that is not read, or holds several files where
        ``only_one`` is expected.
    """
    if path.suffix != ".zip":
        yield Member(str(path), unpacked_name(path), _chunks(path))
        return
    with _damage_told(path), zipfile.ZipFile(path) as archive:
        inside = [member for member in archive.infolist() if not member.filename.endswith("/")]
        if only_one and len(inside) != 1:
            raise InputError(f"{path}: one file is expected in it, not {len(inside)}")
        for member in sorted(inside, key=lambda member: member.filename):
            if member.flag_bits & 1:
                raise InputError(f"{path}: it is encrypted")
            if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise InputError(f"{path}: it is not compressed in the usual way")
            label = f"{path}: {member.filename}" if len(inside) > 1 else str(path)
            yield Member(label, Path(member.filename).name, _unzipped(archive, member))


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    # what the library stumbles over when lengths, places or versions in the archive are not true
    except (zipfile.BadZipFile, IndexError, NotImplementedError, OverflowError, struct.error):
        raise InputError(f"{path}: it is no whole zip file") from None


def _unzipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    with _damage_told(Path(archive.filename or "")), archive.open(member) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _chunks(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        if path.suffix == ".zst":
            yield from unzstd(iter(partial(file.read, CHUNK_BYTES // 16), b""))
            return
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
