"""Whether the windows of a universe fit the rates of its symbols."""

import math
from collections.abc import Iterable

import numpy as np

from stream_calib.config import Config, UniverseConfig, format_duration
from stream_calib.estimation.two_scale import choose_k, find_too_slow
from stream_calib.values import F64, SECOND_NS, RecordBatch
from stream_calib.wire.ticks import decode, symbol_tables

NAMED_MAX = 5
TICKS_PER_BAR = 3.0  # of DCC: at a Poisson pace one bar in twenty is empty then
TICKS_MIN = 20  # fewer say nothing about a rate


def tick_rates_hz(config: Config, universe: UniverseConfig, batches: Iterable[RecordBatch]) -> F64:
    """Return the mean ticks per second of each symbol, (n,), over what the records span.

    NaN everywhere where there are too few ticks to tell, or no time between them.
    """
    symbols = symbol_tables(config.input, universe.symbols)
    times, assets = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for batch in batches:
        ticks = decode(batch, config.input.format, symbols)
        own = ticks.asset >= 0
        times.append(ticks.time_ns[own])
        assets.append(ticks.asset[own])
    time_ns, asset = np.concatenate(times), np.concatenate(assets)
    if len(time_ns) < TICKS_MIN:
        return np.full(len(universe.symbols), np.nan)
    # the middle of it: single absurd times must not stretch the span
    early_ns, late_ns = np.quantile(time_ns, [0.05, 0.95])
    inside = (time_ns >= early_ns) & (time_ns <= late_ns)
    span_s = (late_ns - early_ns) / SECOND_NS
    if not span_s > 0.0:
        return np.full(len(universe.symbols), np.nan)
    rates: F64 = np.bincount(asset[inside], minlength=len(universe.symbols)) / span_s
    return rates


def slow_symbols(universe: UniverseConfig, rates_hz: F64) -> list[str]:
    """Say which symbols tick too seldom for the window, and what would do, in sentences."""
    if np.isnan(rates_hz).any():
        return []
    bar_s = universe.bar / SECOND_NS
    k = universe.ewma.bars_per_window(universe.bar)
    slow = find_too_slow(rates_hz, bar_s, k)
    silent = [i for i in slow if rates_hz[i] == 0.0]
    ticking = [i for i in slow if rates_hz[i] > 0.0]
    out = []
    if silent:
        out.append(f"Universe {universe.name}: no tick of {_named(universe, silent)} was seen")
    if ticking:
        needed = choose_k(rates_hz[ticking], bar_s) * universe.bar
        window = format_duration(k * universe.bar)
        out.append(
            f"Universe {universe.name}: {_named(universe, ticking)} tick less than three times in "
            f"a window of {window}: their correlations scatter, and their variances may keep "
            f'their noise; ewma.window = "{format_duration(needed)}" would do'
        )
    return out + _sparse_bars(universe, rates_hz)


def _sparse_bars(universe: UniverseConfig, rates_hz: F64) -> list[str]:
    # in a bar without a tick of a symbol its pairs take no news, and are drawn towards nothing
    bar_s = universe.dcc.bars_per_bar(universe.bar) * universe.bar / SECOND_NS
    ticking = np.flatnonzero(rates_hz > 0.0).tolist()
    sparse = [i for i in ticking if rates_hz[i] * bar_s < TICKS_PER_BAR]
    if not (universe.dcc.enabled and sparse):
        return []
    needed_s = math.ceil(TICKS_PER_BAR / min(rates_hz[sparse]) / bar_s) * bar_s
    bar, needed = (format_duration(round(x * SECOND_NS)) for x in (bar_s, needed_s))
    return [
        f"Universe {universe.name}: {_named(universe, sparse)} tick less than three times in a DCC "
        f'bar of {bar}: correlations of DCC come out too low; dcc.bar = "{needed}" would do'
    ]


def _named(universe: UniverseConfig, which: list[int]) -> str:
    names = ", ".join(universe.symbols[i] for i in which[:NAMED_MAX])
    more = len(which) - NAMED_MAX
    return names if more <= 0 else f"{names} and {more} more"
