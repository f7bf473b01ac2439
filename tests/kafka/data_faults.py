"""Everything that can be wrong with data, and what has to be seen of each."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import orjson

from tests.kafka.killing import Published
from tests.kafka.test_faults_process import events, matrices, names

SECOND_NS = 1_000_000_000
START_NS = 1_741_098_600 * SECOND_NS  # of simulated ticks
SYMBOLS = names(6)
Value = bytes | None
Fault = Callable[[list[Value], Random], list[Value]]
# of what is refused for itself, whatever stands around it
REASONS = (
    *("tombstone", "empty", "json", "frame", "format", "field", "number"),
    *("time_range", "time_ahead", "price"),
)
NOTHING: Mapping[str, int] = MappingProxyType({})


def strewn(*junk: Value) -> Fault:
    """Put records anywhere between the others, the first few left alone."""

    def fault(values: list[Value], random: Random) -> list[Value]:
        for value in junk:
            for _ in range(3 if len(value or b"") < 10_000 else 1):
                values.insert(random.randint(100, len(values)), value)
        return values

    return fault


def changed(change: Callable[[int, dict[str, object]], dict[str, object] | None]) -> Fault:
    """Change each tick, or drop it; ``change`` is given the tick's number and the tick."""

    def fault(values: list[Value], _random: Random) -> list[Value]:
        out: list[Value] = []
        for k, value in enumerate(values):
            try:
                tick = orjson.loads(value or b"")
                kinds = {name: type(part) for name, part in tick.items()}
                is_tick = kinds == {"symbol": str, "time": int, "price": float}
            except (AttributeError, ValueError):
                is_tick = False
            if not is_tick:
                out.append(value)
            elif (other := change(k, tick)) is not None:
                out.append(orjson.dumps(other))
        return out

    return fault


def repeated(values: list[Value], random: Random) -> list[Value]:
    out: list[Value] = []
    for value in values:
        out += [value] * random.choice([1, 1, 2, 5])
        if value and random.random() < 0.1 and value.startswith(b'{"symbol"'):
            out.append(value.replace(b"{", b'{"id":7,', 1))  # nearly the same
    return out


def disordered(values: list[Value], random: Random) -> list[Value]:
    """Late by a few records, which is within the lateness, or by hundreds, which is not."""
    order = [
        k + random.random() * (400 if random.random() < 0.02 else 8) for k in range(len(values))
    ]
    return [values[k] for k in np.argsort(order)]


def priced(text: bytes) -> bytes:
    return b'{"symbol":"SIM:1","time":1741098620000000000,"price":' + text + b"}"


def timed(text: bytes) -> bytes:
    return b'{"symbol":"SIM:1","time":' + text + b',"price":101.5}'


def halted(k: int, tick: dict[str, object]) -> dict[str, object] | None:
    return None if tick["symbol"] == "SIM:2" and 400 < k < 900 else tick


def jumped(k: int, tick: dict[str, object]) -> dict[str, object]:
    assert isinstance(tick["time"], int)
    return tick | {"time": tick["time"] + (2 * 3600 * SECOND_NS if k > 900 else 0)}


def spiked(k: int, tick: dict[str, object]) -> dict[str, object]:
    assert isinstance(tick["price"], float)
    return tick | {"price": tick["price"] * (100.0 if k % 500 == 0 or k > 1000 else 1.0)}


def has_jumped(found: Published) -> bool:
    """Two hours are one gap, and matrices go on behind it."""
    gaps = [event for event in events(found) if event["type"] == "gap"]
    return len(gaps) == 1 and matrices(found)[-1].as_of_ns > START_NS + 7200 * SECOND_NS


def all_have_a_new_price(found: Published) -> bool:
    jumps = [event["details"] for event in events(found) if event["type"] == "price_jump"]
    return sorted(jump["symbol"] for jump in jumps) == sorted(SYMBOLS)


def one_was_away(found: Published) -> bool:
    told = [
        (e["type"], e["details"]["symbols"]) for e in events(found) if "symbols" in e["details"]
    ]
    of_it = [type_ for type_, symbols in told if "SIM:2" in symbols]
    others = [symbols for type_, symbols in told if type_ == "symbol_pending"]
    return of_it == ["symbol_ready", "symbol_pending", "symbol_ready"] and others == [["SIM:2"]]


class Case(NamedTuple):
    """A fault, and what shows that it took place and what became of it.

    ``refused`` are all records refused for themselves, by reason; ``at_least`` are outcomes that
    depend on where records come to stand. ``places`` are numbers of records after which the
    service is killed; none: after the first one that is wrong, amid them, and after the last.
    """

    fault: Fault
    refused: Mapping[str, int] = NOTHING
    at_least: Mapping[str, int] = NOTHING
    shows: Callable[[Published], bool] = lambda _found: True
    places: Sequence[int] = ()


CASES: dict[str, Case] = {
    "f47_poison_bytes": Case(
        strewn(b"\xff\xfe\x00\x80", b"\x00" * 64, b"[" * 100_000),
        {"json": 4, "frame": 3},  # zeros begin as a frame of a registry does
    ),
    "f47_bad_json": Case(
        strewn(b'{"symbol": "bro', b"{}", b"[]", b"42", b'"text"', b"null", b"nan"),
        {"json": 6, "format": 15},
    ),
    "f47_wrong_types": Case(
        strewn(
            b'{"symbol":7,"time":true,"price":[]}',
            b'{"symbol":null,"time":{},"price":"many"}',
            b'{"symbol":"","time":1741098620000000000,"price":1}',
            # of no symbol of ours, which is no reason to refuse it
            b'{"symbol":"\xf0\x9f\x92\xb9","time":1741098620000000000,"price":1}',
        ),
        {"field": 9},
    ),
    "f47_a_megabyte_of_junk": Case(
        strewn(b"\xff" + Random(47).randbytes(1_000_000), b"x" * 1_000_000), {"json": 2}
    ),
    "f47_nothing": Case(strewn(b"", None), {"empty": 3, "tombstone": 3}),
    "f48_no_prices": Case(
        strewn(
            *(priced(text) for text in (b"NaN", b"Infinity", b"1e999", b"0", b"-0.0", b"-1.5")),
            *(priced(text) for text in (b'"nan"', b'"-inf"', b"1e-320", b"9" * 400)),
        ),
        {"json": 12, "price": 9, "field": 6},  # and 1e-320 is one, if an outlier
    ),
    # 1.25 copies of each on average, and less than a tenth of them stand behind one with an id
    "f50_repeated": Case(repeated, at_least={"duplicate": 1000}),
    # 29 of 1440 by more than eight records, with a standard deviation of 5
    "f51_out_of_order": Case(disordered, at_least={"late": 8}),
    "f52_absurd_times": Case(
        strewn(
            *(timed(text) for text in (b"0", b"86400", b"-1", b"1e300", b"9" * 30)),
            *(timed(text) for text in (b"4102444799000000000", b"1741270000000000000")),
            *(timed(text) for text in (b'"1970-01-01T00:00:00Z"', b'"yesterday"')),
        ),
        {"time_range": 18, "field": 3, "time_ahead": 3},
        {"time_jump": 2},  # of three, for nothing refutes one at the very end
    ),
    # killed with two ticks of each partition at the new time, where three are believed
    "f52_clock_jumps_by_two_hours": Case(
        changed(jumped), shows=has_jumped, places=(905, 1100, 1300)
    ),
    # killed with a price that waits to be refuted, one that waits to be confirmed, and after it
    "f53_a_hundred_times_the_price": Case(
        changed(spiked),
        at_least={"outlier": 2},
        shows=all_have_a_new_price,
        places=(501, 1004, 1200),
    ),
    # killed when it has just gone, when it is not ready any more, and when it has come back
    "f54_halted_and_back": Case(changed(halted), shows=one_was_away, places=(420, 700, 840)),
}


def affected(good: Sequence[Value], values: Sequence[Value]) -> list[int]:
    """Return the places at which values are not those of ``good`` that come next."""
    number = {value: k for k, value in enumerate(good)}
    places, before = list[int](), -1
    for place, value in enumerate(values):
        k = number.get(value)
        if k is None or k != before + 1:
            places.append(place)
        before = before if k is None else k
    return places
