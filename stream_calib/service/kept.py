"""What is kept of a universe, read and judged: its journal, its snapshots, its fits."""

from collections.abc import Callable, Mapping, Sequence

import structlog

from stream_calib import ports
from stream_calib.errors import ConfigError, InputError, RecoveryError, TransportError
from stream_calib.values import Fit, JournalEntry, Snapshot
from stream_calib.wire.fits import decode_fit
from stream_calib.wire.journal import decode_entry
from stream_calib.wire.snapshots import decode_snapshot, digest_state


def snapshot_names(
    store: ports.SnapshotStore, universe: str, *, or_none: bool = False
) -> list[str]:
    """Return the names of all snapshots, newest first.

    Raises
    ------
    TransportError
        They cannot be listed, and none would not do.
    """
    try:
        return store.names()
    except OSError as error:
        reason = f"The snapshots of universe {universe!r} cannot be listed: {error.strerror}"
    if not or_none:
        raise TransportError(reason)
    structlog.get_logger().warning("snapshots not read", universe=universe, reason=reason)
    return []


def newest_snapshot(
    store: ports.SnapshotStore,
    universe: str,
    entries: Sequence[JournalEntry],
    refuse: Callable[[str, str], None],
) -> Snapshot | None:
    """Return the newest snapshot that is the state after one of these entries.

    ``refuse`` is told the names of those that are not, and why; what cannot be read now is
    passed over, for it may be readable another time.

    Raises
    ------
    TransportError
        One cannot be read now, no other one fits, and the journal alone would not do.
    """
    known = {entry.number: entry for entry in entries}
    is_whole = entries[0].number == 0  # and so enough, if need be
    unread = ""
    for name in snapshot_names(store, universe, or_none=is_whole):
        try:
            snapshot = decode_snapshot(store.load(name))
            reason = misfit(snapshot, universe, known)
        except OSError as error:
            structlog.get_logger().warning(
                "snapshot not read", universe=universe, name=name, reason=str(error)
            )
            unread = f"{name} ({error.strerror or error})"
            continue
        except InputError as error:
            reason = str(error)
        if not reason:
            return snapshot
        refuse(name, reason)
    if unread and not is_whole:
        raise TransportError(f"A snapshot of universe {universe!r} cannot be read: {unread}")
    return None


def decode_journal(
    records: Sequence[ports.JournalRecord], universe: str, last: JournalEntry | None = None
) -> dict[int, JournalEntry]:
    """Return the entries of a journal by position, each following the one before.

    The first has to follow ``last``, where that is known.

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
    chains: set[str] = set() if last is None else {last.previous, last.chain}
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
