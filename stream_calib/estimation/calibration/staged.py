"""A fit after an alarm: the target moves by what was seen since, and nothing else."""

import math
from collections.abc import Mapping

import numpy as np

from stream_calib.estimation.calibrated import DCC_MODEL, dcc_params, garch_params, misfit
from stream_calib.estimation.calibration.tilting import Moved, move_target, part_of
from stream_calib.estimation.cleaning import one_blas_thread
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.values import F64, Fit, FitFailure, FitRequest, ReturnBlock

OLD = "old."  # before the names of the arrays of the fit that is in force
DROP_SHARE = 0.1  # of the rows: those nearest to the change, whose time is an estimate
ROWS_MIN = 20  # with less there is next to nothing to judge by


def refit_target(request: FitRequest) -> Fit | FitFailure:
    """Move the target alone: volatilities and dynamics stay those of the fit in force.

    Parameters
    ----------
    request
        ``arrays``: ``returns`` (t, n), NaN where not observed, ``exposure`` (t, n) in bars and
        ``elapsed`` (t,); the arrays of the fit in force, their names behind ``old.``.
        ``settings``: ``since``, the first row after the estimated change, those before which
        only tell where volatilities stood; ``winsor``, ``vol_half_life_bars``; ``drop_share`` of
        the rows since, those nearest to the change, to leave out, .1 by default.

    Returns
    -------
    Fit or FitFailure
        Arrays as ``calibrate`` has them, all but ``request``, ``target``, ``target_average``,
        ``counts``, ``bars``, ``loglik``, ``kept`` and ``diagnostics.`` the old ones. ``counts``
        are the rows since the change; ``kept`` is how much of the old target is in the new one.
        A symbol that was not seen to move since keeps its regression on the others.
    """
    with one_blas_thread():  # whose number would show in the last bits
        return _refit(request)


def _refit(request: FitRequest) -> Fit | FitFailure:
    arrays = {
        name.removeprefix(OLD): array
        for name, array in request.arrays.items()
        if name.startswith(OLD)
    }
    old, n = Fit(request.model, arrays), request.arrays["returns"].shape[1]
    if reason := misfit(old, n):
        return _failure(request, "invalid", f"the fit in force: {reason}")
    params = dcc_params(old)
    z = _standardised(request, old)
    usable = np.flatnonzero(np.isfinite(np.diagonal(params.target)))
    own = z[:, usable]
    own = np.ascontiguousarray(own[np.isfinite(own).sum(axis=1) >= 2])
    dropped = math.ceil(len(own) * float(request.settings.get("drop_share", DROP_SHARE)))  # type: ignore[arg-type]
    if len(own) - dropped < ROWS_MIN:
        return _failure(request, "too_few", f"{len(own)} rows since the change")
    cut = np.ix_(usable, usable)
    moved = move_target(part_of(params, usable), own, dropped)
    whole = np.full((n, n), np.nan)
    whole[cut] = moved.target
    fit = Fit(DCC_MODEL, _arrays(request, arrays, whole, moved, z))
    reason = misfit(fit, n)
    return _failure(request, "invalid", reason) if reason else fit


def _standardised(request: FitRequest, old: Fit) -> F64:
    """Run the old volatilities over the rows; return those since the change."""
    arrays, settings = request.arrays, request.settings
    t, n = arrays["returns"].shape
    volatility = GarchVolatility(n, settings["vol_half_life_bars"], settings["winsor"])  # type: ignore[arg-type]
    volatility.install(garch_params(old))
    rows = ReturnBlock(
        np.arange(t, dtype=np.int64), arrays["returns"], arrays["exposure"], arrays["elapsed"]
    )
    since = int(settings.get("since", 0))  # type: ignore[call-overload]
    return volatility.standardise(rows).returns[since:]


def _arrays(
    request: FitRequest, old: Mapping[str, F64], target: F64, moved: Moved, z: F64
) -> dict[str, F64]:
    n, n_rows = len(target), len(z)
    seen = np.isfinite(z).sum(axis=0)
    known = np.isfinite(np.diagonal(target))
    part = target[np.ix_(known, known)]
    upper = np.triu_indices(len(part), 1)
    kept = {name: array for name, array in old.items() if not name.startswith("diagnostics.")}
    return kept | {
        "request": np.array([float(request.number)]),
        "target": target[np.triu_indices(n)],
        "target_average": np.array([math.fsum(part[upper]) / len(upper[0])]),
        "counts": seen.astype(np.float64),  # what the old target counts for is no evidence
        "bars": np.array([float(n_rows)]),
        "loglik": np.full(2, math.nan),
        "kept": np.array([moved.kept]),
        "diagnostics.target.fused": np.array([moved.fused]),
        "diagnostics.target.loosened": np.array([moved.loosened]),
        "diagnostics.target.prior_rows": np.array([moved.prior_rows]),
        "diagnostics.target.gain_per_bar": np.array([moved.gain]),
    }


def _failure(request: FitRequest, code: str, reason: str) -> FitFailure:
    return FitFailure(request.model, request.number, code, reason)
