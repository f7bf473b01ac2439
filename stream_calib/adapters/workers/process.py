"""Fits in a process of their own, which may hang, grow or die without the service noticing."""

import asyncio
import contextlib
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from stream_calib.adapters.workers.answering import CALIBRATE
from stream_calib.adapters.workers.pipes import read_frame, write_frame
from stream_calib.errors import InputError
from stream_calib.values import Fit, FitFailure, FitRequest
from stream_calib.wire.calls import Parts, decode_answer, encode_request

LOOK_S = 0.2  # between two looks at the memory
END_S = 5.0  # for a killed process to be gone
TAIL_BYTES = 8192  # of what it wrote to its standard error
_WORDS_MAX = 200
_ONE_THREAD = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class ProcessFitter:
    """Computes fits in a child process; implements ``ports.Fitter``.

    The process starts with the first request and is kept for the next ones. One that takes too
    long, grows too large or is in any doubt is killed; the next request starts another.

    Parameters
    ----------
    timeout_s
        For one fit from when its turn comes, the start of the process included; each try anew.
    memory_bytes
        Largest resident memory of the process, all that it imports included. It is looked at
        every ``LOOK_S``, so for a moment it may be more; not at all where there is no /proc.
    retries
        How often a request is tried again after the process died under it. What the
        calibration itself answers, a timeout and too much memory are not tried again.
    function
        ``module:name`` of what turns a request into a fit or a failure.
    """

    def __init__(
        self, timeout_s: float, memory_bytes: int, retries: int = 1, function: str = CALIBRATE
    ) -> None:
        assert timeout_s > 0.0
        assert memory_bytes > 0
        assert retries >= 0
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._retries = retries
        self._function = function
        self._child: _Child | None = None
        self._closed = asyncio.Event()
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The process that is there now, or None."""
        return None if self._child is None else self._child.pid

    async def fit(self, request: FitRequest) -> Fit | FitFailure:
        """Return what came of a request; cancelling this kills the process."""
        async with self._turn:
            # arrays whose bytes are not in order are copied
            parts = await asyncio.to_thread(encode_request, request)
            tried = 0
            while True:
                try:
                    return await self._try(parts)
                except _Failed as failed:
                    tried += 1
                    if failed.again and tried <= self._retries:
                        structlog.get_logger().warning("fit is tried again", reason=str(failed))
                        continue
                    reason = f"{failed} ({tried} tries)." if tried > 1 else f"{failed}."
                    return FitFailure(request.model, request.number, failed.code, reason)

    async def close(self) -> None:
        """Kill the process, if there is one; a fit under way is answered as cancelled."""
        self._closed.set()
        async with self._turn:
            await self._let_go()

    async def _try(self, parts: Parts) -> Fit | FitFailure:
        if self._closed.is_set():
            raise _Failed("cancelled", "The fit was cancelled, because its worker was closed")
        try:
            async with asyncio.timeout(self._timeout_s):
                child = await self._ready()
                return await self._answer(child, parts)
        except TimeoutError:
            sentence = f"The fit took more than {self._timeout_s:g} s"
            raise _Failed("timeout", sentence) from None
        except OSError as error:
            sentence = f"The worker cannot be started ({error.strerror or error})"
            raise _Failed("crashed", sentence, again=True) from None

    async def _ready(self) -> "_Child":
        if self._child is not None and not self._child.is_alive():
            await self._let_go()
        if self._child is None:
            self._child = await _Child.start(self._function)
        return self._child

    async def _answer(self, child: "_Child", parts: Parts) -> Fit | FitFailure:
        calling = asyncio.create_task(child.call(parts))
        growing = asyncio.create_task(child.outgrow(self._memory_bytes))
        closing = asyncio.create_task(self._closed.wait())
        tasks = (calling, growing, closing)
        answered = False
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if calling.done():
                answer = calling.result()
                answered = True
                return answer
            if growing.done():
                used, allowed = growing.result() / 1e6, self._memory_bytes / 1e6
                sentence = f"The fit took {used:.0f} MB of memory, more than {allowed:.0f} MB"
                raise _Failed("memory", sentence)
            raise _Failed("cancelled", "The fit was cancelled, because its worker was closed")
        except _Gone as gone:
            await asyncio.shield(self._let_go())
            raise _Failed(gone.code, f"{gone} ({child.ending()})", again=True) from None
        finally:
            await asyncio.shield(self._settle(tasks, keep=answered))

    async def _settle(self, tasks: tuple[asyncio.Task[Any], ...], *, keep: bool) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not keep:
            await self._let_go()

    async def _let_go(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end()


class _Failed(Exception):  # noqa: N818 -- an outcome on its way, no error of the program
    def __init__(self, code: str, sentence: str, *, again: bool = False) -> None:
        super().__init__(sentence)
        self.code, self.again = code, again


class _Gone(Exception):  # noqa: N818 -- as above
    def __init__(self, sentence: str, code: str = "crashed") -> None:
        super().__init__(sentence)
        self.code = code


class _Child:
    """One process, the pipes that frames go through, and the thread that blocks on them.

    The event loop has no part in what goes through: 16 MB of a window would wake it for each of
    hundreds of pieces.
    """

    def __init__(self, process: asyncio.subprocess.Process, requests: int, answers: int) -> None:
        self.pid = process.pid
        self._process = process
        self._requests, self._answers = requests, answers
        self._thread = ThreadPoolExecutor(1, "fit")
        self._exchange: asyncio.Future[Fit | FitFailure] | None = None
        self._tail = b""
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, function: str) -> "_Child":
        # the same places to import from as here, and never the folder one happens to be in
        path = os.pathsep.join(entry or os.curdir for entry in sys.path)
        environment = dict(os.environ) | dict.fromkeys(_ONE_THREAD, "1") | {"PYTHONPATH": path}
        (requests_end, requests), (answers, answers_end) = os.pipe(), os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "stream_calib.adapters.workers.child",
                function,
                stdin=requests_end,
                stdout=answers_end,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                # A Ctrl-C is for the service, which then closes this. Not a session of its own:
                # Linux gives each session its share of the processor, whatever the niceness.
                process_group=0,
            )
        except BaseException:
            os.close(requests)
            os.close(answers)
            raise
        finally:
            os.close(requests_end)
            os.close(answers_end)
        return cls(process, requests, answers)

    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def call(self, parts: Parts) -> Fit | FitFailure:
        """Send a request and return its answer; ``_Gone`` when there is none."""
        loop = asyncio.get_running_loop()
        self._exchange = loop.run_in_executor(self._thread, self._exchanged, parts)
        try:
            return await asyncio.shield(self._exchange)
        except (EOFError, ConnectionError):
            raise _Gone("The worker ended in the middle of a fit") from None
        except (InputError, MemoryError) as error:
            raise _Gone(f"The worker's answer cannot be read: {error}", "invalid") from None

    async def outgrow(self, limit_bytes: int) -> int:
        """Return the resident memory as soon as it is above the limit."""
        while True:
            if (used := self._resident_bytes()) > limit_bytes:
                return used
            await asyncio.sleep(LOOK_S)

    async def end(self) -> None:
        """Kill, and wait until the process is gone and its pipes are closed."""
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:
                # not by its own kill(), which may take its exit code from who is to report it
                os.kill(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await self._process.wait()
                if self._exchange is not None:  # the thread finds its pipes broken
                    await asyncio.wait({self._exchange})
                    self._exchange.exception()
                os.close(self._requests)
                os.close(self._answers)
                await self._listening
        self._listening.cancel()
        self._thread.shutdown(wait=False)

    def ending(self) -> str:
        """Say how the process ended, and its last words."""
        code = self._process.returncode
        if code is None:
            how = "it did not end"
        else:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
        lines = [line for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        if not lines:
            return how
        words = "".join(c if c.isprintable() else " " for c in lines[-1]).strip()
        return f"{how}: {words[:_WORDS_MAX]}"

    def _exchanged(self, parts: Parts) -> Fit | FitFailure:
        write_frame(self._requests, parts)
        return decode_answer(*read_frame(self._answers))

    async def _listen(self) -> None:
        # read at once: a full pipe would stop the process
        assert self._process.stderr is not None
        log = structlog.get_logger()
        while chunk := await self._process.stderr.read(TAIL_BYTES):
            self._tail = (self._tail + chunk)[-TAIL_BYTES:]
            log.debug("fit worker", pid=self.pid, stderr=chunk.decode(errors="replace"))

    def _resident_bytes(self) -> int:
        if not self.is_alive():
            return 0
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")
