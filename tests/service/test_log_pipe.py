"""Lines of the log never hold up whoever says them, and what is lost is counted."""

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from stream_calib.adapters.log_pipe import PATIENCE_S, LogPipe

SLOW_S = 20.0  # what takes longer does wait: a hundred times what is allowed, for a busy machine
BACKLOG = 10_000


@pytest.fixture(scope="module")
def writers() -> Iterator[contextlib.ExitStack]:
    """Keeps what was written to open: a thread with lines left would write to the next pipe."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def ends(writers: contextlib.ExitStack) -> Iterator[tuple[TextIO, TextIO]]:
    """Both ends of a pipe: to read from, to write to."""
    out, into = os.pipe()
    writer = writers.enter_context(os.fdopen(into, "w"))
    with os.fdopen(out, "r") as reader:
        yield reader, writer


def fill(pipe: LogPipe, count: int) -> list[str]:
    """Write numbered lines, which together take no longer than they may."""
    lines, began_s = [f"{k:0100d}\n" for k in range(count)], time.monotonic()
    for line in lines:
        assert pipe.write(line) == len(line)
    assert time.monotonic() - began_s < SLOW_S
    return lines


def until(condition: object) -> None:
    deadline_s = time.monotonic() + SLOW_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_line_is_out_when_it_has_been_written(ends: tuple[TextIO, TextIO]) -> None:
    reader, writer = ends
    pipe = LogPipe(writer, patience_s=SLOW_S)
    for k in range(100):
        pipe.write(f"line {k}\n")
        assert reader.readline() == f"line {k}\n"
    assert (pipe.dropped, pipe.waiting_bytes) == (0, 0)


def test_a_full_pipe_holds_nobody_up_and_what_is_lost_is_counted_and_told(
    ends: tuple[TextIO, TextIO],
) -> None:
    reader, writer = ends
    told: list[int] = []
    # patient: on a busy machine the thread may take its time, and this is about the pipe
    pipe = LogPipe(writer, patience_s=1.0, backlog_bytes=BACKLOG, told=told.append)
    seen = [0]
    pipe.watch(lambda n: seen.append(seen[-1] + n))
    lines = fill(pipe, 5000)  # of 505,000 bytes the kernel takes 65,536
    assert pipe.waiting_bytes <= BACKLOG
    assert seen[-1] == pipe.dropped > 4000
    kept = [reader.readline() for _ in range(5000 - pipe.dropped)]
    assert kept == lines[: len(kept)]  # in order, up to where there was no more room
    until(lambda: told)
    assert told == [pipe.dropped]
    lost = pipe.dropped
    pipe.write("and on\n")
    assert reader.readline() == "and on\n"
    assert pipe.dropped == lost


def test_a_line_said_while_losses_are_told_is_written_too(ends: tuple[TextIO, TextIO]) -> None:
    reader, writer = ends

    def said(n: int) -> None:
        pipe.write(f"lost {n}\n")  # from the thread itself, which must not wait for itself

    pipe = LogPipe(writer, backlog_bytes=BACKLOG, told=said)

    fill(pipe, 2000)
    lost = pipe.dropped
    last = [reader.readline() for _ in range(2000 - lost + 1)][-1]
    assert last == f"lost {lost}\n"


def test_whoever_reads_may_hang_up() -> None:
    out, into = os.pipe()
    with os.fdopen(into, "w") as writer:
        pipe = LogPipe(writer, told=lambda n: pytest.fail(f"told {n} to nobody"))
        pipe.write("heard\n")
        os.close(out)
        fill(pipe, 100)
        until(lambda: pipe.dropped == 100)
    assert pipe.waiting_bytes == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_a_full_disk_loses_lines_and_raises_nothing() -> None:
    with Path("/dev/full").open("w") as full:
        pipe = LogPipe(full)
        fill(pipe, 100)
        until(lambda: pipe.dropped == 100)


def test_a_pipe_that_was_made_not_to_wait_loses_nothing(ends: tuple[TextIO, TextIO]) -> None:
    reader, writer = ends
    os.set_blocking(writer.fileno(), False)
    pipe = LogPipe(writer)
    lines = fill(pipe, 2000)  # three times what the kernel takes, all within the backlog
    assert [reader.readline() for _ in lines] == lines
    assert pipe.dropped == 0


def test_a_stream_without_a_descriptor_takes_lines_at_once() -> None:
    stream = io.StringIO()
    pipe = LogPipe(stream)
    fill(pipe, 3)
    assert stream.getvalue().splitlines() == [f"{k:0100d}" for k in range(3)]


def test_it_waits_once_for_a_reader_that_has_stopped(ends: tuple[TextIO, TextIO]) -> None:
    _, writer = ends
    pipe = LogPipe(writer)
    pipe.write("x" * 100_000 + "\n")  # more than the kernel takes
    waits = []
    for _ in range(5):
        began_s = time.monotonic()
        pipe.write("more\n")
        waits.append(time.monotonic() - began_s)
    # a thread that gets no processor for so long five times in a row is no machine to test on
    assert min(waits) < PATIENCE_S


SAYS_ITS_LAST = """
import os, sys, threading
fd = int(sys.argv[1])
os.dup2(fd, 2)
{}
"""


@pytest.mark.parametrize(
    ("code", "last"),
    [
        (3, "sys.argv = ['stream-calib', 'config', 'show', '--config', 'no-such-file']\n"
            "from stream_calib.cli import main\nmain()"),
        (10, "from stream_calib.service.watchdog import Watchdog\n"
             "dog = Watchdog(0.1)\ndog.progressed('u', 1, 5)\ndog.start()\n"
             "threading.Event().wait()"),
    ],
    ids=["an_error", "the_watchdog"],
)  # fmt: skip
def test_a_process_ends_though_nobody_takes_its_last_sentence(code: int, last: str) -> None:
    out, into = os.pipe()
    try:
        os.set_blocking(into, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(into, b"." * 4096):
                pass
        os.set_blocking(into, True)
        words = [sys.executable, "-c", SAYS_ITS_LAST.format(last), str(into)]
        done = subprocess.run(words, pass_fds=[into], timeout=120, check=False)
    finally:
        os.close(out)
        os.close(into)
    assert done.returncode == code


def test_a_standard_error_that_is_closed_is_no_place_for_a_connection(tmp_path: Path) -> None:
    said = tmp_path / "said"
    code = (
        "import os, socket, sys; from stream_calib.cli import main\n"
        "sys.argv = ['stream-calib', 'config', 'show', '--config', 'no-such-file']\n"
        "try:\n    main()\nexcept SystemExit as end:\n"
        "    first = socket.socket().fileno()\n"
        f"    open({str(said)!r}, 'w').write(f'{{end.code}} {{first > 2}} {{sys.stderr.fileno()}}')"
    )
    words = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code]
    subprocess.run(words, timeout=120, check=False)
    assert said.read_text() == "3 True 2"
