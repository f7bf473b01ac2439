"""A disk that does not come to the end of a sync: a whole service does not wait for it."""

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_calib.adapters import snapshots
from stream_calib.adapters.snapshots import SnapshotFolder
from stream_calib.service import loop
from stream_calib.service.wiring import Service
from tests.service.outside import WAIT_S, Outside, asked


class Disk(SnapshotFolder):
    """Syncs at once, or when it is let go; what is held is under way until then."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, at=self._reached)
        self.lets_go = threading.Event()
        self.lets_go.set()
        self.holds = threading.Event()

    def _reached(self, point: str) -> None:
        if point == "snapshot_write" and not self.lets_go.is_set():
            self.holds.set()
            assert self.lets_go.wait(2 * WAIT_S)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "snapshots")
    yield made
    made.lets_go.set()


def number(service: Service, name: str) -> float:
    """Return a metric of the universe, by its name with the labels that come first."""
    text = service.observer.render()[0].decode()
    found = re.search(rf"^stream_calib_{name}universe=\"fx\".*}} (\S+)$", text, re.MULTILINE)
    return 0.0 if found is None else float(found[1])


async def until_more(service: Service, name: str, than: float) -> float:
    async with asyncio.timeout(WAIT_S):
        while (shown := number(service, name)) <= than:  # noqa: ASYNC110  nobody tells it
            await asyncio.sleep(0.02)
    return shown


COMMITTED = r'commits_total{outcome="committed",'
SAVED = r'snapshots_total{outcome="saved",'


async def held(service: Service, outside: Outside, disk: Disk) -> None:
    """Bring a service to where a save is under way that does not end."""
    outside.tick(1, 60)
    await until_more(service, SAVED, 0)
    disk.lets_go.clear()
    outside.tick(61, 360)
    assert await asyncio.to_thread(disk.holds.wait, WAIT_S)


async def test_a_save_that_takes_long_holds_up_neither_the_stream_nor_a_recovery(
    disk: Disk,
) -> None:
    outside = Outside()
    outside.store = disk
    async with asked(outside) as client:
        service = client.service
        await held(service, outside, disk)
        saved = number(service, SAVED)
        for k in range(3):
            committed = number(service, COMMITTED)
            outside.tick(361 + 10 * k, 370 + 10 * k)
            await until_more(service, COMMITTED, committed)
        await client.until()
        outside.broken = "nobody answered"  # a commit: it is not known what became of it
        outside.tick(391, 400)
        await until_more(service, r"restarts_total{reason=\"TransportError\",", 0)
        outside.broken = ""
        outside.tick(401, 420)
        await until_more(service, r"recoveries_total{", 1)
        committed = number(service, COMMITTED)
        outside.tick(421, 430)
        await until_more(service, COMMITTED, committed)
        await client.until()
        assert not disk.lets_go.is_set()
        assert number(service, SAVED) == saved  # which tells that it did hang all the time
        disk.lets_go.set()
        await until_more(service, SAVED, saved)  # one of the new life


@pytest.mark.parametrize("out_of_time", ["by itself", "cancelled"])
async def test_an_end_that_is_out_of_time_does_not_wait_for_a_save_either(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, out_of_time: str
) -> None:
    monkeypatch.setattr(snapshots, "PATIENCE_S", 0.1)
    if out_of_time == "by itself":
        monkeypatch.setattr(loop, "LAST_SAVE_S", 0.5)
    outside = Outside()
    outside.store = disk
    service, stop = outside.service(), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    async with asyncio.timeout(WAIT_S):
        while not service.http.url:  # noqa: ASYNC110  it has no event for it
            await asyncio.sleep(0.01)
    await held(service, outside, disk)
    stop.set()
    done, _ = await asyncio.wait({running}, timeout=0.3)
    assert not done  # while there is time it is waited for
    if out_of_time == "cancelled":
        running.cancel()
    done, _ = await asyncio.wait({running}, timeout=WAIT_S)
    assert done
    assert not disk.lets_go.is_set()
    assert running.cancelled() == (out_of_time == "cancelled")
