"""The records of one file, whatever its format, as far as they are asked for.

By the name without ``.gz`` and ``.zst``, in which any but ``.zip`` may be compressed:

``.tsv``
    Topic, tab, value: as recorded from Kafka.
``.csv``
    With a header. Where the first column is a time and every other one is named by a symbol
    (wide), each cell that is not empty becomes a native tick ``{"symbol", "time", "price"}``,
    its time in ns; otherwise each row becomes one JSON object (``tables``). Times of a wide
    file, and those in a column ``ts_utc``, are UTC where they have no zone. A time is taken as
    it is written: bars stamped with their beginning are a bar early.
``.zip``
    Trades or quotes of one symbol and day as QuantConnect's Lean keeps them; symbol, day and
    zone are in the path (``lean``).
``.jsonl`` and all others
    A line is a record.
"""

import csv
import gzip
import zipfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path

import zstandard

from stream_calib.adapters.files.lean import layout_of, ticks
from stream_calib.adapters.files.tables import records
from stream_calib.errors import InputError

CHUNK_BYTES = 256 * 1024
LINE_BYTES = 16 * 1024 * 1024  # beyond, it is not a file of lines
BOM = b"\xef\xbb\xbf"
UNREAD = {".bz2": "bzip2", ".xz": "xz", ".lz4": "lz4", ".parquet": "Parquet"}


class LinesFile:
    """One file, read forward; what comes of one topic while another is asked for is kept.

    Parameters
    ----------
    path
        The file.
    only
        The one topic to be kept, which is in the file; None keeps all, and looks for them.

    Attributes
    ----------
    topics
        The topics of the file.
    """

    def __init__(self, path: Path, only: str | None = None) -> None:
        if path.suffix in UNREAD:
            raise InputError(f"{path}: {UNREAD[path.suffix]} is not read, only .gz and .zst are")
        self.path = path
        self._waiting: dict[str, list[bytes]] = {only or _topic(path): []}
        if only is None and _kind(path) == ".tsv":
            names = {topic for block in _blocks(path) for topic in block}
            self._waiting = {name: [] for name in names}
        self._blocks = _blocks(path)
        self._done = False
        self.topics = tuple(self._waiting)
        for topic in self.topics:
            self.take(topic, 0)  # what is wrong with the file shall be known at once

    def take(self, topic: str, n: int) -> list[bytes]:
        """Return the next records of a topic, at most ``n``; fewer at the end only."""
        waiting = self._waiting[topic]
        while len(waiting) <= n and not self._done:  # one more, to know when the end is reached
            block = next(self._blocks, None)
            self._done = block is None
            for name, values in (block or {}).items():
                if name in self._waiting:
                    self._waiting[name] += values
        taken = waiting[:n]
        del waiting[:n]
        return taken

    def is_read(self, topic: str) -> bool:
        """Tell whether all records of a topic were taken."""
        return self._done and not self._waiting[topic]

    def forget(self, topic: str) -> None:
        """Keep nothing of this topic any more: it is not taken here again."""
        del self._waiting[topic]
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Close the file."""
        self._blocks.close()


def _kind(path: Path) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix not in {".gz", ".zst"}]
    return suffixes[-1] if suffixes else ""


def _topic(path: Path) -> str:
    return layout_of(path).topic if _kind(path) == ".zip" else path.name


def _blocks(path: Path) -> Generator[dict[str, list[bytes]]]:
    # The values of a piece of the file, by topic.
    try:
        match _kind(path):
            case ".tsv":
                yield from _tsv(path)
            case ".csv":
                yield from ({path.name: values} for values in _csv(path))
            case ".zip":
                layout = layout_of(path)
                yield from ({layout.topic: values} for values in ticks(layout, _lines(path)))
            case _:
                for lines in _lines(path):
                    yield {path.name: [line for line in lines if line]}
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError):
        raise InputError(f"{path}: its compressed data are damaged") from None
    except zipfile.BadZipFile:
        raise InputError(f"{path}: it is no whole zip file") from None
    except EOFError:
        raise InputError(f"{path}: it is cut off, its compressed data do not end") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is not UTF-8 text") from None
    except csv.Error as error:
        raise InputError(f"{path}: it is not CSV ({error})") from None


def _chunks(path: Path) -> Iterator[bytes]:
    if path.suffix == ".zip":
        yield from _unzipped(path)
        return
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        if path.suffix != ".zst":
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
            return
        # The library's own reader takes a file that is cut off for a complete one.
        frame = None
        while data := file.read(CHUNK_BYTES // 16):
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(data)
                data = frame.unused_data
                if frame.eof:
                    frame = None
        if frame is not None:
            raise EOFError


def _unzipped(path: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise InputError(f"{path}: one file is expected in it, not {len(members)}")
        if members[0].flag_bits & 1:
            raise InputError(f"{path}: it is encrypted")
        if members[0].compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise InputError(f"{path}: it is not compressed in the usual way")
        with archive.open(members[0]) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


def _lines(path: Path) -> Iterator[list[bytes]]:
    rest, mark = b"", BOM
    for chunk in _chunks(path):
        rest += chunk
        lines = rest.split(b"\n")
        rest = lines.pop()
        if lines:
            lines[0] = lines[0].removeprefix(mark)
            mark = b""
            yield [line.removesuffix(b"\r") for line in lines]
        if len(rest) > LINE_BYTES:
            raise InputError(f"{path}: it has no line ends where a record should end")
    if last := rest.removeprefix(mark).removesuffix(b"\r"):
        yield [last]


def _tsv(path: Path) -> Iterator[dict[str, list[bytes]]]:
    number = 0
    for lines in _lines(path):
        block: dict[str, list[bytes]] = {}
        for line in lines:
            number += 1
            topic, tab, value = line.partition(b"\t")
            if tab:
                block.setdefault(topic.decode(), []).append(value)
            elif line:
                raise InputError(f"{path}: line {number} has no tab between topic and value")
        yield block


def _csv(path: Path) -> Iterator[list[bytes]]:
    rows = csv.reader(f"{line.decode()}\n" for lines in _lines(path) for line in lines)
    yield from records(next(rows, []), rows)
