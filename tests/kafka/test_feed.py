"""Recorded files fed into a real topic, read back by a program that is not ours."""

import subprocess
import time
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path

import orjson

from tests.cli.command import run_process


def test_files_are_fed_as_one_stream_at_the_pace_of_their_event_time(
    kafka_bootstrap: str, require_binary: Callable[[str], Path], tmp_path: Path
) -> None:
    for name, shift in (("one", 0), ("two", 5)):
        lines = [
            b'{"symbol":"X:%b","time":%d,"price":1}' % (name.encode(), 1_700_000_000_000 + at)
            for at in range(shift, 4000, 10)
        ]
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(lines))
    topic = f"feed-{uuid.uuid4().hex[:12]}"
    words = ["feed", "two.jsonl", "one.jsonl", "--topic", topic, "--create", "--partitions", "2"]
    started_s = time.monotonic()
    done = run_process(*words, "--speed", "2", "--bootstrap", kafka_bootstrap, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("800 records in ")
    # four seconds of event time, at twice their pace
    assert time.monotonic() - started_s > 1.9
    form = r"%p %k %s\n"
    reading = [str(require_binary("kcat")), "-b", kafka_bootstrap, "-C", "-t", topic, "-e", "-q"]
    out = subprocess.run([*reading, "-f", form], capture_output=True, check=True, timeout=60)
    read = [line.split(b" ", 2) for line in out.stdout.splitlines()]
    assert len(read) == 800
    for partition in (b"0", b"1"):
        own = [(key, value) for place, key, value in read if place == partition]
        times = [orjson.loads(value)["time"] for _, value in own]
        assert times == sorted(times)
        assert all(zlib.crc32(key) % 2 == int(partition) for key, _ in own)
    assert {key for _, key, _ in read} == {b"X:one", b"X:two"}
