"""Write the golden files anew: ``python -m tests.golden.regenerate``."""

from collections.abc import Mapping
from pathlib import Path

import zstandard

from stream_calib.values import Output
from stream_calib.wire import calibrations, events, journal, matrices, snapshots, universes
from tests.golden import values

FOLDER = Path(__file__).parent
PACKED_FROM = 201  # symbols; smaller matrices are JSON


def as_file(record: Output) -> bytes:
    """Lay a record out: key and headers, one to a line, an empty line, and the value."""
    lines = [b"key: " + record.key]
    lines += [name.encode() + b": " + content for name, content in record.headers]
    return b"\n".join(lines) + b"\n\n" + record.value


def golden_files() -> Mapping[str, bytes]:
    """Return the content of each golden file by name, as the code at hand encodes it."""
    (json,) = matrices.encode(values.matrix(3), "calib.correlations", 0)
    (packed,) = matrices.encode(values.matrix(PACKED_FROM), "calib.correlations", 0)
    return {
        "matrix_v1_json.record": as_file(json),
        "matrix_v1_packed.record.zst": as_file(packed),
        "event_v1.record": as_file(events.encode_event(values.EVENT, "calib.events", 0)),
        "reject_v1.record": as_file(events.encode_reject(values.REJECT, "calib.rejects", 0)),
        "reject_v1_tombstone.record": as_file(
            events.encode_reject(values.TOMBSTONE, "calib.rejects", 0)
        ),
        "calibration_v1.record": as_file(
            calibrations.encode_calibration(values.CALIBRATION, "calib.calibrations", 0)
        ),
        "universe_v1.record": as_file(
            universes.encode_description(values.DESCRIPTION, "calib.universes", 0)
        ),
        "snapshot_v1.snap": snapshots.encode_snapshot(values.SNAPSHOT),
        "journal_entry_v1.json": journal.encode_entry(values.ENTRY, "calib.journal", 0).value,
    }


def read(name: str) -> bytes:
    """Return the content of a golden file; large ones are kept compressed."""
    content = (FOLDER / name).read_bytes()
    return zstandard.decompress(content) if name.endswith(".zst") else content


def main() -> None:
    """Overwrite the golden files."""
    for name, content in golden_files().items():
        packed = zstandard.compress(content, 19) if name.endswith(".zst") else content
        (FOLDER / name).write_bytes(packed)


if __name__ == "__main__":
    main()
