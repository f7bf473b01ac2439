"""What a fit says: its parameters as values, why it cannot be used, and what people read of it."""

import math
from collections.abc import Sequence

import numpy as np

from stream_calib.estimation.cleaning import one_blas_thread
from stream_calib.estimation.dcc import MODELS, packed_start
from stream_calib.values import F64, DccParams, Fit, FitRequest, GarchParams

DCC_MODEL = "dcc"
BY_NAME = "by_name"  # of requests and fits whose symbols are in the order of their names
GARCH_NAMES = ("mu", "omega", "alpha", "beta", "gamma", "nu")
PERSISTENCE_MAX = 0.9999  # of a volatility and of correlations: what fits keep to
EIGENVALUE_MIN = 1e-10  # below the floor that targets are held above, which rounding may miss
ROUNDING = 1e-6  # by which a fit may miss its own bounds
NEEDED = ("dcc", "dcc_se", "garch", "garch_se", "bars", "counts", "loglik", "target_average")


def misfit(fit: Fit, n: int) -> str:
    """Say why a fit cannot be used for n assets; nothing when it can."""
    try:
        params, garch = dcc_params(fit), garch_params(fit)
        counts = fit.arrays["counts"]
    except (KeyError, IndexError, TypeError, ValueError):
        return "it is not whole"
    if not fit.arrays.keys() >= set(NEEDED):
        return "it is not whole"
    if not garch.mu.shape == counts.shape == (n,) or params.target.shape != (n, n):
        return f"it is of other than {n} symbols"
    known = np.flatnonzero(np.isfinite(np.diagonal(params.target)))
    target = params.target[np.ix_(known, known)]
    numbers = [params.a, params.b, params.g]
    if not (np.isfinite(numbers).all() and np.isfinite(target).all()):
        return "it has numbers that are none"
    if len(known) < 2 or min(numbers) < 0.0 or params.a + params.b > PERSISTENCE_MAX:
        return f"a {params.a:.4g} and b {params.b:.4g} are not stationary"
    with one_blas_thread():
        least = np.linalg.eigvalsh(target)[0]
    if least < EIGENVALUE_MIN:
        return "its target is not positive definite"
    if not (np.isfinite(counts).all() and counts.min() >= 0.0):
        return "it has numbers that are none"
    fitted = np.isfinite(garch.omega)
    persistence = (garch.alpha + garch.beta + 0.5 * garch.gamma)[fitted]
    parts = np.array([garch.omega, garch.alpha, garch.beta, garch.alpha + garch.gamma])
    negative = (parts[:, fitted] < -ROUNDING).any()
    if negative or (persistence > PERSISTENCE_MAX + ROUNDING).any():
        return "a volatility is not stationary"
    dependence = fit.arrays.get("dependence", np.full(3, np.nan))
    if dependence.shape != (3,) or (~np.isnan(dependence) & ~(dependence >= 1.0)).any():
        return "what it says of dependence is none"
    if np.isinf(dependence).any():
        return "what it says of dependence is none"
    kept = fit.arrays.get("kept", np.zeros(1))
    if kept.shape != (1,) or not 0.0 <= kept[0] <= 1.0:
        return "what it keeps is no share"
    try:
        packed_start(params, n)
    except ValueError as error:
        return str(error)
    return ""


def garch_params(fit: Fit) -> GarchParams:
    """Return the GARCH parameters of all assets."""
    return GarchParams(*(row.copy() for row in fit.arrays["garch"]))


def dcc_params(fit: Fit) -> DccParams:
    """Return the DCC parameters; the target is NaN for assets that were left out."""
    a, b, g = (float(number) for number in fit.arrays["dcc"])
    asymmetry = fit.arrays["asymmetry"]
    return DccParams(
        a,
        b,
        _square(fit.arrays["target"]),
        MODELS[int(fit.arrays["kind"][0])],  # type: ignore[arg-type]
        g,
        _square(asymmetry) if asymmetry.size else None,
    )


def dcc_report(fit: Fit, request: FitRequest, symbols: Sequence[str]) -> dict[str, object]:
    """Return what people and programs should know of a fit, as JSON values; null: not known.

    Symbols in the order of their names, so that the universe's own does not show.
    """
    arrays, target = fit.arrays, dcc_params(fit).target
    names = ("a", "b", "g") if MODELS[int(arrays["kind"][0])] == "adcc" else ("a", "b")
    errors = dict(zip(names, _numbers(arrays["dcc_se"]), strict=False))
    garch = {
        symbol: {
            name: {"value": _number(arrays["garch"][k, i]), "se": _number(arrays["garch_se"][k, i])}
            for k, name in enumerate(GARCH_NAMES)
            if not math.isnan(arrays["garch"][k, i])
        }
        for symbol, i in sorted(zip(symbols, range(len(symbols)), strict=True))
    }
    return {
        "reason": request.reason,
        "window": {
            "from_ns": str(request.settings["from_ns"]),
            "to_ns": str(request.as_of_ns),
            "bars": int(arrays["bars"][0]),
        },
        "correlation": {
            "model": MODELS[int(arrays["kind"][0])] if arrays["dcc"].any() else "constant",
            **{
                name: {"value": _number(value), "se": errors.get(name)}
                for name, value in zip(names, arrays["dcc"], strict=False)
            },
            "loglik": _number(arrays["loglik"][0]),
            "composite_loglik": _number(arrays["loglik"][1]),
            "target_average": _number(arrays["target_average"][0]),
        },
        "garch": garch,
        "left_out": sorted(
            s for s, x in zip(symbols, np.diagonal(target), strict=True) if math.isnan(x)
        ),
        "diagnostics": {
            name.removeprefix("diagnostics."): _number(array[0])
            for name, array in sorted(arrays.items())
            if name.startswith("diagnostics.")
        },
    }


def _square(packed: F64) -> F64:
    n = math.isqrt(2 * packed.size)
    square = np.empty((n, n))
    square[np.triu_indices(n)] = packed
    square.T[np.triu_indices(n)] = packed
    return square


def _numbers(values: F64) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
