"""Workers end, hang and come back while input flows: another one goes on, with the same bytes."""

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from deploy.kafka.broker import free_port
from tests.cli.command import PATIENCE, spawn
from tests.kafka.killing import tell
from tests.kafka.living import Live, asked, ended, said_at, start
from tests.kafka.workers import (
    DEBUG,
    SESSION_S,
    Workers,
    feeding,
    input_of,
    said,
    served_by,
    until_said,
)

# Input for longer than ten times of what the tests take: some minutes, if nobody ends it before.
LONG_S, AHEAD_S, SPEED = 2000.0, 40.0, 5.0
TAKEOVERS = 10
REPEATED_S = 300.0  # of ticks, that whoever has no state repeats
FOLLOWING_S = 2.0 * SESSION_S
LONG_SESSION_S = 3.0 * SESSION_S  # nobody counts as dead because a busy machine stood still

# The command, which stops itself in a transaction of which all is written and nothing committed,
# once a file is there. It is patient: no deadline of its own shall pass while it is stopped.
STOPS_ITSELF = f"""
import functools, json, os, signal, sys
{PATIENCE}
from stream_calib.adapters.kafka import CommitSettings, source
from stream_calib.cli import main
from stream_calib.service import wiring
told = sys.argv.pop(1)
def at(name):
    if name == "journal" and os.path.exists(told):
        os.unlink(told)
        print(json.dumps({{"event": "frozen"}}), file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
wiring.crash_points = lambda: at
wiring.CommitSettings = functools.partial(CommitSettings, commit_timeout_s=600.0)
source.POLL_GRACE_S = 600.0
main()
"""


async def stopped(*workers: Live) -> None:
    for worker in workers:
        assert (await ended(worker, signal.SIGTERM)).code == 0


def start_to_freeze(served: Workers, told: Path, port: int) -> Live:
    """Start a worker, with HTTP, that stops inside of a transaction when it is told to."""
    text = served.config_file.read_text()
    for old, new in (
        ("enabled = false", f"port = {port}"),
        ("[delivery]", '[delivery]\ntransaction_timeout = "10m"'),
    ):
        assert old in text
        text = text.replace(old, new)
    own = served.folder / "to_freeze.toml"
    own.write_text(text)
    program = [sys.executable, "-c", STOPS_ITSELF, told]
    return Live(spawn("run", "--config", own, *DEBUG, program=program, cwd=served.folder))


async def first_matrix_at(worker: Live) -> float:
    """When a worker had committed its first matrix, in seconds since 1970."""
    await until_said(worker, "matrix")
    return said_at(said(worker, "matrix")[0])


async def assert_all_is_right(served: Workers, seed: int, *at_work: Live) -> None:
    """Hold what was published against what comes of the input alone; then once more at the end."""
    expected = await served.expected()
    for published in expected:
        assert len(published["correlations"]) > 20
        assert published["rejects"]
    await served.until_all(expected)
    assert await served.of_all() == expected, f"seed {seed}"
    await stopped(*at_work)
    assert await served.of_all() == expected, f"seed {seed}"


async def test_standby_goes_on_where_an_owner_was_that_is_killed_while_input_flows(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    given = await input_of(kafka_bootstrap, seed, LONG_S)
    served = await served_by(kafka_bootstrap, tmp_path, given, session_s=LONG_SESSION_S)
    async with feeding(kafka_bootstrap, given, ahead_s=AHEAD_S, speed=SPEED) as feed:
        owner = await start(served, *DEBUG)
        await until_said(owner, "matrix")
        standby = await start(served, *DEBUG)
        await until_said(standby, "another worker owns it")
        await asyncio.sleep(2.0 * FOLLOWING_S)
        killed_s = time.time()
        owner.killed()
        took_s = await first_matrix_at(standby) - killed_s
        assert not feed.is_over
        await feed.end()
    # a session, and a sign of life of a fifth of it; the rest is for a busy machine
    assert took_s < 6 * LONG_SESSION_S
    (recovered,) = said(standby, "recovered")
    assert recovered["warm"]
    assert recovered["repeated"] < recovered["entry"]  # the rest it had followed
    await assert_all_is_right(served, seed, standby)


async def test_owner_that_was_frozen_is_fenced_and_does_not_fight_back(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    given = await input_of(kafka_bootstrap, seed, LONG_S)
    served = await served_by(kafka_bootstrap, tmp_path, given, session_s=LONG_SESSION_S)
    async with feeding(kafka_bootstrap, given, ahead_s=AHEAD_S, speed=SPEED) as feed:
        told, port = tmp_path / "freeze", free_port()
        frozen = start_to_freeze(served, told, port)
        await until_said(frozen, "matrix")
        heir = await start(served, *DEBUG)
        await until_said(heir, "another worker owns it")
        told.touch()
        await until_said(frozen, "frozen")
        await until_said(heir, "matrix")
        assert not said(frozen, "no longer the owner")
        thawed_s = time.time()
        frozen.process.send_signal(signal.SIGCONT)
        await until_said(frozen, "another worker owns it")
        await asyncio.sleep(1.5 * LONG_SESSION_S)
        assert not feed.is_over
        await feed.end()
        url = f"http://127.0.0.1:{port}"
        for metric in ("commits", "ownership_changes"):
            labels = r'\{[^}]*outcome="fenced"[^}]*\}'
            await asked(url, "/metrics", rf"stream_calib_{metric}_total{labels} 1\.0")
    # the broker has refused to commit what was written before: it was not just told to let go
    (fenced,) = said(frozen, "no longer the owner")
    assert fenced["reason"].startswith(f"Another process has taken over '{served.prefix}.u'")
    assert not any(said_at(matrix) > thawed_s for matrix in said(frozen, "matrix"))
    assert len(said(heir, "recovered")) == 1  # nobody took it away again
    assert len(said(frozen, "recovered")) == 1
    assert not said(heir, "no longer the owner")
    await assert_all_is_right(served, seed, frozen, heir)


@pytest.mark.chaos
async def test_two_workers_share_three_universes_and_one_of_them_has_all_in_the_end(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    names = ("u", "v", "w")
    given = await input_of(kafka_bootstrap, seed, LONG_S)
    served = await served_by(kafka_bootstrap, tmp_path, given, universes=names)
    async with feeding(kafka_bootstrap, given, ahead_s=AHEAD_S, speed=SPEED) as feed:
        first = await start(served, *DEBUG)
        await until_said(first, "matrix")
        second = await start(served, *DEBUG)
        await until_said(second, "matrix")
        first.killed()
        while {line["universe"] for line in said(second, "matrix")} != set(names):
            assert not feed.is_over
            await asyncio.sleep(0.1)
        await feed.end()
    await assert_all_is_right(served, seed, second)


@pytest.mark.chaos
@pytest.mark.parametrize("standby", ["spare", "never"])
async def test_how_long_a_takeover_takes(
    kafka_bootstrap: str, tmp_path: Path, seed: int, standby: str
) -> None:
    given = await input_of(kafka_bootstrap, seed, 4 * REPEATED_S, n_symbols=100)
    # all is repeated: none but the snapshot that a start makes is due, and that one is taken away
    served = await served_by(kafka_bootstrap, tmp_path, given, standby=standby, replay_cost="1h")
    folder = served.folder / "snapshots" / f"{served.prefix}.journal" / "u"
    took_s, at_work_s, repeated = [], [], []
    async with feeding(kafka_bootstrap, given, ahead_s=REPEATED_S) as feed:
        owner = await start(served, *DEBUG)
        await until_said(owner, "matrix")
        for _ in range(TAKEOVERS):
            heir = await start(served, *DEBUG)
            await until_said(heir, "another worker owns it")
            await asyncio.sleep(FOLLOWING_S)  # to follow, where it does
            killed_s = time.time()
            owner.killed()
            for snapshot in folder.iterdir():
                snapshot.unlink()
            took_s.append(await first_matrix_at(heir) - killed_s)
            (recovered,) = said(heir, "recovered")
            assert recovered["warm"] == (standby == "spare")
            assert recovered["warm"] or recovered["snapshot"] < 0  # of nothing, all of it
            at_work_s.append(said_at(recovered) - killed_s)
            repeated.append(recovered["repeated"])
            owner = heir
        assert not feed.is_over
        await feed.end()
    await assert_all_is_right(served, seed, owner)
    kind = "standby" if standby == "spare" else "no standby"
    tell(
        f"takeover, standby {standby}",
        seed,
        kills=TAKEOVERS,
        takeover_s={kind: took_s},
        at_work_s=at_work_s,
        repeated=repeated,
    )
