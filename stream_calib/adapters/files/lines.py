"""The records of one file, whatever its format, as far as they are asked for.

By the name without ``.gz`` and ``.zst``, in which any but ``.zip`` and Arrow's may be compressed:

``.tsv``
    Topic, tab, value: as recorded from Kafka.
``.csv``
    With a header. Where the first column is a time and every other one is named by a symbol
    (wide), each cell that is not empty becomes a native tick ``{"symbol", "time", "price"}``,
    its time in ns; otherwise each row becomes one JSON object (``tables``). Times of a wide
    file, and those in a column ``ts_utc``, are UTC where they have no zone. A time is taken as
    it is written: bars stamped with their beginning are a bar early. By their headers CSV of
    Tardis (``tardis``) and of Databento (``databento``) are known, by their names the public
    dumps of Binance (``binance``).
``.parquet``, ``.arrow``, ``.feather``
    The same tables with types, which give the records of the equal CSV (``arrow``).
``.dbn``
    Databento's binary files of any version (``databento``).
``.zip``
    Trades or quotes of one symbol and day as QuantConnect's Lean keeps them; symbol, day and
    zone are in the path (``lean``). Any other holds files of the kinds above, Arrow's and
    ``.tsv`` not among them, which are read in the order of their names as one topic.
``.jsonl`` and all others
    A line is a record; where it is a raw capture of cryptofeed, old or new, what was received
    is, with the time of that as the log's (``captures``).
"""

import itertools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from stream_calib.adapters.files.arrow import ARROW, arrow_records
from stream_calib.adapters.files.captures import is_capture, received
from stream_calib.adapters.files.commas import csv_records
from stream_calib.adapters.files.databento import dbn_lines
from stream_calib.adapters.files.lean import is_lean, layout_of, ticks
from stream_calib.adapters.files.unpacking import Member, members, unpacked_name
from stream_calib.errors import InputError
from stream_calib.wire.compression import reading

UNREAD = {".bz2": "bzip2", ".xz": "xz", ".lz4": "lz4"}
NOT_INSIDE = {*ARROW, *UNREAD, ".tsv", ".gz", ".zst", ".zip"}  # a zip


class Block(NamedTuple):
    """Some records of one topic; without ``stamps_ms`` the log has no times."""

    topic: str
    values: list[bytes]
    stamps_ms: list[int] | None = None


class LinesFile:
    """One file, read forward; what comes of one topic while another is asked for is kept.

    Parameters
    ----------
    path
        The file.
    only
        The one topic to be kept, which is in the file; None keeps all, and looks for them.
    taken
        How many of its records to pass over.

    Attributes
    ----------
    topics
        The topics of the file.
    n_waiting
        How many records were read and not taken.
    """

    def __init__(self, path: Path, only: str | None = None, taken: int = 0) -> None:
        if path.suffix in UNREAD:
            raise InputError(f"{path}: {UNREAD[path.suffix]} is not read, only .gz and .zst are")
        self.path = path
        names = {only or _topic(path)}
        if only is None and _kind(unpacked_name(path)) == ".tsv":
            names = {block.topic for block in _blocks(path)}
        self.topics = tuple(names)
        self._waiting: dict[str, tuple[list[bytes], list[int]]] = {name: ([], []) for name in names}
        self.n_waiting = 0  # counted, not summed: a file may name any number of topics
        self._taken = dict.fromkeys(names, taken)
        self._skip = dict(self._taken)
        self._blocks = _blocks(path)
        self._done = False
        if not taken:
            for topic in self.topics:
                self.take(topic, 0)  # what is wrong with the file shall be known at once

    @property
    def is_open(self) -> bool:
        """Whether there is more to be read of it than what waits."""
        return not self._done

    def park(self) -> None:
        """Close the file, and keep nothing of it; it is read again when more is taken."""
        self._blocks.close()
        self._blocks = _blocks(self.path)
        self._skip = dict(self._taken)
        for values, stamps_ms in self._waiting.values():
            values.clear()
            stamps_ms.clear()
        self.n_waiting = 0

    def take(self, topic: str, n: int) -> tuple[list[bytes], list[int]]:
        """Return the next records of a topic, at most ``n``, fewer at the end only.

        Returns
        -------
        values, stamps_ms
            The records and the log's times, -1 where it has none.
        """
        values, stamps_ms = self._waiting[topic]
        while len(values) <= n and not self._done:  # one more, to know when the end is reached
            block = next(self._blocks, None)
            self._done = block is None
            if block is not None and block.topic in self._waiting:
                self._keep(block)
        taken = values[:n], stamps_ms[:n]
        del values[:n], stamps_ms[:n]
        self.n_waiting -= len(taken[0])
        self._taken[topic] += len(taken[0])
        return taken

    def is_read(self, topic: str) -> bool:
        """Tell whether all records of a topic were taken."""
        return self._done and not self._waiting[topic][0]

    def forget(self, topic: str) -> None:
        """Keep nothing of this topic any more: it is not taken here again."""
        values, _ = self._waiting.pop(topic)
        self.n_waiting -= len(values)
        del self._taken[topic]
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Close the file."""
        self._blocks.close()

    def _keep(self, block: Block) -> None:
        n, skip = len(block.values), self._skip[block.topic]
        self._skip[block.topic] = max(0, skip - n)
        values, stamps_ms = self._waiting[block.topic]
        values += block.values[skip:]
        self.n_waiting += max(0, n - skip)
        stamps_ms += (block.stamps_ms or [-1] * n)[skip:]


def _kind(name: str) -> str:
    return Path(name).suffix.lower()


def _topic(path: Path) -> str:
    return layout_of(path).topic if is_lean(path) else path.name


def _blocks(path: Path) -> Generator[Block]:
    try:
        with reading(path):
            yield from _read(path)
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is not UTF-8 text") from None


def _read(path: Path) -> Iterator[Block]:
    if is_lean(path):
        layout = layout_of(path)
        for member in members(path, only_one=True):
            for values in ticks(layout, member.lines()):
                yield Block(layout.topic, values)
    elif _kind(unpacked_name(path)) in ARROW:
        yield from (Block(path.name, values) for values in arrow_records(path))
    else:
        for member in members(path):
            yield from _member(member, path)


def _member(member: Member, path: Path) -> Iterator[Block]:
    topic = path.name
    match _kind(member.name):
        case kind if path.suffix == ".zip" and kind in NOT_INSIDE:
            raise InputError(f"{member.label}: inside a zip {kind} is not read")
        case ".tsv":
            yield from _tsv(member)
        case ".csv":
            yield from (Block(topic, values) for values in csv_records(member))
        case ".dbn":
            yield from (Block(topic, lines) for lines in dbn_lines(member))
        case _:
            yield from _text(member, topic)


def _text(member: Member, topic: str) -> Iterator[Block]:
    blocks = member.lines()
    head: list[list[bytes]] = []
    while not any(map(any, head)) and (block := next(blocks, None)) is not None:
        head.append(block)
    first = next((line for block in head for line in block if line), b"")
    blocks = itertools.chain(head, blocks)
    if is_capture(first):
        yield from (Block(topic, *found) for found in received(blocks))
        return
    for lines in blocks:
        yield Block(topic, [line for line in lines if line])


def _tsv(member: Member) -> Iterator[Block]:
    number = 0
    for lines in member.lines():
        found: dict[str, list[bytes]] = {}
        for line in lines:
            number += 1
            topic, tab, value = line.partition(b"\t")
            if tab:
                found.setdefault(topic.decode(), []).append(value)
            elif line:
                raise InputError(
                    f"{member.label}: line {number} has no tab between topic and value"
                )
        yield from (Block(topic, values) for topic, values in found.items())
