"""Tracking error of an EWMA as what it is: every correlation anew from the rows it is of."""

from collections.abc import Sequence

import numpy as np

from stream_calib.values import F64

WARM_HALF_LIVES, BLOCKS_MIN, N_EFF_MIN, SHARE_MIN = 4.0, 20, 4.0, 0.5


def block_ends(k: int, half_life: float, block_bars: float) -> list[int]:
    """Rows before which even bars are cut: after the warm-up, then block by block."""
    ends = [int(np.ceil(WARM_HALF_LIVES * half_life))]
    while ends[-1] + int(np.ceil(block_bars)) <= k:
        ends.append(ends[-1] + int(np.ceil(block_bars)))
    return ends


def correlation(rows: F64, half_life: float) -> tuple[F64, F64]:
    """Correlation and effective observations, each pair over the rows in which both are seen."""
    k, n = rows.shape
    weight = 0.5 ** (np.arange(k)[::-1] / half_life)
    corr, n_eff = np.full((n, n), np.nan), np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            w = weight * ~np.isnan(rows[:, i] + rows[:, j])
            if w.any():
                x, y = np.nan_to_num(rows[:, i]), np.nan_to_num(rows[:, j])
                corr[i, j] = (w @ (x * y)) / np.sqrt((w @ x**2) * (w @ y**2))
                n_eff[i, j] = w.sum() ** 2 / (w**2).sum()
    return corr, n_eff


def tracking_error(
    returns: F64, half_life: float, block_bars: float, memory: float, kappas: Sequence[float]
) -> F64 | None:
    """T (n, n) by plain weighted means; ``kappas`` are the estimator's at the ends of blocks."""
    n = returns.shape[1]
    ends = block_ends(len(returns), half_life, block_bars)
    moved: dict[tuple[int, int], list[tuple[int, float, float]]] = {}
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    last, compared = np.full((n, n), np.nan), 0
    for start, stop, kappa in zip(ends[:-1], ends[1:], kappas, strict=False):
        before, n_before = correlation(returns[:start], half_life)
        after, n_after = correlation(returns[start:stop], half_life)
        most = max(n_after[pair] for pair in pairs)
        usable = [
            pair
            for pair in pairs
            if n_before[pair] >= N_EFF_MIN and n_after[pair] >= max(N_EFF_MIN, SHARE_MIN * most)
        ]
        news = [pair for pair in usable if not np.isnan(last[pair])]
        for pair in news:
            slope = 1.0 - before[pair] ** 2 * n_before[pair] / (n_before[pair] + 1.0)
            apart = (after[pair] - before[pair]) ** 2 - 0.5 * (after[pair] - last[pair]) ** 2
            band2 = (1.0 - before[pair] ** 2) ** 2 * (1.0 + kappa) / n_before[pair]
            value = (apart - band2) / slope**2
            weight = slope / (1.0 / n_before[pair] + 1.0 / n_after[pair])
            moved.setdefault(pair, []).append((compared, weight, value))
        last = np.full((n, n), np.nan)
        for pair in usable:
            last[pair] = after[pair]
        compared += bool(news)
    if compared < BLOCKS_MIN:
        return None
    return _shrunk(moved, pairs, n, compared, memory)


def _shrunk(
    moved: dict[tuple[int, int], list[tuple[int, float, float]]],
    pairs: list[tuple[int, int]],
    n: int,
    compared: int,
    memory: float,
) -> F64:
    facts = {}
    for pair, entries in moved.items():
        block, weight, value = np.array(entries).T
        weight = weight * 0.5 ** ((compared - 1.0 - block) / memory)
        mean = weight @ value / weight.sum()
        facts[pair] = weight.sum(), mean, (weight**2).sum(), weight @ (value - mean) ** 2
    total, mean, weight2, within = np.array(list(facts.values())).T
    pooled = total @ mean / total.sum()
    chance = within.sum() / total.sum() * weight2 / total**2
    spread = total @ ((mean - pooled) ** 2 - chance) / total.sum()
    error = np.zeros((n, n))
    drawn = dict(zip(facts, zip(mean, chance, strict=True), strict=True))
    for i, j in pairs:
        square = pooled
        if spread > 0.0 and (i, j) in drawn:
            own, by_chance = drawn[i, j]
            square += spread / (spread + by_chance) * (own - pooled)
        error[i, j] = error[j, i] = np.sqrt(max(square, 0.0))
    return error
