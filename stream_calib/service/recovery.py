"""From the journal's end back to the same bits: fence, restore, repeat, compare."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from stream_calib import ports
from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.state import difference
from stream_calib.errors import ConfigError, InputError, RecoveryError
from stream_calib.service.numerics import Build
from stream_calib.service.repetition import Allowed, InThread, Repetition
from stream_calib.service.session import Session
from stream_calib.values import Change, Fit, JournalEntry, Output, Range, Snapshot, Source
from stream_calib.wire.fits import decode_fit
from stream_calib.wire.journal import decode_entry
from stream_calib.wire.snapshots import decode_snapshot, digest_state


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
    """A universe ready to go on, where its journal entries lie, and what it took."""

    session: Session
    entry_positions: dict[int, int]
    snapshot_number: int
    entries_repeated: int


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
    """

    def __init__(self, parts: Parts, allowed: Allowed, in_thread: InThread[Any]) -> None:
        self._parts = parts
        self._allowed = allowed
        self._in_thread = in_thread
        self._name = parts.universe.name
        self._log = structlog.get_logger().bind(universe=self._name)
        self._unread: list[Range] = []
        self._retired: list[Source] = []
        self._repetition = Repetition(
            parts.config,
            parts.universe,
            parts.source,
            parts.build,
            allowed,
            in_thread,
        )

    async def run(self) -> Recovered:
        """Own the universe, and bring it to where its journal ends.

        Raises
        ------
        RecoveryError, LostInputError
            The state cannot be built again; the sentence names the flag that accepts that.
        ConfigError
            A setting was changed that the state depends on.
        TransportError
            The outside did not answer.
        """
        records = await self._parts.log.own()
        journal = decode_journal(records, self._name)
        entries = list(journal.values())
        if not entries:
            return Recovered(await self._genesis(), {}, -1, 0)
        repetition, log = self._repetition, self._parts.log
        snapshot = await self._in_thread(lambda: self._newest_snapshot(entries))
        if snapshot is not None:
            repetition.restore(snapshot)
        elif entries[0].number != 0:
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
        for entry in todo:
            outputs = await repetition.repeat(entry, fits)
            if entry.number > emitted:
                unemitted += outputs
        if unemitted:
            await log.emit(unemitted)
        session = self._session(entries[-1].chain, self._changes())
        session.positions = positions
        session.pass_over(self._unread)
        self._parts.source.resume(session.positions)
        where = {entry.number: position for position, entry in journal.items()}
        return Recovered(session, where, snapshot.number if snapshot else -1, len(todo))

    async def _genesis(self) -> Session:
        log, store = self._parts.log, self._parts.snapshots
        names = [] if store is None else await self._in_thread(store.names)
        published = await log.last_sequences()
        used = bool(names) or await log.has_outputs()
        if used and not self._allowed.genesis:
            what = "snapshots of it" if names else "records that it published"
            raise RecoveryError(
                f"The journal of universe {self._name!r} is empty, but there are {what}; if the "
                "journal is gone for good, --genesis begins anew from the first record of the input"
            )
        for name in names:
            assert store is not None
            store.delete(name)
        settings = self._parts.config.settings(self._parts.universe)
        changes = [
            self._ownership(),
            Change("genesis", {"settings": settings, "sequences": dict(published)}),
        ]
        for change in changes:
            self._repetition.apply(change)
        return self._session("", changes)

    def _newest_snapshot(self, entries: Sequence[JournalEntry]) -> Snapshot | None:
        store = self._parts.snapshots
        known = {entry.number: entry for entry in entries}
        for name in store.names() if store is not None else []:
            assert store is not None
            try:
                snapshot = decode_snapshot(store.load(name))
                reason = misfit(snapshot, self._name, known)
            except OSError as error:  # it may be readable another time
                self._log.warning("snapshot not read", name=name, reason=str(error))
                continue
            except InputError as error:
                reason = str(error)
            if not reason:
                return snapshot
            self._log.warning("snapshot refused", name=name, reason=reason)
            store.delete(name)
        return None

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


def _ranges(entry: JournalEntry) -> Iterator[Range]:
    for move in entry.moves:
        yield from move.ranges


def _given_up(entry: JournalEntry) -> Iterator[Source]:
    for change in entry.changes:
        ranges: Any = change.details.get("ranges", ()) if change.kind == "gap" else ()
        for topic, partition, _, _ in ranges:
            yield Source(topic, partition)


def decode_journal(
    records: Sequence[ports.JournalRecord], universe: str
) -> dict[int, JournalEntry]:
    """Return the entries of a journal by position, each following the one before.

    Written ahead, the journal may hold entries of a process that did not know of the last ones:
    the first entry to follow another one counts, and of the others nothing was published.

    Raises
    ------
    RecoveryError
        A record is no entry, or entries do not follow each other.
    ConfigError
        They are of another universe.
    """
    entries: dict[int, JournalEntry] = {}
    last: JournalEntry | None = None
    chains: set[str] = set()
    for record in records:
        where = f"The journal of universe {universe!r} at position {record.position}"
        try:
            entry = decode_entry(record.value)
        except InputError as error:
            raise RecoveryError(f"{where}: {error}") from None
        if entry.universe != universe:
            raise ConfigError(
                f"universe.name: {where} belongs to universe {entry.universe!r}; universes "
                "keep their order in the configuration, and new ones go last"
            )
        if last is not None and (entry.number, entry.previous) != (last.number + 1, last.chain):
            if entry.emitted < entry.number <= last.number and entry.previous in chains:
                structlog.get_logger().warning("entry of another process passed over", where=where)
                continue
            raise RecoveryError(
                f"{where}: entry {entry.number} does not follow entry {last.number}; "
                "entries are missing, or two processes have written it at the same time"
            )
        entries[record.position] = last = entry
        chains.update((entry.previous, entry.chain))
    return entries


def misfit(snapshot: Snapshot, universe: str, known: Mapping[int, JournalEntry]) -> str:
    """Return why a snapshot is not the state after one of these entries; empty when it is."""
    entry = known.get(snapshot.number)
    if snapshot.universe != universe:
        return f"it is of universe {snapshot.universe!r}"
    if not known:
        return "the journal is empty"
    if snapshot.number > max(known):
        return "it is of a commit that did not take place"
    if entry is None:
        return "it is older than the journal that is kept"
    if entry.chain != snapshot.chain:
        return "it is of another course of the journal"
    if entry.state_digest and entry.state_digest != digest_state(snapshot.arrays):
        return "its state is not the one in the journal"
    return ""


async def installed_fits(
    entries: Sequence[JournalEntry], log: ports.CommitLog, universe: str
) -> dict[str, Fit]:
    """Return the fits that these entries installed, by hash.

    Raises
    ------
    RecoveryError
        One of them is gone or damaged.
    """
    wanted = [name for entry in entries for move in entry.moves for name in move.installs]
    chunks = await log.fits(wanted) if wanted else {}
    for name in wanted:
        if name not in chunks:
            raise RecoveryError(f"The fit {name} that universe {universe!r} installed is gone")
    try:
        return {name: decode_fit(chunks[name], name) for name in wanted}
    except InputError as error:
        raise RecoveryError(f"A fit of universe {universe!r}: {error}") from None
