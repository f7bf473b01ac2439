"""Files of recorded ticks as an input log."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit

from stream_calib.adapters.files.lines import LinesFile
from stream_calib.adapters.files.tables import ROWS
from stream_calib.errors import LostInputError
from stream_calib.values import RecordBatch, Source

OPEN_MAX = 800  # files at once; fewer where the system allows a process fewer
WAITING_MAX = 250_000  # records of other topics of the same file


class FileSource:
    """Reads files of recorded ticks, a part at a time; positions are record numbers.

    A file is one topic, named after it, with partition 0; a ``.tsv`` file holds the topics
    that its lines name, and the topic of a ``.zip`` file is named by its folders too. Where two
    files hold the same topic, each is a partition of it.

    However many files there are, OPEN_MAX are open at once. One that others have to wait for is
    closed, and read again up to there when it goes on: one that was left alone while all could
    have had their turn, or if there is none, the last one that had it. A file whose topics are
    read at very different paces is read once for each of them.

    Parameters
    ----------
    paths
        The files.

    Notes
    -----
    ``open``, ``take``, ``take_range``, ``count`` and ``release`` are ``start``, ``poll``, ``read``,
    ``bounds`` and ``close`` for a driver without an event loop.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._paths = [Path(path) for path in paths]
        self._files: dict[Source, LinesFile] = {}
        self._used: dict[LinesFile, int] = {}  # that are open, and when, the last one last
        self._turn = 0
        limit = getrlimit(RLIMIT_NOFILE)[0]
        self._open_max = OPEN_MAX if limit == RLIM_INFINITY else min(OPEN_MAX, max(2, limit // 2))
        self._positions: dict[Source, int] = {}
        self._new: tuple[Source, ...] = ()
        self._paused: frozenset[Source] = frozenset()
        self._reading: asyncio.Future[list[RecordBatch]] | None = None
        self._repeating: asyncio.Future[RecordBatch] | None = None
        self._counts: dict[Source, int] = {}

    def open(self) -> tuple[Source, ...]:
        """Open the files and return their sources, in order.

        Raises
        ------
        InputError
            A file cannot be read.
        """
        partitions: Counter[str] = Counter()
        for path in self._paths:
            file = LinesFile(path)
            self._keep_few_open(file)
            for topic in file.topics:
                self._files[Source(topic, partitions[topic])] = file
                partitions[topic] += 1
        self._files = dict(sorted(self._files.items()))
        self._positions = dict.fromkeys(self._files, 0)
        self._new = tuple(self._files)
        return self._new

    def take(self, max_records: int) -> list[RecordBatch]:
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
            batch = self._next(source, -(-max_records // left))
            max_records -= len(batch.values)
            if batch.values:
                batches.append(batch)
        return batches

    def take_of(self, source: Source, max_records: int) -> RecordBatch:
        """Return the next records of one source, none at its end.

        Raises
        ------
        InputError
            A file is cut off or damaged.
        """
        return self._next(source, max_records)

    def take_range(self, source: Source, start: int, stop: int, max_records: int) -> RecordBatch:
        """Return the records of one source from number ``start`` on.

        Quick where the ranges of a source follow each other; otherwise its file is read again.

        Raises
        ------
        InputError
            A file is cut off or damaged.
        LostInputError
            There is no record before ``stop``.
        """
        if source in self._files and self._seek(source, start):
            batch = self._next(source, min(max_records, stop - start))
            if batch.values or start >= stop:
                return batch
        raise LostInputError(
            f"Records {start} to {stop} of {source.topic!r} partition {source.partition} are "
            f"needed again and not there: {self.count([source]).get(source, 0)} can be read"
        )

    def count(self, sources: Sequence[Source]) -> Mapping[Source, int]:
        """Return the number of records of each of these sources that exist, by reading them.

        Raises
        ------
        InputError
            A file is cut off or damaged.
        """
        for source in sources:
            if source in self._files and source not in self._counts:
                file = LinesFile(self._files[source].path, source.topic)
                self._counts[source] = 0
                while values := file.take(source.topic, ROWS)[0]:
                    self._counts[source] += len(values)
        return {source: self._counts[source] for source in sources if source in self._files}

    def resume(self, positions: Mapping[Source, int]) -> None:
        """Go on from these positions alone; ``discover`` names all other sources."""
        self._new = tuple(source for source in self._files if source not in positions)
        for source in self._files:
            self._seek(source, positions.get(source, 0))

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
            self._reading = asyncio.ensure_future(asyncio.to_thread(self.take, max_records))
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

    def told_s(self) -> Mapping[Source, float]:
        """Return nothing: ``ends`` is always of the moment."""
        return {}

    def withheld(self) -> Mapping[Source, int]:
        """Return nothing: what is here may be read."""
        return {}

    def exhausted(self) -> bool:
        """Tell whether everything was read."""
        return all(file.is_read(source.topic) for source, file in self._files.items())

    async def bounds(self, sources: Sequence[Source]) -> Mapping[Source, tuple[int, int]]:
        """Return 0 and the number of records of each source that exists."""
        counts = await asyncio.to_thread(self.count, sources)
        return {source: (0, n) for source, n in counts.items()}

    async def read(self, source: Source, start: int, stop: int, max_records: int) -> RecordBatch:
        """Return the records of one source from number ``start`` on."""
        await self._settle()  # of one that was cancelled the thread may still be at work
        self._repeating = asyncio.ensure_future(
            asyncio.to_thread(self.take_range, source, start, stop, max_records)
        )
        return await asyncio.shield(self._repeating)

    async def close(self) -> None:
        """Close the files."""
        await self._settle()
        self.release()

    async def _settle(self) -> None:
        for work in (self._reading, self._repeating):
            if work is not None:
                await asyncio.wait({work})
                work.exception()  # seen, so that nobody complains about it

    def _next(self, source: Source, n: int) -> RecordBatch:
        file = self._files[source]
        values, stamps_ms = file.take(source.topic, n)
        before = self._positions[source]
        after = self._positions[source] = before + len(values)
        if file.n_waiting > WAITING_MAX and len(file.topics) > 1:
            self._read_apart(file)
        else:
            self._keep_few_open(file)
        return RecordBatch(source, before, after, range(before, after), stamps_ms, values)

    def _read_apart(self, file: LinesFile) -> None:
        for source, own in self._files.items():
            if own is file:
                position = self._positions[source]
                self._files[source] = LinesFile(file.path, source.topic, position)
        file.close()
        self._used.pop(file, None)

    def _keep_few_open(self, file: LinesFile) -> None:
        self._turn += 1
        self._used.pop(file, None)
        self._used[file] = self._turn
        if len(self._used) <= self._open_max:
            return
        self._used = {one: turn for one, turn in self._used.items() if one.is_open or one is file}
        while len(self._used) > self._open_max:
            oldest, *_, last, _ = self._used
            waits = self._turn - self._used[oldest] > len(self._files)
            parked = oldest if waits else last
            parked.park()
            del self._used[parked]

    def _seek(self, source: Source, position: int) -> bool:
        # Tells whether the position is there.
        if position < self._positions[source]:
            file = self._files[source]
            self._files[source] = LinesFile(file.path, source.topic)
            self._positions[source] = 0
            file.forget(source.topic)
            self._used.pop(file, None)
        while (ahead := position - self._positions[source]) > 0:
            if not self._next(source, min(ahead, ROWS)).values:
                return False
        return True
