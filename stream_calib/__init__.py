"""Streaming correlation: ticks in, correlation matrices out, with how far they can be trusted.

Public names are loaded when first used, so that ``import stream_calib as sc`` is instant and
numba compiles only for what needs it.
"""

from importlib import import_module, metadata

_PUBLIC = {
    "Config": "stream_calib.config",
    "Ewma": "stream_calib.estimation.ewma",
    "Matrix": "stream_calib.values",
    "StreamCalibError": "stream_calib.errors",
    "load_config": "stream_calib.config",
    "replay": "stream_calib.service.replay",
    "simulate": "stream_calib.simulation",
    "subscribe": "stream_calib.client",
}
__all__ = [*_PUBLIC]  # noqa: PLE0604  names are resolved by __getattr__


def __getattr__(name: str) -> object:
    if name == "__version__":
        return metadata.version("stream-calib")
    if name not in _PUBLIC:
        message = f"module 'stream_calib' has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
