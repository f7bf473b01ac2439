"""The one decorator of every kernel, and what it compiles for."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import binding

F = TypeVar("F", bound=Callable[..., Any])


def kernel(signature: str) -> Callable[[F], F]:
    """Compile a function at import for exactly ``signature``.

    Nothing compiles later, a strided or float32 array is a TypeError. ``fastmath`` and
    ``parallel`` stay off: NaN is data here, and replay must give the same bytes.
    """

    def compile_kernel(function: F) -> F:
        try:
            compiled = numba.njit(signature, cache=True, nogil=True)(function)
        except RuntimeError as error:  # nowhere to write the cache: a read-only image
            warnings.warn(f"kernels are compiled at every start: {error}", stacklevel=2)
            compiled = numba.njit(signature, nogil=True)(function)
        return cast("F", compiled)

    return compile_kernel


def processor() -> str:
    """Return the name and the features of the processor that kernels are compiled for."""
    features = binding.get_host_cpu_features()
    return f"{binding.get_host_cpu_name()} {features.flatten()}"
