"""Where a universe's outputs and journal become durable, in one transaction."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import KafkaError

from stream_calib.adapters.kafka.connection import FORBIDDEN, address, within
from stream_calib.adapters.kafka.ending import EndTxnGuard
from stream_calib.adapters.kafka.following import JournalFollower
from stream_calib.adapters.kafka.marking import PositionMarker
from stream_calib.adapters.kafka.producing import (
    BATCH_BYTES,
    RECORD_BYTES,
    abandon,
    is_fenced,
    learn,
    record_bytes,
    send,
    start_producer,
)
from stream_calib.adapters.kafka.reading import read_kept, read_tail
from stream_calib.adapters.kafka.settings import CheckedTopics, check_output_topics
from stream_calib.adapters.kafka.topics import admin_client
from stream_calib.config import KafkaConfig
from stream_calib.errors import (
    ConfigError,
    NotOurTurnError,
    OwnershipError,
    StreamCalibError,
    TransportError,
)
from stream_calib.ports import JournalRecord
from stream_calib.values import Output, Source
from stream_calib.wire.cloudevents import last_sequences
from stream_calib.wire.fits import whole_fits

COMMIT_S = 8.0
REFUSED_S = 0.5
TAIL_RECORDS = 100  # of many chunks and estimators, the last of each is among them
RETRY_MS = 20  # the broker asks for patience while it ends the transaction before
REQUEST_S = 60.0  # longer than a commit may take, so that the library re-sends nothing by timeout


@dataclass(frozen=True, slots=True)
class CommitSettings:
    """What belongs to one universe: who commits, and where to.

    ``topics`` are names by role: "correlations", "events", "rejects", "journal", "fits". The
    ``group`` never has members; positions are noted there. A commit is given up well before
    its transaction times out, whatever ``commit_timeout_s`` is.
    """

    transactional_id: str
    group: str
    topics: Mapping[str, str]
    partition: int
    transaction_timeout_s: float = 15.0
    commit_timeout_s: float = COMMIT_S


class KafkaLog:
    """What both ways of committing share: the topics, the producer, what is read back."""

    def __init__(
        self,
        config: KafkaConfig,
        settings: CommitSettings,
        at: Callable[[str], None] = lambda _point: None,
        may_own: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.trim_failures = 0
        self._config = config
        self._settings = settings
        self._at = at
        self._may_own = may_own
        self._follower: JournalFollower | None = None
        self._journal = Source(settings.topics["journal"], settings.partition)
        self._deadline_s = min(settings.commit_timeout_s, 0.6 * settings.transaction_timeout_s)
        self._checked = CheckedTopics((), {})
        self._producer: Any = None
        self._marker = PositionMarker(config, settings.group, at)
        self._after = 0  # the journal holds nothing from here on, unless another owner wrote it

    @property
    def warnings(self) -> tuple[str, ...]:
        """What ``own`` found to be said about the topics."""
        return self._checked.warnings

    async def has_outputs(self) -> bool:
        """Tell whether anything was ever committed to the outputs; aborted records do not count."""
        for role in ("correlations", "events"):
            source = Source(self._settings.topics[role], self._settings.partition)
            kept = await read_kept(self._config, source, limit=1)
            if kept.records or kept.first > 0:
                return True
        return False

    async def last_sequences(self) -> Mapping[str, int]:
        """Return the last number published, by estimator and for "events", as far as kept."""
        found: dict[str, int] = {}
        for role in ("correlations", "events"):
            source = Source(self._settings.topics[role], self._settings.partition)
            kept = await read_tail(self._config, source, TAIL_RECORDS)
            found |= last_sequences((r.key, r.headers) for r in kept.records)
        return found

    async def fits(self, hashes: Sequence[str]) -> Mapping[str, Sequence[bytes]]:
        """Return the chunks of these fits, in order; a fit that is not whole is absent."""
        source = Source(self._settings.topics["fits"], self._settings.partition)
        kept = await read_kept(self._config, source)
        return whole_fits(((r.key, r.headers, r.value) for r in kept.records), hashes)

    async def trim(self, position: int) -> None:
        """Delete the journal before ``position``; a failure is counted, no more."""
        if self._producer is None:  # another owner may need what this one does not
            self.trim_failures += 1
            return
        wanted = {TopicPartition(*self._journal): RecordsToDelete(position)}
        try:
            async with admin_client(self._config, "trimming the journal") as admin:
                await admin.delete_records(wanted)
        except StreamCalibError:
            self.trim_failures += 1

    async def follow(self, wait_s: float) -> Sequence[JournalRecord]:
        """Return the entries that were committed since the last call; nobody has to own."""
        if self._follower is None:
            self._follower = JournalFollower(self._config, self._journal)
        return await self._follower.read(wait_s)

    async def close(self) -> None:
        """Let go within a few seconds."""
        await self._throw_away()
        await self._stop_following()
        await self._marker.close()

    async def _stop_following(self) -> None:
        follower, self._follower = self._follower, None
        if follower is not None:
            await follower.close()

    def _tell_first(self, ack: "asyncio.Future[object]") -> None:
        if not ack.cancelled() and ack.exception() is None:
            self._at("output")

    async def _throw_away(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await abandon(producer)

    @property
    def mark_failures(self) -> int:
        """How many times positions could not be noted."""
        return self._marker.failures

    async def _start_producer(self, **options: object) -> Any:  # noqa: ANN401
        # Whoever starts one fences whoever owns: only the one who was given the universe may.
        if self._may_own is not None and not await self._may_own():
            raise NotOurTurnError(
                f"{self._settings.transactional_id!r} is not this process's, says the group"
            )
        batch_bytes = min([BATCH_BYTES, *self._checked.max_bytes.values()])
        producer = await start_producer(
            self._config,
            max_batch_size=batch_bytes,
            retry_backoff_ms=RETRY_MS,
            request_timeout_ms=int(REQUEST_S * 1000),
            **options,
        )
        try:
            async with within(self._deadline_s, self._config, "connecting"):
                partition = self._settings.partition
                await learn(producer, [(t, partition) for t in self._settings.topics.values()])
        except BaseException:
            await abandon(producer)
            raise
        return producer

    async def _read_journal(self) -> list[JournalRecord]:
        kept = await read_kept(self._config, self._journal)
        self._after = kept.after
        return [JournalRecord(record.offset, record.value) for record in kept.records]

    def _check(self, outputs: Sequence[Output]) -> None:
        # What cannot be written is refused before anything is.
        if self._producer is None:
            raise TransportError("The journal is not owned: what was committed last is not known")
        for output in outputs:
            limit = min(self._checked.max_bytes[output.topic], RECORD_BYTES)
            if (size := record_bytes(output)) > limit:
                raise ConfigError(
                    f"A record of {size} bytes is too large for topic {output.topic!r}, which "
                    f"takes {limit} (max.message.bytes)"
                )

    @contextlib.asynccontextmanager
    async def _doubting(self, doing: str) -> AsyncIterator[None]:
        # Whatever goes wrong inside leaves open what was written: the producer is not used again.
        producer = self._producer
        try:
            async with within(self._deadline_s, self._config, doing):
                yield
        except BaseException as error:
            await self._throw_away()
            if is_fenced(error, producer):
                raise self._fenced() from error
            task = asyncio.current_task()
            cancelled = task is not None and task.cancelling() > 0
            if isinstance(error, StreamCalibError) or cancelled:
                raise
            if isinstance(
                error, Exception | asyncio.CancelledError
            ):  # the library's own, all of it
                message = f"Kafka at {address(self._config)} failed while {doing}: {error!r}"
                raise TransportError(message) from error
            raise

    def _fenced(self) -> OwnershipError:
        return OwnershipError(
            f"Another process has taken over {self._settings.transactional_id!r}, or this one was "
            "stopped for longer than its transaction may take"
        )


class KafkaCommitLog(KafkaLog):
    """Outputs and journal in one transaction: a reader of committed records sees all or none.

    Parameters
    ----------
    config
        How to reach the broker.
    settings
        Whose outputs these are, and where they go.
    at
        Called at named points, where a test may end the process. Of a commit these are "begin"
        (nothing is sent), "flush" (records are with the network, once for each request), "output"
        (the first record is acknowledged; in another request, others may not be), "journal" (all
        are), "end_txn" (the end is with the network), "commit", and a while later "positions"
        (they are noted).
    may_own
        Asked before anybody else is fenced.

    Attributes
    ----------
    recycled
        How often the producer was replaced because the end of a transaction was sent twice.
    trim_failures
        How often the journal could not be trimmed.
    """

    write_ahead = False

    def __init__(
        self,
        config: KafkaConfig,
        settings: CommitSettings,
        at: Callable[[str], None] = lambda _point: None,
        may_own: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        super().__init__(config, settings, at, may_own)
        self.recycled = 0
        self._guard: EndTxnGuard | None = None

    async def own(self) -> Sequence[JournalRecord]:
        """Become the only writer, and return the journal that is kept, oldest entry first."""
        await self._throw_away()
        await self._stop_following()
        topics, partition = self._settings.topics, self._settings.partition
        self._checked = await check_output_topics(self._config, topics, partition)
        producer = await self._start_transactional()
        try:
            self._at("own")
            entries = await self._read_journal()
        except BaseException:
            await abandon(producer)
            raise
        self._producer = producer
        return entries

    async def commit(
        self, outputs: Sequence[Output], entry: Output, positions: Mapping[Source, int]
    ) -> int:
        """Write all of it in one transaction; return the entry's offset when it is committed."""
        self._after = await self._transact(outputs, entry) + 1
        self._marker.mark(positions)
        return self._after - 1

    async def emit(self, outputs: Sequence[Output]) -> None:
        """Write outputs alone, in one transaction."""
        if outputs:
            await self._transact(outputs, None)

    async def _transact(self, outputs: Sequence[Output], entry: Output | None) -> int:
        self._check([*outputs, entry] if entry else outputs)
        if self._guard is not None and not self._guard.is_safe:
            await self._recycle()
        producer, guard, at, offset = self._producer, self._guard, self._at, -1
        assert guard is not None
        acks: list[Any] = []
        async with self._doubting("committing"):
            try:
                guard.watch()
                await producer.begin_transaction()
                at("begin")
                # all at once: the order of topics does not matter inside a transaction
                for output in [*outputs, entry] if entry else outputs:
                    acks.append(await send(producer, output))
                    if len(acks) == 1:
                        acks[0].add_done_callback(self._tell_first)
                written = await _acknowledged(acks)
                offset = written[-1].offset
                at("journal")
                await producer.commit_transaction()
            finally:
                for ack in acks:
                    ack.cancel()  # of those that are not done nobody asks any more
        at("commit")
        return int(offset)

    async def _start_transactional(self) -> Any:  # noqa: ANN401
        producer = await self._start_producer(
            transactional_id=self._settings.transactional_id,
            transaction_timeout_ms=int(self._settings.transaction_timeout_s * 1000),
        )
        self._guard = EndTxnGuard(producer, self._at)
        return producer

    async def _recycle(self) -> None:
        # A request of the last transaction may still be on its way and would end the next one.
        # The new producer's epoch makes it void. It fences another owner too, if there is one by
        # now: what that one has committed shows that this process is no longer the owner.
        await self._throw_away()
        producer = await self._start_transactional()
        try:
            found = await read_kept(self._config, self._journal, start=self._after, limit=1)
            if found.records:
                raise self._fenced()
        except BaseException:
            await abandon(producer)
            raise
        self._producer = producer
        self.recycled += 1


async def _acknowledged(acks: Sequence[Any]) -> Sequence[Any]:
    # What is forbidden for one topic fails the others with states that say nothing.
    try:
        return await asyncio.gather(*acks)
    except KafkaError:
        await asyncio.wait(acks, timeout=REFUSED_S)
        found = [ack.exception() for ack in acks if ack.done() and not ack.cancelled()]
        for error in found:
            if type(error) in FORBIDDEN:
                raise error from None
        raise
