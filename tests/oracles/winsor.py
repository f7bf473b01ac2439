"""Capping as it is meant: each return judged by the weighted sums over all before it."""

from typing import NamedTuple

import numpy as np

from stream_calib.values import F64, I64

WARM_N_EFF = 20.0
CAPS_FREE, CAPS_PER_RETURN, CAPS_COUNTED = 2.0, 0.05, 1.0


class Rows(NamedTuple):
    """Arguments of the fold: (k, n) twice, (k,) three times."""

    returns: F64
    exposure: F64
    decay_seen: F64
    decay_unseen: F64
    decay_pool: F64


class Capped(NamedTuple):
    """Capped returns (k, n), which were capped, and the state after them."""

    returns: F64
    capped: I64
    sums: F64
    score: F64
    pool: F64


def read_rescale(pool: F64, prior: F64, tails: F64) -> float:
    """Look up how much of a variance lies beyond the cap, by the frequencies of large returns."""
    counted, inner, outer = pool + prior
    beyond = outer / counted * np.interp(outer / inner, tails[0, :-1], tails[1, :-1])
    return float(1.0 / (1.0 - min(beyond, tails[0, -1])))


def cap_returns(rows: Rows, limit: float, prior: F64, tails: F64) -> Capped:
    """Cap row by row, each sum written out anew over the capped past."""
    k, n = rows.returns.shape
    out, capped = rows.returns.copy(), np.zeros((k, n), dtype=np.int64)
    counts, score = np.zeros((k, 3)), np.zeros(n)
    moved = ~np.isnan(out) & (rows.exposure > 0.0) & (out != 0.0)
    for t in range(k):
        rescale = read_rescale(_weights(rows.decay_pool[:t]) @ counts[:t], prior, tails)
        for i in np.flatnonzero(moved[t]).tolist():
            squares, spans, spans2 = _sums(rows, out, moved, t, i)
            if not squares > 0.0 or spans**2 < WARM_N_EFF * spans2:
                continue
            usual = limit * np.sqrt(rescale * squares / spans * rows.exposure[t, i])
            cap = usual * 2.0 ** max(0.0, score[i] - CAPS_FREE)
            size = abs(out[t, i])
            capped[t, i] = size >= cap
            if score[i] <= CAPS_COUNTED:
                counts[t] += [1.0, size >= 2.0 / 3.0 * usual, capped[t, i]]
            score[i] = max(0.0, score[i] - CAPS_PER_RETURN) + capped[t, i]
            out[t, i] = np.sign(out[t, i]) * min(size, cap)
    sums = np.array([_sums(rows, out, moved, k, i) for i in range(n)]).reshape(n, 3).T
    return Capped(out, capped, sums, score, _weights(rows.decay_pool) @ counts)


def _sums(rows: Rows, out: F64, moved: F64, t: int, i: int) -> tuple[float, float, float]:
    """Squares, spans and squared spans of the moves of one symbol before row t."""
    seen = moved[:t, i]
    weight = _weights(np.where(seen, rows.decay_seen[:t], rows.decay_unseen[:t]))
    squares = np.where(seen, out[:t, i], 0.0) ** 2
    spans = np.where(seen, rows.exposure[:t, i], 0.0)
    return float(weight @ squares), float(weight @ spans), float(weight**2 @ spans**2)


def _weights(decay: F64) -> F64:
    """Weight of each row after the last one: the product of the later rows' decays."""
    return np.append(np.cumprod(decay[:0:-1])[::-1], np.ones(min(1, len(decay))))
