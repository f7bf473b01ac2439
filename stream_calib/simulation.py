"""Ticks with a known correlation path, for the demo, the tests and the benches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise

import numpy as np
import numpy.typing as npt

from stream_calib.values import F64, I64, SECOND_NS

_SECTORS = ("BANK", "TECH", "ENRG")
_START_PRICE = 100.0
_PRICE_DIGITS = 8
_CHUNK_CELLS = 1 << 17  # latent increments held at once: 1 MB stays in the cache

# Python's exact integers: numpy's power may be one bit off, and differs between machines.
_POWERS_OF_TEN = np.array([10**k for k in range(23)], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class SimulatedTicks:
    """Simulated ticks, and the truth that made them.

    Ticks are columns of length m in time order: ``time_ns``, unique within an asset;
    ``asset``, an index into ``symbols``; ``price``, positive. From ``path_time_ns[s]`` on
    (k,), log returns have the correlation ``path_corr[s]`` (k, n, n). ``vol`` (n,) is their
    volatility per square root of a second. ``bar_ns`` is what ``simulate`` was given.
    """

    symbols: tuple[str, ...]
    time_ns: I64
    asset: I64
    price: F64
    bar_ns: int
    path_time_ns: I64
    path_corr: F64
    vol: F64
    seed: int

    def corr_at(self, time_ns: int) -> F64:
        """Return the true correlation (n, n) at a time; the last segment has no end.

        Raises
        ------
        ValueError
            If the path begins after ``time_ns``.
        """
        segment = int(np.searchsorted(self.path_time_ns, time_ns, side="right")) - 1
        if segment < 0:
            raise ValueError(f"The path begins after time_ns {time_ns}.")
        return np.array(self.path_corr[segment])

    def records(self) -> Iterator[dict[str, str | int | float]]:
        """Yield native ticks ``{"symbol", "time" (ns), "price"}`` in time order."""
        columns = (self.asset.tolist(), self.time_ns.tolist(), self.price.tolist())
        for asset, time_ns, price in zip(*columns, strict=True):
            yield {"symbol": self.symbols[asset], "time": time_ns, "price": price}


def simulate(  # noqa: PLR0913  # each argument is one property of the truth
    n_assets: int = 12,
    duration_s: float = 7200.0,
    *,
    seed: int,
    symbols: Sequence[str] | None = None,
    start_ns: int = 1_741_098_600 * SECOND_NS,
    rate_hz: npt.ArrayLike = 1.0,
    corr: npt.ArrayLike | None = None,
    break_at: float | None = 0.5,
    corr_after: npt.ArrayLike | None = None,
    vol: npt.ArrayLike | None = None,
    noise: npt.ArrayLike = 0.0,
    bar_ns: int = SECOND_NS,
) -> SimulatedTicks:
    """Simulate asynchronous ticks of assets whose correlation breaks once.

    The ticks of each asset arrive as a Poisson process. Log prices are driftless Brownian
    motions, drawn exactly at the union of all tick times [1]_.

    Parameters
    ----------
    symbols : n names, optional
        Distinct; by default ``SIM:BANK1`` and so on, in three sectors.
    start_ns
        Whole microseconds; by default 2025-03-04 14:30 UTC.
    rate_hz : scalar or (n,)
        Mean ticks per second.
    corr : (n, n), optional
        Correlation at the start, throughout if given alone; by default 0.16 to 0.61 in three
        sectors, the last asset a hedge.
    break_at
        Where in (0, 1) of the duration the correlation breaks; None for no break.
    corr_after : (n, n), optional
        Correlation from the break on; by default all fuse to 0.7 to 0.8.
    vol : scalar or (n,), optional
        Volatility per square root of a second; by default 0.8e-4 to 1.6e-4: 20 to 40 % a year.
    noise : scalar or (n,)
        Standard deviation of the error on each observed log price; true prices do not change.
    bar_ns
        Bar length meant for sampling; changes no tick.

    Returns
    -------
    SimulatedTicks
        Equal for equal arguments. Prices start at 100 and have 8 significant digits.

    Raises
    ------
    ValueError
        If an argument is out of range, in one sentence.

    References
    ----------
    .. [1] Glasserman, Monte Carlo Methods in Financial Engineering (2004), chapter 3.
    """
    duration_us = _check_scalars(n_assets, duration_s, seed, start_ns, bar_ns)
    names = _check_symbols(symbols, n_assets)
    rate = _check_per_asset("rate_hz", rate_hz, n_assets)
    default_vol = np.linspace(0.8e-4, 1.6e-4, n_assets).round(7)
    true_vol = _check_per_asset("vol", default_vol if vol is None else vol, n_assets)
    noise_std = _check_per_asset("noise", noise, n_assets, may_be_zero=True)
    path_us, path = _correlation_path(n_assets, duration_us, corr, break_at, corr_after)
    rng = np.random.Generator(np.random.PCG64(seed))
    time_us, asset = _draw_arrivals(rng, rate, duration_us)
    log_price = _draw_log_prices(rng, time_us, asset, path_us, path, true_vol)
    price = _draw_observed(rng, log_price, noise_std[asset])
    time_ns, path_ns = start_ns + 1000 * time_us, start_ns + 1000 * path_us
    return SimulatedTicks(names, time_ns, asset, price, bar_ns, path_ns, path, true_vol, seed)


def simulate_for_ever(
    n_assets: int = 12,
    period_s: float = 600.0,
    *,
    seed: int,
    symbols: Sequence[str] | None = None,
    start_ns: int = 1_741_098_600 * SECOND_NS,
    rate_hz: npt.ArrayLike = 1.0,
) -> Iterator[SimulatedTicks]:
    """Simulate runs that follow each other, each of which breaks in its middle.

    The correlations of ``simulate`` fuse in the first run and loosen in the second, and so on.
    Prices go on from one run to the next.

    Parameters
    ----------
    period_s
        From one break to the next.

    Yields
    ------
    SimulatedTicks
        Of whole periods; the k-th is drawn with ``seed + k``.

    Raises
    ------
    ValueError
        As ``simulate``.
    """
    period_ns = 1000 * round(period_s * 1e6)
    path: tuple[F64 | None, F64 | None] = None, None
    level = np.full(n_assets, _START_PRICE)
    for k in count():
        run = simulate(
            n_assets,
            period_s,
            seed=seed + k,
            symbols=symbols,
            start_ns=start_ns + k * period_ns,
            rate_hz=rate_hz,
            corr=path[0],
            corr_after=path[1],
        )
        path = run.path_corr[1], run.path_corr[0]
        price = _rounded(run.price * (level[run.asset] / _START_PRICE))
        level[run.asset] = price  # of equal indices the last one stays
        yield replace(run, price=price)


def _check_scalars(n_assets: int, duration_s: float, seed: int, start_ns: int, bar_ns: int) -> int:
    if n_assets < 2:
        raise ValueError(f"n_assets must be at least 2, not {n_assets}.")
    if not (math.isfinite(duration_s) and duration_s >= 1e-6):
        raise ValueError(f"duration_s must be at least a microsecond, not {duration_s}.")
    if seed < 0:
        raise ValueError(f"seed must not be negative, but is {seed}.")
    if start_ns < 0 or start_ns % 1000:
        raise ValueError(f"start_ns must be whole microseconds since 1970, not {start_ns}.")
    if bar_ns < 1:
        raise ValueError(f"bar_ns must be positive, not {bar_ns}.")
    return round(duration_s * 1e6)


def _check_symbols(symbols: Sequence[str] | None, n_assets: int) -> tuple[str, ...]:
    if symbols is None:
        sector = _sector(n_assets)
        place = 1 + np.arange(n_assets) - np.searchsorted(sector, sector)
        return tuple(f"SIM:{_SECTORS[s]}{p}" for s, p in zip(sector, place, strict=True))
    if len(symbols) != n_assets or len(set(symbols)) != n_assets:
        raise ValueError(f"symbols must be {n_assets} distinct names.")
    return tuple(symbols)


def _check_per_asset(
    name: str, value: npt.ArrayLike, n_assets: int, *, may_be_zero: bool = False
) -> F64:
    values = np.asarray(value, dtype=np.float64)
    if values.shape not in ((), (n_assets,)):
        raise ValueError(f"{name} must be one number or {n_assets}, not of shape {values.shape}.")
    in_range = values >= 0.0 if may_be_zero else values > 0.0
    if not (in_range & np.isfinite(values)).all():
        raise ValueError(f"{name} must be finite and {'>=' if may_be_zero else '>'} 0.")
    return np.broadcast_to(values, n_assets).copy()


def _check_corr(name: str, value: npt.ArrayLike, n_assets: int) -> F64:
    corr = np.array(value, dtype=np.float64)
    if corr.shape != (n_assets, n_assets):
        raise ValueError(f"{name} must be {n_assets} by {n_assets}, not of shape {corr.shape}.")
    if not (np.allclose(corr, corr.T, 0.0, 1e-9) and np.allclose(np.diag(corr), 1.0, 0.0, 1e-9)):
        raise ValueError(f"{name} must be symmetric with ones on its diagonal.")
    try:
        np.linalg.cholesky(corr)
    except np.linalg.LinAlgError:
        raise ValueError(f"{name} must be positive definite.") from None
    return corr


def _sector(n_assets: int) -> I64:
    return np.arange(n_assets) * len(_SECTORS) // n_assets


# One market factor and one per sector: positive definite while market^2 + within^2 < 1.
# Four decimals keep the truth short in files and equal on every machine.
def _factor_corr(market: F64, within: float) -> F64:
    sector = _sector(market.size)
    corr: F64 = np.outer(market, market) + within**2 * (sector[:, None] == sector)
    np.fill_diagonal(corr, 1.0)
    return corr.round(4)


# Segment starts in microseconds from the start of all, and the correlation of each segment.
def _correlation_path(
    n_assets: int,
    duration_us: int,
    corr: npt.ArrayLike | None,
    break_at: float | None,
    corr_after: npt.ArrayLike | None,
) -> tuple[I64, F64]:
    if break_at is None and corr_after is not None:
        raise ValueError("corr_after needs a break_at.")
    if break_at is not None and not 0.0 < break_at < 1.0:
        raise ValueError(f"break_at must be inside (0, 1), not {break_at}.")
    calm = np.linspace(0.65, 0.35, n_assets)
    calm[-1] *= -1.0
    before = _factor_corr(calm, 0.45) if corr is None else _check_corr("corr", corr, n_assets)
    if break_at is None or (corr is not None and corr_after is None):
        return np.zeros(1, dtype=np.int64), before[None]
    crash = _factor_corr(np.linspace(0.88, 0.83, n_assets), 0.15)
    after = crash if corr_after is None else _check_corr("corr_after", corr_after, n_assets)
    return np.array([0, round(break_at * duration_us)]), np.stack([before, after])


# Given their number, the points of a Poisson process are independent and uniform. The few that
# share a microsecond within an asset become one; ties between assets stand in asset order.
def _draw_arrivals(rng: np.random.Generator, rate: F64, duration_us: int) -> tuple[I64, I64]:
    counts = rng.poisson(rate * (duration_us * 1e-6))
    per_asset = [_sort_distinct(rng.integers(0, duration_us, size=count)) for count in counts]
    time_us = np.concatenate(per_asset)
    asset = np.repeat(np.arange(rate.size), [times.size for times in per_asset])
    order = np.argsort(time_us, kind="stable")
    return time_us[order], asset[order]


# For times from 0 on; np.unique hashes integers and is many times slower.
def _sort_distinct(time_us: I64) -> I64:
    time_us = np.sort(time_us)
    return time_us[np.diff(time_us, prepend=-1) > 0]


# Segment starts join the tick times, so that no increment straddles a break.
def _draw_log_prices(
    rng: np.random.Generator, time_us: I64, asset: I64, path_us: I64, path: F64, vol: F64
) -> F64:
    factor = vol[:, None] * np.linalg.cholesky(path)
    event_us = _sort_distinct(np.concatenate([time_us, path_us]))
    scale = np.sqrt(np.diff(event_us, prepend=0) * 1e-6)
    row = np.searchsorted(event_us, time_us)
    # Row 0 is the start, where log prices are 0; each later row ends the increment before it.
    edges = [*(np.searchsorted(event_us, path_us) + 1), event_us.size]
    chunk_rows = max(_CHUNK_CELLS // vol.size, 1)
    level = np.zeros(vol.size)
    log_price = np.zeros(time_us.size)
    for segment, (first, last) in enumerate(pairwise(edges)):
        for lo in range(first, last, chunk_rows):
            hi = min(lo + chunk_rows, last)
            walk = rng.standard_normal((hi - lo, vol.size)) * scale[lo:hi, None] @ factor[segment].T
            walk[0] += level
            np.cumsum(walk, axis=0, out=walk)
            level = walk[-1]
            ticks = slice(*np.searchsorted(row, (lo, hi)))
            log_price[ticks] = walk[row[ticks] - lo, asset[ticks]]
    return log_price


# Drawn last, so that the true prices of a seed do not depend on the noise. Rounded to keep files
# small and to hide the last bits of exp and of the matrix product, which differ by machine.
def _draw_observed(rng: np.random.Generator, log_price: F64, noise_std: F64) -> F64:
    return _rounded(
        _START_PRICE * np.exp(log_price + noise_std * rng.standard_normal(log_price.size))
    )


def _rounded(price: F64) -> F64:
    digits = _PRICE_DIGITS - 1 - np.floor(np.log10(price)).astype(np.int64)
    power = _POWERS_OF_TEN[np.clip(digits, 0, _POWERS_OF_TEN.size - 1)]
    return np.round(price * power) / power
