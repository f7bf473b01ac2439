"""``demo``: it can be watched while it runs, and ends by itself with the truth."""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.cli.command import COMMAND, but_loading, environment, spawn
from tests.cli.forking import Forked

QUICK = ("demo", "--seconds", "1", "--http-port", "0")
DEADLINE_S = 180.0  # on a machine that is busy with other things
COLOURED = re.compile(r"\x1b\[[\d;]*48;[25];[\d;]*m")


def test_demo_ends_by_itself_with_a_table_and_serves_metrics_meanwhile() -> None:
    started_s = time.monotonic()
    with spawn("demo", "--seconds", "5", "--http-port", "0") as process:
        assert process.stdout is not None
        url, metrics, lines = "", "", []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"metrics at (http://127\.0\.0\.1:\d+)/metrics", line):
                url = found[1]
            if url and "RMS error" in line and not metrics:  # it is on its way
                with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
                    metrics = answer.read().decode()
                with urllib.request.urlopen(f"{url}/readyz", timeout=60) as answer:
                    assert answer.status == 200
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr is not None
        assert but_loading(process.stderr.read()) == ""
    assert time.monotonic() - started_s < DEADLINE_S
    assert re.search(r'stream_calib_matrices_total\{.*universe="demo"\} [1-9]', metrics)
    text = "".join(lines)
    assert "True and estimated correlations, before and after the break" in text
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    rows = {name: others for name, *others in cells}
    assert {"average", "RMS error", "in 95 % band", "BANK1 ~ BANK2"} <= rows.keys()
    before_true, before, dcc_before, after_true, after, dcc_after = map(float, rows["average"])
    assert before_true == pytest.approx(0.244, abs=0.005)  # of two digits
    assert after_true == pytest.approx(0.737, abs=0.005)
    assert before == pytest.approx(before_true, abs=0.1)
    assert after == pytest.approx(after_true, abs=0.1)
    assert dcc_before == pytest.approx(before_true, abs=0.1)
    # half of what the last fit has seen is from before the break
    assert dcc_after == pytest.approx(after_true, abs=0.2)
    assert re.fullmatch(
        r"172,104 ticks: 172,104 applied(, \d confirmed_late)?; 60\d matrices\n", lines[-1]
    )


def test_demo_gives_way_when_its_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Forked("demo", "--seconds", "50", "--http-port", port) as process:
            line = next(line for line in process.stdout if "metrics at" in line)
            process.kill()
    assert "metrics at http://127.0.0.1:" in line
    assert f"127.0.0.1:{port}/" not in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted_says_so(number: signal.Signals) -> None:
    with Forked("demo", "--seconds", "50", "--http-port", "0", patient=False) as process:
        for line in process.stdout:
            if "metrics at" in line:
                break
        started_s = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, but_loading(err)) == (130, "")
    assert out.endswith("interrupted\n")
    assert time.monotonic() - started_s < 5.0


def test_demo_that_stays_shows_the_live_view_until_it_is_interrupted() -> None:
    with Forked("demo", "--seconds", "1", "--http-port", "0", "--stay") as process:
        url = ""
        for line in process.stdout:
            if found := re.search(r"live view at (http://127\.0\.0\.1:\d+/)", line):
                url = found[1]
            if "Ctrl-C ends it" in line:
                break
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert b"<title>stream_calib</title>" in answer.read()
        with urllib.request.urlopen(f"{url}api/matrix/demo/ewma.csv", timeout=60) as answer:
            assert answer.read().startswith(b"symbol,SIM:BANK1,")
        with urllib.request.urlopen(f"{url}metrics", timeout=60) as answer:
            seconds = re.search(rb"\nstream_calib_compile_seconds (\S+)\n", answer.read())
            assert seconds is not None
            assert float(seconds[1]) > 0.0
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, but_loading(err)) == (0, "")
    assert "True and estimated correlations" in out


def test_demo_whose_reader_leaves_ends_quietly() -> None:
    with spawn(*QUICK) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("kernels ready")
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 1
        assert process.stderr is not None
        assert but_loading(process.stderr.read()) == ""


@pytest.mark.parametrize(
    ("columns", "rows"), [(100, 40), pytest.param(60, 12, marks=pytest.mark.full)]
)
def test_terminal_shows_the_matrix_as_a_coloured_heat_map(columns: int, rows: int) -> None:
    with terminal(columns, rows) as (process, main_end):
        text = read_all(main_end)
        assert process.wait(DEADLINE_S) == 0
    assert len(COLOURED.findall(text)) > 100
    assert "BANK1" in text
    assert "the break: average correlation" in text
    assert "True and estimated correlations" in text
    assert "\x1b[?25h" in text  # the cursor is back


class terminal:  # noqa: N801  reads as what it is
    """The demo in a terminal of this size; yields the process and our end of the terminal."""

    def __init__(self, columns: int, rows: int) -> None:
        self._size = struct.pack("HHHH", rows, columns, 0, 0)

    def __enter__(self) -> "tuple[subprocess.Popen[bytes], int]":
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, self._size)
        self._process = subprocess.Popen(
            [*COMMAND, *QUICK],
            env=environment(TERM="xterm-256color"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        return self._process, self._ours

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._ours)


def read_all(terminal_end: int) -> str:
    return b"".join(pieces(terminal_end)).decode()


def pieces(terminal_end: int) -> Iterator[bytes]:
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        if not select.select([terminal_end], [], [], 1.0)[0]:
            continue
        try:
            piece = os.read(terminal_end, 65536)
        except OSError:  # the other end is closed
            return
        if not piece:
            return
        yield piece
