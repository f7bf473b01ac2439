"""One universe with its input, its broker and its disk, through any number of lives."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import orjson

from stream_calib.adapters.embedded import EmbeddedLog, EmbeddedSource
from stream_calib.config import Config, parse_config
from stream_calib.errors import OwnershipError, TransportError
from stream_calib.ports import JournalRecord, Ownership
from stream_calib.service.kept import decode_journal, installed_fits
from stream_calib.service.numerics import Build
from stream_calib.service.repetition import Allowed, Repetition
from stream_calib.service.runner import unobserved
from stream_calib.service.universe import Outside, UniverseService
from stream_calib.service.watchdog import Watchdog
from stream_calib.values import Fit, FitFailure, FitRequest, Output, RecordBatch, Source
from stream_calib.wire.journal import decode_entry
from stream_calib.wire.snapshots import snapshot_name
from tests.engine.fits import answer, made_up
from tests.simulation.broker import (
    Broker,
    Crash,
    Faults,
    Process,
    SimulatedCommitLog,
    WriteAheadCommitLog,
)
from tests.simulation.group import Group
from tests.simulation.memory import MemoryDisk, MemorySnapshots

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
SYMBOLS = ("A", "B", "C", "D")
OUTPUTS = ("correlations", "events", "rejects", "calibrations", "universes")
NOTHING = Allowed()
BUILD = Build("1.2.3", {"simulated": "1"})
LIVES_MAX = 60

Row = tuple[int, bytes | None, int]  # partition, value, log time


def make_input(random: Random, n_partitions: int) -> list[Row]:
    """Ticks of four correlated symbols, some late, some broken, over several partitions."""
    prices, rows, time_s = dict.fromkeys(SYMBOLS, 100.0), [], 0.0
    for _ in range(random.randint(60, 160)):
        time_s += random.expovariate(6.0)
        common = random.gauss(0.0, 0.003)
        symbol = random.choice(SYMBOLS)
        prices[symbol] *= float(np.exp(common + random.gauss(0.0, 0.002)))
        late_s = random.choice([0.0, 0.0, 0.0, 0.4, 3.0])
        time_ns = START + int((time_s - late_s) * SECOND)
        value: bytes | None = orjson.dumps(
            {"symbol": symbol, "time": time_ns, "price": prices[symbol]}
        )
        if random.random() < 0.05:
            value = random.choice([b"{", b"", None, b'{"symbol":"A","time":1,"price":-1}'])
        stamp_ms = (START + int(time_s * SECOND)) // 1_000_000
        rows.append((random.randrange(n_partitions), value, stamp_ms))
    return rows


class SimulatedSource(EmbeddedSource):
    """Reads partitions in any order and any cut, in a process that may die."""

    def __init__(
        self,
        log: EmbeddedLog,
        process: Process,
        finished: Callable[[], bool],
        topics: Sequence[str] = ("ticks",),
    ) -> None:
        super().__init__(log, topics, finished)
        self._process = process

    async def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        await self._process.step()
        order = list(self._positions.items())
        self._process.random.shuffle(order)
        self._positions = dict(order)
        return await super().poll(self._process.random.randint(1, max_records), timeout_s)

    async def read(self, source: Source, start: int, stop: int, max_records: int) -> RecordBatch:
        await self._process.step()
        return await super().read(source, start, stop, self._process.random.randint(1, max_records))

    async def bounds(self, sources: object) -> Mapping[Source, tuple[int, int]]:
        await self._process.step()
        return await super().bounds(sources)  # type: ignore[arg-type]


class Witness(type(unobserved())):  # type: ignore[misc]
    """Counts what processes were to the universe."""

    def __init__(self, roles: Counter[str]) -> None:
        self._roles = roles

    def owned(self, universe: str, role: str) -> None:
        self._roles[role] += 1


class SimulatedFitter:
    """Makes fits up, in some time; where chance may be seen in the output, it fails too."""

    def __init__(self, process: Process, fails: bool) -> None:
        self._process = process
        self._fails = fails

    async def fit(self, request: FitRequest) -> Fit | FitFailure:
        random = self._process.random
        await asyncio.sleep(random.random() ** 4)  # mostly sooner than the input is at its end
        await self._process.step()
        return answer(request, SYMBOLS, random) if self._fails else made_up(request.number, SYMBOLS)

    async def close(self) -> None: ...


class WitnessedSnapshots(MemorySnapshots):
    """Tells of each snapshot that is dropped, before it is."""

    def __init__(
        self, disk: MemoryDisk, keep: int, at: Callable[[str], None], drops: Callable[[str], None]
    ) -> None:
        super().__init__(disk, keep, at)
        self._drops = drops

    def delete(self, name: str) -> None:
        self._drops(name)
        super().delete(name)


@dataclass
class World:
    """Everything that outlives a process."""

    random: Random
    faults: Faults
    rows: list[Row]
    n_partitions: int
    write_ahead: bool = False
    damage: bool = False
    refits: bool = False
    grows: bool = False
    broker: Broker = field(default_factory=Broker)
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    log: EmbeddedLog = field(default_factory=EmbeddedLog)
    allowed: Allowed = NOTHING
    build: Build = BUILD
    roles: Counter[str] = field(default_factory=Counter)
    lives: int = 0
    damaged: int = 0
    window: str = "1s"  # of the estimator

    def __post_init__(self) -> None:
        self.broker.trims = not self.damage  # what was trimmed cannot be had without a snapshot
        late = "when_ready" if self.refits else "wait"
        self.config = settings(self.random, self.window, late)
        self.log.create_topic("ticks", self.n_partitions)
        for partition, value, stamp_ms in self.rows:
            self.log.append("ticks", partition, None, value, (), stamp_ms)

    async def run(self) -> "World":
        """Let processes live and die until one comes to the end of the input."""
        growing = asyncio.get_running_loop().create_task(self._grow())
        try:
            await self._live()
        finally:
            growing.cancel()
        return self

    async def _live(self) -> None:
        while not await self._life():
            self._break_something()
            assert self.lives < LIVES_MAX
            await asyncio.sleep(self.random.random())

    async def _grow(self) -> None:
        # partitions appear while the service runs, with ticks of all times
        while self.grows and self.n_partitions < 5:
            await asyncio.sleep(0.3 * self.random.random())
            self.log.create_topic("ticks", self.n_partitions + 1)
            for _, value, stamp_ms in self.random.sample(self.rows, 20):
                self.log.append("ticks", self.n_partitions, None, value, (), stamp_ms)
            self.n_partitions += 1

    async def share(self, n_workers: int) -> "World":
        """Let several processes share the universe until one comes to the end of the input."""
        self.group = group = Group(self.random)
        shuffling = asyncio.create_task(group.shuffle())
        stop = asyncio.Event()
        workers = [asyncio.create_task(self._worker(group, stop)) for _ in range(n_workers)]
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            for worker in workers:
                await worker
        finally:
            shuffling.cancel()
            for worker in workers:
                worker.cancel()
        return self

    async def _worker(self, group: Group, stop: asyncio.Event) -> None:
        while not stop.is_set():
            process = self.new_process()
            member = group.join(process)
            try:
                if await self.lived(process, stop, member):
                    return
            finally:
                group.leave(member)
            await asyncio.sleep(self.random.random())

    async def _life(self) -> bool:
        return await self.lived(self.new_process(), asyncio.Event())

    def new_process(self) -> Process:
        self.lives += 1
        process = Process(self.random, self.faults)
        if self.lives > LIVES_MAX // 2:
            process.faults = Faults(guarded=self.faults.guarded)
        return process

    async def lived(
        self, process: Process, stop: asyncio.Event, ownership: Ownership | None = None
    ) -> bool:
        service = UniverseService(
            self.config,
            self.config.universe[0],
            Outside(
                lambda: SimulatedSource(
                    self.log,
                    process,
                    self._is_grown,
                    self.config.topics_of(self.config.universe[0]),
                ),
                lambda: self.new_log(process, ownership),
                WitnessedSnapshots(self.disk, self.config.snapshots.keep, process.at, self._drops),
                Witness(self.roles),
                Watchdog(60.0),
                fitter=SimulatedFitter(process, self.refits),
                at=process.at,
                ownership=ownership,
            ),
            self.build,
            self.allowed,
        )
        try:
            await service.run(stop)
        except Crash:
            return False
        except (TransportError, OwnershipError):
            process.dead = True
            return False
        return not process.dead

    def new_log(self, process: Process, ownership: Ownership | None) -> SimulatedCommitLog:
        log = WriteAheadCommitLog if self.write_ahead else SimulatedCommitLog
        return log(self.broker, process, ownership)

    def _drops(self, name: str) -> None:
        """Make sure that nobody drops what an owner that begins now would go on from."""
        if self.damage:  # what is damaged is dropped, whatever its name
            return
        kept = self.broker.topic("journal")[self.broker.trimmed :]
        entries = [decode_entry(output.value) for output in kept]
        states = {snapshot_name(entry.number, entry.chain) for entry in entries}
        good = states & self.disk.files.keys()
        assert not good or name != max(good), "the newest good snapshot is dropped"

    def _is_grown(self) -> bool:
        return not self.grows or self.n_partitions == 5

    def _break_something(self) -> None:
        if not (self.damage and self.disk.files):
            return
        self.damaged += 1
        name = self.random.choice(sorted(self.disk.files))
        value = self.disk.files[name]
        match self.random.randrange(5):
            case 0:
                del self.disk.files[name]
            case 1:
                self.disk.files[name] = value[: self.random.randrange(len(value))]
            case 2:
                at = self.random.randrange(len(value))
                self.disk.files[name] = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
            case 3:  # of a commit that did not take place, or of a zombie's
                number = int(name.partition("-")[0]) + self.random.randint(0, 2)
                self.disk.files[f"{number:020d}-{'0' * 32}.snap"] = value
            case 4:
                self.disk.files.clear()

    def published(self) -> dict[str, list[Output]]:
        """What a reader of committed records sees."""
        return {role: self.broker.topic(role) for role in OUTPUTS}

    async def repeated(self) -> dict[str, list[Output]]:
        """What the whole journal gives, repeated from its beginning."""
        records = [JournalRecord(i, o.value) for i, o in enumerate(self.broker.topic("journal"))]
        entries = list(decode_journal(records, "u").values())
        healthy = Process(Random(0), Faults())
        loop = asyncio.get_running_loop()
        repetition = Repetition(
            self.config,
            self.config.universe[0],
            SimulatedSource(self.log, healthy, lambda: True),
            BUILD,
            Allowed(),
            lambda work: loop.run_in_executor(None, work),
        )
        fits = await installed_fits(entries, SimulatedCommitLog(self.broker, healthy), "u")
        out: list[Output] = []
        for entry in entries:
            out += await repetition.repeat(entry, fits)
        return {role: [o for o in out if o.topic.endswith(f".{role}")] for role in OUTPUTS}


def settings(random: Random, window: str, late: str) -> Config:
    """Small settings; those that must not be seen in the output are drawn."""
    return parse_config(
        {
            "input": {
                "topics": ["ticks"],
                "max_records": random.choice([3, 10, 50]),
                "rejects_per_second": 3,
            },
            "time": {"lateness": "1s", "idle_slack": "2s"},
            "delivery": {"commit_interval": random.choice(["50ms", "500ms"])},
            "refit": {"late": late},
            "snapshots": {"keep": random.choice([1, 3]), "replay_cost": "60ms"},
            "universe": [
                {
                    "name": "u",
                    "symbols": list(SYMBOLS),
                    "bar": "1s",
                    "ready_n_eff": 3.0,
                    "ewma": {"half_life": "10s", "window": window},
                    "dcc": {
                        "bar": "1s",
                        "window_bars": 20,
                        "first_fit_bars": 5,
                        "refit_bars": 3,
                    },
                }
            ],
        }
    )
