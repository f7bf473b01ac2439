"""Fits that nobody calibrated: whole, different for every number, and the same for every order."""

from collections.abc import Sequence
from random import Random

import numpy as np

from stream_calib.estimation.dcc import MODELS
from stream_calib.values import Fit, FitFailure, FitRequest

UNUSABLE_EVERY = 7  # such a number is not stationary, and has to be refused


def made_up(number: int, symbols: Sequence[str]) -> Fit:
    """A fit that answers a request; what it says of a symbol does not depend on its place."""
    random = Random(f"{number} dcc")
    kind = number % len(MODELS)
    a, b = random.uniform(0.01, 0.1), random.uniform(0.5, 0.8)
    if number % UNUSABLE_EVERY == 0:
        b = 1.0
    load = np.array([Random(f"{number} {s}").uniform(-0.9, 0.9) for s in symbols])
    target = np.outer(load, load)
    np.fill_diagonal(target, 1.0)
    upper = np.triu_indices(len(symbols))
    return Fit(
        "dcc",
        {
            "request": np.array([float(number)]),
            "kind": np.array([float(kind)]),
            "dcc": np.array([a, b, 0.02 if MODELS[kind] == "adcc" else 0.0]),
            "dcc_se": np.full(3, 0.01),
            "garch": np.array([_garch(number, symbol) for symbol in symbols]).T.copy(),
            "garch_se": np.full((6, len(symbols)), np.nan),
            "target": target[upper],
            "asymmetry": 0.5 * target[upper] if MODELS[kind] == "adcc" else np.empty(0),
            "counts": np.full(len(symbols), 20.0 * number),
            "bars": np.array([20.0]),
            "loglik": np.array([-1.0, -2.0]),
            "target_average": np.array([0.1]),
            "diagnostics.mean": np.array([0.5]),
        },
    )


def answer(request: FitRequest, symbols: Sequence[str], random: Random) -> Fit | FitFailure:
    """What may come of a request: mostly a fit, sometimes none."""
    if random.random() < 0.2:
        return FitFailure(request.model, request.number, "crashed", "no fit came of it")
    return made_up(request.number, symbols)


def name_of(fit: Fit) -> str:
    """What a journal calls it here."""
    return f"fit {int(fit.arrays['request'][0])}"


def named(name: str, symbols: Sequence[str]) -> Fit:
    """The fit that ``name_of`` named."""
    return made_up(int(name.removeprefix("fit ")), symbols)


def _garch(number: int, symbol: str) -> list[float]:
    random = Random(f"{number} {symbol} garch")
    if random.random() < 0.3:
        return [np.nan] * 6
    alpha, beta = random.uniform(0.02, 0.1), random.uniform(0.7, 0.85)
    return [0.0, 1e-4 * (1.0 - alpha - beta), alpha, beta, 0.0, np.nan]
