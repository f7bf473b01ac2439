"""Commands as processes that a process with everything imported forks, a second sooner each.

What only a start from nothing can show is left to `tests.cli.command.spawn`, which some tests of
each kind go on using: here a command finds its modules loaded, as the last one left them.
"""

import atexit
import contextlib
import functools
import gc
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import orjson

from tests.cli.command import PATIENCE, Done, ended, environment
from tests.real_parts import ROOT

LENGTH = struct.Struct(">q")  # of a request, of a process id, of how a process ended
KILLED_S = 20.0


class Forked:
    """A command at work, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        *words: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        patient: bool = True,
    ) -> None:
        self.args = list(map(str, words))
        self.returncode: int | None = None
        (out, out_end), (err, err_end), (self._report, report_end) = os.pipe(), os.pipe(), os.pipe()
        ends = (out_end, err_end, report_end)
        request = {
            "words": self.args,
            "cwd": str(cwd or Path.cwd()),
            "env": environment() | dict(env or {}),
            "patient": patient,
        }
        try:
            _ask(orjson.dumps(request), ends)
        finally:
            for end in ends:
                os.close(end)
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        self.pid = _number(self._report)
        self._lock = threading.Lock()
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()
        self._said = ["", ""]
        self._readers: list[threading.Thread] = []

    def poll(self) -> int | None:
        """Return how it ended, as Popen does; None while it is at work."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        self._waiter.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what it said; after a timeout it may be asked again."""
        if not self._readers:
            self._readers = [
                threading.Thread(target=self._read, args=(k,), daemon=True) for k in range(2)
            ]
            for reader in self._readers:
                reader.start()
        self.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():  # a child of its own holds the other end
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._said[0], self._said[1]

    def send_signal(self, number: int) -> None:
        """Send it a signal unless it has ended."""
        # Its end is told a moment before it is known here; meanwhile nobody may answer to its id.
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self.returncode is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:  # a test that fails does not wait for what nobody ends any more
            self.kill()
        self.wait()
        self.stdout.close()
        self.stderr.close()

    def _read(self, which: int) -> None:
        with (self.stdout, self.stderr)[which] as pipe:
            self._said[which] = pipe.read()

    def _wait(self) -> None:
        code = _number(self._report)
        with self._lock:
            self.returncode = code
        os.close(self._report)


def run_forked(
    *words: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Done:
    """Run a command to its end."""
    return ended(Forked(*words, cwd=cwd, env=env))


@functools.cache
def _forker() -> socket.socket:
    here, there = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.forking", str(there.fileno())],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        pass_fds=[there.fileno()],
    )
    there.close()

    def end() -> None:
        here.close()
        process.wait(KILLED_S)

    atexit.register(end)
    return here


_asking = threading.Lock()


def _ask(request: bytes, ends: tuple[int, ...]) -> None:
    with _asking:
        socket.send_fds(_forker(), [LENGTH.pack(len(request))], list(ends))
        _forker().sendall(request)


def _number(pipe: int) -> int:
    got = os.read(pipe, LENGTH.size)
    assert len(got) == LENGTH.size, "the process that forks has ended"
    return int(LENGTH.unpack(got)[0])


def serve(requests: socket.socket) -> None:
    """Import everything, then fork a process for each request until nobody can ask any more."""
    import stream_calib.cli.run
    import stream_calib.client
    import stream_calib.service.wiring

    stream_calib.cli.run.load_kernels()
    gc.collect()
    gc.freeze()  # what is never looked at again stays shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the tests
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside BLAS's idle threads
    while True:
        head, ends, _, _ = socket.recv_fds(requests, LENGTH.size, 3)
        if not head:
            return
        request = requests.recv(LENGTH.unpack(head)[0], socket.MSG_WAITALL)
        if os.fork() == 0:
            requests.close()
            _watch(orjson.loads(request), *ends)
        for end in ends:
            os.close(end)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _watch(request: dict[str, object], out: int, err: int, report: int) -> NoReturn:
    # The command's parent, whose only task is to tell how it ended.
    child = os.fork()
    if child == 0:
        os.close(report)
        _become(request, out, err)
    os.close(out)
    os.close(err)
    os.write(report, LENGTH.pack(child))
    # Told before it is reaped: until then its id is nobody else's.
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    with contextlib.suppress(BrokenPipeError):
        os.write(report, LENGTH.pack(code))
    os.waitpid(child, 0)
    os._exit(0)


def _become(request: dict[str, object], out: int, err: int) -> NoReturn:
    words, cwd, env = request["words"], request["cwd"], request["env"]
    assert isinstance(words, list)
    assert isinstance(cwd, str)
    assert isinstance(env, dict)
    for end, standard in ((out, 1), (err, 2)):
        os.dup2(end, standard)
        os.close(end)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["stream-calib", *words]
    from stream_calib.cli import main

    if request["patient"]:
        exec(PATIENCE, {})
    code = 0
    try:
        main()
    except SystemExit as end_:
        code = end_.code if isinstance(end_.code, int) else int(end_.code is not None)
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
