"""Full fits beside the stream: requests go out, answers wait until they are taken."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

import structlog

from stream_calib import ports
from stream_calib.values import Fit, FitFailure, FitRequest

Answer = Fit | FitFailure


class Refits:
    """Between the thread that computes and the fitter, which lives on the event loop.

    Parameters
    ----------
    universe
        Its name.
    fitter
        Where fits are made.
    observer
        Told how long they took.
    on_wait
        Called before ``ask`` waits for the answer in the thread that it is called from; None
        lets it not wait.
    at
        Told of named points, where a test may end the process.
    """

    def __init__(
        self,
        universe: str,
        fitter: ports.Fitter,
        observer: ports.Observer,
        on_wait: Callable[[], None] | None = None,
        at: Callable[[str], None] = lambda _point: None,
    ) -> None:
        self._universe = universe
        self._fitter = fitter
        self._observer = observer
        self._on_wait = on_wait
        self._at = at
        self._loop = asyncio.get_running_loop()
        self._answers: deque[Answer] = deque()
        self._under_way: set[Future[Answer]] = set()
        self._stopped = False
        self._log = structlog.get_logger().bind(universe=universe)

    @property
    def waiting(self) -> bool:
        """Whether a fit is under way."""
        return bool(self._under_way)

    def ask(self, request: FitRequest) -> Answer | None:
        """Have a fit made; called from the thread that computes.

        Returns
        -------
        Fit, FitFailure or None
            None when it will be among what ``take`` returns, or was stopped.
        """
        if self._stopped:
            return None
        future = asyncio.run_coroutine_threadsafe(self._fit(request), self._loop)
        self._under_way.add(future)
        self._at("fit_asked")
        if self._on_wait is None:
            future.add_done_callback(self._keep)
            return None
        self._on_wait()
        try:
            answer = future.result()
        except CancelledError:
            return None  # still asked for: the next start does so again
        finally:
            self._under_way.discard(future)
        self._at("fit_taken")
        return answer

    def take(self) -> tuple[Answer, ...]:
        """Return what has come back since the last call."""
        answers = []
        while self._answers:
            answers.append(self._answers.popleft())
            self._at("fit_taken")
        return tuple(answers)

    def stop(self) -> None:
        """Wait for nothing any more; what was asked for stays asked for."""
        self._stopped = True
        for future in list(self._under_way):
            future.cancel()

    def _keep(self, future: Future[Answer]) -> None:
        self._under_way.discard(future)
        if not future.cancelled():
            self._answers.append(future.result())

    async def _fit(self, request: FitRequest) -> Answer:
        started_s = self._loop.time()
        answer = await self._fitter.fit(request)
        self._at("fit_answered")
        seconds = self._loop.time() - started_s
        outcome = "fitted" if isinstance(answer, Fit) else answer.code
        self._observer.refitted(self._universe, seconds, outcome)
        self._log.info(
            "fitted" if isinstance(answer, Fit) else "fit failed",
            model=request.model,
            number=request.number,
            seconds=round(seconds, 3),
            **({} if isinstance(answer, Fit) else {"reason": answer.reason}),
        )
        return answer
