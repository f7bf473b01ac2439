"""What the service asks of the outside world; a fake that ships stands beside each real adapter."""

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from stream_calib.values import (
    Effects,
    Event,
    Fit,
    FitFailure,
    FitRequest,
    LiveTick,
    Matrix,
    Output,
    Progress,
    RecordBatch,
    Source,
    TickBatch,
)


class RecordSource(Protocol):
    """An input log that is read by position, at the reader's own pace."""

    async def start(self) -> None:
        """Connect; raise TransportError or MissingTopicError with one sentence."""

    async def discover(self) -> tuple[Source, ...]:
        """Return sources that appeared since the last call, in order, and begin to read them.

        A new source is read from its first record.
        """

    async def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Return what is there, at most ``max_records``; wait at most ``timeout_s`` for the first.

        Batches of one source are contiguous: ``position_before`` is the last ``position_after``.
        """

    def pause(self, sources: frozenset[Source]) -> None:
        """Read from all sources but these from now on."""

    def ends(self) -> Mapping[Source, int]:
        """Return the position after the last record known of each source; absent = not known."""

    def told_s(self) -> Mapping[Source, float]:
        """Return when each end was last told, in seconds of the event loop's clock.

        Absent: whoever asks ``ends`` is told at that moment. What was told says nothing of what
        came after; -inf = never.
        """

    def withheld(self) -> Mapping[Source, int]:
        """Return how many positions lie beyond the end, behind transactions that are open."""

    def exhausted(self) -> bool:
        """Tell whether the input is finite and all of it has been read."""

    async def bounds(self, sources: Sequence[Source]) -> Mapping[Source, tuple[int, int]]:
        """Return the first position still in the log and the one after the last record.

        Sources that do not exist are absent.
        """

    async def read(self, source: Source, start: int, stop: int, max_records: int) -> RecordBatch:
        """Return the records of one source from position ``start`` on, for a repetition.

        At most ``max_records``, none at or beyond ``stop``; ``position_after`` is at most
        ``stop`` and moves on with every call.

        Raises
        ------
        LostInputError
            ``start`` is not in the log any more, or ``stop`` not yet.
        """

    def resume(self, positions: Mapping[Source, int]) -> None:
        """Let ``poll`` go on from these positions; ``discover`` will not name their sources."""

    async def close(self) -> None:
        """Let go; never raises."""


class JournalRecord(NamedTuple):
    """A journal entry as it lies in the log."""

    position: int
    value: bytes


class CommitLog(Protocol):
    """The outputs of one universe and its journal, which become durable together.

    With ``write_ahead`` the journal entry is durable first and the outputs follow: after a
    crash those of the last entries are written once more.
    """

    write_ahead: bool

    async def own(self) -> Sequence[JournalRecord]:
        """Become the only writer, and return the journal that is kept, oldest entry first.

        Whatever an earlier owner has not committed by now is gone for good.

        Raises
        ------
        TransportError, MissingTopicError, ConfigError
            One sentence; ConfigError when a topic has a setting that endangers the journal.
        """

    async def follow(self, wait_s: float) -> Sequence[JournalRecord]:
        """Return the entries that were committed since the last call; nobody has to own.

        The first call begins with the oldest that is kept. Waits up to ``wait_s`` for one.

        Raises
        ------
        LostInputError
            The next entries are not kept any more.
        TransportError
            No answer.
        """

    async def has_outputs(self) -> bool:
        """Tell whether this universe ever published anything here."""

    async def last_sequences(self) -> Mapping[str, int]:
        """Return the last number published, by estimator and for "events", as far as kept."""

    async def fits(self, hashes: Sequence[str]) -> Mapping[str, Sequence[bytes]]:
        """Return the chunks of these fits, in order; what is not there is absent."""

    async def commit(
        self, outputs: Sequence[Output], entry: Output, positions: Mapping[Source, int]
    ) -> int:
        """Write the outputs and the journal entry; return the entry's position when durable.

        ``positions`` are noted where lag tools look; nobody here reads them back.

        Raises
        ------
        OwnershipError
            Another owner has taken over.
        TransportError
            All of it may or may not have been written: only ``own`` can tell.
        """

    async def emit(self, outputs: Sequence[Output]) -> None:
        """Write outputs of an entry that is in the journal already."""

    async def trim(self, position: int) -> None:
        """Forget the journal before ``position``; a failure is not an error."""

    async def close(self) -> None:
        """Let go; never raises."""


class Ownership(Protocol):
    """Which universes this process may own, as all workers have agreed; by their partition."""

    async def start(self) -> None:
        """Begin to take part; TransportError when the others cannot be reached."""

    def holds(self, partition: int) -> bool:
        """Tell whether this universe was given to this process, as far as it knows."""

    @property
    def joined(self) -> bool:
        """Whether it is known what was given to whom."""

    @property
    def spare(self) -> bool:
        """Whether others have been given everything, and this process nothing."""

    def changed(self) -> Coroutine[Any, Any, None]:
        """Return what ends once something was given or taken after this call.

        Raises
        ------
        OwnershipError
            Another process goes by the name of this one: it must end.
        ConfigError
            Workers on several hosts need snapshots that all of them can read.
        """

    async def confirm(self, partition: int) -> bool:
        """Ask the others now whether this process may own this universe.

        Raises
        ------
        TransportError
            They cannot be asked.
        """

    async def close(self) -> None:
        """Take part no more; never raises."""


class SnapshotStore(Protocol):
    """Where snapshots of one universe are kept, by name; blocking, for a thread.

    ``unusable`` says after ``open`` why nothing can be kept here, or is None. Who may write is
    decided elsewhere: names hold the number and the chain of the state, so that two processes
    that believe they own the universe are never in each other's way.
    """

    unusable: str | None

    def open(self) -> None:
        """Get ready."""

    def names(self) -> list[str]:
        """Return the names of all snapshots, newest first; OSError when they cannot be listed."""

    def load(self, name: str) -> bytes:
        """Return the bytes of one; OSError when it cannot be read."""

    def save(self, name: str, value: bytes) -> None:
        """Keep one durably, then drop the oldest beyond those to be kept; OSError on failure."""

    def delete(self, name: str) -> None:
        """Drop one; nothing happens when it is not there."""

    def close(self) -> None:
        """Let go, after a save that is under way, or without it where that takes long."""


class Fitter(Protocol):
    """Where full fits are computed, one after the other, away from the event loop."""

    async def fit(self, request: FitRequest) -> Fit | FitFailure:
        """Return what came of a request; nothing that goes wrong in a fit is raised.

        The request's arrays must not change before it returns. What a fit holds is not judged
        here: it may have NaN, or a matrix that is none of a correlation.

        Returns
        -------
        Fit or FitFailure
            ``code`` is ``timeout``, ``memory`` (more than is allowed), ``crashed`` (it ended or
            raised), ``invalid`` (the answer is none), ``not_converged`` (said by the calibration
            itself) or ``cancelled`` (closed meanwhile); ``reason`` is one sentence.
        """

    async def close(self) -> None:
        """End what is under way, which is ``cancelled`` then, and let go; never raises."""


class LiveFeed(Protocol):
    """One exchange, read live; what is not read in time is not there any more.

    ``name`` is what the user calls it, ``consecutive`` tells whether the ids of its trades count
    up by one for each symbol.
    """

    name: str
    consecutive: bool

    async def start(self) -> None:
        """Learn what is traded, and check what is asked for.

        Raises
        ------
        InputError
            The exchange has no such symbol, or does not offer the channel.
        TransportError
            It cannot be reached.
        """

    async def read(self, timeout_s: float) -> Sequence[LiveTick]:
        """Return what came since the last call, in order by symbol; connect if need be.

        Waits at most ``timeout_s`` for the first, and returns none after that.

        Raises
        ------
        InputError
            The exchange refuses what is asked for.
        TransportError
            The connection is lost; everything that came before has been returned.
        """

    async def drop(self) -> Sequence[LiveTick]:
        """Let go of the connection; the next ``read`` makes another. Never raises.

        Returns what came and had not been read.
        """


class RecordSink(Protocol):
    """An output log."""

    async def start(self) -> None:
        """Connect; raise TransportError or MissingTopicError with one sentence."""

    async def publish(self, outputs: Sequence[Output]) -> None:
        """Write the records in order; return when all of them are durable.

        Raises
        ------
        TransportError
            The records may or may not have been written.
        """

    async def close(self) -> None:
        """Let go; never raises."""


class Observer(Protocol):
    """What is told to those who watch; never blocks, never raises."""

    def compiled(self, seconds: float) -> None:
        """Note how long compiling the kernels, or loading them from the cache, took."""

    def decoded(self, universe: str, ticks: TickBatch, seconds: float) -> None:
        """Note a batch that was read and decoded."""

    def advanced(self, universe: str, effects: Effects, seconds: float) -> None:
        """Note a step of the engine."""

    def published(
        self, universe: str, outputs: Sequence[Output], seconds: float, close_to_publish_s: float
    ) -> None:
        """Note durable outputs.

        ``close_to_publish_s`` counts from the poll that closed a bar; NaN when none was closed.
        """

    def progressed(self, universe: str, progress: Progress) -> None:
        """Note where the universe stands."""

    def stalled(self, seconds: float) -> None:
        """Note that the event loop woke up this much later than asked."""

    def recovered(self, universe: str, entries: int, seconds: float) -> None:
        """Note that the state was built again, from this many journal entries."""

    def committed(self, universe: str, seconds: float, outcome: str) -> None:
        """Note a commit: ``committed``, ``failed`` or ``fenced``."""

    def snapshotted(self, universe: str, n_bytes: int, seconds: float, outcome: str) -> None:
        """Note a snapshot: ``saved`` or ``failed``."""

    def restarted(self, universe: str, reason: str) -> None:
        """Note that memory was thrown away after an error and is built again."""

    def refitted(self, universe: str, seconds: float, outcome: str) -> None:
        """Note that a full fit came back: ``fitted``, or the code of its failure."""

    def owned(self, universe: str, role: str) -> None:
        """Note that this process is its ``owner`` now, its ``standby``, or waits (``none``)."""

    def fenced(self, universe: str) -> None:
        """Note that another process has taken the universe over while this one owned it."""

    def viewers(self, count: int) -> None:
        """Note how many look at the live view."""

    def viewed(self, n_bytes: int, passed_over: int) -> None:
        """Note a frame that was sent, and how many were passed over because it was newer."""

    def refused(self, reason: str) -> None:
        """Note a request or a connection that was turned away, by one of a few reasons."""


class Viewer(Protocol):
    """Who shows matrices to people; told on the event loop: never blocks, never raises."""

    def show(self, universe: str, effects: Effects) -> None:
        """Note what became durable."""

    def gained(self, universe: str) -> None:
        """Note that what is shown from now on is newer than all that will be recalled."""

    def recall(self, universe: str, matrices: Sequence[Matrix], events: Sequence[Event]) -> None:
        """Note what was durable before the start, oldest first; it may come late."""

    def progressed(self, universe: str, progress: Progress) -> None:
        """Note where the universe stands."""
