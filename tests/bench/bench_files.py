"""Recorded files to records, beside a loop over the same rows; and many files merged for `feed`."""

import csv
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest

from stream_calib.adapters.files import FileSource
from stream_calib.service.recorded import recorded
from tests.contract.test_files_garbage import dbn

N, N_SYMBOLS, ROUNDS, AT_ONCE = 200_000, 50, 5, 5000
CSV_RATIO_MIN = 1.2  # of a loop that makes an object of every row
PARQUET_RATIO_MIN = 1.2  # of our own CSV
START_NS = 1_735_776_000_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pa = pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
    from pyarrow import parquet

    rng = np.random.default_rng(1)
    symbols = [f"SIM:{i % N_SYMBOLS:02}" for i in range(N)]
    times = START_NS + np.arange(N) * 1_000_000
    prices = np.round(100.0 * np.exp(0.01 * rng.normal(size=N)), 2)
    parquet.write_table(
        pa.table({"time": times, "symbol": symbols, "price": prices}), tmp_path / "ticks.parquet"
    )
    rows = list(zip(times.tolist(), symbols, prices.tolist(), strict=True))
    with (tmp_path / "ticks.csv").open("w") as file:
        file.write("time,symbol,price\n")
        file.writelines(f"{at},{symbol},{price}\n" for at, symbol, price in rows)
    with (tmp_path / "BTCUSDT-trades-2025-01-02.csv").open("w") as file:
        file.writelines(
            f"{i},{price},0.5,14.18,{at // 1000},True,True\n"
            for i, (at, _, price) in enumerate(rows)
        )
    with (tmp_path / "ticks.jsonl").open("wb") as out:
        for at, symbol, price in rows:
            out.write(orjson.dumps({"time": at, "symbol": symbol, "price": price}) + b"\n")
    wide = prices.reshape(-1, N_SYMBOLS)
    names = ["time", *sorted(set(symbols))]
    columns = [times[::N_SYMBOLS], *wide.T]
    table = pa.table(dict(zip(names, columns, strict=True)))
    parquet.write_table(table, tmp_path / "wide.parquet")
    with (tmp_path / "wide.csv").open("w") as file:
        file.write(",".join(names) + "\n")
        for at, row in zip(times[::N_SYMBOLS].tolist(), wide.tolist(), strict=True):
            file.write(f"{at},{','.join(map(str, row))}\n")
    (tmp_path / "ticks.dbn").write_bytes(dbn(N))
    for i in range(10):
        part, whole = tmp_path / f"part{i}.jsonl", tmp_path / "ticks.jsonl"
        with part.open("wb") as out, whole.open("rb") as lines:
            out.writelines(itertools.islice(lines, i, None, 10))
    return tmp_path


def ours(path: Path) -> int:
    source, n = FileSource([path]), 0
    source.open()
    while not source.exhausted():
        n += sum(len(batch.values) for batch in source.take(AT_ONCE))
    source.release()
    return n


def by_row(path: Path) -> int:
    # what one writes at first: numbers as numbers, one object a row
    n = 0
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            tick = {"time": int(row["time"]), "symbol": row["symbol"]}
            orjson.dumps(tick | {"price": float(row["price"])})
            n += 1
    return n


def bench_files(folder: Path) -> None:
    names = ("ticks.jsonl", "ticks.csv", "ticks.parquet", "wide.csv", "wide.parquet")
    ways: dict[str, Callable[[], int]] = {
        "csv.DictReader and orjson": lambda: by_row(folder / "ticks.csv"),
        **{
            name: lambda path=folder / name: ours(path)  # type: ignore[misc]
            for name in (*names, "BTCUSDT-trades-2025-01-02.csv", "ticks.dbn")
        },
        "ten files merged, labelled": lambda: sum(
            1 for _ in recorded([folder / f"part{i}.jsonl" for i in range(10)], "t")
        ),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            started_s = time.process_time()
            assert way() == N
            taken[name].append(time.process_time() - started_s)
    print(f"\nFiles to records, {N:,} ticks of {N_SYMBOLS} symbols")
    for name, seconds in taken.items():
        print(f"  {name:<32}{N / statistics.median(seconds[1:]):>12,.0f}/s")

    def ratio(one: str, other: str) -> float:
        pairs = zip(taken[one][1:], taken[other][1:], strict=True)
        return statistics.median(b / a for a, b in pairs)

    assert ratio("ticks.csv", "csv.DictReader and orjson") > CSV_RATIO_MIN
    assert ratio("ticks.parquet", "ticks.csv") > PARQUET_RATIO_MIN
    assert ratio("wide.parquet", "wide.csv") > PARQUET_RATIO_MIN
