"""What a tick format is made of. A new one is a new file beside this with a ``FORMAT``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stream_calib.values import F64, I8, I64, TICK
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
    kind: I8 | None = None
    bid_size: F64 | None = None
    ask_size: F64 | None = None

    def rows(self, start: int, stop: int) -> "Columns":
        """Cut the rows [start, stop) out."""
        return Columns(*(None if column is None else column[start:stop] for column in self))  # type: ignore[arg-type]

    @classmethod
    def join(cls, parts: Sequence["Columns"]) -> "Columns":
        """Put runs of ticks one after the other; what none of them carries stays absent."""
        if len(parts) == 1:
            return parts[0]
        joined: list[Any] = []
        for name, nothing in zip(cls._fields, _NOTHING, strict=True):
            own = [getattr(part, name) for part in parts]
            if all(column is None for column in own):
                joined.append(None if name in cls._field_defaults else nothing[:0])
                continue
            lengths = [len(part.time_ns) for part in parts]
            filled = [
                np.repeat(nothing, n) if column is None else column
                for column, n in zip(own, lengths, strict=True)
            ]
            joined.append(np.concatenate(filled))
        return cls(*joined)


_NO_TIME, _NO_PRICE = np.zeros(1, np.int64), np.full(1, np.nan)
_TICKS = np.full(1, TICK, np.int8)
_NOTHING = (_NO_TIME, _NO_TIME, *[_NO_PRICE] * 3, _NO_TIME, _TICKS, _NO_PRICE, _NO_PRICE)


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
