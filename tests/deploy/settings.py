"""Which variables of the environment somebody reads."""

from collections.abc import Mapping

from stream_calib.config import parse_config
from stream_calib.errors import ConfigError

# of Python, of numba, of the path to programs
OTHERS = {
    "NUMBA_CACHE_DIR",
    "NUMBA_CPU_FEATURES",
    "NUMBA_CPU_NAME",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
}
PREFIX = "STREAM_CALIB__"


def unknown_variables(named: Mapping[str, str]) -> list[str]:
    """Return the variables that nobody reads, or whose value the service refuses."""
    unknown = []
    for name, value in named.items():
        if name in OTHERS:
            continue
        dotted = name.removeprefix(PREFIX).lower().replace("__", ".")
        tree = {"universe": [{"name": "u", "symbols": ["A", "B"]}]}
        try:
            parse_config(tree, {"http.token": "t" * 16, dotted: value})
        except ConfigError:
            unknown.append(name)
    return unknown
