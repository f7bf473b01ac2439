"""What a tick format is made of. A new one is a new file beside this with a ``FORMAT``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stream_calib.values import F64, I64
from stream_calib.wire.ticks.fields import Tick, UnusualError

Document = Mapping[str, Any]


class Columns(NamedTuple):
    """Ticks in record order; fields as in TickBatch."""

    time_ns: I64
    asset: I64
    price: F64
    bid: F64
    ask: F64
    ident: I64

    def rows(self, start: int, stop: int) -> "Columns":
        """Cut the rows [start, stop) out."""
        time_ns, asset, price, bid, ask, ident = self
        cut = slice(start, stop)
        return Columns(time_ns[cut], asset[cut], price[cut], bid[cut], ask[cut], ident[cut])


class Format(NamedTuple):
    """How one message format is recognised and read.

    ``matches`` must not hold for a document of another format. ``read`` yields the ticks of one
    record or raises MalformedError. ``read_bulk`` is optional speed: one tick per record, the
    same results, UnusualError where it does not apply.
    """

    name: str
    matches: Callable[[Document], bool]
    read: Callable[[Document], Iterable[Tick]]
    read_bulk: Callable[[Sequence[Document], Mapping[str, int]], Columns] | None = None


def find_assets(names: Sequence[Any], symbols: Mapping[str, int]) -> I64:
    """Look a column of symbols up; -1 for those outside the universe."""
    if set(map(type, names)) != {str} or "" in names:
        raise UnusualError
    find = symbols.get
    return np.array([find(name, -1) for name in names], dtype=np.int64)
