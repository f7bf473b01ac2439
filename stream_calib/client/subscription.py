"""Matrices off the output topic, as they are published."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal

from stream_calib.client.assembly import Assembly, Newest, joined
from stream_calib.client.connection import CLOSE_S, STEP_MS, Ends, Log, before
from stream_calib.client.finding import find
from stream_calib.client.problem import Problem, warn
from stream_calib.client.start import Given, Start
from stream_calib.errors import InputError, TransportError
from stream_calib.values import Matrix

SILENCE_STEPS = 40  # after which nothing more is awaited that the log should hold


async def subscribe(
    bootstrap_servers: str = "127.0.0.1:9092",
    *,
    topic: str = "calib.correlations",
    universe: str | None = None,
    estimator: str | None = None,
    start: Given = "latest",
    only: Literal["all", "latest"] = "all",
    follow: bool = True,
    on_problem: Callable[[Problem], None] | None = None,
    **kafka: object,
) -> AsyncGenerator[Matrix, None]:
    """Yield matrices as they are published, for ever; each once, in the order of its sequence.

    While the broker is away nothing comes; it goes on where it was once the broker is back.

    Parameters
    ----------
    bootstrap_servers
        Kafka address.
    topic
        The correlations topic.
    universe, estimator
        Only these; None is all.
    start
        ``latest``: from now on; ``earliest``: from the first matrix still kept; a number: from
        the first matrix with this sequence or a later one, for which ``universe`` has to be
        given, and ``estimator`` where it has several; ``matrix.sequence + 1`` of the last one
        seen goes on after it. A time with a zone (``datetime``, or a Timestamp of pandas): from
        the first matrix as of then or later, found by bisection, as a sequence is: both grow
        along the log of a universe.
    only
        ``all``, or ``latest``: the newest of each universe and estimator at the moment of
        asking. What a slow reader does not get to see is no problem; what the log itself lacks
        is told as ever, for all of it is read.
    follow
        False ends where the log ended at the start.
    on_problem
        Called when matrices are missing, repeated or torn, before the next one is yielded;
        by default the problem is logged as a warning. Compaction leaves holes in what is older
        than a day, which are told too.
    **kafka
        More options of the client library, such as TLS and SASL.

    Yields
    ------
    Matrix
        In the order of its partition; chunks put together. A matrix of which the log has lost
        a part is passed over, and so is one that comes once more.

    Raises
    ------
    TransportError, MissingTopicError
        The broker or the topic cannot be reached.
    InputError
        A record is not a matrix, an argument is none of the above, or ``start`` is a number and it
        is not clear of what.

    Examples
    --------
    >>> import stream_calib as sc
    >>> async def watch() -> None:
    ...     async for matrix in sc.subscribe("127.0.0.1:9092"):
    ...         print(matrix.symbols, matrix.corr)
    """
    begin = Start.of(start, universe)
    if only not in {"all", "latest"}:
        message = f"only is 'all' or 'latest', not {only!r}"
        raise InputError(message)
    log = Log(bootstrap_servers, topic, begin.reset, kafka)
    assembly = Assembly(universe, estimator, begin, on_problem or warn)
    try:
        await log.start()
        ends = None if follow else await log.ends()
        if begin.is_searched:
            log.seek(await find(log.options, log.partitions, assembly))
        read = _newest if only == "latest" else _every
        async with contextlib.aclosing(read(log, assembly, ends)) as matrices:
            async for matrix in matrices:
                yield matrix
    finally:
        await log.stop()


async def _every(log: Log, assembly: Assembly, ends: Ends | None) -> AsyncGenerator[Matrix, None]:
    while ends is None or await log.is_behind(ends):
        for record in before(ends, await log.poll()):
            matrix = assembly.add(record)
            if matrix is not None:
                yield matrix


async def _newest(log: Log, assembly: Assembly, ends: Ends | None) -> AsyncGenerator[Matrix, None]:
    newest = Newest()

    async def take(timeout_ms: int) -> bool:
        records = await log.poll(timeout_ms)
        for record in before(ends, records):
            if whole := assembly.take(record):
                newest.put(whole)
        return bool(records)

    while True:
        await _catch_up(log, ends, take)
        if whole := newest.pop():
            yield joined(whole)
        elif ends is not None and not await log.is_behind(ends):
            return
        else:
            await take(STEP_MS * 10)


async def _catch_up(log: Log, ends: Ends | None, take: Callable[[int], Any]) -> None:
    # The newest is what the log ends with at this moment, however long the reader was away. A
    # broker that does not say has nothing newer to give.
    goal = ends
    if goal is None:
        try:
            goal = await log.ends(CLOSE_S)
        except TransportError:
            return
    silence = 0
    while silence < SILENCE_STEPS and await log.is_behind(goal):
        silence = 0 if await take(STEP_MS) else silence + 1
