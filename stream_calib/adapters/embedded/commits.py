"""The in-process log as the place where outputs and journal become durable together."""

import asyncio
from collections.abc import Mapping, Sequence

from stream_calib.adapters.embedded.log import EmbeddedLog, EmbeddedRecord
from stream_calib.errors import LostInputError, OwnershipError, TransportError
from stream_calib.ports import JournalRecord
from stream_calib.values import Output, Source
from stream_calib.wire.cloudevents import last_sequences
from stream_calib.wire.fits import whole_fits


class EmbeddedCommitLog:
    """Outputs and journal of one universe in an EmbeddedLog.

    Parameters
    ----------
    log
        Where records are.
    topics
        Names by role: "correlations", "events", "rejects", "journal", "fits".
    partition
        The partition of the universe in each of them.
    write_ahead
        Others get to run between the journal entry and the outputs.
    """

    def __init__(
        self,
        log: EmbeddedLog,
        topics: Mapping[str, str],
        partition: int = 0,
        *,
        write_ahead: bool = False,
    ) -> None:
        self.write_ahead = write_ahead
        self._log = log
        self._topics = topics
        self._partition = partition
        self._journal = Source(topics["journal"], partition)
        self._owns = False
        self._followed: int | None = None

    async def own(self) -> Sequence[JournalRecord]:
        """Become the only writer, and return the journal that is kept, oldest entry first."""
        for topic in self._topics.values():
            self._log.bounds(topic, self._partition)
        self._log.owners[self._journal] = self
        self._owns = True
        return [JournalRecord(r.offset, r.value or b"") for r in self._kept("journal")]

    async def follow(self, wait_s: float) -> Sequence[JournalRecord]:
        """Return the entries that were committed since the last call; nobody has to own."""
        first, end = self._log.bounds(*self._journal)
        start = first if self._followed is None else self._followed
        if start < first:
            raise LostInputError(f"The journal {self._journal.topic!r} begins at {first} by now")
        if start == end:
            await asyncio.sleep(wait_s)
        records = self._log.read(*self._journal, start)
        self._followed = start + len(records)
        return [JournalRecord(r.offset, r.value or b"") for r in records]

    async def has_outputs(self) -> bool:
        """Tell whether this universe ever published anything here."""
        return any(
            self._log.bounds(self._topics[role], self._partition)[1] > 0
            for role in ("correlations", "events")
        )

    async def last_sequences(self) -> Mapping[str, int]:
        """Return the last number published, by estimator and for "events", as far as kept."""
        found: dict[str, int] = {}
        for role in ("correlations", "events"):
            first, _ = self._log.bounds(self._topics[role], self._partition)
            records = self._log.read(self._topics[role], self._partition, first)
            found |= last_sequences((r.key, r.headers) for r in records)
        return found

    async def fits(self, hashes: Sequence[str]) -> Mapping[str, Sequence[bytes]]:
        """Return the chunks of these fits, in order; a fit that is not whole is absent."""
        return whole_fits(((r.key, r.headers, r.value) for r in self._kept("fits")), hashes)

    async def commit(
        self, outputs: Sequence[Output], entry: Output, positions: Mapping[Source, int]
    ) -> int:
        """Write the outputs and the entry; ``positions`` are for nobody here."""
        self._check([*outputs, entry])
        # written ahead, fits still come first, for they cannot be made again
        first = [o for o in outputs if o.topic == self._topics["fits"] or not self.write_ahead]
        self._append(first)
        offset = self._append([entry])
        if self.write_ahead:
            await asyncio.sleep(0)
            self._append([o for o in outputs if o.topic != self._topics["fits"]])
        return offset

    async def emit(self, outputs: Sequence[Output]) -> None:
        """Write outputs of an entry that is in the journal already."""
        self._check(outputs)
        self._append(outputs)

    async def trim(self, position: int) -> None:
        """Forget the journal before ``position``, unless another owner may need it."""
        if self._owns and self._log.owners[self._journal] is self:
            self._log.trim(*self._journal, position)

    async def close(self) -> None:
        """Give the ownership up."""
        self._owns = False

    def _check(self, outputs: Sequence[Output]) -> None:
        if not self._owns:
            message = "The journal is not owned: what was committed last is not known"
            raise TransportError(message)
        if self._log.owners[self._journal] is not self:
            self._owns = False
            raise OwnershipError(f"Another owner has taken over {self._journal.topic!r}")
        for output in outputs:
            self._log.bounds(output.topic, output.partition)

    def _append(self, outputs: Sequence[Output]) -> int:
        offset = -1
        for o in outputs:
            offset = self._log.append(o.topic, o.partition, o.key, o.value, o.headers)
        return offset

    def _kept(self, role: str) -> Sequence[EmbeddedRecord]:
        first, _ = self._log.bounds(self._topics[role], self._partition)
        return self._log.read(self._topics[role], self._partition, first)
