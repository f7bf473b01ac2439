"""One full fit of the model half: GARCH for every asset, a target, DCC; and what is kept of it."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from stream_calib.estimation.calibrated import BY_NAME, DCC_MODEL, GARCH_NAMES, misfit
from stream_calib.estimation.calibration.dcc import DccFit, fit_dcc
from stream_calib.estimation.calibration.garch import fit_garch
from stream_calib.estimation.calibration.staged import refit_target
from stream_calib.estimation.cleaning import one_blas_thread
from stream_calib.estimation.dcc import MODELS
from stream_calib.estimation.drift import DriftDetector
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.estimation.shrinkage import shrink_target
from stream_calib.values import (
    F64,
    Fit,
    FitFailure,
    FitRequest,
    GarchParams,
    ReturnBlock,
)

FULL_MAX = 40  # assets up to which bars are looked at as a whole, which is O(n^3) each
FITTED_SHARE = 0.5  # of the first fit's bars: an asset observed less is left out
MOVED_SHARE = 0.1  # of these: one whose price moved less has no correlation
NEWS_MIN = 0.005  # of alpha: with less the variance is a trend, which ends with the window
WATCHED_MAX = 300  # symbols up to which dependence is measured,
WATCHED_ROWS = 1000  # and on how many rows, up to 50 symbols
POOLED_SHARE = 0.8  # of the first fit's bars: less says nothing of a volatility
TOGETHER_MIN = 30  # returns that each two have in common
MEMORY_MAX = 0.9995  # a + b beyond: twins among the symbols, or nothing to return to


def calibrate(request: FitRequest) -> Fit | FitFailure:
    """Make the fit that is asked for; deterministic, and never an exception for finite returns.

    Parameters
    ----------
    request
        ``arrays``: ``returns`` (t, n), NaN where not observed, ``exposure`` (t, n) in bars and
        ``elapsed`` (t,). ``settings``: those of ``DccConfig`` by name, but for ``enabled``,
        ``bar``, ``window_bars`` and ``refit_bars``. With ``kind`` "target" it is a request as
        ``refit_target`` has it. With ``watched`` false nothing is measured for a watch for
        drift. With ``by_name`` the fit says so too: whoever asked has put the symbols in the
        order of their names, and puts them back.

    Returns
    -------
    Fit or FitFailure
        Arrays of the fit: ``request`` its number, ``kind`` the place of the model in
        ("dcc", "cdcc", "adcc"), ``dcc`` a, b, g, ``target`` and ``asymmetry`` packed upper
        triangles, NaN for assets left out, ``garch`` (6, n) mu, omega, alpha, beta, gamma, nu,
        NaN where an asset has no fit, ``dependence`` that of ``DriftDetector``; the rest is what
        the report shows.
    """
    work = refit_target if request.settings.get("kind") == "target" else _calibrate
    try:
        with one_blas_thread():  # whose number would show in the last bits
            found = work(request)
    except (ArithmeticError, IndexError, ValueError) as error:
        # whoever asks, in the stream or in a replay of it, has the same answer
        words = str(error).strip().splitlines()[:1]
        reason = ": ".join(["the calibration raised " + type(error).__name__, *words])
        return _failure(request, "crashed", reason)
    if isinstance(found, Fit) and request.settings.get(BY_NAME):
        return Fit(found.model, {**found.arrays, BY_NAME: np.ones(1)})
    return found


def _calibrate(request: FitRequest) -> Fit | FitFailure:
    rows, settings = _rows(request), request.settings
    n = rows.returns.shape[1]
    enough = FITTED_SHARE * float(settings["first_fit_bars"])  # type: ignore[arg-type]
    counts = (rows.exposure > 0.0).sum(axis=0)
    garch = _fit_volatility(rows, counts, settings)
    z = _standardised(rows, garch.params, settings)
    usable = _usable(z, enough)
    if len(usable) < 2:
        return _failure(
            request, "too_few", f"{len(usable)} symbols have {enough:.0f} usable returns"
        )
    own = z[:, usable]
    own = np.ascontiguousarray(own[np.isfinite(own).any(axis=1)])
    try:
        dcc = _fit_correlation(own, settings)
    except ValueError as error:
        return _failure(request, "invalid", str(error))
    if not math.isfinite(dcc.composite_loglik):
        return _failure(request, "not_converged", dcc.reason)
    fit = Fit(DCC_MODEL, _arrays(request, usable, garch, dcc, counts, own))
    reason = misfit(fit, n)
    return _failure(request, "invalid", reason) if reason else fit


def _rows(request: FitRequest) -> ReturnBlock:
    arrays = request.arrays
    times = np.arange(len(arrays["returns"]), dtype=np.int64)
    return ReturnBlock(times, arrays["returns"], arrays["exposure"], arrays["elapsed"])


class _Volatilities(NamedTuple):
    params: GarchParams
    errors: F64  # (6, n)


def _fit_volatility(
    rows: ReturnBlock, counts: np.ndarray, settings: Mapping[str, Any]
) -> _Volatilities:
    """Fit to returns per bar: each symbol alone, those of a short history together."""
    per_bar = rows.returns / np.sqrt(np.where(rows.exposure > 0.0, rows.exposure, 1.0))
    found = np.full((2, len(GARCH_NAMES), per_bar.shape[1]), np.nan)
    long = counts >= settings["pooled_below_bars"]
    short = ~long & (counts >= POOLED_SHARE * settings["first_fit_bars"])
    model: Literal["garch", "gjr"] = "gjr" if settings["leverage"] else "garch"
    for members, pooled in ((long, False), (short, True)):
        if members.any():
            panel = np.ascontiguousarray(per_bar[:, members])
            fit = fit_garch(
                panel,
                mean="zero",
                model="garch" if pooled else model,
                targeting=pooled,
                pooled=pooled,
            )
            for k, name in enumerate(GARCH_NAMES):
                found[0, k, members] = getattr(fit.params, name)
                found[1, k, members] = getattr(fit.se["qml"], name)
    _, omega, alpha, beta, gamma, _ = found[0]
    still = alpha + 0.5 * gamma < NEWS_MIN  # false for NaN
    omega[still] = np.nanmean(np.square(per_bar[:, still]), axis=0) if still.any() else 0.0
    alpha[still] = beta[still] = gamma[still] = 0.0
    found[1, :, still] = np.nan
    return _Volatilities(GarchParams(*found[0]), found[1])


def _standardised(rows: ReturnBlock, garch: GarchParams, settings: Mapping[str, Any]) -> F64:
    """Run the volatility over the window as the stream will do it."""
    n = rows.returns.shape[1]
    volatility = GarchVolatility(n, settings["vol_half_life_bars"], settings["winsor"])
    volatility.install(garch)
    return volatility.standardise(rows).returns


def _usable(z: F64, enough: float) -> np.ndarray:
    """Return the symbols that have a correlation: enough returns, that move, in company."""
    seen = np.isfinite(z)
    moves = (seen & (z != 0.0)).sum(axis=0)
    chosen = (seen.sum(axis=0) >= enough) & (moves >= MOVED_SHARE * enough)
    ones = seen.astype(np.float64)  # counts are exact, and whole numbers have no BLAS
    together = ones.T @ ones
    poor = together < TOGETHER_MIN
    while True:
        lonely = (poor & chosen & chosen[:, None]).sum(axis=1)
        if not lonely.any():
            return np.flatnonzero(chosen)
        # of those in most such pairs the one observed least
        chosen[np.lexsort((np.diagonal(together), -lonely))[0]] = False


def _fit_correlation(z: F64, settings: Mapping[str, Any]) -> DccFit:
    """Fit DCC; where the best is at an edge, correlations that stand still are what there is."""
    method, model = settings["target"], settings["model"]
    target = None if method == "none" else partial(shrink_target, method=method)
    likelihood = settings["likelihood"]
    if likelihood == "auto":
        likelihood = "full" if z.shape[1] <= FULL_MAX else "composite"
    found = fit_dcc(z, model=model, likelihood=likelihood, target=target)
    definite = found.converged and found.a + found.b <= MEMORY_MAX
    if definite or not math.isfinite(found.composite_loglik):
        return found
    return fit_dcc(z, model="constant", target=target)


def _arrays(
    request: FitRequest,
    usable: np.ndarray,
    garch: _Volatilities,
    dcc: DccFit,
    counts: np.ndarray,
    z: F64,
) -> dict[str, F64]:
    n = request.arrays["returns"].shape[1]
    se = [dcc.se.get(name, math.nan) for name in ("a", "b", "g")]
    asymmetry = dcc.params.asymmetry
    n_fitted = len(dcc.target)
    upper = np.triu_indices(n_fitted, 1)
    return {
        "request": np.array([float(request.number)]),
        "kind": np.array([float(MODELS.index(dcc.params.model))]),
        "dcc": np.array([dcc.a, dcc.b, dcc.g]),
        "dcc_se": np.array(se),
        "garch": np.array([getattr(garch.params, name) for name in GARCH_NAMES]),
        "garch_se": garch.errors,
        "target": _packed(dcc.target, usable, n),
        "asymmetry": np.empty(0) if asymmetry is None else _packed(asymmetry, usable, n),
        "counts": counts.astype(np.float64),
        "bars": np.array([float(len(request.arrays["returns"]))]),
        "loglik": np.array(
            [dcc.loglik if n_fitted <= FULL_MAX else math.nan, dcc.composite_loglik]
        ),
        "dependence": _dependence(dcc, z)
        if request.settings.get("watched", True)
        else np.full(3, np.nan),
        "target_average": np.array([math.fsum(dcc.target[upper]) / len(upper[0])]),
        **{
            f"diagnostics.{group}.{name}": np.array([float(value)])
            for group, figures in (dcc.diagnostics if n_fitted <= FULL_MAX else {}).items()
            for name, value in figures.items()
        },
    }


def _dependence(dcc: DccFit, z: F64) -> F64:
    """Return how much rows of this model depend on each other, for whoever watches it for drift.

    NaN where it would take long: as many rows as a fit of so many symbols takes anyway.
    """
    n = z.shape[1]
    if n > WATCHED_MAX:
        return np.full(3, np.nan)
    rows = max(WATCHED_ROWS // 4, min(WATCHED_ROWS, WATCHED_ROWS * 50 // n))
    detector = DriftDetector(dcc.params, n, arl0=math.inf)
    detector.update(z[-rows:])
    return detector.dependence()


def _packed(square: F64, usable: np.ndarray, n: int) -> F64:
    whole = np.full((n, n), np.nan)
    whole[np.ix_(usable, usable)] = square
    return whole[np.triu_indices(n)]


def _failure(request: FitRequest, code: str, reason: str) -> FitFailure:
    return FitFailure(request.model, request.number, code, reason)
