"""Records of a known truth, for what is said of them to be compared with."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import orjson

from stream_calib.values import RecordBatch, Source

START_NS = 1_720_000_000_000_000_000  # a Wednesday, 09:46:40 UTC
SECOND_NS = 1_000_000_000
F64 = npt.NDArray[np.float64]


def batch(
    rows: Sequence[object],
    topic: str = "ticks",
    partition: int = 0,
    stamps_ns: Iterable[float] | None = None,
) -> RecordBatch:
    """Return objects as records, with times of the log or without."""
    values = [row if isinstance(row, bytes) else orjson.dumps(row) for row in rows]
    n = len(values)
    stamps = [-1] * n if stamps_ns is None else [int(stamp) // 1_000_000 for stamp in stamps_ns]
    return RecordBatch(Source(topic, partition), 0, n, range(n), stamps, values)


def arrivals(rng: np.random.Generator, rate_hz: float, duration_s: float) -> F64:
    """Draw times in seconds of a Poisson stream."""
    return np.sort(rng.uniform(0.0, duration_s, rng.poisson(rate_hz * duration_s)))


def walk(rng: np.random.Generator, n: int, bp: float = 1.0, start: float = 100.0) -> F64:
    """Draw a random walk of prices, with steps of some basis points."""
    return start * np.exp(np.cumsum(rng.normal(0.0, bp * 1e-4, n)))


def at_ns(seconds: F64, start_ns: int = START_NS) -> list[int]:
    """Return times in nanoseconds."""
    return [start_ns + round(s * SECOND_NS) for s in seconds.tolist()]


def trades(symbol: str, times_ns: Sequence[int], price: F64) -> list[dict[str, object]]:
    """Return native trades."""
    return [
        {"symbol": symbol, "time": t, "price": p}
        for t, p in zip(times_ns, price.tolist(), strict=True)
    ]


def quotes(symbol: str, times_ns: Sequence[int], mid: F64, half: float) -> list[dict[str, object]]:
    """Return native quotes ``half`` on both sides of the mid."""
    return [
        {"symbol": symbol, "time": t, "bid": m - half, "ask": m + half}
        for t, m in zip(times_ns, mid.tolist(), strict=True)
    ]


def in_order(*parts: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Merge ticks by time."""
    return sorted((row for part in parts for row in part), key=lambda row: row["time"])  # type: ignore[arg-type,return-value]


def new_york(day: int, hour: float) -> int:
    """Return a time of day in July 2024 on New York's clock, in ns."""
    clock = datetime(
        2024, 7, day, int(hour), round(hour % 1 * 60), tzinfo=ZoneInfo("America/New_York")
    )
    return round(clock.timestamp()) * SECOND_NS
