"""Strangers read matrices from a real Kafka: kcat, and the readers of deploy/reading.md."""

import dataclasses
import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stream_calib.adapters.kafka import KafkaSink
from stream_calib.config import KafkaConfig
from stream_calib.estimation.cleaning import repair_correlation
from stream_calib.values import F64, Matrix, Output, eigenvalue_floor
from stream_calib.wire.matrices import encode
from tests.deploy.readers import KCAT_FORMAT, PAGE, crc32_of, plain_reader, run_java, square_of
from tests.golden.values import matrix
from tests.real_parts import TopicMaker

SIZES = (10, 300, 1500)


def estimated(n: int) -> F64:
    """Correlations of fewer bars than symbols, a third of them missing, repaired as published."""
    rng = np.random.default_rng(n)
    rows = rng.standard_normal((100, 3)) @ rng.standard_normal((3, n))
    rows += rng.standard_normal((100, n))
    seen = rng.random(rows.shape) < 0.67
    rows = np.where(seen, rows, 0.0)
    squares = (rows * rows).T @ seen
    corr = rows.T @ rows / np.sqrt(squares * squares.T)
    np.fill_diagonal(corr, 1.0)
    repaired = repair_correlation(corr, eigenvalue_floor(n), np.arange(n), 0.01)
    assert n == 10 or repaired.repair > 0.0  # there was something to repair
    return repaired.corr


def published() -> list[Matrix]:
    """Matrices of three universes, with what JSON and headers have to stand."""
    return [
        dataclasses.replace(
            matrix(n),
            universe=f"u{n}",
            symbols=tuple(f"SIM:Ü,=\\{i}" for i in range(n)),
            corr=estimated(n),
        )
        for n in SIZES
    ]


async def write(bootstrap: str, records: list[Output]) -> None:
    sink = KafkaSink(KafkaConfig(bootstrap_servers=bootstrap))
    await sink.start()
    try:
        await sink.publish(records)
    finally:
        await sink.close()


def kcat(program: Path, bootstrap: str, topic: str) -> bytes:
    words = ["-C", "-b", bootstrap, "-t", topic, "-q", "-e", "-f", KCAT_FORMAT]
    words += ["-X", "isolation.level=read_committed"]
    return subprocess.run([program, *words], capture_output=True, check=True, timeout=60).stdout


@pytest.mark.asyncio
async def test_strangers_read_matrices_of_any_size_and_can_invert_them(
    kafka_bootstrap: str,
    new_topic: TopicMaker,
    require_binary: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    topic = await new_topic(partitions=len(SIZES))
    ours = published()
    records = [o for k, own in enumerate(ours) for o in encode(own, topic, k)]
    assert [sum(o.partition == k for o in records) for k in range(3)] == [1, 1, 16]
    await write(kafka_bootstrap, records)
    assert f"-f '{KCAT_FORMAT}'" in PAGE
    printed = kcat(require_binary("kcat"), kafka_bootstrap, topic)
    reader = plain_reader()
    found = {read["universe"]: read for read in reader["matrices"](io.BytesIO(printed))}
    assert len(found) == len(ours)
    for own in ours:
        read = found[own.universe]
        assert read["symbols"] == list(own.symbols)
        square = square_of(read, reader["correlation"])
        np.linalg.cholesky(square)
        as_sent = own.corr if len(own.symbols) == 10 else own.corr.astype(np.float32)
        assert np.array_equal(square, as_sent)
    java = run_java(tmp_path, require_binary("java"), printed)
    assert {(m.id, m.n, m.crc32) for m in java} == {
        (f"{own.universe}|ewma|7", len(own.symbols), crc32_of(own)) for own in ours
    }
    assert all(m.pivot > 0.0 for m in java)
