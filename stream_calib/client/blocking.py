"""The same matrices without an event loop of one's own: for notebooks and scripts."""

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from stream_calib.client.connection import CLOSE_S
from stream_calib.client.problem import Problem
from stream_calib.client.subscription import subscribe
from stream_calib.values import Matrix

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, so that it does not matter whether one runs here."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="stream-calib", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work there and wait for it; what ends the wait, such as Ctrl-C, ends it too."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self, last: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Do some last work, a few seconds at most, and end the thread."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._end(last)))
        if threading.current_thread() is not self._thread:  # as where garbage is collected there
            self._thread.join(4 * CLOSE_S)

    async def _end(self, last: Callable[[], Coroutine[Any, Any, object]]) -> None:
        try:
            async with asyncio.timeout(3 * CLOSE_S):
                await last()
        finally:
            self._loop.stop()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


class _Source:
    # The generator and the step it is at; nothing here knows who reads.
    def __init__(self, matrices: AsyncGenerator[Matrix, None]) -> None:
        self._matrices = matrices
        self._step: asyncio.Task[Matrix | None] | None = None

    async def next(self) -> Matrix | None:
        step = asyncio.ensure_future(anext(self._matrices, None))
        self._step = step
        return await step

    async def close(self) -> None:
        if self._step is not None and not self._step.done():
            if not self._step.cancelling():  # a second time would hit it while it lets go
                self._step.cancel()
            await asyncio.wait({self._step})
        await self._matrices.aclose()


class Subscription:
    """An iterator of matrices that reads in a thread of its own; ``subscribe_sync`` makes it.

    It is a context manager, and lets go of the broker at the end of the block, when ``close`` is
    called, after an error and after Ctrl-C; at the latest when nobody refers to it any more.
    """

    def __init__(self, matrices: AsyncGenerator[Matrix, None]) -> None:
        self._thread = LoopThread()
        self._source = _Source(matrices)
        self._close = weakref.finalize(self, self._thread.stop, self._source.close)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Matrix:
        if not self._close.alive:
            raise StopIteration
        try:
            matrix = self._thread.call(self._source.next())
        except concurrent.futures.CancelledError:
            raise StopIteration from None  # closed meanwhile, by another thread
        except BaseException:
            self.close()
            raise
        if matrix is None:
            self.close()
            raise StopIteration
        return matrix

    def close(self) -> None:
        """Let go of the broker; nothing comes any more. May be called again."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def subscribe_sync(
    bootstrap_servers: str = "127.0.0.1:9092",
    *,
    topic: str = "calib.correlations",
    universe: str | None = None,
    estimator: str | None = None,
    start: Literal["latest", "earliest"] | int | datetime = "latest",
    only: Literal["all", "latest"] = "all",
    follow: bool = True,
    on_problem: Callable[[Problem], None] | None = None,
    **kafka: object,
) -> Subscription:
    """Return an iterator over matrices as they are published, for code that does not await.

    All parameters and errors are those of ``subscribe``. It connects when the first matrix is
    asked for; ``latest`` is from then on. It works in a notebook, where an event loop runs
    already; ``on_problem`` is called in another thread.

    Examples
    --------
    >>> import stream_calib as sc
    >>> with sc.subscribe_sync("127.0.0.1:9092", only="latest") as matrices:  # doctest: +SKIP
    ...     for matrix in matrices:
    ...         print(matrix.to_pandas())
    """
    matrices = subscribe(
        bootstrap_servers,
        topic=topic,
        universe=universe,
        estimator=estimator,
        start=start,
        only=only,
        follow=follow,
        on_problem=on_problem,
        **kafka,
    )
    return Subscription(matrices)
