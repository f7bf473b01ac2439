"""The same delay, one run at a time, with whole histories."""

import numpy as np

from stream_calib.values import F64, I64


def expected_delay(
    ordered: F64,
    pools: F64,
    begins: I64,
    quantiles: F64,
    seen: int,
    arl0: float,
    inflation: F64,
    slopes: F64,
    repeats: int,
    most: int,
) -> float:
    """Mean rows to the alarm."""
    kinds, size = ordered.shape
    state, delays = 12345, []

    def x_of(p: float) -> float:
        return float(quantiles[min(len(quantiles) - 1, int(p * len(quantiles)))])

    for _ in range(repeats):
        chains = np.zeros((kinds, len(slopes)))
        past: list[F64] = []
        for row in range(-100, most):
            state = 16807 * state % 2147483647
            x = np.empty(kinds)
            if row < 0:
                for s in range(kinds):
                    share = (state % size + 0.5) / size
                    state = 16807 * state % 2147483647
                    x[s] = x_of((seen * share + 0.5) / (seen + 1))
            else:
                stage = np.searchsorted(begins, row, side="right") - 1
                scores = pools[stage, :, state % pools.shape[2]]
                for s, score in enumerate(scores):
                    above = seen * np.mean(ordered[s] > score) + sum(o[s] > score for o in past)
                    x[s] = x_of((above + 0.5) / (seen + row + 1))
                past.append(scores)
            bets = np.exp(np.outer(x, slopes) - 0.5 * np.outer(inflation, slopes**2))
            chains = (chains + 1.0) * bets
            if row >= 0 and chains.mean() >= arl0:
                break
        delays.append(row + 1)
    return float(np.mean(delays))
