"""The synchronous twin: an iterator in any thread, beside any event loop, that always lets go."""

import asyncio
import gc
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable

import pytest

import stream_calib as sc
from deploy.kafka.broker import free_port
from stream_calib.client.blocking import Subscription
from stream_calib.errors import TransportError
from stream_calib.values import Matrix
from tests.cli.command import spawn
from tests.real_parts import ROOT
from tests.web.observations import matrix


class Made:
    """A generator of matrices that notes how it ended."""

    def __init__(self, n: int, then: BaseException | None = None, *, waits: bool = False) -> None:
        self.n, self.then, self.waits = n, then, waits
        self.closed = threading.Event()
        self.thread: threading.Thread | None = None

    async def matrices(self) -> AsyncGenerator[Matrix, None]:
        self.thread = threading.current_thread()
        try:
            for sequence in range(1, self.n + 1):
                await asyncio.sleep(0)
                yield matrix(sequence=sequence)
            if self.then is not None:
                raise self.then
            if self.waits:
                await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)  # as letting go of a broker takes more than a moment
            self.closed.set()


def has_ended(made: Made) -> bool:
    assert made.thread is not None
    made.thread.join(5.0)
    return made.closed.is_set() and not made.thread.is_alive()


def test_it_ends_where_the_matrices_do() -> None:
    made = Made(3)
    assert [m.sequence for m in Subscription(made.matrices())] == [1, 2, 3]
    assert has_ended(made)


def test_it_lets_go_at_the_end_of_the_block() -> None:
    made = Made(5, waits=True)
    with Subscription(made.matrices()) as matrices:
        assert next(matrices).sequence == 1
        assert next(matrices).sequence == 2
    assert has_ended(made)
    assert list(matrices) == []
    matrices.close()


def test_error_comes_as_it_is_and_ends_it() -> None:
    error = TransportError("Kafka is gone")
    made = Made(1, then=error)
    matrices = Subscription(made.matrices())
    assert next(matrices).sequence == 1
    with pytest.raises(TransportError) as caught:
        next(matrices)
    assert caught.value is error
    assert has_ended(made)


def test_it_lets_go_when_nobody_refers_to_it_any_more() -> None:
    made = Made(5)
    matrices = Subscription(made.matrices())
    next(matrices)
    del matrices
    gc.collect()
    assert has_ended(made)


async def test_it_works_beside_a_running_event_loop() -> None:
    made = Made(3)
    assert [m.sequence for m in Subscription(made.matrices())] == [1, 2, 3]
    assert made.thread is not threading.current_thread()


def test_another_thread_may_close_it() -> None:
    made = Made(1, waits=True)
    matrices = Subscription(made.matrices())
    next(matrices)
    threading.Timer(0.1, matrices.close).start()
    assert list(matrices) == []
    assert has_ended(made)


def test_one_that_was_never_asked_is_closed_too() -> None:
    before = set(threading.enumerate())  # some of which may end meanwhile
    matrices = Subscription(Made(1).matrices())
    (own,) = set(threading.enumerate()) - before
    matrices.close()
    assert not own.is_alive()


@pytest.mark.parametrize("use", [next, list])
def test_broker_that_is_not_there_is_one_sentence(use: Callable[[Subscription], object]) -> None:
    with (
        sc.subscribe_sync(f"127.0.0.1:{free_port()}") as matrices,
        pytest.raises(TransportError, match=r"^Kafka at 127.0.0.1:\d+ cannot be reached or refu"),
    ):
        use(matrices)


WAITING = """
import sys, threading
sys.path.insert(0, ".")
from stream_calib.client.blocking import Subscription
from tests.client.test_blocking import Made
made = Made(1, waits=True)
try:
    for m in Subscription(made.matrices()):
        print("got", m.sequence, flush=True)
except KeyboardInterrupt:
    print("interrupted", made.closed.is_set(), threading.active_count(), flush=True)
"""


def test_ctrl_c_ends_the_wait_and_lets_go() -> None:
    with spawn("-c", WAITING, program=[sys.executable], cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "got 1\n"
        time.sleep(0.2)  # it waits by now
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60.0)
    assert (out, err, process.returncode) == ("interrupted True 1\n", "", 0)
