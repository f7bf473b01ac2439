"""How far it is to the last snapshot is what a start would have to repeat."""

import asyncio
import re
from pathlib import Path

from stream_calib.adapters.snapshots import SnapshotFolder
from tests.service.outside import WAIT_S, Asked, Outside, asked


class Disk(SnapshotFolder):
    """A disk that is full, or not."""

    full = True

    def save(self, name: str, value: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().save(name, value)


def number(service: Asked, name: str) -> float:
    text = service.service.observer.render()[0].decode()
    found = re.search(rf"^stream_calib_{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return -1.0 if found is None else float(found[1])


async def until_more(service: Asked, name: str, than: float) -> float:
    """Wait until a number is more than that, and return it."""
    async with asyncio.timeout(WAIT_S):
        while (shown := number(service, name)) <= than:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return shown


async def test_only_a_snapshot_that_was_saved_makes_it_shorter(tmp_path: Path) -> None:
    outside = Outside()
    outside.store = disk = Disk(tmp_path / "snapshots")
    saved = 'snapshots_total{outcome="saved",universe="fx"}'
    failed = 'snapshots_total{outcome="failed",universe="fx"}'
    async with asked(outside) as service:
        outside.tick(1, 300)
        first = await until_more(service, "snapshot_distance_seconds", 0.0)
        await until_more(service, re.escape(failed), 0.0)
        outside.tick(301, 600)
        # shown once a second: it has gone on from where it was
        second = await until_more(service, "snapshot_distance_seconds", first)
        disk.full = False
        outside.tick(601, 602)
        await until_more(service, re.escape(saved), 0.0)
        async with asyncio.timeout(WAIT_S):
            while number(service, "snapshot_distance_seconds") >= second:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_without_snapshots_there_is_no_distance() -> None:
    outside = Outside()
    async with asked(outside) as service:
        outside.tick(1, 60)
        await service.until()
        await until_more(service, "model_version", 0.0)
        assert number(service, "snapshot_distance_seconds") == -1.0


async def test_without_snapshots_nothing_is_kept_of_a_commit() -> None:
    outside = Outside()
    async with asked(outside) as service:
        outside.tick(1, 60)
        await service.until()
        (universe,) = service.service._universes
        assert universe._loop is not None
        assert universe._loop.has_committed
        assert not universe._loop._entry_positions
