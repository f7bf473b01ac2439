"""What a tick format is made of. A new one is a new file beside this with a ``FORMAT``."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stream_calib.values import F64, I8, I64, TICK

if TYPE_CHECKING:
    from stream_calib.wire.ticks.layouts import Layout

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
        return self.chosen(slice(start, stop))

    def chosen(self, which: Any) -> "Columns":  # noqa: ANN401
        """Pick ticks by a mask, indices or a slice."""
        return Columns(*(None if column is None else column[which] for column in self))  # type: ignore[arg-type]

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


def _by_rows(_keys: AbstractSet[str]) -> None:
    # which layout it is takes a look at the values
    return None


class Format(NamedTuple):
    """How one message format is recognised and read.

    ``matches`` is given the keys of a JSON object, which are to tell it from other formats.
    ``rows`` names what kind of message it is, as a layout, and returns its rows, each of which
    is one tick in that layout. It raises MalformedError, or SilentError for what carries no price
    by its nature. ``flat`` tells, where keys alone decide it, the layout of messages that are
    their own one row; ``rows`` is not asked then. ``columns`` stands in its place where a message
    holds columns of ticks. ``venue`` is the exchange that the layouts name by themselves.
    """

    name: str
    matches: Callable[[AbstractSet[str]], bool]
    rows: "Callable[[Document], tuple[Layout, Sequence[Document]]]"
    columns: Callable[[Document, Mapping[str, int]], Columns] | None = None
    venue: str = ""
    flat: "Callable[[AbstractSet[str]], Layout | None]" = _by_rows
