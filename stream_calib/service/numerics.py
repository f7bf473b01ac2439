"""What the last bits of a result depend on besides the program."""

import hashlib
import zoneinfo
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from threadpoolctl import threadpool_info

from stream_calib.kernels._jit import processor

STATE_VERSION = 5  # of the arrays that make up the state
LIBRARIES = ("numba", "llvmlite", "numpy", "scipy")


class Build(NamedTuple):
    """What computes: this program's version and its numeric fingerprint."""

    software_version: str
    numerics: Mapping[str, str]


def numeric_fingerprint() -> dict[str, str]:
    """Return the versions of what computes: bit-identity is claimed for one such set."""
    blas = {
        f"{info.get('internal_api')} {info.get('version')} {info.get('architecture')}"
        for info in threadpool_info()
        if info.get("user_api") == "blas"
    }
    return {
        "state": str(STATE_VERSION),
        **{name: version(name) for name in LIBRARIES},
        "blas": ", ".join(sorted(blas)),
        "processor": hashlib.blake2b(processor().encode(), digest_size=8).hexdigest(),
        "tzdata": _tzdata(),
    }


def _tzdata() -> str:
    for folder in zoneinfo.TZPATH:
        for name in ("tzdata.zi", "+VERSION"):
            path = Path(folder) / name
            if path.is_file():
                with path.open(encoding="utf-8", errors="replace") as file:
                    return file.readline().strip("# \n").removeprefix("version ")
    try:
        return version("tzdata")
    except ImportError:
        return ""
