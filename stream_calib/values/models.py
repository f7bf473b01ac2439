"""Calibrated models and what they are made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stream_calib.values.units import F64


@dataclass(frozen=True, eq=False)
class GarchParams:
    """GARCH(1,1) of n assets: h' = omega + (alpha + gamma 1{e<0}) e^2 + beta h, e = r - mu.

    All (n,); ``gamma`` is 0 without leverage, ``nu`` NaN for normal errors. An asset without a
    fit has NaN throughout.
    """

    mu: F64
    omega: F64
    alpha: F64
    beta: F64
    gamma: F64
    nu: F64


@dataclass(frozen=True, eq=False)
class DccParams:
    """DCC(1,1) of n assets: news ``a``, memory ``b``, target (n, n) with a unit diagonal.

    ``model``: ``dcc`` (Engle 2002), ``cdcc`` (Aielli 2013), ``adcc`` (Cappiello, Engle and
    Sheppard 2006), which alone has ``g`` and ``asymmetry`` (n, n), the mean of n n' with
    n = min(z, 0).
    """

    a: float
    b: float
    target: F64
    model: Literal["dcc", "cdcc", "adcc"] = "cdcc"
    g: float = 0.0
    asymmetry: F64 | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """A calibrated model, to the last bit: named float64 arrays and what made them."""

    model: str
    arrays: Mapping[str, F64]


@dataclass(frozen=True, slots=True)
class FitRequest:
    """What a full fit is made from.

    ``number`` counts the requests of a universe; ``reason``: ``first``, ``schedule``,
    ``universe`` or ``manual``; ``settings`` are JSON values, ``arrays`` the window.
    """

    model: str
    number: int
    reason: str
    as_of_ns: int
    settings: Mapping[str, object]
    arrays: Mapping[str, F64]


@dataclass(frozen=True, slots=True)
class FitFailure:
    """A request that no fit came of: ``code`` is one of few words, ``reason`` a sentence."""

    model: str
    number: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """A model that came into force: ``details`` are JSON values for people and programs."""

    universe: str
    model_version: int
    time_ns: int
    model: str
    details: Mapping[str, object]


@dataclass(frozen=True, eq=False)
class PublishedFit:
    """A fit that came into force, as a reader of the topics finds it.

    ``symbols`` are the n of the fit, in its order; ``params`` and ``garch`` are as fitted, NaN
    for symbols that were left out; ``long_run`` (n, n) is the correlation that forecasts return
    to: the target with a unit diagonal, and for those left out its average.
    """

    universe: str
    model_version: int
    time_ns: int
    symbols: tuple[str, ...]
    params: DccParams
    garch: GarchParams
    long_run: F64
