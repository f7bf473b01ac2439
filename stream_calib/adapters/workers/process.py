"""Fits in a process of their own, which may hang, grow or die without the service noticing."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from stream_calib.adapters.workers.answering import CALIBRATE
from stream_calib.errors import InputError
from stream_calib.values import Fit, FitFailure, FitRequest
from stream_calib.wire.calls import (
    PREFIX_BYTES,
    SUM_BYTES,
    Parts,
    checksum,
    decode_answer,
    encode_request,
    frame_bytes,
)

SLICE_BYTES = 65_536  # what a pipe holds: the event loop copies no more at a time
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
    """One process and its three pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process
        self._tail = b""
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, function: str) -> "_Child":
        # the same places to import from as here, and never the folder one happens to be in
        path = os.pathsep.join(entry or os.curdir for entry in sys.path)
        environment = dict(os.environ) | dict.fromkeys(_ONE_THREAD, "1") | {"PYTHONPATH": path}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "stream_calib.adapters.workers.child",
            function,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            # A Ctrl-C is for the service, which then closes this. Not a session of its own: Linux
            # gives each session its share of the processor, whatever the niceness.
            process_group=0,
        )
        return cls(process)

    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def call(self, parts: Parts) -> Fit | FitFailure:
        """Send a request and return its answer; ``_Gone`` when there is none."""
        assert self._process.stdout is not None
        try:
            await self._send(parts)
            prefix = await self._process.stdout.readexactly(PREFIX_BYTES)
            frame = np.empty(frame_bytes(prefix), np.uint8).data
            frame[:PREFIX_BYTES] = prefix
            check = await self._receive(frame[PREFIX_BYTES:-SUM_BYTES], checksum(prefix))
            frame[-SUM_BYTES:] = await self._process.stdout.readexactly(SUM_BYTES)
            return decode_answer(frame, check)
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
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:
                # not by its own kill(), which may take its exit code from who is to report it
                os.kill(self._process.pid, signal.SIGKILL)
        self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await self._process.wait()
                while await self._process.stdout.read(SLICE_BYTES):
                    pass
                await self._listening
        self._listening.cancel()

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

    async def _send(self, parts: Parts) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        check = 0
        for part in parts:
            view = memoryview(part)
            for at in range(0, len(view), SLICE_BYTES):
                piece = view[at : at + SLICE_BYTES]
                check = checksum(piece, start=check)
                stdin.write(piece)
                await stdin.drain()
                await asyncio.sleep(0)  # a drained pipe does not let others in by itself
        stdin.write(check.to_bytes(SUM_BYTES, "little"))
        await stdin.drain()

    async def _receive(self, view: memoryview, check: int) -> int:
        assert self._process.stdout is not None
        while view:
            chunk = await self._process.stdout.read(min(SLICE_BYTES, len(view)))
            if not chunk:
                raise EOFError
            view[: len(chunk)] = chunk
            view = view[len(chunk) :]
            check = checksum(chunk, start=check)
        return check

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
