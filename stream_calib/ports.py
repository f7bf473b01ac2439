"""What the service asks of the outside world; a fake that ships stands beside each real adapter."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from stream_calib.values import Effects, Output, Progress, RecordBatch, Source, TickBatch


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

    def exhausted(self) -> bool:
        """Tell whether the input is finite and all of it has been read."""

    async def mark(self, positions: Mapping[Source, int]) -> None:
        """Note processed positions where lag tools look; the engine never reads them back."""

    async def close(self) -> None:
        """Let go; never raises."""


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
