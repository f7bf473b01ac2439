"""Matrices as the live view gets them: half the bytes of the packed form, and no numbers to parse.

Little-endian, for n symbols and m = n (n - 1) / 2 pairs in the order of ``wire/matrices``::

    0          "SCV1"
    4          u32   length h of the head, a multiple of 4
    8          h     head: JSON, padded with spaces, what ``wire/matrices`` has beside triangles
    8 + h      4 m   corr: float32
    8 + h + 4m 2 m   band: u16 in units of 1 / 65534, 65535 where there is none
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from stream_calib.errors import InputError
from stream_calib.values import F64, Matrix, Regime
from stream_calib.wire.matrices import matrix_head

MAGIC = b"SCV1"
BAND_UNITS = 65534.0
NO_BAND = 65535
DIFFERENCE = "difference"

F32 = npt.NDArray[np.float32]


class LiveFrame(NamedTuple):
    """A matrix as the live view gets it; ``data_at`` is where its triangles begin in ``value``."""

    sequence: int
    as_of_ns: int
    symbols: tuple[str, ...]
    data_at: int
    value: bytes

    def pair(self, i: int, j: int) -> tuple[float, float | None]:
        """Return the correlation of two symbols by their places, and its standard error."""
        n = len(self.symbols)
        i, j = min(i, j), max(i, j)
        place = i * n - i * (i + 1) // 2 + j - i - 1
        band_at = self.data_at + 2 * n * (n - 1) + 2 * place
        (corr,) = struct.unpack_from("<f", self.value, self.data_at + 4 * place)
        (band,) = struct.unpack_from("<H", self.value, band_at)
        return corr, None if band == NO_BAND else band / BAND_UNITS


class Moved(NamedTuple):
    """A pair and its correlation in two frames."""

    pair: tuple[str, str]
    then: float
    now: float


def moved_most(before: LiveFrame, after: LiveFrame, n: int) -> list[Moved]:
    """Return the ``n`` pairs of both frames that differ most, the largest difference first."""
    known = frozenset(before.symbols)
    symbols = [symbol for symbol in after.symbols if symbol in known]
    if len(symbols) < 2:
        return []
    own = _square(after)[_places(after, symbols)]
    other = _square(before)[_places(before, symbols)]
    rows, columns = _upper(len(symbols))
    now, then = own[rows, columns], other[rows, columns]
    order = np.argsort(-np.abs(now - then), kind="stable")[:n]
    return [
        Moved((symbols[rows[k]], symbols[columns[k]]), float(then[k]), float(now[k])) for k in order
    ]


def _square(frame: LiveFrame) -> F32:
    n = len(frame.symbols)
    corr = np.zeros((n, n), np.float32)
    rows, columns = _upper(n)
    corr[rows, columns] = np.frombuffer(frame.value, "<f4", len(rows), frame.data_at)
    corr[columns, rows] = corr[rows, columns]
    return corr


def _places(frame: LiveFrame, symbols: Sequence[str]) -> tuple[npt.NDArray[np.intp], ...]:
    place = {symbol: i for i, symbol in enumerate(frame.symbols)}
    at = np.array([place[symbol] for symbol in symbols])
    return np.ix_(at, at)


def encode_live(matrix: Matrix) -> LiveFrame:
    """Turn a matrix into the bytes that the live view reads."""
    upper = _upper(len(matrix.symbols))
    head = orjson.dumps(matrix_head(matrix), option=orjson.OPT_SERIALIZE_NUMPY)
    head += b" " * (-len(head) % 4)
    corr, band = matrix.corr[upper].astype("<f4"), matrix.band[upper]
    units = np.where(np.isnan(band), NO_BAND, np.rint(np.clip(band, 0.0, 1.0) * BAND_UNITS))
    start = MAGIC + struct.pack("<I", len(head)) + head
    value = b"".join((start, corr.tobytes(), units.astype("<u2").tobytes()))
    return LiveFrame(matrix.sequence, matrix.as_of_ns, matrix.symbols, len(start), value)


def decode_live(value: bytes) -> tuple[Mapping[str, Any], F32, F64]:
    """Return the head of a frame, its corr (m,) and its band (m,), NaN where there is none.

    Raises
    ------
    InputError
        The bytes are not a frame.
    """
    try:
        if value[:4] != MAGIC:
            message = "no SCV1 at the start"
            raise ValueError(message)
        (size,) = struct.unpack_from("<I", value, 4)
        head = orjson.loads(value[8 : 8 + size])
        n = len(head["symbols"])
        m = n * (n - 1) // 2
        if len(value) != 8 + size + 6 * m:
            message = f"{len(value)} bytes do not hold {n} symbols"
            raise ValueError(message)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        message = f"not a frame of the live view ({type(error).__name__}: {error})"
        raise InputError(message) from None
    corr = np.frombuffer(value, "<f4", m, 8 + size)
    units = np.frombuffer(value, "<u2", m, 8 + size + 4 * m)
    return head, corr, np.where(units == NO_BAND, np.nan, units / BAND_UNITS)


def difference(later: Matrix, plain: Matrix) -> Matrix | None:
    """Return ``later`` minus ``plain``, of one time, over the symbols of both; None below two.

    The band is the root of both squares: the error of the difference if the errors of both were
    independent. They come from the same returns and go the same way, so that it is an upper
    bound, and a wide one: three times the scatter where nothing changes (``test_live_view``).
    Summaries are differences too; what else is in the head is that of ``later``. Where horizons
    differ, which moves correlations by itself, ``quality.degraded`` says so.
    """
    known = frozenset(plain.symbols)
    symbols = tuple(symbol for symbol in later.symbols if symbol in known)
    if len(symbols) < 2:
        return None
    own = np.array([later.symbols.index(symbol) for symbol in symbols])
    other = np.array([plain.symbols.index(symbol) for symbol in symbols])
    regime = Regime(
        later.regime.average_correlation - plain.regime.average_correlation,
        later.regime.top_eigenvalue_share - plain.regime.top_eigenvalue_share,
    )
    quality = later.quality
    if later.horizon_ns != plain.horizon_ns:
        horizons = f"horizons of {later.horizon_ns / 1e9:g} s and {plain.horizon_ns / 1e9:g} s"
        quality = replace(quality, degraded=(*quality.degraded, horizons))
    return replace(
        later,
        estimator=DIFFERENCE,
        quality=quality,
        symbols=symbols,
        corr=later.corr[np.ix_(own, own)] - plain.corr[np.ix_(other, other)],
        vol=later.vol[own],
        staleness_ns=np.maximum(later.staleness_ns[own], plain.staleness_ns[other]),
        n_eff=np.full((len(symbols), len(symbols)), np.nan),
        band=np.hypot(later.band[np.ix_(own, own)], plain.band[np.ix_(other, other)]),
        band_total=None,
        audit=None,
        regime=regime,
    )


@lru_cache(maxsize=4)
def _upper(n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    # finding them takes longer than everything else here
    rows, columns = np.triu_indices(n, 1)
    return rows, columns
