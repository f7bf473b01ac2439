"""GARCH(1,1) by maximum likelihood: one series, many, or many with common dynamics."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.calibrated import PERSISTENCE_MAX
from stream_calib.estimation.calibration.ascent import Rules, Summit, climb
from stream_calib.kernels.garch import filter_variances
from stream_calib.kernels.garch_likelihood import N_PARAMS, differentiate, loglik
from stream_calib.values import F64, GarchParams

Figure: TypeAlias = float | F64  # float for one series, (n,) for n
MU, OMEGA, ALPHA, BETA, GAMMA, NU = range(N_PARAMS)

OBSERVATIONS_MIN = 100
ZEROS_MAX = 0.5  # a price that mostly stands still is a peg, not a GARCH process
SIZE_MIN = 1e-140
OMEGA_MIN, ALPHA_MIN = 1e-8, 1e-6  # omega in units of the variance
NU_MIN, NU_MAX = 2.05, 500.0
NU_START = 8.0
# alpha and persistence: the likelihood may have several peaks, one of long memory and one of
# short; each climb starts near the best of its own
LONG_STARTS = ((0.05, 0.95), (0.05, 0.98), (0.02, 0.99), (0.1, 0.98), (0.3, 0.95), (0.01, 0.95))
SHORT_STARTS = (
    (0.1, 0.9),
    (0.2, 0.9),
    (0.05, 0.7),
    (0.2, 0.7),
    (0.1, 0.5),
    (0.3, 0.6),
    (0.15, 0.3),
)
GAMMA_START = 0.02


class StandardErrors(NamedTuple):
    """Standard errors by parameter; NaN where a parameter is not estimated or at its bound."""

    mu: Figure
    omega: Figure
    alpha: Figure
    beta: Figure
    gamma: Figure
    nu: Figure


@dataclass(frozen=True, eq=False)
class GarchFit:
    """What ``fit_garch`` found; of one series floats and (t,), of n series (n,) and (t, n).

    ``se`` has the standard errors by the inverse Hessian (``hessian``), by the outer product of
    the scores (``opg``) and by both, which holds under other laws of the errors (``qml``).
    ``variance`` has one row more than the returns, the forecast; ``residuals`` are r - mu.
    ``params`` are arrays in either case. A series without a fit has ``converged`` False and NaN
    everywhere else.
    """

    mu: Figure
    omega: Figure
    alpha: Figure
    beta: Figure
    gamma: Figure
    nu: Figure
    loglik: Figure
    converged: bool | npt.NDArray[np.bool_]
    variance: F64
    residuals: F64
    se: dict[str, StandardErrors]
    params: GarchParams


class _Model(NamedTuple):
    mean: str
    gjr: bool
    student: bool
    targeting: bool

    def rules(self) -> Rules:
        """Bounds of (mu, omega, alpha, beta, gamma, 1 / nu) for series of unit variance."""
        unit = np.eye(N_PARAMS)
        sum_rule = unit[ALPHA] + unit[BETA] + 0.5 * unit[GAMMA]
        fixed = [(unit[MU], 0.0)] if self.mean == "zero" or self.targeting else []
        fixed += [] if self.gjr else [(unit[GAMMA], 0.0)]
        fixed += [] if self.student else [(unit[NU], 1.0 / NU_START)]
        fixed += [(unit[OMEGA] + sum_rule, 1.0)] if self.targeting else []
        free = [
            (-unit[OMEGA], -OMEGA_MIN),
            (-unit[ALPHA], -ALPHA_MIN),
            (-unit[BETA], 0.0),
            (-unit[ALPHA] - unit[GAMMA], 0.0),
            (sum_rule, PERSISTENCE_MAX),
            (-unit[NU], -1.0 / NU_MAX),
            (unit[NU], 1.0 / NU_MIN),
        ]
        matrix, limits = zip(*fixed, *free, strict=True)
        return Rules(np.array(matrix), np.array(limits), len(fixed))

    def starts(self, pairs: tuple[tuple[float, float], ...]) -> list[F64]:
        """Return points of unit variance with these values of alpha and persistence."""
        gamma = GAMMA_START if self.gjr else 0.0
        return [
            np.array([0.0, 1.0 - sum_, alpha, sum_ - alpha - 0.5 * gamma, gamma, 1.0 / NU_START])
            for alpha, sum_ in pairs
        ]


class _Likelihood:
    """The log-likelihood of m series of unit variance, by 1 / nu, in which steps are even."""

    def __init__(self, panel: F64, start: F64, *, student: bool) -> None:
        self.panel, self.start, self.student = panel, start, student
        self._scores = np.empty((panel.shape[1], N_PARAMS))

    def value(self, point: F64) -> float:
        return float(loglik(self.panel, _turned(point), self.student, self.start))

    def natural(self, theta: F64) -> tuple[float, F64, F64, F64]:
        gradient = np.empty(N_PARAMS)
        hessian, opg = np.empty((N_PARAMS, N_PARAMS)), np.empty((N_PARAMS, N_PARAMS))
        value = differentiate(
            self.panel, theta, self.student, self.start, self._scores, gradient, hessian, opg
        )
        return value, gradient, hessian, opg

    def derivatives(self, point: F64) -> tuple[float, F64, F64, F64]:
        theta = _turned(point)
        value, gradient, hessian, opg = self.natural(theta)
        nu = theta[NU]
        by = np.ones(N_PARAMS)
        by[NU] = -nu * nu
        hessian = hessian * by * by[:, None]
        hessian[NU, NU] += 2.0 * nu**3 * gradient[NU]
        return value, gradient * by, hessian, opg * by * by[:, None]


class _Series(NamedTuple):
    """One series as shift + scale x, x of unit variance about zero; its start in units of x."""

    x: F64
    shift: float
    scale: float
    start: float


class _Found(NamedTuple):
    """Parameters (6,) and standard errors (3, 6) of a series as it came."""

    theta: F64
    errors: F64
    loglik: float


def fit_garch(
    returns: npt.ArrayLike,
    h0: float | npt.ArrayLike | Literal["mean_square"] = "mean_square",
    mean: Literal["constant", "zero"] = "constant",
    model: Literal["garch", "gjr"] = "garch",
    errors: Literal["normal", "t"] = "normal",
    *,
    targeting: bool = False,
    pooled: bool = False,
) -> GarchFit:
    """Fit GARCH(1,1) by quasi maximum likelihood with analytic derivatives.

        r_t = mu + e_t;   h_{t+1} = omega + (alpha + gamma 1{e_t < 0}) e_t^2 + beta h_t

    under omega > 0, alpha >= 1e-6, beta >= 0, alpha + gamma >= 0 and
    alpha + beta + gamma / 2 <= 0.9999. Each series is standardised first: in another unit it
    has the same fit in that unit. It is fitted by itself: what else is in the table does not
    show.

    Parameters
    ----------
    returns : (t,) or (t, n)
        In any unit, NaN where not observed: the variance moves to its forecast there.
    h0
        Variance and squared shock before the first bar: ``"mean_square"``, the mean of e^2 over
        the whole sample, which depends on mu; or a variance, for all or (n,).
    mean
        ``"zero"`` holds mu at 0.
    model
        ``"gjr"`` has gamma, the leverage.
    errors
        ``"t"`` has Student-t errors with nu degrees of freedom, 2.05 to 500.
    targeting
        Hold omega at (1 - alpha - beta - gamma / 2) times the sample variance, and mu at the
        sample mean. Standard errors do not count how these are known.
    pooled
        One alpha, beta, gamma and nu for all series, from the sum of their likelihoods with
        targeting: for 250 to 1000 bars, of which a fit by itself is noise. Standard errors
        count that series move together.

    Returns
    -------
    GarchFit
        Series without a fit are not converged: fewer than 100 observations, no variance, more
        than half the returns zero, or a climb that ended nowhere.

    Raises
    ------
    ValueError
        If returns are infinite or of another shape, h0 is not positive, or a word is unknown.

    References
    ----------
    Bollerslev (1986); Glosten, Jagannathan and Runkle (1993); Fiorentini, Calzolari and
    Panattoni (1996) for derivatives and the start; Pakel, Shephard, Sheppard and Engle (2021)
    for pooling.

    Examples
    --------
    >>> import numpy as np
    >>> fit = fit_garch(np.random.default_rng(1).standard_normal((500, 2)))
    >>> fit.converged, fit.variance.shape
    (array([ True,  True]), (501, 2))
    """
    table = np.asarray(returns, dtype=np.float64)
    for word, words in ((mean, ("constant", "zero")), (model, ("garch", "gjr"))):
        _require(word, words)
    _require(errors, ("normal", "t"))
    if table.ndim not in {1, 2} or np.isinf(table).any():
        message = f"returns are (t,) or (t, n) and finite or NaN, not {table.shape}"
        raise ValueError(message)
    columns = np.ascontiguousarray((table if table.ndim == 2 else table[:, None]).T)
    start = _start(h0, len(columns))
    kind = _Model(mean, model == "gjr", errors == "t", targeting or pooled)
    series = [_standardised(r, h, kind.mean) for r, h in zip(columns, start, strict=True)]
    found: list[_Found | None]
    found = _fit_pooled(series, kind) if pooled else [_fit_one(s, kind) for s in series]
    return _assembled(table, columns, start, found, kind)


def _fit_one(series: _Series | None, kind: _Model) -> _Found | None:
    if series is None:
        return None
    theta, errors = _fit([series], kind)
    return None if theta is None else _in_units(series, theta, errors, kind)


def _fit_pooled(series: list[_Series | None], kind: _Model) -> list[_Found | None]:
    # in an order that the series themselves decide, so that theirs cannot show
    usable = sorted((s for s in series if s is not None), key=lambda s: (s.x.tobytes(), s.start))
    if not usable:
        return [None] * len(series)
    theta, errors = _fit(usable, kind)
    if theta is None:
        return [None] * len(series)
    return [None if s is None else _in_units(s, theta, errors, kind) for s in series]


def _fit(series: list[_Series], kind: _Model) -> tuple[F64 | None, F64]:
    """Fit one set of parameters, in units of x: parameters and standard errors (3, 6)."""
    panel, start = np.array([s.x for s in series]), np.array([s.start for s in series])
    likelihood, rules = _Likelihood(panel, start, student=kind.student), kind.rules()
    summit: Summit | None = None
    for pairs in (LONG_STARTS, SHORT_STARTS):
        start_at = max(kind.starts(pairs), key=likelihood.value)
        known = summit is not None and summit.converged
        other = climb(likelihood, start_at, rules, summit.value if summit and known else -np.inf)
        if not (summit and known) or (other.converged and other.value > summit.value):
            summit = other
    assert summit is not None
    theta = _turned(summit.point)
    for k, rule in enumerate(rules.matrix[: rules.n_fixed]):  # exactly, whatever was rounded
        if np.count_nonzero(rule) == 1 and not rule[NU]:
            theta[rule != 0.0] = rules.limits[k]
    if not summit.converged:
        return None, np.full((3, N_PARAMS), np.nan)
    _, _, hessian, opg = likelihood.natural(theta)
    held = rules.matrix[summit.held]
    inverse, from_opg = _bordered_inverse(-hessian, held), _bordered_inverse(opg, held)
    both = inverse @ opg @ inverse
    variances = np.array([np.diagonal(m) for m in (inverse, from_opg, both)])
    # what a held rule decides alone has no variance but rounding
    variances[:, (np.count_nonzero(held, axis=1) == 1) @ (held != 0.0)] = np.nan
    return theta, np.sqrt(np.where(variances > 0.0, variances, np.nan))


def _bordered_inverse(information: F64, held: F64) -> F64:
    """Invert an information matrix where the held rules leave freedom."""
    m = len(held)
    bordered = np.block([[information, held.T], [held, np.zeros((m, m))]])
    try:
        return np.linalg.inv(bordered)[:N_PARAMS, :N_PARAMS]
    except np.linalg.LinAlgError:  # parameters that the series cannot tell apart
        return np.full((N_PARAMS, N_PARAMS), np.nan)


def _standardised(r: F64, h0: float, mean: str) -> _Series | None:
    seen = r[~np.isnan(r)]
    largest = float(np.abs(seen).max()) if seen.size else 0.0
    if seen.size < OBSERVATIONS_MIN or np.mean(seen == 0.0) > ZEROS_MAX:
        return None
    if not SIZE_MIN < largest < 1.0 / SIZE_MIN:  # squares would not be numbers
        return None
    unit = math.ldexp(1.0, math.frexp(largest)[1] - 1)
    shift = float(np.mean(seen / unit)) if mean == "constant" else 0.0
    scale = math.sqrt(float(np.mean((seen / unit - shift) ** 2)))
    if not scale > 1e-12 * abs(shift):  # a constant, and what rounding left
        return None
    x = (r / unit - shift) / scale
    return _Series(x, shift * unit, scale * unit, h0 / unit / unit / scale**2)


def _in_units(series: _Series, theta: F64, errors: F64, kind: _Model) -> _Found:
    scale = np.ones(N_PARAMS)
    scale[MU], scale[OMEGA] = series.scale, series.scale**2
    own = theta * scale
    own[MU] += series.shift
    if not kind.student:
        own[NU] = np.nan
    value = loglik(series.x[None], theta, kind.student, np.array([series.start]))
    n_seen = np.count_nonzero(~np.isnan(series.x))
    return _Found(own, errors * scale, float(value - n_seen * math.log(series.scale)))


def _assembled(
    table: F64, columns: F64, start: F64, found: list[_Found | None], kind: _Model
) -> GarchFit:
    nothing = _Found(np.full(N_PARAMS, np.nan), np.full((3, N_PARAMS), np.nan), math.nan)
    full = [nothing if f is None else f for f in found]
    theta = np.array([f.theta for f in full]).reshape(-1, N_PARAMS).T.copy()
    spread = np.array([f.errors for f in full]).reshape(-1, 3, N_PARAMS).transpose(1, 2, 0)
    residuals = np.ascontiguousarray(columns.T - theta[MU])
    first = [
        h or (float(np.mean(e[~np.isnan(e)] ** 2)) if f else math.nan)
        for h, e, f in zip(start.tolist(), residuals.T, found, strict=True)
    ]
    variance = np.empty((len(table) + 1, len(columns)))
    filter_variances(residuals, theta[OMEGA:NU].copy(), np.array(first, np.float64), variance)
    converged = np.array([f is not None for f in found], dtype=np.bool_)
    one = table.ndim == 1

    def figure(values: F64) -> Figure:
        return float(values[0]) if one else np.ascontiguousarray(values)

    mu, omega, alpha, beta, gamma, nu = (figure(row) for row in theta)
    return GarchFit(
        mu=mu,
        omega=omega,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        nu=nu,
        loglik=figure(np.array([f.loglik for f in full])),
        converged=bool(converged[0]) if one else converged,
        variance=variance[:, 0].copy() if one else variance,
        residuals=residuals[:, 0].copy() if one else residuals,
        se={
            name: StandardErrors(*(figure(row) for row in rows))
            for name, rows in zip(("hessian", "opg", "qml"), spread, strict=True)
        },
        params=GarchParams(*(row.copy() for row in theta)),
    )


def _start(h0: object, n: int) -> F64:
    """Variance before the first bar of each series; 0 stands for the mean square."""
    if isinstance(h0, str):
        _require(h0, ("mean_square",))
        return np.zeros(n)
    start = np.array(np.broadcast_to(np.asarray(h0, dtype=np.float64), n))
    if not (np.isfinite(start).all() and (start > 0.0).all()):
        message = "h0 is a positive variance for each series, or 'mean_square'"
        raise ValueError(message)
    return start


def _turned(point: F64) -> F64:
    """Turn nu into 1 / nu, or back."""
    theta = point.copy()
    theta[NU] = 1.0 / point[NU]
    return theta


def _require(word: str, words: tuple[str, ...]) -> None:
    if word not in words:
        message = f"{word!r} is none of {', '.join(words)}"
        raise ValueError(message)
