"""Streaming correlation: ticks in, correlation matrices out, with how far they can be trusted.

Public names are loaded when first used, so that ``import stream_calib as sc`` is instant and
numba compiles only for what needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_calib.client import Problem, read_matrices, subscribe, subscribe_sync
    from stream_calib.client.fits import read_fit
    from stream_calib.config import Config, load_config
    from stream_calib.errors import StreamCalibError
    from stream_calib.estimation.calibration.dcc import fit_dcc
    from stream_calib.estimation.calibration.garch import fit_garch
    from stream_calib.estimation.dcc import Dcc
    from stream_calib.estimation.dcc_likelihood import dcc_filter, dcc_loglik
    from stream_calib.estimation.drift import DriftDetector
    from stream_calib.estimation.ewma import Ewma
    from stream_calib.estimation.hayashi_yoshida import hayashi_yoshida
    from stream_calib.estimation.shrinkage import shrink_target
    from stream_calib.estimation.tracking import Tracking
    from stream_calib.estimation.two_scale import TwoScale
    from stream_calib.estimation.winsor import Winsor
    from stream_calib.service.replay import replay
    from stream_calib.simulation import simulate
    from stream_calib.values import Matrix

_PUBLIC = {
    "Config": "stream_calib.config",
    "Dcc": "stream_calib.estimation.dcc",
    "DriftDetector": "stream_calib.estimation.drift",
    "Ewma": "stream_calib.estimation.ewma",
    "Matrix": "stream_calib.values",
    "Problem": "stream_calib.client",
    "StreamCalibError": "stream_calib.errors",
    "Tracking": "stream_calib.estimation.tracking",
    "TwoScale": "stream_calib.estimation.two_scale",
    "Winsor": "stream_calib.estimation.winsor",
    "fit_garch": "stream_calib.estimation.calibration.garch",
    "dcc_filter": "stream_calib.estimation.dcc_likelihood",
    "dcc_loglik": "stream_calib.estimation.dcc_likelihood",
    "fit_dcc": "stream_calib.estimation.calibration.dcc",
    "hayashi_yoshida": "stream_calib.estimation.hayashi_yoshida",
    "load_config": "stream_calib.config",
    "read_fit": "stream_calib.client.fits",
    "read_matrices": "stream_calib.client",
    "replay": "stream_calib.service.replay",
    "shrink_target": "stream_calib.estimation.shrinkage",
    "simulate": "stream_calib.simulation",
    "subscribe": "stream_calib.client",
    "subscribe_sync": "stream_calib.client",
}
__all__ = [
    "Config",
    "Dcc",
    "DriftDetector",
    "Ewma",
    "Matrix",
    "Problem",
    "StreamCalibError",
    "Tracking",
    "TwoScale",
    "Winsor",
    "dcc_filter",
    "dcc_loglik",
    "fit_dcc",
    "fit_garch",
    "hayashi_yoshida",
    "load_config",
    "read_fit",
    "read_matrices",
    "replay",
    "shrink_target",
    "simulate",
    "subscribe",
    "subscribe_sync",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("stream-calib")
    if name not in _PUBLIC:
        message = f"module 'stream_calib' has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
