"""Recorded ticks as an input log, and a file of lines as an output log.

One record is one line. ``.jsonl`` (and whatever is not listed next): the line is the record's
value. ``.csv`` with a header: each row becomes a JSON object. ``.tsv``: topic, tab, value, as
recorded from Kafka. Each may be compressed, ``.gz`` or ``.zst``.
"""

import asyncio
import base64
import csv
import gzip
import itertools
import math
import re
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import zstandard

from stream_calib.errors import InputError, TransportError
from stream_calib.values import Output, RecordBatch, Source

CHUNK_BYTES = 256 * 1024
LINE_BYTES = 16 * 1024 * 1024  # beyond, it is not a file of lines
ROWS = 1000
BOM = b"\xef\xbb\xbf"
UNREAD = {".bz2": "bzip2", ".xz": "xz", ".zip": "zip", ".lz4": "lz4", ".parquet": "Parquet"}

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class FileSource:
    """Reads files of recorded ticks, a part at a time; positions are record numbers.

    A file is one topic, named after it, with partition 0; a ``.tsv`` file holds the topics
    that its lines name. Where two files hold the same topic, each is a partition of it.

    Parameters
    ----------
    paths
        The files.

    Notes
    -----
    ``open``, ``read`` and ``release`` are the same thing for a driver without an event loop.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._paths = [Path(path) for path in paths]
        self._files: dict[Source, _File] = {}
        self._positions: dict[Source, int] = {}
        self._new: tuple[Source, ...] = ()
        self._paused: frozenset[Source] = frozenset()
        self._reading: asyncio.Future[list[RecordBatch]] | None = None

    def open(self) -> tuple[Source, ...]:
        """Open the files and return their sources, in order.

        Raises
        ------
        InputError
            A file cannot be read.
        """
        for path in self._paths:
            file = _File(path)
            for topic in file.topics:
                partition = sum(source.topic == topic for source in self._files)
                self._files[Source(topic, partition)] = file
        self._files = dict(sorted(self._files.items()))
        self._positions = dict.fromkeys(self._files, 0)
        self._new = tuple(self._files)
        return self._new

    def read(self, max_records: int) -> list[RecordBatch]:
        """Return the next records, as evenly from all sources as can be.

        Raises
        ------
        InputError
            A file is cut off or damaged.
        """
        ends = self.ends()
        active = [s for s in self._files if s not in self._paused and s not in ends]
        batches = []
        for left, source in zip(range(len(active), 0, -1), active, strict=True):
            values = self._files[source].take(source.topic, -(-max_records // left))
            max_records -= len(values)
            if values:
                before = self._positions[source]
                after = self._positions[source] = before + len(values)
                offsets = range(before, after)
                batch = RecordBatch(source, before, after, offsets, [-1] * len(values), values)
                batches.append(batch)
        return batches

    def release(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    async def start(self) -> None:
        """Open the files."""
        await asyncio.to_thread(self.open)

    async def discover(self) -> tuple[Source, ...]:
        """Return all sources, once."""
        new, self._new = self._new, ()
        return new

    async def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Return the next records; wait only when all that is left is paused."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(asyncio.to_thread(self.read, max_records))
        reading = self._reading
        try:
            # A thread cannot be cancelled: what it reads is left for the next poll then.
            batches = await asyncio.shield(reading)
        finally:
            if reading.done():
                self._reading = None
        if not batches and not self.exhausted():
            await asyncio.sleep(timeout_s)
        return batches

    def pause(self, sources: frozenset[Source]) -> None:
        """Read from all sources but these from now on."""
        self._paused = sources

    def ends(self) -> Mapping[Source, int]:
        """Return the number of records of each source that was read to its end."""
        return {
            source: self._positions[source]
            for source, file in self._files.items()
            if file.is_read(source.topic)
        }

    def exhausted(self) -> bool:
        """Tell whether everything was read."""
        return all(file.is_read(source.topic) for source, file in self._files.items())

    async def mark(self, positions: Mapping[Source, int]) -> None:
        """Do nothing: files have no lag."""

    async def close(self) -> None:
        """Close the files."""
        if self._reading is not None:
            await asyncio.wait({self._reading})
            self._reading.exception()  # seen, so that nobody complains about it
        self.release()


class FileSink:
    """Writes one JSON line per record: topic, key, headers and value.

    A value of content type JSON is part of the line as it is, any other is base64 text.

    Parameters
    ----------
    target
        A path, overwritten; or an open binary file, which stays open.
    """

    def __init__(self, target: str | Path | BinaryIO) -> None:
        self._target = target
        self._file: BinaryIO | None = None

    async def start(self) -> None:
        """Open the file; raise InputError when it cannot be written."""
        if not isinstance(self._target, str | Path):
            self._file = self._target
            return
        try:
            self._file = Path(self._target).open("wb")  # noqa: ASYNC230, SIM115
        except OSError as error:
            message = f"{self._target}: cannot be written ({error.strerror})"
            raise InputError(message) from None

    async def publish(self, outputs: Sequence[Output]) -> None:
        """Write the records and hand them to the system."""
        assert self._file is not None
        try:
            self._file.write(b"".join(map(_line, outputs)))
            self._file.flush()
        except OSError as error:
            name = getattr(self._file, "name", "the output")
            raise TransportError(f"{name}: cannot be written ({error.strerror})") from error

    async def close(self) -> None:
        """Close the file that ``start`` opened."""
        file, self._file = self._file, None
        if file is not None and file is not self._target:
            file.close()


class _File:
    # One file, read forward. What comes of one topic while another is asked for is kept.
    def __init__(self, path: Path) -> None:
        if path.suffix in UNREAD:
            raise InputError(f"{path}: {UNREAD[path.suffix]} is not read, only .gz and .zst are")
        self._waiting: dict[str, list[bytes]] = {path.name: []}
        if _kind(path) == ".tsv":
            names = {topic for block in _blocks(path) for topic in block}
            self._waiting = {name: [] for name in names}
        self._blocks = _blocks(path)
        self._done = False
        self.topics = tuple(self._waiting)
        for topic in self.topics:
            self.take(topic, 0)  # what is wrong with the file shall be known at once

    def take(self, topic: str, n: int) -> list[bytes]:
        waiting = self._waiting[topic]
        while len(waiting) <= n and not self._done:  # one more, to know when the end is reached
            block = next(self._blocks, None)
            self._done = block is None
            for name, values in (block or {}).items():
                self._waiting[name] += values
        taken = waiting[:n]
        del waiting[:n]
        return taken

    def is_read(self, topic: str) -> bool:
        return self._done and not self._waiting[topic]

    def close(self) -> None:
        self._blocks.close()


def _kind(path: Path) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix not in {".gz", ".zst"}]
    return suffixes[-1] if suffixes else ""


def _blocks(path: Path) -> Generator[dict[str, list[bytes]]]:
    # The values of a piece of the file, by topic.
    try:
        match _kind(path):
            case ".tsv":
                yield from _tsv(path)
            case ".csv":
                yield from ({path.name: values} for values in _csv(path))
            case _:
                for lines in _lines(path):
                    yield {path.name: [line for line in lines if line]}
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError):
        raise InputError(f"{path}: its compressed data are damaged") from None
    except EOFError:
        raise InputError(f"{path}: it is cut off, its compressed data do not end") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is not UTF-8 text") from None
    except csv.Error as error:
        raise InputError(f"{path}: it is not CSV ({error})") from None


def _chunks(path: Path) -> Iterator[bytes]:
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
    names = [name.strip() for name in next(rows, [])]
    if "time" not in names:
        names = ["time" if name == "timestamp" else name for name in names]
    while part := list(itertools.islice(rows, ROWS)):
        yield [_object(names, row) for row in part if row]


def _object(names: Sequence[str], row: Sequence[str]) -> bytes:
    if len(row) != len(names):
        return ",".join(row).encode()  # no record; whoever decodes it says so
    # An empty cell is something that was not observed.
    return orjson.dumps({name: _cell(text) for name, text in zip(names, row, strict=True) if text})


def _cell(text: str) -> str | int | float:
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    if number.lastindex is None:
        return int(text) if len(text) <= 20 and -(2**63) <= int(text) < 2**64 else text
    return float(text) if math.isfinite(float(text)) else text


def _line(output: Output) -> bytes:
    headers = {name: value.decode(errors="backslashreplace") for name, value in output.headers}
    is_json = headers.get("content-type", "").startswith("application/json")
    value = orjson.Fragment(output.value) if is_json else base64.b64encode(output.value).decode()
    line: dict[str, Any] = {
        "topic": output.topic,
        "key": output.key.decode(errors="backslashreplace"),
        "headers": headers,
        "value": value,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
