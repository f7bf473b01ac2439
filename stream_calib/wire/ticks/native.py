"""The native tick: one JSON object per record.

    {"symbol": "SIM:A", "time": 1625291738612292000, "price": 101.25}
    {"symbol": "SIM:A", "time": "2021-07-03T05:55:38.612Z", "bid": 101.2, "ask": 101.3}
    {"symbol": "SIM:A", "time": 1625291739, "bid": 101.2, "bid_size": 300}
    {"symbol": "SIM:A", "time": 1625299200, "adjust": {"factor": 0.5}}

``time`` is ns, us, ms or s since the epoch, or RFC 3339 with a zone; ``id`` and sizes are
optional; a quote may carry one side alone; prices may be text; other keys are ignored.
``adjust`` is a control record, in event time like a tick: prices before it are multiplied by
``factor`` (0.5 for a split of two for one), get ``offset`` added (the roll of a future), or with
``"reset": true`` say nothing about those after it.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from stream_calib.values import FACTOR, OFFSET, RESET
from stream_calib.wire.ticks.fields import MalformedError, number
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

TICKS = Layout("symbol", ("time",), "price", "bid", "ask", "bid_size", "ask_size", "id")
CONTROLS = Layout("symbol", ("time",), "value", kind="kind")


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like a native tick."""
    return "time" in keys and "product_id" not in keys and "symbols" not in keys


def flat(keys: AbstractSet[str]) -> Layout | None:
    """Tell what is a tick as it stands."""
    return None if "adjust" in keys else TICKS


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read one control record."""
    return CONTROLS, (_control(document),)


def _control(document: Document) -> Document:
    adjust = document["adjust"]
    if not isinstance(adjust, dict) or len(adjust) != 1:
        reason = "field"
        raise MalformedError(reason)
    ((how, value),) = adjust.items()
    if how == "reset" and value is True:
        kind, price = RESET, 0.0
    elif how in {"factor", "offset"}:
        kind, price = (FACTOR if how == "factor" else OFFSET), number(value)
    else:
        reason = "field"
        raise MalformedError(reason)
    if kind == FACTOR and not price > 0.0:
        reason = "number"
        raise MalformedError(reason)
    own = {"symbol": document.get("symbol"), "time": document.get("time")}
    return own | {"value": price, "kind": kind}


FORMAT = Format("native", matches, rows, flat=flat)
