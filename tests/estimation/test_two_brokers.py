"""The same currency pairs at two brokers: almost one price, never a correlation above one."""

import itertools
import math
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from stream_calib.config import parse_config
from stream_calib.estimation.cleaning import repair_correlation
from stream_calib.estimation.ewma import CORRELATION_CAP
from stream_calib.estimation.two_scale import TwoScale, TwoScaleCorrelation
from stream_calib.service.replay import replay_effects
from stream_calib.values import Matrix, eigenvalue_floor
from stream_calib.wire.matrices import decode, to_json
from tests.contract.test_files_lean import ticks_of
from tests.estimation.clock_study import Series, sampled

BROKERS, PAIRS = ("oanda", "fxcm"), ("eurusd", "nzdusd")
SYMBOLS = tuple(f"{broker}:{pair}".upper() for pair in PAIRS for broker in BROKERS)
SAME = ((0, 1), (2, 3))  # one pair at two brokers
ROWS = {
    "OANDA:EURUSD": 41_367,
    "FXCM:EURUSD": 89_504,
    "OANDA:NZDUSD": 41_960,
    "FXCM:NZDUSD": 109_542,
}
CROSSED = {"FXCM:EURUSD": 9847, "FXCM:NZDUSD": 2334}  # bid above ask, as counted in the zips
BEGIN_S = round(datetime(2014, 5, 7, 5, tzinfo=UTC).timestamp())
COMMON_S = 19 * 3600  # 05:00 to 24:00 UTC, where both brokers' files have rows
HOUR_S = 3600


def path_of(market_data: Path, symbol: str) -> Path:
    broker, pair = symbol.lower().split(":")
    return market_data / "ticks" / "lean" / "forex" / broker / "tick" / pair / "20140507_quote.zip"


@pytest.fixture(scope="module")
def mids(market_data: Path) -> dict[str, Series]:
    # mids of quotes that are not crossed; seconds since 05:00 UTC
    found = {}
    for symbol in SYMBOLS:
        ticks = ticks_of(path_of(market_data, symbol))
        time_ns, bid, ask = (np.array([t[key] for t in ticks]) for key in ("time", "bid", "ask"))
        assert len(ticks) == ROWS[symbol]
        assert int((bid > ask).sum()) == CROSSED.get(symbol, 0)
        usable = bid <= ask
        time_s = (time_ns[usable] / 1e9) - BEGIN_S
        found[symbol] = Series(time_s, np.log((bid[usable] + ask[usable]) / 2))
    return found


def two_scale(mids: dict[str, Series], window_s: int, fxcm_later_s: int = 0) -> TwoScaleCorrelation:
    """Two scales over the hours that both have, when FXCM's clock is set wrong by so much."""
    begin_s = min(0, fxcm_later_s)
    part = []
    for symbol, (time_s, log_price) in mids.items():
        at_s = time_s - begin_s + (fxcm_later_s if symbol.startswith("FXCM") else 0)
        inside = (at_s >= 0.0) & (at_s < COMMON_S)
        part.append(Series(at_s[inside], log_price[inside]))
    estimator = TwoScale(len(part), math.inf, window_s // 5, "time")
    estimator.update(sampled(part, 5.0, COMMON_S))
    return estimator.correlation()


@pytest.mark.parametrize("window_s", [30, 60, 300])
def test_two_scales_find_one_price_at_two_brokers(mids: dict[str, Series], window_s: int) -> None:
    known = two_scale(mids, window_s)
    sys.stdout.write(f"windows of {window_s} s, {known.capped} capped\n{known.corr.round(4)}\n")
    for i, j in SAME:
        assert 0.96 < known.corr[i, j] <= CORRELATION_CAP
    # one currency against the other is the same question at either broker
    across = [known.corr[i, j] for i, j in itertools.product(*SAME)]
    assert np.ptp(across) < 0.1  # .07 by 30 s, where stamps count most; .002 by 300 s
    repaired = repair_correlation(known.corr, eigenvalue_floor(len(SYMBOLS)))
    assert np.abs(repaired.corr[~np.eye(4, dtype=bool)]).max() < 1.0
    np.linalg.cholesky(repaired.corr)


@pytest.mark.parametrize("hours", [-5, -1])
def test_with_the_wrong_clock_they_have_nothing_in_common(
    mids: dict[str, Series], hours: int
) -> None:
    known = two_scale(mids, 60, hours * HOUR_S)
    for i, j in SAME:
        assert known.band[i, j] < 0.06
        assert abs(known.corr[i, j]) < 3.5 * known.band[i, j]


@pytest.mark.full
def test_as_published_none_passes_one_and_crossed_quotes_are_counted(market_data: Path) -> None:
    universe = {
        "name": "fx",
        "symbols": SYMBOLS,
        "bar": "30s",
        "price": "mid",
        "ewma": {"half_life": "2h"},
    }
    config = parse_config({"universe": [universe]})
    counts: Counter[tuple[str, str]] = Counter()
    matrices: list[Matrix] = []
    for _, effects in replay_effects([path_of(market_data, s) for s in SYMBOLS], config):
        counts.update(effects.counts)
        matrices += effects.matrices
    for symbol in SYMBOLS:
        topic = "{}-tick-{}-20140507_quote".format(*symbol.lower().split(":"))
        assert counts[topic, "crossed"] == CROSSED.get(symbol, 0)
        assert counts[topic, "applied"] == ROWS[symbol] - CROSSED.get(symbol, 0)
    whole = [matrix for matrix in matrices if matrix.symbols == SYMBOLS]
    assert len(whole) > 2000  # of 2280 bars in the hours that both have
    for matrix in whole[::20]:
        got = decode(to_json(matrix)).corr
        assert np.abs(got[~np.eye(4, dtype=bool)]).max() < 1.0
        np.linalg.cholesky(got)
    noon = whole[len(whole) // 2].corr
    assert all(noon[i, j] > 0.95 for i, j in SAME)
