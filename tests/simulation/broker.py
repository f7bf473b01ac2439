"""A model of what Kafka does with transactions, and a client of it that faults can befall.

The model knows epochs, one open transaction, and requests that arrive late or twice. Records
are visible once their transaction was committed, as to a reader of committed records.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from stream_calib.errors import LostInputError, OwnershipError, TransportError
from stream_calib.ports import JournalRecord, Ownership
from stream_calib.values import Output, Source
from stream_calib.wire.cloudevents import last_sequences
from stream_calib.wire.fits import whole_fits

STALLED_S = 8.0  # at most: others take over, commit and save meanwhile


class Crash(BaseException):
    """The process is no more."""


@dataclass
class Faults:
    """How likely what is, at each step of a commit or elsewhere."""

    crash: float = 0.0
    lost: float = 0.0  # a request does not arrive
    unanswered: float = 0.0  # it arrives and the answer does not
    late: float = 0.0  # the end of a transaction arrives much later
    twice: float = 0.0  # the client sends it again by itself
    stalled: float = 0.0  # a new owner stands still when it has read the journal
    guarded: bool = True  # the client takes a new epoch after sending it twice


@dataclass
class Broker:
    """Topics of one universe, and its transaction coordinator."""

    epoch: int = 0
    open: list[Output] = field(default_factory=list)
    committed: list[Output] = field(default_factory=list)
    commits: int = 0
    refused: int = 0  # requests of who was replaced
    trims: bool = True
    trimmed: int = 0

    def init_producer(self) -> int:
        self.open.clear()
        self.epoch += 1
        return self.epoch

    def produce(self, epoch: int, output: Output) -> None:
        self._refuse_others(epoch)
        self.open.append(output)

    def end_transaction(self, epoch: int) -> None:
        self._refuse_others(epoch)
        if self.open:
            self.committed += self.open
            self.open.clear()
            self.commits += 1

    def _refuse_others(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.refused += 1
            raise OwnershipError("fenced")

    def topic(self, role: str) -> list[Output]:
        return [output for output in self.committed if output.topic.endswith(f".{role}")]


class Process:
    """Something that can die; what belongs to it does nothing more."""

    def __init__(self, random: Random, faults: Faults) -> None:
        self.random, self.faults = random, faults
        self.dead = False
        self.crashes_left = 1
        self.frozen_until_s = 0.0

    async def step(self, pause_s: float = 0.001) -> None:
        """A place where others run and where it may die."""
        self.at("step")
        await asyncio.sleep(pause_s * self.random.random())
        await asyncio.sleep(self.frozen_until_s - asyncio.get_running_loop().time())
        if self.dead:
            raise Crash

    def at(self, _point: str) -> None:
        if self.dead:
            raise Crash
        if self.crashes_left and self.random.random() < self.faults.crash:
            self.crashes_left -= 1
            self.dead = True
            raise Crash

    def freeze(self, seconds: float) -> None:
        """Stop at the next step, for a while; what is under way goes on."""
        self.frozen_until_s = asyncio.get_running_loop().time() + seconds

    def happens(self, likely: float) -> bool:
        return self.random.random() < likely


class SimulatedCommitLog:
    """The commit protocol of ``KafkaCommitLog`` against the model."""

    write_ahead = False

    def __init__(
        self, broker: Broker, process: Process, ownership: Ownership | None = None
    ) -> None:
        self._broker, self._process = broker, process
        self._ownership = ownership
        self._epoch = -1
        self._doubted = True
        self._sent_twice = False
        self._followed: int | None = None
        self._known = 0  # entries, this process's last among them

    async def follow(self, wait_s: float) -> Sequence[JournalRecord]:
        await self._process.step(wait_s)
        start = self._broker.trimmed if self._followed is None else self._followed
        if start < self._broker.trimmed:
            raise LostInputError("trimmed")
        journal = self._broker.topic("journal")
        self._followed = self._process.random.randint(start, len(journal))
        return [JournalRecord(i, journal[i].value) for i in range(start, self._followed)]

    async def own(self) -> Sequence[JournalRecord]:
        await self._process.step()
        await self._check_turn()
        self._epoch = self._broker.init_producer()
        self._doubted = self._sent_twice = False
        await self._process.step()
        journal = list(enumerate(self._broker.topic("journal")))
        self._known = len(journal)
        if self._process.happens(self._process.faults.stalled):
            self._process.freeze(STALLED_S * self._process.random.random())
        await self._process.step()
        return [JournalRecord(i, o.value) for i, o in journal if i >= self._broker.trimmed]

    async def _check_turn(self) -> None:
        if self._ownership is not None and not await self._ownership.confirm(0):
            raise OwnershipError("given to another process")

    async def has_outputs(self) -> bool:
        return bool(self._broker.topic("correlations") or self._broker.topic("events"))

    async def last_sequences(self) -> Mapping[str, int]:
        return last_sequences((o.key, o.headers) for o in self._broker.committed)

    async def fits(self, hashes: Sequence[str]) -> Mapping[str, Sequence[bytes]]:
        records = ((o.key, o.headers, o.value) for o in self._broker.topic("fits"))
        return whole_fits(records, hashes)

    async def commit(
        self, outputs: Sequence[Output], entry: Output, positions: Mapping[Source, int]
    ) -> int:
        assert not self._doubted, "a commit after a doubt"
        process, faults = self._process, self._process.faults
        if self._sent_twice and faults.guarded:
            await self._check_turn()
            self._epoch = self._broker.init_producer()
            if len(self._broker.topic("journal")) != self._known:
                self._doubted = True
                raise OwnershipError("another owner has committed")
        self._sent_twice = False
        try:
            for output in [*outputs, entry]:
                await process.step()
                if process.happens(faults.lost):
                    raise TransportError("no answer")
                self._broker.produce(self._epoch, output)
            await process.step()
            await self._end()
            self._known += 1
        except BaseException:
            self._doubted = True
            raise
        await process.step()
        return len(self._broker.topic("journal")) - 1

    async def _end(self) -> None:
        process, faults, epoch = self._process, self._process.faults, self._epoch
        loop = asyncio.get_running_loop()
        if process.happens(faults.lost):
            raise TransportError("no answer")
        if process.happens(faults.late):
            loop.call_later(20.0 * process.random.random(), self._arrive, epoch)
            await process.step(10.0)
            raise TransportError("no answer in time")
        if process.happens(faults.twice):
            self._sent_twice = True
            loop.call_later(0.1 * process.random.random(), self._arrive, epoch)
        self._broker.end_transaction(epoch)
        await process.step()
        if process.happens(faults.unanswered):
            raise TransportError("no answer")

    def _arrive(self, epoch: int) -> None:
        if epoch == self._broker.epoch:
            self._broker.end_transaction(epoch)

    async def emit(self, outputs: Sequence[Output]) -> None:
        raise AssertionError("nothing has to be written again")

    async def trim(self, position: int) -> None:
        if self._broker.trims:
            self._broker.trimmed = max(self._broker.trimmed, position)

    async def close(self) -> None:
        self._doubted = True


class WriteAheadCommitLog(SimulatedCommitLog):
    """The journal first, then the outputs; each record is durable for itself."""

    write_ahead = True

    async def commit(
        self, outputs: Sequence[Output], entry: Output, positions: Mapping[Source, int]
    ) -> int:
        assert not self._doubted, "a commit after a doubt"
        try:
            fits = [o for o in outputs if o.topic.endswith(".fits")]
            await self._write([*fits, entry, *(o for o in outputs if o not in fits)])
        except BaseException:
            self._doubted = True
            raise
        return len(self._broker.topic("journal")) - 1

    async def emit(self, outputs: Sequence[Output]) -> None:
        await self._write(outputs)

    async def _write(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            await self._process.step()
            if self._process.happens(self._process.faults.lost):
                raise TransportError("no answer")
            self._broker.committed.append(output)
            if self._process.happens(self._process.faults.unanswered):
                raise TransportError("no answer")
