"""Fits of DCC, cDCC and ADCC."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.calibration.diagnostics import (
    constant_correlation,
    pair_paths,
    probability_transform,
    residual_products,
    residuals,
    sign_agreement,
)
from stream_calib.estimation.calibration.errors import standard_errors
from stream_calib.estimation.calibration.maximum import Maximum, maximise
from stream_calib.estimation.calibration.objective import (
    Composite,
    DccModel,
    Full,
    asymmetry_of,
    target_of,
)
from stream_calib.estimation.calibration.pairs import ALL_MAX, PairRule, choose_pairs
from stream_calib.estimation.calibration.robust import Innovations, Robust, robust_innovations
from stream_calib.estimation.cleaning import one_blas_thread, repair_correlation
from stream_calib.kernels.dcc_targets import pair_moments, star_returns
from stream_calib.values import F64, I64
from stream_calib.values.models import DccParams

MIN_BARS = 30  # common bars below which a pair says nothing
SCALE_MIN, SCALE_MAX = 0.05, 20.0  # of the median of |z|; daily returns have about .006
PIVOT_MIN = 1e-10
FLOOR = 1e-8  # least eigenvalue of a target that had to be repaired
TARGET_ROUNDS = 2  # fits under a target that is made from the fit itself

Likelihood = Literal["composite", "full"]
Target = npt.ArrayLike | Callable[[F64], F64]


@dataclass(frozen=True)
class DccFit:
    """A fitted DCC: parameters, and on demand what judges them.

    Attributes
    ----------
    model
        ``constant``, ``dcc``, ``cdcc`` or ``adcc``.
    a, b, g
        News, memory, asymmetry; 0 where the model has none.
    target : (n, n)
        Correlation that R reverts to, and Q_1.
    asymmetry : (n, n) or None
        Mean of n n', n = min(z, 0); ADCC only.
    converged
        False at an edge of the region, without curvature, or without a likelihood.
    reason
        Why not, in a sentence; empty otherwise.
    pairs : (p, 2)
        Of the composite likelihood.
    details
        How the fit went: ``evaluations``, ``target_repair``, constants of the robust fit.
    garch
        The volatility stage, with ``standardised=False``.
    loglik, composite_loglik, se, diagnostics
        Computed when first read.
    """

    model: Literal["constant", "dcc", "cdcc", "adcc"]
    a: float
    b: float
    g: float
    target: F64
    asymmetry: F64 | None
    converged: bool
    reason: str
    pairs: I64
    details: dict[str, float]
    garch: Any = None
    _innovations: Innovations = field(repr=False, kw_only=True)
    _objective: Composite | Full = field(repr=False, kw_only=True)

    @property
    def params(self) -> DccParams:
        """What an online filter is made from; of a constant correlation with a = b = 0."""
        model: DccModel = "dcc" if self.model == "constant" else self.model
        return DccParams(self.a, self.b, self.target, model, self.g, self.asymmetry)

    @cached_property
    def loglik(self) -> float:
        """Full Gaussian log likelihood of z, 2 pi included, Q_1 = target. O(t n^3).

        -inf if some R_t is not positive definite.
        """
        z, news, _ = self._innovations
        return float(Full(z, news, self.params.model, self.target)(self._theta)[0])

    @cached_property
    def composite_loglik(self) -> float:
        """Log densities summed over ``pairs``."""
        return float(self._composite()(self._theta)[0])

    @cached_property
    def se(self) -> dict[str, float]:
        """Standard errors of ``a``, ``b`` (and ``g``); see ``errors.standard_errors``.

        NaN unless converged, empty for a constant correlation.
        """
        if self.model == "constant":
            return {}
        if not self.converged:
            names = ("a", "b", "g") if self.model == "adcc" else ("a", "b")
            return dict.fromkeys(names, math.nan)
        with one_blas_thread():
            return standard_errors(self._objective, self._theta)

    @cached_property
    def diagnostics(self) -> dict[str, dict[str, float]]:
        """Tests on residuals and signs, by name; see ``diagnostics``. O(t n^3)."""
        z, news, _ = self._innovations
        out = {
            "fit": self.details,
            "constant_correlation": constant_correlation(z, self.pairs),
            "signs": sign_agreement(z, pair_paths(self._composite(), self._theta), self.pairs),
        }
        e = residuals(z, news, self.target, self.params.model, self._theta)
        if e is not None:
            out["residual_products"] = residual_products(e, self.pairs)
            out["probability_transform"] = probability_transform(e)
        return out

    @property
    def _theta(self) -> F64:
        return np.array([self.a, self.b, self.g])

    def _composite(self) -> Composite:
        z, news, _ = self._innovations
        return Composite(z, news, self.pairs, self.params.model, self.target)


def fit_dcc(
    z: npt.ArrayLike,
    *,
    standardised: bool = True,
    model: Literal["constant", "dcc", "cdcc", "adcc"] = "cdcc",
    likelihood: Likelihood = "composite",
    pairs: PairRule = "auto",
    target: Target | None = None,
    robust: Robust | None = None,
) -> DccFit:
    """Fit the dynamics of a correlation matrix.

        R = diag(Q)^-1/2 Q diag(Q)^-1/2
        Q' = (1 - a - b) C + a x x' + b Q,   Q_1 = C
        dcc: x = z;   cdcc: x = diag(Q)^1/2 z;   adcc: + g (n n' - M), n = min(z, 0)

    Parameters
    ----------
    z : (t, n)
        Standardised returns, without unit; NaN where not observed: a pair takes part in the bars
        where both are, and stands still in the others.
    standardised
        False for returns in any unit: ``fit_garch`` makes z from them first.
    model
        ``constant`` holds a = b = 0.
    likelihood
        ``composite`` sums over pairs, O(p t); ``full`` is Engle's, O(t n^3) per evaluation.
        In many symbols the full one puts a and a + b too low.
    pairs
        See ``choose_pairs``.
    target : (n, n), optional
        C. By default the correlation of x, for cdcc of x at the very (a, b). A function gets x
        (t, n) and returns C; as x of cdcc depends on the fit, fit and target then take turns
        twice.
    robust
        ``winsor`` caps z at 3; ``t`` also weights the news of wild bars down, see
        ``robust_innovations``.

    Returns
    -------
    DccFit
        The same bytes for the same input. Reordering the symbols reorders the answer bit for
        bit with ``all`` pairs and the composite likelihood, target apart, which is a matrix
        product; with other rules the pairs are others.

    Raises
    ------
    ValueError
        If z is not (t, n >= 2), finite or NaN, and of the order of 1, no pair has 30 common bars,
        or the target is not a symmetric matrix with a positive diagonal (for cdcc of ones).

    References
    ----------
    Engle (2002); Cappiello, Engle, Sheppard (2006); Aielli (2013); Pakel, Shephard, Sheppard,
    Engle (2021).
    """
    if model not in ("constant", "dcc", "cdcc", "adcc"):
        message = f"model must be 'constant', 'dcc', 'cdcc' or 'adcc', not {model!r}"
        raise ValueError(message)
    if likelihood not in ("composite", "full"):
        message = f"likelihood must be 'composite' or 'full', not {likelihood!r}"
        raise ValueError(message)
    panel = _panel(z)
    garch = None
    if not standardised:
        panel, garch = _standardise(panel)
    _require_scale(panel)
    with one_blas_thread():
        return _fit_panel(panel, model, likelihood, pairs, target, robust, garch)


def _fit_panel(
    panel: F64,
    model: Literal["constant", "dcc", "cdcc", "adcc"],
    likelihood: Likelihood,
    pairs: PairRule,
    target: Target | None,
    robust: Robust | None,
    garch: Any,  # noqa: ANN401
) -> DccFit:
    innovations = robust_innovations(panel, robust)
    chosen = _usable(innovations.news, choose_pairs(panel.shape[1], pairs))
    given = None if target is None or callable(target) else _checked(target, panel, model)
    shape: DccModel = "dcc" if model == "constant" else model
    objective, best = _fit(innovations, chosen, shape, likelihood, given, model)
    if callable(target):
        for _ in range(TARGET_ROUNDS if model != "constant" else 1):
            made = target(_news_at(innovations.news, shape, best.theta))
            given = _checked(made, panel, model)
            objective, best = _fit(innovations, chosen, shape, likelihood, given, model)
    a, b, g = (float(v) for v in best.theta)
    final, repair = (given, 0.0) if given is not None else _target(innovations.news, shape, a, b)
    details = {"evaluations": float(best.evaluations), "target_repair": repair}
    return DccFit(
        model=model,
        a=a,
        b=b,
        g=g,
        target=final,
        asymmetry=asymmetry_of(innovations.news) if model == "adcc" else None,
        converged=not best.reason,
        reason=best.reason,
        pairs=chosen,
        details=details | innovations.details,
        garch=garch,
        _innovations=innovations,
        _objective=objective,
    )


def _fit(
    innovations: Innovations,
    pairs: I64,
    shape: DccModel,
    likelihood: Likelihood,
    target: F64 | None,
    model: str,
) -> tuple[Composite | Full, Maximum]:
    z, news, _ = innovations
    composite = Composite(z, news, pairs, shape, target)
    if model == "constant":
        return composite, Maximum(np.zeros(3), math.nan, 0, "")
    objective: Composite | Full = composite
    pilot = None
    if likelihood == "full":
        objective = Full(z, news, shape, target)
    elif z.shape[1] > ALL_MAX and len(pairs) > 2 * z.shape[1]:
        neighbours = _usable(news, choose_pairs(z.shape[1], "contiguous"), required=False)
        if len(neighbours):
            pilot = Composite(z, news, neighbours, shape, target)
    delta = None
    if shape == "adcc":
        delta = _delta(target_of(news, "adcc", 0.0, 0.0) if target is None else target, news)
    return objective, maximise(objective, objective.n_bars, delta, pilot)


def _panel(z: npt.ArrayLike) -> F64:
    panel = np.array(z, dtype=np.float64, order="C")
    if panel.ndim != 2 or panel.shape[1] < 2:
        message = f"a panel of at least two symbols is needed, (t, n), not {panel.shape}"
        raise ValueError(message)
    if np.isinf(panel).any():
        message = "a return is infinite"
        raise ValueError(message)
    return panel


def _require_scale(panel: F64) -> None:
    # the median of |z| is .67 for normal z, whatever a few bad ticks are
    sizes = np.abs(panel[~np.isnan(panel)])
    sizes = sizes[sizes > 0.0]
    if len(sizes) and not SCALE_MIN < float(np.median(sizes)) < SCALE_MAX:
        message = (
            f"z is not standardised: the median of |z| is {np.median(sizes):.3g}; divide by"
            " volatilities, or pass standardised=False"
        )
        raise ValueError(message)


def _standardise(returns: F64) -> tuple[F64, Any]:
    from stream_calib.estimation.calibration.garch import fit_garch  # noqa: PLC0415

    garch = fit_garch(returns)
    z: F64 = np.ascontiguousarray(garch.residuals / np.sqrt(garch.variance[:-1]))
    z[~np.isfinite(z)] = np.nan  # a symbol without a fit takes no part
    return z, garch


def _usable(news: F64, pairs: I64, *, required: bool = True) -> I64:
    moments = np.empty((len(pairs), 7))
    pair_moments(np.ascontiguousarray(news.T), pairs, 0.0, 0.0, False, moments)  # noqa: FBT003
    moving = (moments[:, 0] > 0.0) & (moments[:, 2] > 0.0)
    enough = moments[:, 6] >= MIN_BARS
    usable = pairs[moving & enough]
    if required and not len(usable):
        reason = "moves in both" if enough.any() else f"{MIN_BARS} bars that both observe"
        message = f"none of the {len(pairs)} pairs has {reason}"
        raise ValueError(message)
    return usable


def _checked(target: npt.ArrayLike, panel: F64, model: str) -> F64:
    matrix = np.array(target, dtype=np.float64, order="C")
    n = panel.shape[1]
    if matrix.shape != (n, n) or not np.isfinite(matrix).all():
        message = f"the target must be ({n}, {n}) and finite, not {matrix.shape}"
        raise ValueError(message)
    diagonal = np.diag(matrix)
    if not np.allclose(matrix, matrix.T, rtol=0.0, atol=1e-10) or (diagonal <= 0.0).any():
        message = "the target must be symmetric with a positive diagonal"
        raise ValueError(message)
    if model == "cdcc" and not np.allclose(diagonal, 1.0, rtol=0.0, atol=1e-8):
        message = "cdcc's target must have a diagonal of ones: it is identified up to scale only"
        raise ValueError(message)
    return matrix


def _news_at(news: F64, model: DccModel, theta: F64) -> F64:
    by_symbol = np.ascontiguousarray(news.T)
    if model == "cdcc":
        star = np.empty_like(by_symbol)
        star_returns(by_symbol, theta[0], theta[1], star)
        by_symbol = star
    return np.ascontiguousarray(by_symbol.T)


def _target(news: F64, model: DccModel, a: float, b: float) -> tuple[F64, float]:
    target = target_of(news, model, a, b)
    with one_blas_thread():
        try:
            root = np.linalg.cholesky(target)
        except np.linalg.LinAlgError:
            root = np.zeros((1, 1))
    if np.diag(root).min() ** 2 > PIVOT_MIN:
        return target, 0.0
    repaired = repair_correlation(target, FLOOR)
    return repaired.corr, repaired.repair


def _delta(target: F64, news: F64) -> float:
    # largest eigenvalue of C^-1/2 M C^-1/2: what one unit of g takes from the persistence left
    with one_blas_thread():
        values, vectors = np.linalg.eigh(target)
        root = vectors / np.sqrt(np.maximum(values, FLOOR))
        return float(np.linalg.eigvalsh(root.T @ asymmetry_of(news) @ root)[-1])
