"""Zip files as QuantConnect's Lean keeps them: ticks, and bars of a second or a minute.

    equity/usa/tick/spy/20131007_trade.zip     SPY            America/New_York
    equity/usa/second/spy/20131007_quote.zip   SPY            America/New_York
    forex/oanda/tick/eurusd/20140507_quote.zip OANDA:EURUSD   UTC
    forex/fxcm/tick/eurusd/20140507_quote.zip  FXCM:EURUSD    UTC-5 all the year

The path names the symbol, the day and the zone, and with them the topic, as in
``usa-tick-spy-20131007_trade``: the name of the file is the same for all symbols. A row begins
with milliseconds since midnight of the wall clock, so that half past nine is 34200000 on every
day; prices of equities are in 1/10000. Trades and quotes of all hours are there, flagged ones
too (``suspicious``), in the order of the file.

Lean writes one quote of an equity as two rows, first the bid, then the ask, with zeros for the
other side; such a pair is one tick. A side that is on its own stays so, with zero for the other,
for the engine to judge. A bar becomes a tick of its close (both sides of it for quotes) at the
time it ends, when it is known.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson

from stream_calib.errors import InputError

DAY_NS = 86_400_000_000_000
QUARTER_NS = 900_000_000_000  # zones change their offset at quarters of an hour
BAR_NS = {"tick": 0, "second": 1_000_000_000, "minute": 60_000_000_000}
ZONES = {"equity/usa": "America/New_York", "forex/oanda": "UTC", "forex/fxcm": "Etc/GMT+5"}

_PATH = re.compile(
    r"/(equity|forex)/([^/]+)/(tick|second|minute)/([^/]+)/(\d{8})_(trade|quote)\.zip"
)

_NAME = re.compile(r"\d{8}_[a-z]+\.zip")  # which no other zip file has

Tick = dict[str, Any]


class Layout(NamedTuple):
    """What the path of a file says about its rows.

    ``columns`` is how many a row has, ``read`` turns them into a tick without symbol and time;
    ``paired`` tells that a quote is two rows. ``offsets_ns`` is of local time against UTC, by
    quarter of an hour of the local day that begins at ``midnight_ns``, read as if it were UTC.
    """

    topic: str
    symbol: str
    midnight_ns: int
    offsets_ns: Sequence[int]
    bar_ns: int
    columns: int
    read: Callable[[Sequence[str]], Tick]
    paired: bool

    def time_ns(self, milliseconds: str) -> int:
        """Return the time of a row in UTC, the end of it for a bar."""
        whole, _, fraction = milliseconds.partition(".")
        local_ns = int(whole) * 1_000_000 + int(fraction[:6].ljust(6, "0"))
        if not 0 <= local_ns <= DAY_NS:
            raise ValueError
        offset_ns = self.offsets_ns[local_ns // QUARTER_NS]
        return self.midnight_ns + local_ns - offset_ns + self.bar_ns


def is_lean(path: Path) -> bool:
    """Tell by its name whether a file is one of Lean's."""
    return _NAME.fullmatch(path.name.lower()) is not None


def layout_of(path: Path) -> Layout:
    """Return what the path says; raise InputError when it is not one of Lean's."""
    found = _PATH.search(path.absolute().as_posix().lower())
    if found is None:
        raise InputError(
            f"{path}: a zip file of this name is read only from Lean's folders, "
            "as in equity/usa/tick/spy/20131007_trade.zip"
        )
    security, market, resolution, name, day, kind = found.groups()
    if f"{security}/{market}" not in ZONES:
        raise InputError(f"{path}: the time zone of {security}/{market} is not known")
    try:
        zone = ZoneInfo(ZONES[f"{security}/{market}"])
        midnight = datetime.strptime(day, "%Y%m%d")  # noqa: DTZ007  of a wall clock
    except ZoneInfoNotFoundError:
        raise InputError(f"{path}: time zones are not installed (the package tzdata)") from None
    except ValueError:
        raise InputError(f"{path}: {day} is no day") from None
    is_tick = resolution == "tick"
    match security, kind:
        case "equity", "trade":
            columns, read = (6, _equity_trade) if is_tick else (6, _equity_trade_bar)
        case "equity", _:
            columns, read = (8, _equity_quote) if is_tick else (11, _equity_quote_bar)
        case "forex", "quote":
            columns, read = (3, _forex_quote) if is_tick else (11, _forex_quote_bar)
        case _:
            raise InputError(f"{path}: Lean has no trades of forex")
    return Layout(
        f"{market}-{resolution}-{name}-{day}_{kind}",
        name.upper() if security == "equity" else f"{market}:{name}".upper(),
        round((midnight - datetime(1970, 1, 1)).total_seconds()) * 1_000_000_000,  # noqa: DTZ001
        _offsets_ns(midnight, zone),
        BAR_NS[resolution],
        columns,
        read,
        is_tick and security == "equity" and kind == "quote",
    )


def ticks(layout: Layout, blocks: Iterator[Sequence[bytes]]) -> Iterator[list[bytes]]:
    """Turn the rows of a file into native ticks, JSON; what is no row stays as it is."""
    side: tuple[bytes, Tick] | None = None  # a bid or an ask that waits for its other side
    for lines in blocks:
        values: list[bytes] = []
        for line in lines:
            if not line:
                continue
            tick = _tick(layout, line)
            if side is not None:
                joined = None if tick is None else _joined(side[1], tick)
                values.append(side[0] if joined is None else orjson.dumps(joined))
                side = None
                if joined is not None:
                    continue
            if tick is None:
                values.append(line)
            elif layout.paired and _sides(tick) != (True, True):
                side = (orjson.dumps(tick), tick)
            else:
                values.append(orjson.dumps(tick))
        yield values
    if side is not None:
        yield [side[0]]


def _tick(layout: Layout, line: bytes) -> Tick | None:
    try:
        cells = line.decode().split(",")
        if len(cells) != layout.columns or b"_" in line:  # to Python 1_000 is a number
            return None
        tick = {"symbol": layout.symbol, "time": layout.time_ns(cells[0]), **layout.read(cells)}
    except (ValueError, OverflowError):
        return None
    return tick


def _sides(tick: Tick) -> tuple[bool, bool]:
    return tick["bid"] != 0.0, tick["ask"] != 0.0


def _joined(one: Tick, other: Tick) -> Tick | None:
    # The two rows of one quote; None when they are not.
    if one["time"] != other["time"] or {_sides(one), _sides(other)} != _BOTH:
        return None
    bid, ask = (one, other) if _sides(one) == (True, False) else (other, one)
    return {**one, **other, **{key: bid[key] for key in _BID}, **{key: ask[key] for key in _ASK}}


_BOTH = {(True, False), (False, True)}
_BID, _ASK = ("bid", "bid_size"), ("ask", "ask_size")


def _offsets_ns(midnight: datetime, zone: ZoneInfo) -> list[int]:
    # Of an hour that is there twice the first is meant: nothing in the file tells them apart.
    moments = (midnight + timedelta(minutes=15 * i) for i in range(97))
    offsets = (moment.replace(tzinfo=zone).utcoffset() for moment in moments)
    return [round((offset or timedelta()).total_seconds()) * 1_000_000_000 for offset in offsets]


def _price(text: str) -> float:
    # An empty side of a bar is one that was not quoted.
    price = float(text or "0")
    if not isfinite(price):
        raise ValueError
    return price


def _flagged(tick: Tick, flag: str) -> Tick:
    return tick if flag == "0" else {**tick, "suspicious": True}


def _equity_trade(cells: Sequence[str]) -> Tick:
    _, price, size, _, _, suspicious = cells
    return _flagged({"price": _price(price) / 10_000, "size": _price(size)}, suspicious)


def _equity_trade_bar(cells: Sequence[str]) -> Tick:
    return {"price": _price(cells[4]) / 10_000, "size": _price(cells[5])}


def _equity_quote(cells: Sequence[str]) -> Tick:
    _, bid, bid_size, ask, ask_size, _, _, suspicious = cells
    tick = {
        "bid": _price(bid) / 10_000,
        "ask": _price(ask) / 10_000,
        "bid_size": _price(bid_size),
        "ask_size": _price(ask_size),
    }
    return _flagged(tick, suspicious)


def _equity_quote_bar(cells: Sequence[str]) -> Tick:
    tick = _forex_quote_bar(cells)
    return {**tick, "bid": tick["bid"] / 10_000, "ask": tick["ask"] / 10_000}


def _forex_quote(cells: Sequence[str]) -> Tick:
    return {"bid": _price(cells[1]), "ask": _price(cells[2])}


def _forex_quote_bar(cells: Sequence[str]) -> Tick:
    return {
        "bid": _price(cells[4]),
        "ask": _price(cells[9]),
        "bid_size": _price(cells[5]),
        "ask_size": _price(cells[10]),
    }
