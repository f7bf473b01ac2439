"""Markets whose correlations stay as they are, or break at a known row.

Every row is standardised: variance one, but for ``volatility_jumps``, where the deviation that
rows are divided by is an estimate that lags behind.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from stream_calib.values import F64

TRUTHS = (
    "average_15",  # DCC around one factor, average correlation .15
    "average_50",
    "average_80",
    "deco",  # one correlation for all pairs, which moves (Engle and Kelly 2012)
    "t5",  # as average_15 with the tails of t(5), common to all
    "diurnal",  # constant but for a daily wave of +-.1 that no model knows
    "volatility_jumps",  # average_15 times deviations that jump, over those of an EWMA
    "latent",  # the factor's weight follows an AR(1) of its own, which DCC can only follow
    "three_factors",  # as average_15 with two further factors, whose loadings have either sign
)
Change = Literal["fusing", "loosening", "rotation"]
Kind = Literal["jump", "target"]

NEWS, MEMORY = 0.02, 0.97  # a and b of every DCC here
DAY = 390  # rows of a diurnal wave
AVERAGES = {"average_15": 0.15, "average_50": 0.5, "average_80": 0.8, "t5": 0.15}
FACTORS_MEAN, FACTORS_SPREAD = 0.16, 0.3
DECO_MEAN, DECO_NEWS, DECO_MEMORY = 0.3, 0.05, 0.93
WAVE_MEAN, WAVE = 0.3, 0.1
LATENT_PHI, LATENT_SPREAD = 0.998, 0.25  # of atanh(correlation) around that of .3
JUMP, JUMP_ROWS, VOLATILITY_DECAY = 2.0, 500, 0.94


def truth(name: str, n: int, rows: int, seed: int) -> F64:
    """Draw a market without a break.

    Parameters
    ----------
    name
        One of ``TRUTHS``.
    n
        Number of symbols; 4 or more.
    rows
        How many.
    seed
        Of everything that is drawn, the long-run correlation included.

    Returns
    -------
    (rows, n)
        Standardised returns.
    """
    rng = np.random.default_rng([TRUTHS.index(name), n, seed])
    if name == "deco":
        return _deco(rng, n, rows)
    if name == "diurnal":
        wave = WAVE_MEAN + WAVE * np.sin(2.0 * np.pi * np.arange(rows) / DAY)
        return _one_factor(rng, n, wave, WAVE_MEAN)
    if name == "latent":
        return _one_factor(rng, n, _latent(rng, rows), WAVE_MEAN)
    tails = 5.0 if name == "t5" else np.inf
    target = target_of(rng, name, n)
    z = _dcc(shocks(rng, rows, n, tails), target, rows, None, "jump")
    return _misjudged(rng, z) if name == "volatility_jumps" else z


def broken(
    name: str,
    n: int,
    before: int,
    after: int,
    change: Change = "fusing",
    g: float = 0.3,
    kind: Kind = "jump",
    seed: int = 0,
) -> F64:
    """Draw a market whose correlations break after ``before`` rows.

    Parameters
    ----------
    name
        ``average_15``, ``average_50``, ``average_80``, ``t5`` or ``three_factors``.
    n
        Number of symbols.
    before, after
        Rows before and after the break.
    change
        ``fusing`` (1 - g) R + g 11', ``loosening`` (1 - g) R + g I, or ``rotation``: every second
        symbol takes the place of the next but one.
    g
        How far; without meaning for a rotation.
    kind
        ``jump``: R and its target change at once. ``target``: the target alone, and R goes there
        at the pace of the DCC.
    seed
        As ``truth``.

    Returns
    -------
    (before + after, n)
        The first rows are those of ``truth(name, n, before, seed)`` in law.
    """
    rng = np.random.default_rng([TRUTHS.index(name), n, seed])
    target = target_of(rng, name, n)
    normals = shocks(rng, before + after, n, 5.0 if name == "t5" else np.inf)
    return _dcc(normals, target, before, lambda corr: tilted(corr, change, g), kind)


def tilted(corr: F64, change: Change, g: float) -> F64:
    """Return a correlation matrix after a change."""
    n = len(corr)
    if change == "rotation":
        order = np.arange(n)
        order[::2] = np.roll(order[::2], 1)
        return corr[np.ix_(order, order)]
    towards = np.ones((n, n)) if change == "fusing" else np.eye(n)
    return (1.0 - g) * corr + g * towards


def factor_target(rng: np.random.Generator, n: int, average: float) -> F64:
    """Draw the correlations of one factor; their average is near the one given."""
    root = np.sqrt(average)
    width = min(0.9 * root, 0.9 * (1.0 - root))
    loading = np.clip(rng.uniform(root - width, root + width, n), 0.05, 0.98)
    target = np.outer(loading, loading)
    np.fill_diagonal(target, 1.0)
    return target


def three_factor_target(rng: np.random.Generator, n: int) -> F64:
    """Draw the correlations of a common factor and two whose loadings have either sign."""
    common = np.sqrt(FACTORS_MEAN) * rng.uniform(0.5, 1.5, n)
    loading = np.column_stack([common, FACTORS_SPREAD * rng.standard_normal((n, 2))])
    covariance = loading @ loading.T
    covariance += np.diag(np.maximum(0.15, 1.0 - np.diag(covariance)))
    scale = 1.0 / np.sqrt(np.diag(covariance))
    target: F64 = covariance * np.outer(scale, scale)
    np.fill_diagonal(target, 1.0)
    return target


def shocks(rng: np.random.Generator, rows: int, n: int, tails: float) -> F64:
    """Draw independent shocks of variance one; of t(``tails``), one scale for a whole row."""
    normals = rng.standard_normal((rows, n))
    if np.isfinite(tails):
        normals *= np.sqrt((tails - 2.0) / rng.chisquare(tails, rows))[:, None]
    return normals


def target_of(rng: np.random.Generator, name: str, n: int) -> F64:
    """Draw the long-run correlations of a truth that is a DCC."""
    if name == "three_factors":
        return three_factor_target(rng, n)
    return factor_target(rng, n, AVERAGES.get(name, 0.15))


def _dcc(
    normals: F64, target: F64, before: int, change: Callable[[F64], F64] | None, kind: Kind
) -> F64:
    # Engle's: x = z
    q, z = target.copy(), np.empty(normals.shape)
    for t, shock in enumerate(normals):
        if t == before and change is not None:
            target = change(target)
            q = change(q) if kind == "jump" else q
        scale = 1.0 / np.sqrt(q.diagonal())
        z[t] = np.linalg.cholesky(q * np.multiply.outer(scale, scale)) @ shock
        q = (1.0 - NEWS - MEMORY) * target + NEWS * np.multiply.outer(z[t], z[t]) + MEMORY * q
    return z


def _deco(rng: np.random.Generator, n: int, rows: int) -> F64:
    # DCC's Q, averaged over its diagonal and over the rest: of two numbers, which are r
    common, own = rng.standard_normal(rows), rng.standard_normal((rows, n))
    z, square, product = np.empty((rows, n)), 1.0, DECO_MEAN
    rest = 1.0 - DECO_NEWS - DECO_MEMORY
    for t in range(rows):
        r = product / square
        z[t] = np.sqrt(r) * common[t] + np.sqrt(1.0 - r) * own[t]
        squares, total = z[t] @ z[t], z[t].sum() ** 2
        square = rest + DECO_NEWS * squares / n + DECO_MEMORY * square
        shown = (total - squares) / (n * (n - 1))
        product = rest * DECO_MEAN + DECO_NEWS * shown + DECO_MEMORY * product
        product = min(0.98 * square, max(0.001 * square, product))
    return z


def _one_factor(rng: np.random.Generator, n: int, average: F64, mean: float) -> F64:
    # loadings around the root of the mean, scaled so that the average is that of the row
    loading = np.sqrt(mean) * rng.uniform(0.7, 1.3, n)
    loadings = np.minimum(0.98, np.sqrt(average / mean)[:, None] * loading)
    common, own = rng.standard_normal((len(average), 1)), rng.standard_normal((len(average), n))
    z: F64 = loadings * common + np.sqrt(1.0 - loadings**2) * own
    return z


def _latent(rng: np.random.Generator, rows: int) -> F64:
    state = LATENT_SPREAD * rng.standard_normal()
    shock = LATENT_SPREAD * np.sqrt(1.0 - LATENT_PHI**2) * rng.standard_normal(rows)
    out = np.empty(rows)
    for t in range(rows):
        out[t] = np.tanh(np.arctanh(WAVE_MEAN) + state)
        state = LATENT_PHI * state + shock[t]
    return np.maximum(out, 0.01)


def _misjudged(rng: np.random.Generator, z: F64) -> F64:
    # half of the jumps are of one symbol, half of all at once
    rows, n = z.shape
    alone = np.cumsum(rng.random((rows, n)) < 0.5 / JUMP_ROWS, axis=0) % 2
    all_at_once = np.cumsum(rng.random((rows, 1)) < 0.5 / JUMP_ROWS, axis=0) % 2
    returns = z * JUMP**alone * JUMP**all_at_once
    variance, out = np.mean(returns[:50] ** 2, axis=0), np.empty_like(z)
    for t, row in enumerate(returns):
        out[t] = row / np.sqrt(variance)
        variance = VOLATILITY_DECAY * variance + (1.0 - VOLATILITY_DECAY) * row**2
    return out
