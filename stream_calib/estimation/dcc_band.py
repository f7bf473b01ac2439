"""Standard errors of correlations by DCC."""

import numpy as np

from stream_calib.values import F64, DccParams


def dcc_band(corr: F64, target: F64, params: DccParams, errors: F64, n_target: F64) -> F64:
    """Return the standard errors of a DCC forecast.

        (1 - r^2)^2 / T + (r - s)^2 ((e_a / a)^2 + (e_b / (1 - b))^2)

    The mean of z* z*' wanders as its terms do: over T rows it is off by (1 - b) / (1 - a - b)
    times as much as one of independent terms. In the forecast it counts with the weight that
    its pull has in the steady state, which is the inverse of that: what is left is (1 - r^2) /
    sqrt(T), whatever a and b are. The second term is what the errors of a and b do to the
    distance r - s that the news have brought about.

    Parameters
    ----------
    corr, target : (n, n)
        r and s: the forecast, and what it returns to.
    params
        a and b; with a = b = 0 the band is that of a constant correlation.
    errors : (2,)
        Standard errors e_a and e_b, 0 where not known.
    n_target : (n, n)
        T: observations that the target of a pair rests on.

    Notes
    -----
    First order in each error, with errors of a and b taken as uncorrelated, which errs on the
    wide side. Coverage on simulated truth is in ``tests/estimation/test_dcc_band.py``.
    """
    a, b = params.a, params.b
    by_news = errors[0] / a if a > 0.0 else 0.0
    by_memory = errors[1] / (1.0 - b)
    by_target = (1.0 - corr * corr) ** 2 / n_target
    variance = by_target + (corr - target) ** 2 * (by_news**2 + by_memory**2)
    band: F64 = np.minimum(np.sqrt(variance), 1.0)
    np.fill_diagonal(band, 0.0)
    return band
