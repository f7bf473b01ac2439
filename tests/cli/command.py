"""Runs the command line: inside this process, or as one of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import pytest

from stream_calib.cli import main
from stream_calib.cli.run import COMPILING

if TYPE_CHECKING:
    from tests.cli.forking import Forked

DEADLINE_S = 120.0  # of a command that ends by itself, on a machine that is busy
COMMAND = (sys.executable, "-m", "stream_calib")
# The command with patience for a stop on a busy machine. That a stop takes at most five seconds is
# for the tests that measure it.
PATIENCE = "import stream_calib.cli.run as run; run.STOP_S, run.EXIT_S = 30.0, 60.0"
PATIENT = (sys.executable, "-c", f"{PATIENCE}; from stream_calib.cli import main; main()")
DEMO_TICKS = Path(__file__).parents[2] / "replay_data" / "demo_ticks.jsonl.zst"


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


class Spawned(subprocess.Popen[str]):
    """A command as a process of its own; a test that fails within its block ends it."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.kill()
        super().__exit__(kind, error, traceback)


class Cli:
    """Runs commands in this process; relative paths are those of the test's own folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        monkeypatch.chdir(folder)

    def __call__(self, capsys: pytest.CaptureFixture[str], *words: object) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["stream-calib", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        code = caught.value.code
        assert isinstance(code, int)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Done(code, said.out, said.err)


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without settings of the service."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith("STREAM_CALIB__")}
    return kept | {"PYTHONUNBUFFERED": "1"} | more


def spawn(
    *words: object,
    program: Sequence[object] = COMMAND,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Spawned:
    """Start a command as a process of its own, its output in pipes."""
    return Spawned(
        [*map(str, program), *map(str, words)],
        cwd=cwd,
        env=environment() | dict(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts its background jobs deaf to Ctrl-C, and what they start inherits it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def run_process(
    *words: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Done:
    """Run a command as a process of its own to its end."""
    return ended(spawn(*words, cwd=cwd, env=env))


def ended(process: "Spawned | Forked") -> Done:
    """Return what a process has said and how it ended; where it takes too long it is killed."""
    with process:
        try:
            out, err = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()  # where it still runs
    assert "Traceback" not in err
    return Done(process.wait(), out, err)


def but_loading(err: str) -> str:
    """Leave out what is said where loading the kernels takes longer than two seconds."""
    return err.replace(f"{COMPILING}\n", "", 1)


def is_one_sentence(text: str) -> bool:
    """Tell whether this is what an error looks like."""
    return text.startswith("stream-calib: ") and text.count("\n") == 1 and text.endswith("\n")
