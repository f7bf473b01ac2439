"""From the journal's end back to the same bits: fence, restore, repeat, compare."""

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import structlog

from stream_calib import ports
from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.state import difference
from stream_calib.errors import ConfigError, LostInputError, OwnershipError, RecoveryError
from stream_calib.service.kept import (
    decode_journal,
    installed_fits,
    newest_snapshot,
    snapshot_names,
)
from stream_calib.service.numerics import Build
from stream_calib.service.repetition import Allowed, InThread, Repetition
from stream_calib.service.session import Session
from stream_calib.values import Change, JournalEntry, Output, Range, Snapshot, Source

OVERTAKEN_S = 2.0  # to hear of another owner: a broker tells it in much less
FOLLOW_S = 0.2


class Parts(NamedTuple):
    """What one universe is made of."""

    config: Config
    universe: UniverseConfig
    source: ports.RecordSource
    log: ports.CommitLog
    snapshots: ports.SnapshotStore | None
    observer: ports.Observer
    build: Build


class Recovered(NamedTuple):
    """A universe ready to go on, where its journal entries lie, and what it took.

    ``repeated_s`` is the time that repeating the entries took, ``states_compared`` how many of
    them said what the state was after them. The snapshots ``refused`` fit no entry: they may be
    dropped once this process has committed, which shows that it was the owner when it said so.
    """

    session: Session
    entry_positions: dict[int, int]
    snapshot_number: int
    entries_repeated: int
    repeated_s: float = 0.0
    was_warm: bool = False
    states_compared: int = 0
    refused: tuple[str, ...] = ()


class Recovery:
    """Builds the state of one universe again.

    Parameters
    ----------
    parts
        The universe; its source is started, its snapshots are open.
    allowed
        What the user has accepted.
    in_thread
        Runs a function in the thread that computes.
    warm
        The universe as a standby has repeated it so far, where there was one.
    at
        Told of "repeat" between two entries, where a test may end the process.
    """

    def __init__(
        self,
        parts: Parts,
        allowed: Allowed,
        in_thread: InThread[Any],
        warm: Repetition | None = None,
        at: Callable[[str], None] = lambda _point: None,
    ) -> None:
        self._parts = parts
        self._at = at
        self._allowed = allowed
        self._in_thread = in_thread
        self._name = parts.universe.name
        self._log = structlog.get_logger().bind(universe=self._name)
        self._refused: list[str] = []
        self._unread: list[Range] = []
        self._retired: list[Source] = []
        self._warm = warm
        self._repetition = new_repetition(parts, allowed, in_thread)

    async def run(self) -> Recovered:
        """Own the universe, and bring it to where its journal ends.

        Raises
        ------
        RecoveryError, LostInputError
            The state cannot be built again; the sentence names the flag that accepts that.
        OwnershipError
            Another process has committed since this one read the journal.
        ConfigError
            A setting was changed that the state depends on.
        TransportError
            The outside did not answer.
        """
        records = await self._parts.log.own()
        end = records[-1].position if records else -1
        journal = decode_journal(records, self._name)
        entries = list(journal.values())
        if not entries:
            session = await self._genesis()
            return Recovered(session, {}, -1, 0, refused=tuple(self._refused))
        log, snapshot = self._parts.log, None
        was_warm = self._is_warm(entries)
        if was_warm:
            assert self._warm is not None
            self._repetition = self._warm
        else:
            snapshot = await self._in_thread(lambda: self._newest_snapshot(entries))
        repetition = self._repetition
        if snapshot is not None:
            repetition.restore(snapshot)
        elif repetition.number < 0 and entries[0].number != 0:
            await self._check_owner(end)
            raise RecoveryError(
                f"The journal of universe {self._name!r} begins at entry {entries[0].number}, and "
                "no snapshot that fits it is left to go on from: bring the snapshots of its last "
                "host here, or delete the journal topic and begin anew with --genesis"
            )
        todo = [entry for entry in entries if entry.number > repetition.number]
        positions = await self._check_input(todo)
        await self._check_latest(entries, todo)
        fits = await installed_fits(todo, log, self._name)
        emitted = max(entry.emitted for entry in entries)
        unemitted: list[Output] = []
        clock = asyncio.get_running_loop().time
        compared_before = repetition.states_compared
        started_s = clock()
        for entry in todo:
            if entry is not todo[0]:
                self._at("repeat")
            outputs = await repetition.repeat(entry, fits)
            if entry.number > emitted:
                unemitted += outputs
        repeated_s = clock() - started_s
        if unemitted:
            await log.emit(unemitted)
        session = self._session(entries[-1].chain, self._changes())
        session.positions = positions
        session.pass_over(self._unread)
        self._parts.source.resume(session.positions)
        where = {entry.number: position for position, entry in journal.items()}
        number = snapshot.number if snapshot else -1
        compared = repetition.states_compared - compared_before
        refused = tuple(self._refused)
        return Recovered(session, where, number, len(todo), repeated_s, was_warm, compared, refused)

    async def _genesis(self) -> Session:
        log, store = self._parts.log, self._parts.snapshots
        names = (
            []
            if store is None
            else await self._in_thread(lambda: snapshot_names(store, self._name))
        )
        published = await log.last_sequences()
        used = bool(names) or await log.has_outputs()
        if used and not self._allowed.genesis:
            await self._check_owner(-1)
            what = "snapshots of it" if names else "records that it published"
            raise RecoveryError(
                f"The journal of universe {self._name!r} is empty, but there are {what}; if the "
                "journal is gone for good, --genesis begins anew from the first record of the input"
            )
        self._refused += names
        settings = self._parts.config.settings(self._parts.universe)
        changes = [
            self._ownership(),
            Change("genesis", {"settings": settings, "sequences": dict(published)}),
        ]
        for change in changes:
            self._repetition.apply(change)
        return self._session("", changes)

    def _is_warm(self, entries: Sequence[JournalEntry]) -> bool:
        warm = self._warm
        if warm is None or self._allowed != Allowed():
            return False
        return any((warm.number, warm.chain) == (e.number, e.chain) for e in entries)

    def _newest_snapshot(self, entries: Sequence[JournalEntry]) -> Snapshot | None:
        store = self._parts.snapshots
        if store is None:
            return None

        def refuse(name: str, reason: str) -> None:
            self._log.warning("snapshot refused", name=name, reason=reason)
            self._refused.append(name)

        return newest_snapshot(store, self._name, entries, refuse)

    async def _check_owner(self, end: int) -> None:
        """Raise where the journal goes on behind ``end``, its last position that was read.

        Whoever stands still in between finds snapshots, or trimmed entries, of an heir, and
        would call for somebody to mend what is not broken.
        """
        clock = asyncio.get_running_loop().time
        deadline_s, found = clock() + OVERTAKEN_S, -1
        while clock() < deadline_s and found <= end:
            try:
                followed = await self._parts.log.follow(FOLLOW_S)
            except LostInputError:  # only owners trim
                found = end + 1
            else:
                found = max([found, *(record.position for record in followed)])
        if found > end:
            raise OwnershipError(
                f"Another process has taken over universe {self._name!r} since this one read its "
                "journal"
            )

    async def _check_input(self, todo: Sequence[JournalEntry]) -> dict[Source, int]:
        """Return where reading goes on; all that is to be repeated is in the log."""
        repetition = self._repetition
        ranges = [wanted for entry in todo for wanted in _ranges(entry)]
        runner = repetition.runner
        reached = {} if runner is None else runner.engine.intake.positions()
        reached |= {wanted.source: wanted.position_after for wanted in ranges}
        bounds = await self._parts.source.bounds(sorted(reached))
        for wanted in ranges:
            first, end = bounds.get(wanted.source, (0, 0))
            within = first <= wanted.position_before and wanted.position_after <= end
            if wanted.n_records and not within:
                repetition.lose(wanted, f"is not in the log, which holds {first} to {end}")
        for source, position in list(reached.items()):
            if not self._parts.config.reads(self._parts.universe, source.topic):
                self._retired.append(source)
                del reached[source]
                continue
            if source not in bounds:
                unread = Range(source, position, position, 0, 0)
                repetition.refuse_gap(unread, "cannot be read: the partition is gone")
                self._retired.append(source)
                del reached[source]
                continue
            first, end = bounds[source]
            if not first <= position <= end:
                go_on = first if position < first else end
                unread = Range(source, position, go_on, 0, 0)
                repetition.refuse_gap(
                    unread, f"was not read yet, and the log holds {first} to {end}"
                )
                self._unread.append(unread)
        return reached

    async def _check_latest(
        self, entries: Sequence[JournalEntry], todo: Sequence[JournalEntry]
    ) -> None:
        """Make sure that a topic of which nothing is repeated was not made anew meanwhile."""
        repeated = {wanted.source for entry in todo for wanted in _ranges(entry)}
        latest: dict[Source, Range] = {}
        for entry in entries:
            for source in _given_up(entry):  # what was read before is gone, and that was accepted
                latest.pop(source, None)
            read = [r for r in _ranges(entry) if r.n_records and r.source not in repeated]
            latest |= {wanted.source: wanted for wanted in read}
        bounds = await self._parts.source.bounds(sorted(latest))
        for source, wanted in sorted(latest.items()):
            first, end = bounds.get(source, (0, 0))
            readable = first <= wanted.position_before and wanted.position_after <= end
            if not readable or not self._parts.config.reads(self._parts.universe, source.topic):
                continue
            if not await self._repetition.read_again(wanted):
                what = "does not hold the records any more that were read"
                self._repetition.refuse_gap(wanted, what)
                self._unread.append(wanted._replace(n_records=0, digest=0))

    def _changes(self) -> list[Change]:
        """Return what the next entry says is different from now on."""
        repetition, changes = self._repetition, [self._ownership()]
        wanted = self._parts.config.settings(self._parts.universe)
        if self._retired:
            sources = [[*source] for source in self._retired]
            changes.append(Change("retire", {"sources": sources}))
        for gone, repeated in ((self._unread, False), (repetition.lost, True)):
            if gone:
                ranges = [[*r.source, r.position_before, r.position_after] for r in gone]
                changes.append(Change("gap", {"ranges": ranges, "repeated": repeated}))
        if repetition.diverged:
            changes.append(Change("divergence", {"reason": repetition.diverged}))
        found = difference(repetition.settings, wanted)
        if found is not None and not self._allowed.reset_state:
            raise ConfigError(
                f"{found}, and the state of universe {self._name!r} depends on it; --reset-state "
                "begins afresh with it"
            )
        if found is not None or self._allowed.reset_state:
            changes.append(Change("reset", {"settings": wanted}))
        elif repetition.settings != wanted:
            changes.append(Change("migrate", {"settings": wanted}))
        self._warn_of_unused(changes)
        for change in changes:
            repetition.apply(change)
        return changes

    def _warn_of_unused(self, changes: Sequence[Change]) -> None:
        kinds = {change.kind for change in changes}
        allowed = self._allowed
        unused = {
            "--genesis": allowed.genesis,
            "--accept-gap": allowed.gap and not kinds & {"gap", "retire"},
            "--accept-divergence": allowed.divergence and "divergence" not in kinds,
        }
        for flag in (flag for flag, is_unused in unused.items() if is_unused):
            self._log.warning("flag was not needed", flag=flag)

    def _ownership(self) -> Change:
        build = self._parts.build
        return Change(
            "owner",
            {
                "instance": uuid.uuid4().hex,
                "software_version": build.software_version,
                "numerics": dict(build.numerics),
            },
        )

    def _session(self, chain: str, changes: Sequence[Change]) -> Session:
        parts, repetition = self._parts, self._repetition
        assert repetition.runner is not None
        repetition.runner.observer = parts.observer
        return Session(
            parts.config,
            parts.universe,
            repetition.runner,
            repetition.number,
            chain,
            changes,
            parts.build,
            write_ahead=parts.log.write_ahead,
        )


def new_repetition(parts: Parts, allowed: Allowed, in_thread: InThread[Any]) -> Repetition:
    """Return the repetition of a universe from its first entry on."""
    return Repetition(parts.config, parts.universe, parts.source, parts.build, allowed, in_thread)


def _ranges(entry: JournalEntry) -> Iterator[Range]:
    for move in entry.moves:
        yield from move.ranges


def _given_up(entry: JournalEntry) -> Iterator[Source]:
    for change in entry.changes:
        ranges: Any = change.details.get("ranges", ()) if change.kind == "gap" else ()
        for topic, partition, _, _ in ranges:
            yield Source(topic, partition)
