"""Where the snapshots of a universe are kept, as the settings say."""

from collections.abc import Callable

from stream_calib.adapters.objectstore import SnapshotObjects
from stream_calib.adapters.snapshots import SnapshotFolder
from stream_calib.config import Config, UniverseConfig
from stream_calib.values import SECOND_NS


def _nothing(_point: str) -> None: ...


def snapshot_store(
    config: Config, universe: UniverseConfig, at: Callable[[str], None] = _nothing
) -> SnapshotFolder | SnapshotObjects | None:
    """Return where the snapshots of ``universe`` are kept, or None for nowhere.

    Raises
    ------
    ConfigError
        There is no package that opens ``snapshots.url``.
    """
    own, journal = config.snapshots, f"{config.output.prefix}.journal"
    if not own.enabled:
        return None
    if own.url is not None:
        timeout_s = own.timeout / SECOND_NS
        return SnapshotObjects(own.url, f"{journal}/{universe.name}", own.keep, timeout_s, at)
    if own.folder is None:
        return None
    return SnapshotFolder(own.folder / journal / universe.name, own.keep, at)
