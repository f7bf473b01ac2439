"""How long a detector of ranked scores needs for a change of known size."""

import math

import numpy as np

from stream_calib.kernels._jit import kernel

WARM_ROWS = 100  # of chains before the change
MODULUS = 2147483647  # of the generator that picks columns: MINSTD


@kernel("f8(f8[:,::1], i8, f8)")
def _share_above(ordered: np.ndarray, kind: int, score: float) -> float:
    low, high = 0, ordered.shape[1]
    while low < high:
        middle = (low + high) // 2
        if ordered[kind, middle] <= score:
            low = middle + 1
        else:
            high = middle
    share: float = (ordered.shape[1] - low) / ordered.shape[1]
    return share


@kernel("f8(f8[:,::1], f8[:,:,::1], i8[::1], f8[::1], i8, f8, f8[::1], f8[::1], i8, i8)")
def expected_delay(
    ordered: np.ndarray,
    pools: np.ndarray,
    begins: np.ndarray,
    quantiles: np.ndarray,
    seen: int,
    arl0: float,
    inflation: np.ndarray,
    slopes: np.ndarray,
    repeats: int,
    most: int,
) -> float:
    """Return the mean number of rows from a change to the alarm, over runs with drawn scores.

        p = (c F(s) + #{scores since the change > s} + 1/2) / (c + k + 1)

    for the score of row k since the change, of c before it, with chains as ``fold_bets``.

    Parameters
    ----------
    ordered : (s, m)
        Scores where nothing has changed, ascending: F is their share above.
    pools : (g, s, m')
        Scores after the change, in stages: what is in one column belongs together.
    begins : (g,)
        Rows since the change, from 0, at which a stage begins; ascending from 0.
    quantiles : (q,)
        -Phi^-1((i + 1/2) / q): x of a probability, by steps of 1 / q.
    seen
        c.
    arl0, inflation, slopes
        A, V and l of the chains.
    repeats
        Runs.
    most
        Rows after which a run ends; it counts as that many.
    """
    stages, kinds, width = pools.shape
    steps = slopes.size
    since = np.empty((kinds, most))
    chains = np.empty((kinds, steps))
    q = quantiles.size
    state = np.int64(12345)
    total = 0.0
    for _ in range(repeats):
        chains[:] = 0.0
        delay = most
        stage = 0
        for row in range(-WARM_ROWS, most):
            state = (16807 * state) % MODULUS
            if row >= 0 and stage + 1 < stages and row >= begins[stage + 1]:
                stage += 1
            mean = 0.0
            for s in range(kinds):
                before = max(row, 0)
                if row < 0:
                    share = (state % ordered.shape[1] + 0.5) / ordered.shape[1]
                    state = (16807 * state) % MODULUS
                    above = seen * share
                else:
                    score = pools[stage, s, state % width]
                    above = seen * _share_above(ordered, s, score)
                    for k in range(row):
                        above += 1.0 if since[s, k] > score else 0.0
                    since[s, row] = score
                p = (above + 0.5) / (seen + before + 1)
                x = quantiles[min(q - 1, int(p * q))]
                for j in range(steps):
                    bet = slopes[j] * (x - 0.5 * slopes[j] * inflation[s])
                    chains[s, j] = min(1e200, (chains[s, j] + 1.0) * math.exp(bet))
                    mean += chains[s, j]
            if row >= 0 and mean >= arl0 * kinds * steps:
                delay = row + 1
                break
        total += delay
    average: float = total / repeats
    return average
