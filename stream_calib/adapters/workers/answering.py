"""From a request to its answer, by a function that is known by its name."""

import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

import numpy as np

from stream_calib.values import Fit, FitFailure, FitRequest

CALIBRATE = "stream_calib.estimation.calibration.model:calibrate"
_WORDS_MAX = 200

Calibrate = Callable[[FitRequest], Fit | FitFailure]


def load(path: str) -> Calibrate:
    """Return the function ``module:name``.

    What goes wrong is not raised: it is the answer to every request.
    """
    module, _, name = path.partition(":")
    try:
        return cast("Calibrate", getattr(import_module(module), name))
    except Exception as error:  # importing a module may raise anything
        traceback.print_exc()
        reason = f"The calibration {path} cannot be loaded: {described(error)}."
        return lambda request: FitFailure(request.model, request.number, "crashed", reason)


def answered(calibrate: Calibrate, request: FitRequest) -> Fit | FitFailure:
    """Return what ``calibrate`` makes of a request; what it raises becomes a failure.

    The traceback goes to the standard error, never into the reason.
    """
    try:
        answer: object = calibrate(request)
    except (Exception, SystemExit) as error:  # the next fit is asked for here
        traceback.print_exc()
        code = "memory" if isinstance(error, MemoryError) else "crashed"
        return _failure(request, code, f"The calibration raised {described(error)}.")
    if isinstance(answer, FitFailure):
        return answer
    if not isinstance(answer, Fit):
        kind = type(answer).__name__
        return _failure(request, "invalid", f"The calibration returned {kind}, which is no fit.")
    arrays: Mapping[str, object] = answer.arrays
    for name, array in arrays.items():
        what = getattr(array, "dtype", type(array).__name__)
        if what != np.float64:
            reason = f"Array {name!r} of the fit holds {what}, not float64."
            return _failure(request, "invalid", reason)
    return answer


def described(error: BaseException) -> str:
    """Return the kind and the first line of an error, of bounded length."""
    lines = str(error).strip().splitlines()
    words = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return words[:_WORDS_MAX].encode(errors="replace").decode().rstrip(" .")


def _failure(request: FitRequest, code: str, reason: str) -> FitFailure:
    return FitFailure(request.model, request.number, code, reason)
