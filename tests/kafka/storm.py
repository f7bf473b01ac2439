"""A service on three nodes while things break, under a supervisor, and what is held against it."""

import asyncio
import signal
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from stream_calib.adapters.kafka import TopicSpec, ensure_topics, read_journal
from stream_calib.config import KafkaConfig, load_config
from stream_calib.service.kept import decode_journal
from stream_calib.simulation import simulate
from tests.kafka.killing import ROLES, Published, Victim, tell
from tests.kafka.supervised import SETTLED_S, Supervised
from tests.kafka.test_faults_process import sizes
from tests.kafka.three import REPLICATION, Three, feed
from tests.kafka.truth import FITTED_ROLES, Truth, chunks, numbered, of_the_input, of_the_journal

DESCRIPTORS = 15  # more than at the beginning: connections to nodes that moved meanwhile
BROKEN_EVERY = 97  # records: one that nobody can read
BY_INPUT_ALONE = (('"1500ms"', '"1h"'), ('idle_slack = "1s"', 'idle_slack = "1h"'))
AS_DELIVERED = (('flush_after = "1500ms"', ""), ('idle_slack = "1s"', ""))
DCC = """
            dcc = { bar = '1s', first_fit_bars = 60, refit_bars = 60, window_bars = 200 }
            [refit]
            late = 'wait'
"""


@dataclass(frozen=True)
class Make:
    """What kind of universe a scene has.

    Attributes
    ----------
    n_symbols, rate_hz
        How many, and how often each has a tick, by event time.
    speed
        Of event time, so that there is something to publish at any moment.
    extra
        Further settings of the universe.
    clock
        Silence decides too: the defaults of ``idle_slack`` and ``flush_after``, and the journal
        alone says what has to come. Otherwise the input does.
    roles
        The topics that are compared.
    """

    n_symbols: int = 12
    rate_hz: float = 4.0
    speed: float = 8.0
    extra: str = ""
    clock: bool = False
    roles: tuple[str, ...] = ROLES


PLAIN = Make()
# 1.2 MB a matrix, which are two chunks, once all symbols are ready; one at first
CHUNKED = Make(n_symbols=450, rate_hz=2.0, speed=1.5)
FITTED = Make(n_symbols=5, extra=DCC, roles=FITTED_ROLES)
BY_CLOCK = Make(speed=1.0, clock=True)


@dataclass
class Figures:
    """What one storm was, for the table.

    Attributes
    ----------
    ends, restarts
        How often the service ended with which code, and began anew from the journal by itself.
    caught_up_s
        Until a reader had everything, from the later of two: all nodes answer again, and all of
        the input is written.
    input_after_s
        How long input was still written after the nodes answered again.
    late
        How many ticks were late.
    chunks
        How many matrices came in how many records.
    """

    name: str
    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    restarts: int = 0
    matrices: int = 0
    caught_up_s: float = 0.0
    input_after_s: float = 0.0
    late: int = 0
    fits: int = 0
    chunks: Counter[int] = field(default_factory=Counter)
    recovery_s: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def tell(self) -> None:
        """Write it as one line of JSON that `tests.kafka.chaos_table` reads."""
        kills = self.ends[-signal.SIGKILL]
        tell(
            self.name,
            self.seed,
            kills=kills,
            faults=dict(self.faults),
            ends={str(code): n for code, n in self.ends.items()},
            restarts=self.restarts,
            matrices=self.matrices,
            caught_up_s=round(self.caught_up_s, 2),
            input_after_s=round(self.input_after_s, 2),
            late=self.late,
            fits=self.fits,
            chunks={str(n): count for n, count in self.chunks.items()},
            recovery_s=self.recovery_s,
            descriptors=self.descriptors,
        )


@dataclass
class Scene:
    """A universe on three nodes and the input that is written while things break."""

    three: Three
    victim: Victim
    rows: list[list[bytes]]
    make: Make = PLAIN
    service: Supervised | None = None
    faults: Counter[str] = field(default_factory=Counter)

    @classmethod
    async def create(
        cls, three: Three, folder: Path, seed: int, seconds: float, make: Make = PLAIN
    ) -> "Scene":
        """Return what runs for about so many seconds; nothing is started yet."""
        ticks = simulate(make.n_symbols, seconds * make.speed, seed=seed, rate_hz=make.rate_hz)
        rows: list[list[bytes]] = [[], []]
        for k, record in enumerate(ticks.records()):
            rows[k % 2].append(orjson.dumps(record))
            if k % BROKEN_EVERY == 0:
                rows[k % 2].append(b'{"symbol": "broken')
        topic = f"storm-{uuid.uuid4().hex[:12]}"
        await ensure_topics(
            KafkaConfig(bootstrap_servers=three.bootstrap), [TopicSpec(topic, 2, REPLICATION)]
        )
        victim = await Victim(
            three.bootstrap,
            folder,
            [topic],
            ticks.symbols,
            keep=100,
            extra=make.extra,
            replication=REPLICATION,
        ).prepare()
        text = victim.config_file.read_text()
        # and fewer snapshots than are kept, so that the journal is whole at the end
        changes = (*(AS_DELIVERED if make.clock else BY_INPUT_ALONE), ('"100ms"', '"2s"'))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        victim.config_file.write_text(text)
        return cls(three, victim, rows, make)

    @property
    def topics(self) -> list[str]:
        """Everything it reads and writes, and what coordinates it."""
        names = [*self.victim.topics, "__transaction_state", "__consumer_offsets"]
        roles = (*self.make.roles, "journal")
        return names + [f"{self.victim.prefix}.{role}" for role in roles]

    @property
    def groups(self) -> dict[str, str]:
        """Where positions are noted for who looks at the lag, and who owns universes is settled."""
        prefix = self.victim.prefix
        return {"positions": f"{prefix}.u", "owners": f"{prefix}.owners"}

    @property
    def transactional_ids(self) -> dict[str, str]:
        """Whose transactions they are."""
        return {"transactions": f"{self.victim.prefix}.u"}

    def move_coordinators(self) -> Counter[str]:
        """Move all that coordinate it; return which moved."""
        return self.three.move_coordinators(self.groups, self.transactional_ids)

    async def through(
        self,
        name: str,
        seed: int,
        seconds: float,
        trouble: Callable[["Scene"], Awaitable[None]],
        may_end: Mapping[int, int] | None = None,
        may_restart: int = 0,
    ) -> Figures:
        """Feed the service for so long while there is trouble; then hold all of it against truth.

        Identical to what the input gives without a service, no number missing, no matrix torn, the
        journal one chain from which the same comes once more, as many descriptors as at first, no
        more starts that failed than ``may_end`` has, by their code, and no more beginnings anew
        from the journal within a life than ``may_restart``.
        """
        self.service = service = Supervised(self.victim)
        topic, at = self.victim.topics[0], asyncio.get_running_loop().time
        feeding = asyncio.create_task(feed(self.three.bootstrap, topic, self.rows, seconds))
        try:
            await asyncio.to_thread(service.until_running)
            await asyncio.to_thread(service.count_descriptors)
            await trouble(self)
            await asyncio.to_thread(self.three.heal)
            service.send(signal.SIGCONT)
            healed_s = at()
            await feeding
            fed_s = at()
            found, truth, whole_s = await self._settled()
            await asyncio.to_thread(service.count_descriptors)
        finally:
            feeding.cancel()
            await asyncio.to_thread(self.three.heal)
            await asyncio.to_thread(service.stop)
        assert self.three.taken_failures() == []
        service.judge(may_end or {})
        published = await self.victim.published(self.make.roles)
        assert self.make.clock or published == found, f"seed {seed}"  # nothing comes behind
        parts = self._judge(published, truth.published, seed)
        late = await self._judge_journal(published, truth.outcomes, seed)
        if not service.codes:
            first, last = service.descriptors
            assert last <= first + DESCRIPTORS, service.descriptors
        restarts = sum(entry["event"] == "starting over from the journal" for entry in service.log)
        assert restarts <= may_restart, (restarts, service.codes)
        return Figures(
            name,
            seed,
            self.faults,
            service.codes,
            restarts,
            len(numbered(published["correlations"])["u|ewma"]),
            whole_s - max(healed_s, fed_s),
            max(0.0, fed_s - healed_s),
            late,
            len(published.get("calibrations", ())),
            parts,
            self.victim.recovery_s,
            service.descriptors,
        )

    async def _settled(self) -> tuple[Published, Truth, float]:
        # Truth is computed beside, and has no part in how long it took until all was there.
        computing = asyncio.create_task(
            asyncio.to_thread(of_the_input, self.victim, self.make.roles, flush=self.make.clock)
        )
        at = asyncio.get_running_loop().time
        begun_s, found = at(), Published()
        seen: list[tuple[float, dict[str, int]]] = []
        while at() - begun_s < SETTLED_S:
            started_s = at()
            found = await self.victim.published(self.make.roles)
            seen.append((at(), self._sizes(found)))
            if computing.done():
                truth = computing.result()
                if self._sizes(found) == self._sizes(truth.published):
                    whole_s = next(when_s for when_s, size in seen if size == self._sizes(found))
                    return found, truth, whole_s
            await asyncio.sleep(max(0.3, at() - started_s))
        expected = (await computing).published
        assert self.service is not None
        raise AssertionError(
            f"{sizes(found)} and not {sizes(expected)}; {self.service.codes} "
            f"{self.service.sentences} {self.service.log[-5:]}"
        )

    def _sizes(self, found: Published) -> dict[str, int]:
        # A bar that silence closed can have events of its own.
        return sizes({"correlations": found["correlations"]} if self.make.clock else found)

    def _judge(self, found: Published, expected: Published, seed: int) -> Counter[int]:
        for role in self.make.roles:
            assert found[role], f"nothing in {role}, seed {seed}"
            assert self.make.clock or found[role] == expected[role], f"{role}, seed {seed}"
        numbered(found["events"])
        parts = chunks(found["correlations"])
        assert parts.total() > (10 if self.make.clock else 20)
        return parts

    async def _judge_journal(self, published: Published, outcomes: Counter[str], seed: int) -> int:
        kafka = load_config(self.victim.config_file).kafka
        records = await read_journal(kafka, f"{self.victim.prefix}.journal", 0)
        entries = list(decode_journal(records, "u").values())
        assert [entry.number for entry in entries] == list(range(len(entries))), f"seed {seed}"
        chain = ""
        for entry in entries:
            assert entry.previous == chain, f"seed {seed}"
            chain = entry.chain
        again = await of_the_journal(self.victim, self.make.roles)
        assert again.published == published, f"seed {seed}"
        # as many as the input has, where an answer to its writer was lost
        assert again.outcomes["late"] == outcomes["late"], (again.outcomes, outcomes)
        return again.outcomes["late"]


async def for_a_while(seconds: float, every_s: float, act: Callable[[], object]) -> int:
    """Do something in a thread again and again; return how often it was done."""
    clock = asyncio.get_running_loop().time
    begun_s, n = clock(), 0
    while clock() - begun_s < seconds:
        started_s = clock()
        await asyncio.to_thread(act)
        n += 1
        await asyncio.sleep(max(0.0, every_s - (clock() - started_s)))
    return n
