"""The simulated ticks have the properties that they claim, and the demo file is made of them."""

import hashlib
from itertools import islice, pairwise
from typing import Any

import numpy as np
import orjson
import pytest
import zstandard

from replay_data import generate_demo
from stream_calib.simulation import SimulatedTicks, simulate, simulate_for_ever
from stream_calib.values import F64, I64, SECOND_NS

# Wide enough that other seeds pass too: fifty comparisons exceed 4.5 standard errors once in
# about 3000 runs.
STANDARD_ERRORS = 4.5


def ticks_of(ticks: SimulatedTicks, asset: int) -> tuple[I64, F64]:
    """Times and log prices of one asset."""
    own = ticks.asset == asset
    return ticks.time_ns[own], np.log(ticks.price[own])


def previous_tick_returns(ticks: SimulatedTicks, grid_ns: I64) -> F64:
    columns = []
    for asset in range(len(ticks.symbols)):
        time_ns, log_price = ticks_of(ticks, asset)
        columns.append(log_price[np.searchsorted(time_ns, grid_ns, side="right") - 1])
    return np.diff(np.column_stack(columns), axis=0)


def digest(ticks: SimulatedTicks) -> str:
    columns = (ticks.time_ns, ticks.asset, ticks.price, ticks.path_time_ns, ticks.path_corr)
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


def test_same_seed_gives_the_same_bytes() -> None:
    arguments: dict[str, Any] = {"n_assets": 5, "duration_s": 600.0, "noise": 1e-4}
    assert digest(simulate(**arguments, seed=1)) == digest(simulate(**arguments, seed=1))
    assert digest(simulate(**arguments, seed=1)) != digest(simulate(**arguments, seed=2))


def test_times_are_sorted_whole_microseconds_and_unique_within_an_asset() -> None:
    ticks = simulate(3, 2.0, seed=3, rate_hz=20_000.0)  # 1 in 50 arrivals shares its microsecond
    end_ns = int(ticks.path_time_ns[0]) + 2 * SECOND_NS
    assert ticks.path_time_ns[0] <= ticks.time_ns[0] <= ticks.time_ns[-1] < end_ns
    assert (np.diff(ticks.time_ns) >= 0).all()
    assert (ticks.time_ns % 1000 == 0).all()
    for asset in range(3):
        assert (np.diff(ticks_of(ticks, asset)[0]) > 0).all()


@pytest.mark.parametrize("seed", [4])
def test_ticks_arrive_as_a_poisson_process_at_the_rate_of_their_asset(seed: int) -> None:
    duration_s, rate_hz = 20_000.0, np.array([0.2, 1.0, 5.0])
    ticks = simulate(3, duration_s, seed=seed, rate_hz=rate_hz)
    count = np.bincount(ticks.asset)
    expected = rate_hz * duration_s
    assert (np.abs(count - expected) < STANDARD_ERRORS * np.sqrt(expected)).all()
    for asset in range(3):
        gap = np.diff(ticks_of(ticks, asset)[0])
        # Exponential gaps: standard deviation / mean is 1, with standard error 1 / sqrt(count).
        assert abs(gap.std() / gap.mean() - 1.0) < STANDARD_ERRORS / np.sqrt(count[asset])


@pytest.mark.parametrize("seed", [5])
def test_realised_correlation_is_the_path_before_and_after_the_break(seed: int) -> None:
    half_ns, bar_ns = 86_400 * SECOND_NS, 300 * SECOND_NS
    ticks = simulate(4, 2 * 86_400.0, seed=seed, rate_hz=5.0)
    pairs = np.triu_indices(4, 1)
    for segment_ns in ticks.path_time_ns.tolist():
        # The first bar is left out: at the very start some assets have not ticked yet.
        grid_ns = np.arange(segment_ns + bar_ns, segment_ns + half_ns, bar_ns)
        returns = previous_tick_returns(ticks, grid_ns)
        realised = np.asarray(np.corrcoef(returns, rowvar=False))[pairs]
        truth = ticks.corr_at(segment_ns)[pairs]
        # Fisher: atanh of a correlation has standard error 1 / sqrt(bars - 3). Asynchrony takes
        # away less than 0.2 s of 300 s, a fiftieth of that error.
        error = (np.arctanh(realised) - np.arctanh(truth)) * np.sqrt(len(returns) - 3)
        assert np.abs(error).max() < STANDARD_ERRORS
        variance = returns.var(axis=0) / (ticks.vol**2 * 300.0)
        assert np.abs(variance - 1.0).max() < STANDARD_ERRORS * np.sqrt(2 / len(returns))


@pytest.mark.parametrize("seed", [6])
def test_returns_across_the_break_have_the_correlation_of_each_part(seed: int) -> None:
    # The return of one asset around the break, times that of the other over all ticks that it
    # overlaps, has the covariance of the first one's own time (Hayashi-Yoshida). One correlation
    # for a whole increment would be wrong by 1.8 x 10 s here, half the distance between events.
    runs, vol = 2000, 1e-3
    correlated = np.array([[1.0, 0.9], [0.9, 1.0]])
    error_s = np.empty(runs)
    for run in range(runs):
        ticks = simulate(
            2,
            1000.0,
            seed=seed + run,
            rate_hz=0.05,
            corr=2.0 * np.eye(2) - correlated,
            corr_after=correlated,
            vol=vol,
        )
        break_ns = ticks.path_time_ns[1]
        time_ns, log_price = ticks_of(ticks, 0)
        other_ns, other = ticks_of(ticks, 1)
        i = np.searchsorted(time_ns, break_ns)
        before_ns, after_ns = break_ns - time_ns[i - 1], time_ns[i] - break_ns
        begin = np.searchsorted(other_ns, time_ns[i - 1], side="right") - 1
        end = np.searchsorted(other_ns, time_ns[i])
        product = (log_price[i] - log_price[i - 1]) * (other[end] - other[begin])
        error_s[run] = product / vol**2 - 0.9 * (after_ns - before_ns) / SECOND_NS
    standard_error = error_s.std() / np.sqrt(runs)
    assert standard_error < 2.0  # so that 18 s would be seen
    assert abs(error_s.mean()) < STANDARD_ERRORS * standard_error


@pytest.mark.parametrize("seed", [7])
def test_vol_is_the_volatility_between_neighbouring_ticks(seed: int) -> None:
    vol = [1e-4, 5e-4, 2e-3]
    ticks = simulate(3, 20_000.0, seed=seed, vol=vol)
    for asset in range(3):
        time_ns, log_price = ticks_of(ticks, asset)
        score = np.diff(log_price) / (vol[asset] * np.sqrt(np.diff(time_ns) / SECOND_NS))
        # The mean square of m standard normals has standard error sqrt(2 / m).
        assert abs((score**2).mean() - 1.0) < STANDARD_ERRORS * np.sqrt(2 / score.size)


@pytest.mark.parametrize("seed", [8])
def test_noise_changes_prices_and_nothing_else(seed: int) -> None:
    noise = [0.0, 1e-4, 3e-4]
    clean = simulate(3, 5_000.0, seed=seed)
    noisy = simulate(3, 5_000.0, seed=seed, noise=noise)
    assert np.array_equal(clean.time_ns, noisy.time_ns)
    assert np.array_equal(clean.asset, noisy.asset)
    for asset in range(3):
        error = ticks_of(noisy, asset)[1] - ticks_of(clean, asset)[1]
        # A standard deviation from m values has relative standard error 1 / sqrt(2 m).
        bound = STANDARD_ERRORS / np.sqrt(2 * error.size)
        assert error.std() == pytest.approx(noise[asset], rel=bound)


def test_prices_have_eight_significant_digits() -> None:
    ticks = simulate(2, 20_000.0, seed=9, vol=0.03)  # wanders over several powers of ten
    assert ticks.price.max() / ticks.price.min() > 100.0
    assert all(price == float(f"{price:.8g}") for price in ticks.price.tolist())


@pytest.mark.parametrize("n_assets", [2, 3, 12, 200])
def test_default_path_fuses_at_the_break(n_assets: int) -> None:
    ticks = simulate(n_assets, 1.0, seed=10)
    calm, crash = ticks.path_corr[:, *np.triu_indices(n_assets, 1)]
    assert -0.25 < calm.min() < 0.0
    assert calm.max() < 0.65
    assert 0.65 < crash.min() <= crash.max() < 0.8
    assert np.linalg.eigvalsh(ticks.path_corr).min() > 0.15
    assert len(set(ticks.symbols)) == n_assets


def test_path_is_looked_up_by_time() -> None:
    ticks = simulate(3, 100.0, seed=11, break_at=0.25)
    start_ns, break_ns = ticks.path_time_ns.tolist()
    assert break_ns - start_ns == 25 * SECOND_NS
    assert np.array_equal(ticks.corr_at(break_ns - 1), ticks.path_corr[0])
    assert np.array_equal(ticks.corr_at(break_ns), ticks.path_corr[1])
    with pytest.raises(ValueError, match="path begins after"):
        ticks.corr_at(start_ns - 1)


def test_a_correlation_given_alone_holds_throughout() -> None:
    ticks = simulate(2, 10.0, seed=12, corr=np.eye(2))
    assert ticks.path_corr.tolist() == [np.eye(2).tolist()]
    assert simulate(2, 10.0, seed=12, break_at=None).path_time_ns.size == 1


def test_runs_without_end_break_there_and_back() -> None:
    runs = list(islice(simulate_for_ever(4, 60.0, seed=5, rate_hz=20.0), 4))
    for before, after in pairwise(runs):
        np.testing.assert_array_equal(before.path_corr[1], after.path_corr[0])
        np.testing.assert_array_equal(before.path_corr[0], after.path_corr[1])
        assert after.path_time_ns[0] - before.path_time_ns[0] == 60 * SECOND_NS
    for run in runs:
        assert run.path_time_ns[0] <= run.time_ns[0] <= run.time_ns[-1] < run.path_time_ns[0] + 6e10


def test_prices_go_on_from_one_run_to_the_next() -> None:
    runs = list(islice(simulate_for_ever(4, 60.0, seed=5, rate_hz=20.0), 6))
    for before, after in pairwise(runs):
        for asset in range(4):
            (_, left), (_, right) = ticks_of(before, asset), ticks_of(after, asset)
            # neighbouring ticks lie 0.05 s apart: a second of volatility is four deviations
            assert abs(right[0] - left[-1]) < before.vol[asset]
    assert abs(np.log(runs[-1].price).mean() - np.log(100.0)) > 1e-5  # nobody begins anew


def test_records_are_the_ticks_in_order() -> None:
    ticks = simulate(2, 30.0, seed=13, symbols=["X:A", "X:B"])
    assert list(ticks.records()) == [
        {"symbol": ("X:A", "X:B")[asset], "time": time_ns, "price": price}
        for asset, time_ns, price in zip(
            ticks.asset.tolist(), ticks.time_ns.tolist(), ticks.price.tolist(), strict=True
        )
    ]


def test_an_asset_may_have_no_ticks() -> None:
    ticks = simulate(2, 10.0, seed=14, rate_hz=1e-9)
    assert ticks.time_ns.size == ticks.price.size == 0
    assert list(ticks.records()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_assets": 1}, "n_assets must be at least 2"),
        ({"duration_s": 0.0}, "duration_s must be"),
        ({"duration_s": float("nan")}, "duration_s must be"),
        ({"seed": -1}, "seed must not be negative"),
        ({"start_ns": 1}, "start_ns must be whole microseconds"),
        ({"bar_ns": 0}, "bar_ns must be positive"),
        ({"symbols": ["A", "B"]}, "symbols must be 3 distinct"),
        ({"symbols": ["A", "B", "A"]}, "symbols must be 3 distinct"),
        ({"rate_hz": 0.0}, "rate_hz must be finite and > 0"),
        ({"rate_hz": [1.0, 1.0]}, "rate_hz must be one number or 3"),
        ({"vol": [1e-4, float("inf"), 1e-4]}, "vol must be finite"),
        ({"noise": -1e-4}, "noise must be finite and >= 0"),
        ({"corr": np.eye(2)}, "corr must be 3 by 3"),
        ({"corr": 2 * np.eye(3)}, "corr must be symmetric with ones"),
        ({"corr": np.triu(np.full((3, 3), 0.5)) + 0.5 * np.eye(3)}, "corr must be symmetric"),
        ({"corr": np.full((3, 3), float("nan"))}, "corr must be symmetric"),
        ({"corr_after": 1.6 * np.eye(3) - 0.6}, "corr_after must be positive definite"),
        ({"break_at": 1.0}, r"break_at must be inside \(0, 1\)"),
        ({"break_at": float("nan")}, "break_at must be inside"),
        ({"break_at": None, "corr_after": np.eye(3)}, "corr_after needs a break_at"),
    ],
)
def test_unusable_argument_is_refused_in_one_sentence(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        simulate(**{"n_assets": 3, "duration_s": 10.0, "seed": 0, **arguments})
    assert str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)


def test_demo_file_is_what_its_metadata_says() -> None:
    metadata = orjson.loads(generate_demo.METADATA.read_bytes())
    compressed = generate_demo.TICKS.read_bytes()
    lines = zstandard.decompress(compressed)
    assert hashlib.sha256(compressed).hexdigest() == metadata["sha256"]
    assert hashlib.sha256(lines).hexdigest() == metadata["sha256_uncompressed"]
    assert lines.count(b"\n") == metadata["ticks"]


def test_demo_is_regenerated_equal() -> None:
    # The uncompressed ticks and the metadata: another release of zstd may pack otherwise.
    ticks = simulate(**generate_demo.ARGUMENTS)
    lines = generate_demo.encode_ticks(ticks)
    compressed = generate_demo.TICKS.read_bytes()
    assert lines == zstandard.decompress(compressed)
    assert (
        generate_demo.encode_metadata(ticks, lines, compressed)
        == generate_demo.METADATA.read_bytes()
    )
