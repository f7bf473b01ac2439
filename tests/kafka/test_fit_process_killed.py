"""The process that makes the fits, not the service, is killed, killed again, or hangs."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.kafka.killing import DEADLINE_S, Published, Victim
from tests.kafka.living import Live, ended, start
from tests.kafka.test_faults_log import journal
from tests.kafka.test_faults_process import events, matrices, settings, sizes
from tests.kafka.test_kills_in_fits import ROLES, models, world
from tests.kafka.truth import of_the_input, of_the_journal

HUNG_S = 30.0  # a fit takes 3 s of it, most of them to start its process


def children(pid: int) -> set[int]:
    """Return the processes that a process has started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since
        if int(fields[1]) == pid and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


async def fit_process(live: Live, but: set[int]) -> int:
    """Wait for a process of fits that is none of these."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not (new := children(live.process.pid) - but):
        assert live.process.poll() is None, live.lines[-5:]
        assert time.monotonic() < deadline_s, live.lines[-5:]
        await asyncio.sleep(0.005)
    return new.pop()


@pytest.mark.chaos
async def test_fit_whose_process_is_killed_is_made_by_the_next_one(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim = await world(kafka_bootstrap, tmp_path, seed, "wait", seconds=140.0)
    live = await start(victim)
    # It starts with the first fit, which needs longer to import than until it is found here.
    first = await fit_process(live, set())
    os.kill(first, signal.SIGKILL)
    second = await fit_process(live, {first})
    truth = await asyncio.to_thread(of_the_input, victim, ROLES, flush=True)
    assert len(models(truth.published)) >= 2
    deadline_s = time.monotonic() + DEADLINE_S
    while sizes(found := await victim.published(ROLES)) != sizes(truth.published):
        assert live.process.poll() is None, live.lines[-5:]
        assert time.monotonic() < deadline_s, (sizes(found), live.lines[-5:])
        await asyncio.sleep(0.3)
    assert children(live.process.pid) == {second}  # no other one was needed
    done = await ended(live, signal.SIGTERM)
    assert done.code == 0
    assert len(done.said("fit is tried again")) == 1
    assert found == truth.published, f"seed {seed}"
    assert (await of_the_journal(victim, ROLES)).published == found, f"seed {seed}"


async def settled(live: Live, victim: Victim) -> Published:
    """Wait until all of the input is published, with a model, and nothing more comes."""
    deadline_s, before = time.monotonic() + DEADLINE_S, None
    while not (victim.is_at_the_end(found := await victim.published(ROLES)) and found == before):
        assert live.process.poll() is None, live.lines[-5:]
        assert time.monotonic() < deadline_s, (sizes(found), live.lines[-5:])
        before = found
        await asyncio.sleep(victim.settled_s)
    return found


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param("crashed", "ended in the middle of a fit (signal 9) (2 tries)", id="f69"),
        pytest.param("timeout", f"took more than {HUNG_S:g} s", id="f65"),
    ],
)
async def test_a_fit_that_comes_to_nothing_is_said_and_matrices_go_on(
    kafka_bootstrap: str, tmp_path: Path, seed: int, code: str, words: str
) -> None:
    victim = await world(kafka_bootstrap, tmp_path, seed, "wait", seconds=140.0)
    settings(victim, "[refit]", f"[refit]\ntimeout = '{HUNG_S:g}s'")
    live = await start(victim)
    process = await fit_process(live, set())  # importing yet, as above
    if code == "timeout":
        os.kill(process, signal.SIGSTOP)
    else:
        os.kill(process, signal.SIGKILL)
        os.kill(await fit_process(live, {process}), signal.SIGKILL)
    found = await settled(live, victim)
    assert process not in children(live.process.pid)  # one that is stopped can be killed too
    done = await ended(live, signal.SIGTERM)
    assert done.code == 0
    assert await victim.published(ROLES) == found
    (failed,) = [event for event in events(found) if event["type"] == "refit_failed"]
    assert failed["details"]["code"] == code
    assert words in failed["details"]["reason"]
    assert len(done.said("fit is tried again")) == (code == "crashed")
    later = [m for m in matrices(found) if m.as_of_ns > int(failed["time_ns"])]
    assert len(later) > 20, f"seed {seed}"
    assert models(found)  # it was asked for again
    answers = [f.code for e in await journal(victim) for move in e.moves for f in move.failures]
    assert answers == [code]
    assert (await of_the_journal(victim, ROLES)).published == found, f"seed {seed}"
