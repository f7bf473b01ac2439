"""Nothing is written outside of the folders that are meant for it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.command import COMMAND, DEMO_TICKS, environment

ROOT = Path(__file__).parents[2]
HOOK = """
import os, sys
told = os.open(os.environ["WRITTEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

def tell(*paths):
    for path in paths:
        if isinstance(path, (str, bytes, os.PathLike)):
            os.write(told, os.fsencode(os.path.abspath(os.fsdecode(path))) + b"\\n")

def hook(event, args):
    if event == "open":
        path, mode, flags = args
        if isinstance(flags, int) and flags & writing:
            tell(path)
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod"):
        tell(args[0])
    elif event in ("os.rename", "os.link", "os.symlink"):
        tell(args[0], args[1])

sys.addaudithook(hook)
"""
SETTINGS = """
[output]
prefix = "here"
[[universe]]
name = "sim"
symbols = ["SIM:BANK1", "SIM:BANK2", "SIM:TECH1"]
bar = "5s"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder to work in, with settings and a hook that each Python process runs."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    work = tmp_path / "work"
    work.mkdir()
    (work / "settings.toml").write_text(SETTINGS)
    return work


def written(place: Path, *words: object, stop_after_s: float = 0.0) -> list[Path]:
    """Run a command under a loose umask; return every path that it or a child of it wrote to."""
    told = place.parent / "told"
    told.unlink(missing_ok=True)
    temporary = place.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    path = os.pathsep.join(
        [str(place.parent / "hook"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    )
    env = environment(
        PYTHONPATH=path, WRITTEN=str(told), TMPDIR=str(temporary), HOME=str(place.parent / "home")
    )
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)], cwd=place, env=env, umask=0o000,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if stop_after_s:
        time.sleep(stop_after_s)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert b"Traceback" not in err, err.decode()
    assert told.exists(), (out, err)
    return [Path(os.fsdecode(line)) for line in sorted(set(told.read_bytes().splitlines()))]


def strangers(place: Path, paths: Sequence[Path], *named: str) -> list[Path]:
    """Return the paths that are none of those a command may write to."""
    caches = [Path(value) for key in ("NUMBA_CACHE_DIR",) if (value := os.environ.get(key))]
    folders = [place.parent / "tmp", Path("/dev"), Path("/proc"), *caches]
    files = [place / name for name in named]
    return [
        path
        for path in paths
        if not any(path.is_relative_to(folder) for folder in folders)
        and "__pycache__" not in path.parts
        and not any(
            path == file
            or path.is_relative_to(file)
            or (path.name.startswith(file.name) and path.parent == place)
            for file in files
        )
    ]


def test_replay_export_and_snapshots_write_what_they_are_told_to(place: Path) -> None:
    ticks = "ticks.jsonl.zst"
    (place / ticks).write_bytes(DEMO_TICKS.read_bytes())
    replayed = written(place, "replay", ticks, "-c", "settings.toml", "--out", "out.jsonl")
    assert place / "out.jsonl" in replayed or any(p.name.startswith("out.jsonl") for p in replayed)
    assert not strangers(place, replayed, "out.jsonl")
    exported = written(place, "export", "out.jsonl", "--out", "table.csv")
    assert not strangers(place, exported, "table.csv")
    assert not strangers(place, written(place, "watch", "out.jsonl"))
    assert not strangers(place, written(place, "doctor", ticks, "-c", "settings.toml"))
    assert not strangers(
        place, written(place, "snapshot", "list", "-c", "settings.toml"), "snapshots"
    )


@pytest.mark.full
def test_the_demo_writes_nothing_of_its_own(place: Path) -> None:
    paths = written(place, "demo", "--seconds", 4, "--http-port", 0)
    assert not strangers(place, paths)


def test_the_hook_sees_what_is_written(place: Path) -> None:
    # without this the tests above could pass because nothing was seen
    told = place.parent / "told"
    env = environment(PYTHONPATH=str(place.parent / "hook"), WRITTEN=str(told))
    code = "open('x', 'w').close(); import os; os.mkdir('d'); os.rename('x', 'y')"
    subprocess.run([sys.executable, "-c", code], cwd=place, env=env, check=True)
    seen = {Path(line).name for line in told.read_text().splitlines()}
    assert {"x", "d", "y"} <= seen
    assert strangers(place, [place.parent / "elsewhere"]) == [place.parent / "elsewhere"]
