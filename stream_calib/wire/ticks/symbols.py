"""Names of symbols to their indices; plain native ticks from the bytes of all records at once."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stream_calib.kernels.scanning import place_names, scan_ticks
from stream_calib.values import I64
from stream_calib.wire.ticks.fields import EARLIEST_NS, LATEST_NS, UNITS
from stream_calib.wire.ticks.formats import Columns


class SymbolTable(dict[str, int]):
    """Index of each symbol of a universe, for the scanner too.

    Parameters
    ----------
    symbols
        Index of each symbol.
    """

    def __init__(self, symbols: Mapping[str, int]) -> None:
        super().__init__(symbols)
        names = [symbol.encode("utf-8", "surrogatepass") for symbol in symbols]
        self._index = np.array([*symbols.values(), -1], dtype=np.int64)
        self._names = _bytes(names)
        self._ends = _ends(names)
        self._slots = np.full(1 << (2 * len(names) + 2).bit_length(), -1, dtype=np.int64)
        place_names(self._names, self._ends, self._slots)

    def scan(self, values: Sequence[bytes | None]) -> tuple[npt.NDArray[np.bool_], Columns]:
        """Tell which records are plain ticks, and what these carry.

        Returns
        -------
        plain : (m,)
            False for records that have to be read by other means.
        Columns
            Rows that are not plain mean nothing.
        """
        texts: Sequence[bytes] = [value or b"" for value in values] if None in values else values  # type: ignore[assignment]
        n = len(values)
        plain = np.empty(n, dtype=np.bool_)
        time, asset = np.empty((2, n), dtype=np.int64)
        price, bid, ask = np.empty((3, n))
        known = (self._names, self._ends, self._slots)
        out = Columns(time, asset, price, bid, ask, np.zeros(n, dtype=np.int64))
        if not scan_ticks(_bytes(texts), _ends(texts), *known, plain, *out[:5]):
            return plain, out
        time[~plain], asset[~plain] = EARLIEST_NS, -1
        time_ns, plausible = _nanoseconds(time)
        plain &= plausible
        return plain, out._replace(time_ns=time_ns, asset=self._index[asset])


class SymbolTables:
    """Index of each symbol under all its names, by topic.

    Parameters
    ----------
    symbols
        Of the universe, in order.
    aliases
        Symbols by the other names that they have.
    exchanges
        Exchange of the symbols of a topic, where messages do not name it or cannot know it: of
        such a topic ``BTCUSDT`` and ``BINANCE:BTCUSDT`` are that exchange's ``BTCUSDT``.
    venues
        Exchanges that formats name by themselves.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        aliases: Mapping[str, str],
        exchanges: Mapping[str, str],
        venues: frozenset[str],
    ) -> None:
        index = {symbol: i for i, symbol in enumerate(symbols)}
        names = {name: index[symbol] for name, symbol in aliases.items() if symbol in index}
        names |= index
        self._usual = SymbolTable(names)
        self._by_topic = {
            topic: SymbolTable(_of_exchange(names, exchange, venues))
            for topic, exchange in exchanges.items()
        }

    def of(self, topic: str) -> SymbolTable:
        """Return the table for the messages of a topic."""
        return self._by_topic.get(topic, self._usual)


def _of_exchange(names: Mapping[str, int], exchange: str, venues: frozenset[str]) -> dict[str, int]:
    out: dict[str, int] = {}
    own: dict[str, int] = {}
    for name, index in names.items():
        venue, colon, rest = name.partition(":")
        if colon and venue == exchange:
            own |= {rest: index, **{f"{other}:{rest}": index for other in venues}, name: index}
        elif not colon or venue not in venues:
            out[name] = index
    return out | own


def _nanoseconds(time: I64) -> tuple[I64, npt.NDArray[np.bool_]]:
    # as ``fields.time_ns``: magnitude tells the unit
    bounds = np.array([bound for bound, _ in UNITS[:-1]], dtype=np.int64)
    units_ns = np.array([unit_ns for _, unit_ns in UNITS], dtype=np.int64)
    unit_ns = units_ns[np.searchsorted(bounds, time, side="right")]
    plausible = (time >= -(-EARLIEST_NS // unit_ns)) & (time <= (LATEST_NS - 1) // unit_ns)
    return time * unit_ns, plausible


def _bytes(values: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    # writable, or the kernel would not take it
    return np.frombuffer(bytearray().join(values), dtype=np.uint8)


def _ends(values: Sequence[bytes]) -> I64:
    return np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
