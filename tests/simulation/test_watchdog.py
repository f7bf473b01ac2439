"""Standing still ends the process; waiting for good reason does not."""

import subprocess
import sys

import pytest

from stream_calib.service.watchdog import EXIT_CODE, Watchdog


class Watched:
    """A watchdog on a clock of the test's own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.said: list[str] = []
        self.dog = Watchdog(60.0, self.said.append, lambda: self.now_s)

    def pass_time(self, seconds: float, progress: int | None, lag: int = 0) -> None:
        """Let time pass, hearing from the universe each second unless ``progress`` is None."""
        for _ in range(int(seconds)):
            self.now_s += 1.0
            if progress is not None:
                self.dog.progressed("u", progress, lag)
            self.dog.look()


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_lag_without_progress_ends_the_process(watched: Watched) -> None:
    watched.pass_time(60, progress=5, lag=7)
    assert watched.said == []
    watched.pass_time(2, progress=5, lag=7)
    assert watched.said == ["universe 'u' has 7 records to read and made no progress for 60 s"]


def test_no_word_at_all_ends_the_process(watched: Watched) -> None:
    watched.pass_time(1, progress=5)
    watched.pass_time(61, progress=None)
    assert watched.said == ["nothing was heard of universe 'u' for 60 s"]


def test_nothing_to_do_is_no_standstill(watched: Watched) -> None:
    watched.pass_time(1000, progress=5, lag=0)
    assert watched.said == []


def test_slow_progress_is_no_standstill(watched: Watched) -> None:
    for progress in range(20):
        watched.pass_time(50, progress, lag=7)
    assert watched.said == []


def test_who_recovers_or_has_no_broker_is_not_waited_for(watched: Watched) -> None:
    watched.pass_time(30, progress=5, lag=7)
    watched.dog.excused("u")
    watched.pass_time(1000, progress=None)
    watched.pass_time(50, progress=5, lag=7)
    assert watched.said == []


def test_a_loop_that_stands_still_ends_the_process_though_no_universe_is_waited_for(
    watched: Watched,
) -> None:
    watched.pass_time(1000, progress=None)  # it has not begun
    for _ in range(20):
        watched.dog.turned()
        watched.pass_time(50, progress=None)
    assert watched.said == []
    watched.now_s += 1000.0  # all of the process was frozen
    watched.pass_time(9, progress=None)
    assert watched.said == []
    assert watched.dog.standing() == ["the event loop has not come round for 30 s"]
    watched.pass_time(2, progress=None)
    assert watched.said == ["the event loop has not come round for 60 s"]


def test_a_hung_event_loop_cannot_stop_it() -> None:
    code = (
        "import time; from stream_calib.service.watchdog import Watchdog\n"
        "dog = Watchdog(0.3); dog.start(); dog.progressed('u', 1, 1); time.sleep(30)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == EXIT_CODE
    assert done.stderr.count("\n") == 1
    assert "ending, to be started anew" in done.stderr
