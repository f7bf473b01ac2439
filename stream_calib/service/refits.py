"""Full fits beside the stream: requests go out, answers wait until they are taken."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

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
        Called whenever an answer is about to be waited for; None: none ever is.
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
        self._n_open = 0  # asked for and not taken
        self._under_way: set[Future[None]] = set()
        self._ready = asyncio.Event()
        self._broken: BaseException | None = None
        self._stopped = False
        self._demanded = False
        self._log = structlog.get_logger().bind(universe=universe)

    @property
    def awaited(self) -> bool:
        """Whether nothing may go on before an answer is taken."""
        return self._on_wait is not None and self._n_open > 0 and not self._stopped

    def demand(self) -> None:
        """Have the engine ask for a full fit, due or not."""
        self._demanded = True

    def take_demand(self) -> bool:
        """Return whether somebody has demanded a fit since the last call."""
        demanded, self._demanded = self._demanded, False
        return demanded

    def ask(self, request: FitRequest) -> None:
        """Have a fit made, which ``take`` will return; called from the thread that computes."""
        if self._stopped:
            return
        self._n_open += 1
        future = asyncio.run_coroutine_threadsafe(self._fit(request), self._loop)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        self._at("fit_asked")

    async def ready(self) -> None:
        """Return when there is something to take, or nothing to wait for any more."""
        if self._on_wait is not None:
            self._on_wait()
        await self._ready.wait()

    def take(self) -> tuple[Answer, ...]:
        """Return what has come back since the last call; raise what a fitter should not have."""
        if self._broken is not None:
            raise self._broken
        answers = tuple(self._answers)
        self._answers.clear()
        if answers:
            self._at("fit_taken")
        self._n_open -= len(answers)
        if not self._stopped:
            self._ready.clear()
        return answers

    def stop(self) -> None:
        """Wait for nothing any more; what was asked for stays asked for."""
        self._stopped = True
        self._ready.set()
        for future in list(self._under_way):
            future.cancel()

    async def _fit(self, request: FitRequest) -> None:
        started_s = self._loop.time()
        try:
            answer = await self._fitter.fit(request)
            self._at("fit_answered")
            self._tell(request, answer, self._loop.time() - started_s)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # nobody looks at this task, whatever ends it
            self._broken = error
        else:
            self._answers.append(answer)
        self._ready.set()

    def _tell(self, request: FitRequest, answer: Answer, seconds: float) -> None:
        outcome = "fitted" if isinstance(answer, Fit) else answer.code
        self._observer.refitted(self._universe, seconds, outcome)
        self._log.info(
            "fitted" if isinstance(answer, Fit) else "fit failed",
            model=request.model,
            number=request.number,
            seconds=round(seconds, 3),
            **({} if isinstance(answer, Fit) else {"reason": answer.reason}),
        )
