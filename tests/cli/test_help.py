"""What a newcomer sees first."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer

from stream_calib import errors
from stream_calib.cli import EXIT_CODES, app
from tests.cli.command import COMMAND, Done

VERBS = ("demo", "run", "replay", "feed", "watch", "export", "simulate", "warmup", "topics")
SLOW_IMPORTS = {"numba", "numpy", "scipy", "aiokafka", "aiohttp", "pydantic", "prometheus_client"}


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, part in getattr(command, "commands", {}).items():
        yield from commands(part, (*path, name))


ALL = list(commands(typer.main.get_command(app)))


def test_no_arguments_show_the_verbs(cli: Callable[..., Done]) -> None:
    done = cli()
    assert done.code == 2
    assert [verb for verb in VERBS if f"\n  {verb} " not in done.out + done.err] == []


def test_help_names_every_exit_code(cli: Callable[..., Done]) -> None:
    done = cli("--help")
    assert done.code == 0
    raised = {getattr(error, "exit_code", 0) for error in vars(errors).values()}
    codes = {int(line.split()[0]) for line in EXIT_CODES.splitlines()[2:]}
    assert raised <= codes
    assert [line for line in EXIT_CODES.splitlines()[1:] if line not in done.out] == []


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_option_says_what_it_does(
    cli: Callable[..., Done], path: tuple[str, ...], command: Any
) -> None:
    done = cli(*path, "--help")
    assert done.code == 0
    assert done.out.startswith("Usage: stream-calib")
    assert command.help
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []


def test_version_is_that_of_the_package(cli: Callable[..., Done]) -> None:
    assert cli("--version") == Done(0, f"stream-calib {version('stream-calib')}\n", "")


@pytest.mark.parametrize(
    "words", [["nonsense"], ["--nonsense"], ["run"], ["run", "--http-port", "x"]]
)
def test_wrong_usage_ends_with_2(cli: Callable[..., Done], words: list[str]) -> None:
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert "Error: " in done.err


def test_help_loads_nothing_slow() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMAND[1:], "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert loaded & SLOW_IMPORTS == set()
