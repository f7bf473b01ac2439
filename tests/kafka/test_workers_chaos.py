"""Three workers share six universes while they are killed, frozen, stopped and joined at random.

    make chaos-workers CHAOS_SEED=...

repeats a course. Input is written meanwhile, a second of event time for each second.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from tests.kafka.killing import WHOLE, tell
from tests.kafka.living import GAVE_UP, Live, ended, said_at, start
from tests.kafka.workers import (
    DEADLINE_S,
    DEBUG,
    SESSION_S,
    Workers,
    feeding,
    input_of,
    served_by,
    until_said,
)

UNIVERSES = ("a", "b", "c", "d", "e", "f")
WORKERS = 3
CHAOS_S = float(os.environ.get("CHAOS_SECONDS", "300"))
SHORT, LONG = "frozen for less than a session", "frozen for longer than a session"
FROZEN_S = {SHORT: 0.5 * SESSION_S, LONG: 2.0 * SESSION_S}
DECK = ("kill", "kill", "kill and restart", SHORT, LONG, "stop", "join")
# An action takes 4 s on average, with what is waited for: a deck every half a minute. On a machine
# that is three times as slow as that there is still one in each of these.
DECK_S = 90.0
# The last tenth is a storm of joins and leaves, one a second.
RUSH_DECK, RUSH_S, RUSH_PAUSE_S = ("kill and restart", "stop", "join"), 0.1 * CHAOS_S, 1.0


class Course:
    """What was done to the workers, and who owned what when."""

    def __init__(self, served: Workers, random: Random) -> None:
        self.served, self.random = served, random
        self.at_work: list[Live] = []
        self.actions: Counter[str] = Counter()
        self.takeovers: dict[str, list[float]] = {"warm": [], "cold": []}
        self.n_fenced = self.n_gave_up = 0
        self._lost_at: dict[str, tuple[float, str]] = {}
        self._owner: dict[str, Live] = {}
        self._warm: dict[str, bool] = {}
        self._read: Counter[int] = Counter()
        self._gone: list[Live] = []
        self._joined: set[int] = set()
        self.newcomers: set[int] = set()  # that were given a universe, of those who joined
        self.n_rushed = 0
        self._drawn, self._rushing = self._draw(DECK), self._draw(RUSH_DECK)

    async def join(self) -> Live:
        worker = await start(self.served, *DEBUG)
        self.at_work.append(worker)
        return worker

    def note(self) -> None:
        """Read what the workers have said since the last time."""
        for worker in (*self.at_work, *self._gone):
            lines = worker.lines[self._read[id(worker)] :]
            self._read[id(worker)] += len(lines)
            for line in lines:
                if line.endswith("}\n"):  # not what a kill has cut
                    self._take(worker, orjson.loads(line))

    def _take(self, worker: Live, said: dict[str, Any]) -> None:
        universe = said.get("universe", "")
        if said["event"] == "recovered":
            self._owner[universe], self._warm[universe] = worker, said["warm"]
            self.newcomers |= {id(worker)} & self._joined
        elif said["event"] == "no longer the owner":
            self.n_fenced += 1
        elif said["event"] == "matrix" and universe in self._lost_at:
            lost_s, how = self._lost_at[universe]
            took_s = said_at(said) - lost_s
            if took_s > 0.0 and self._owner[universe] is worker:
                del self._lost_at[universe]
                if how == "killed":
                    kind = "warm" if self._warm[universe] else "cold"
                    self.takeovers[kind].append(took_s)

    async def act(self) -> None:
        """Do something to one of them."""
        await self._do(next(self._drawn))

    async def rush(self, seconds: float) -> None:
        """Let some end and others join for so long, without waiting for what comes of it."""
        until_s = time.monotonic() + seconds
        while (begun_s := time.monotonic()) < until_s:
            await self._do(next(self._rushing))
            self.n_rushed += 1
            await asyncio.sleep(max(0.0, begun_s + RUSH_PAUSE_S - time.monotonic()))

    async def _do(self, action: str) -> None:
        worker = self.random.choice(self.at_work)
        for each in self.at_work:
            assert each.process.poll() is None, each.lines[-5:]
        if action == "join" and len(self.at_work) > WORKERS:
            action = "stop"
        if action in FROZEN_S:
            worker.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(FROZEN_S[action])
            worker.process.send_signal(signal.SIGCONT)
        elif action == "join":
            self._joined.add(id(await self.join()))
        else:
            await self._end(worker, action)
        self.actions[action] += 1

    async def _end(self, worker: Live, action: str) -> None:
        self.note()
        how = "stopped" if action == "stop" else "killed"
        for universe, owner in self._owner.items():
            if owner is worker:  # what had not come back yet is lost since then
                self._lost_at.setdefault(universe, (time.time(), how))
        self.at_work.remove(worker)
        self._gone.append(worker)
        if action == "stop":
            await until_said(worker, "running")  # before, a signal ends it at once
            # with universes on their way to it, it may run out of time; that is as good as a kill
            done = await ended(worker, signal.SIGTERM, may_give_up=True)
            assert done.code == 0, done
            self.n_gave_up += len(done.said(GAVE_UP))
        else:
            await asyncio.to_thread(worker.killed)
        if action == "kill":
            await asyncio.sleep(self.random.uniform(0.0, 2.0 * SESSION_S))
        if len(self.at_work) < WORKERS:
            await self.join()

    def _draw(self, deck: Sequence[str]) -> Iterator[str]:
        """Every kind comes, in an order that the seed decides."""
        while True:
            yield from self.random.sample(deck, len(deck))

    def assert_enough(self, seconds: float, standby: str) -> None:
        """Hold what was done against the least that so many seconds have to bring.

        Of less than a minute and a half nothing is asked.
        """
        decks = int(seconds / DECK_S)
        for action in {*DECK} - {"join"}:
            assert self.actions[action] >= decks * DECK.count(action), self.actions
        assert self.actions["join"] >= decks / 2, self.actions  # every other one is a stop
        warm, cold = (len(self.takeovers[kind]) for kind in ("warm", "cold"))
        # two universes of each that is killed; none of one that has just come, and on a machine
        # that is slow most have
        assert warm + cold >= decks * DECK.count("kill"), self.takeovers
        assert warm == 0 or standby == "always", self.takeovers
        if decks:
            assert warm > 0 or standby == "never", self.takeovers
            assert self.n_fenced > 0
            assert self.newcomers  # they were no mere spectators
            assert self.n_rushed > 2

    @property
    def kills(self) -> int:
        return self.actions["kill"] + self.actions["kill and restart"]


@pytest.mark.chaos
@pytest.mark.parametrize(("standby", "trimmed"), [("always", True), ("never", False)])
async def test_every_output_is_that_of_one_worker_that_nothing_happens_to(
    kafka_bootstrap: str, tmp_path: Path, seed: int, standby: str, trimmed: bool
) -> None:
    """The journal is trimmed meanwhile, or repeated from its beginning in the end."""
    random = Random(seed)
    given = await input_of(kafka_bootstrap, seed, 4.0 * CHAOS_S, n_symbols=8)
    # of so much work between two there are few enough that all are kept
    untrimmed = {} if trimmed else {"keep": WHOLE, "replay_cost": "2s"}
    served = await served_by(
        kafka_bootstrap,
        tmp_path,
        given,
        universes=UNIVERSES,
        standby=standby,
        max_records=20,
        **untrimmed,
    )
    course = Course(served, random)
    for _ in range(WORKERS):
        await course.join()
    async with feeding(kafka_bootstrap, given) as feed:
        until_s = time.monotonic() + CHAOS_S - RUSH_S
        while time.monotonic() < until_s:
            await asyncio.sleep(random.uniform(1.0, 6.0))
            course.note()
            await course.act()
        await course.rush(RUSH_S)
        assert not feed.is_over
        await feed.end()
    expected = await served.expected()
    for published in expected:
        assert published["correlations"]
        assert published["events"]
        assert published["rejects"]
    await served.until_all(expected)
    found = await served.of_all()
    course.note()
    for universe, published, wanted in zip(UNIVERSES, found, expected, strict=True):
        assert published == wanted, f"universe {universe}, seed {seed}"
    for worker in course.at_work:
        assert (await ended(worker, signal.SIGTERM)).code == 0
    course.note()
    assert await served.of_all() == expected, f"seed {seed}"
    assert trimmed or await served.repeated_all() == expected, f"seed {seed}"
    course.assert_enough(CHAOS_S, standby)
    tell(
        f"three workers, six universes, standby {standby}",
        seed,
        kills=course.kills,
        faults={k: n for k, n in course.actions.items() if not k.startswith("kill")},
        takeover_s=course.takeovers,
        fenced=course.n_fenced,
        newcomers=len(course.newcomers),
        rushed=course.n_rushed,
        stops_given_up=course.n_gave_up,
        seconds=CHAOS_S,
        deadline_s=DEADLINE_S,
    )
