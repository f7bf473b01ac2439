"""The intraday pattern as what it is: days written out, weighted, smoothed by fitted parabolas."""

import numpy as np

from stream_calib.values import F64, I64


def factors(
    returns: F64,
    exposure: F64,
    day: I64,
    bin_of: I64,
    share: F64,
    half_life_days: float,
    width: int,
    around: bool,
) -> F64:
    """Return f (n_bins,) of one symbol after finished days; ``bin_of`` (k,) is of each return."""
    n_bins = len(share)
    f, known = np.ones(n_bins), 0.0
    ratios: list[F64] = []
    spans: list[F64] = []
    for date in np.unique(day):
        seen = (day == date) & ~np.isnan(returns)
        x = np.bincount(bin_of[seen], returns[seen] ** 2, n_bins)
        w = np.bincount(bin_of[seen], exposure[seen], n_bins).astype(np.float64)
        if w.sum() > 0 and x.sum() > 0:
            level = x.sum() / (f @ w)
            level = np.minimum(x, 10 * level * f * w).sum() / (f @ w)
            ratios.append(np.minimum(x, 10 * level * f * w) / level)
            spans.append(w)
            known += min(1.0, seen.sum() / n_bins)
            age = np.arange(len(ratios))[::-1]
            weight = 0.5 ** (age / half_life_days)
            total, span = weight @ np.array(ratios), weight @ np.array(spans)
            raw = np.where(span > 0, total / np.where(span > 0, span, 1.0), 1.0)
            trust = np.clip((known - 2.0) / 8.0, 0.0, 1.0)
            if trust > 0:
                smooth = np.maximum(_smooth(raw, width, around) / (share @ raw), 0.05)
                f = 1 + trust * (smooth - 1)
                f /= share @ f
    return f


def _smooth(raw: F64, width: int, around: bool) -> F64:
    n_bins = len(raw)
    out = np.empty(n_bins)
    for b in range(n_bins):
        first = b - width // 2
        if not around:
            first = min(max(first, 0), n_bins - width)
        at = np.arange(first, first + width)
        out[b] = np.polyval(np.polyfit(at - b, raw[at % n_bins], min(2, width - 1)), 0.0)
    return out
