"""Recordings of real venues under `auto`: what becomes of every record, and of every tick."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from stream_calib.config import Config
from stream_calib.engine.intake import Intake
from stream_calib.values import RecordBatch, TickBatch
from stream_calib.wire.ticks import FORMATS, decode
from stream_calib.wire.ticks.reading import Reader, Shapes
from tests.wire.recordings import recordings

# records, ticks, records passed over and refused by reason
BECOMES: dict[str, tuple[int, int, dict[str, int], dict[str, int]]] = {
    # `unsupported` are changes of books deeper than one level; version 1 of Kraken has no format
    "websocket/BINANCE": (265, 86, {"open_bar": 2}, {"unsupported": 177}),
    "websocket/BINANCE_DELIVERY": (4371, 2291, {"open_bar": 33}, {"unsupported": 2047}),
    "websocket/BINANCE_FUTURES": (1535, 708, {"open_bar": 63}, {"unsupported": 764}),
    "websocket/BYBIT": (
        3227,
        1072,
        {"control": 24, "open_bar": 90, "unpriced": 120},
        {"unsupported": 2148},
    ),
    "websocket/COINBASE": (1030, 439, {"control": 30, "open_bar": 6}, {"unsupported": 775}),
    "websocket/KRAKEN": (4430, 0, {}, {"format": 4430}),
    "kafka/BINANCE": (88, 86, {"open_bar": 2}, {}),
    "kafka/BINANCE_DELIVERY": (2324, 2291, {"open_bar": 33}, {}),
    "kafka/BINANCE_FUTURES": (771, 708, {"open_bar": 63}, {}),
    "kafka/BINANCE_US": (144, 140, {"open_bar": 4}, {}),
    "kafka/BYBIT": (1160, 1085, {"open_bar": 75}, {}),
    "kafka/KRAKEN": (28, 28, {}, {}),
    "kafka/PHEMEX": (20_066, 10_025, {"open_bar": 10_041}, {}),
}
PAIRS = {  # the same sockets, once as they were, once through cryptofeed
    "BINANCE": {"NKN-USDT": "NKNUSDT"},
    "BINANCE_DELIVERY": {"BCH-USD-PERP": "BCHUSD_PERP"},
    "BINANCE_FUTURES": {"SUSHI-USDT-PERP": "SUSHIUSDT", "CTK-USDT-PERP": "CTKUSDT"},
}


class Names(dict[str, int]):
    """Gives every symbol that is looked up an index."""

    def get(self, name: str, _default: Any = None) -> int:
        return self.setdefault(name, len(self))


def symbols_of(batches: list[RecordBatch]) -> list[str]:
    names = Names()
    for batch in batches:
        reader = Reader(Shapes(tuple(FORMATS.values())), names, packed=True)
        reader.read(range(len(batch.values)), batch.values)
        reader.finish(batch.timestamps_ms)
    return [*names]


def all_decoded(batches: list[RecordBatch], names: list[str]) -> list[TickBatch]:
    index = {name: i for i, name in enumerate(names)}
    return [decode(batch, "auto", index) for batch in batches]


def test_every_recorded_record_is_accounted_for(market_data: Path) -> None:
    seen = {}
    for name, batches in recordings(market_data).items():
        read = all_decoded(batches, symbols_of(batches))
        for one in read:
            assert (one.asset >= 0).all()
        seen[name] = (
            sum(len(batch.values) for batch in batches),
            sum(len(one.time_ns) for one in read),
            dict(sum((Counter(one.silent) for one in read), Counter())),
            dict(Counter(why for one in read for _, why in one.malformed)),
        )
    assert seen == BECOMES


def test_of_what_was_recorded_only_late_ticks_and_odd_prices_are_not_applied(
    market_data: Path,
) -> None:
    for name, batches in recordings(market_data).items():
        names = symbols_of(batches)
        tree: Any = {"universe": [{"name": "u", "symbols": [*names, "Y", "Z"], "price": "mid"}]}
        config = Config(**tree)
        intake = Intake(config, config.universe[0])
        for one in all_decoded(batches, names):
            intake.discover(one.records.source)
            intake.admit(one)
        outcomes: Counter[str] = Counter()
        for (_, outcome), n in intake.counts.items():
            outcomes[outcome] += n
        ticks, refused = BECOMES[name][1], BECOMES[name][3]
        used = outcomes["applied"] + outcomes["unused"]
        assert outcomes["unknown_symbol"] == 0
        assert {*outcomes} <= {"applied", "unused", "late", "rejects_suppressed", *refused}
        if name == "kafka/PHEMEX":  # begins with its history, newest first
            assert outcomes["late"] > 0.5 * ticks
        elif ticks:
            # one connection after the other in one source, 7 to 40 s each: some are late
            assert used >= 0.5 * ticks, outcomes


@pytest.mark.parametrize("venue", PAIRS)
def test_a_socket_and_what_cryptofeed_made_of_it_say_the_same(
    market_data: Path, venue: str
) -> None:
    found = recordings(market_data)

    def prices(name: str, symbol: str) -> Counter[tuple[float, ...]]:
        out: Counter[tuple[float, ...]] = Counter()
        for one in all_decoded(found[name], [symbol]):
            own = one.asset == 0
            columns = (one.price[own], one.bid[own], one.ask[own])
            # what is not carried compares as zero
            rows = ([0.0 if v != v else v for v in column.tolist()] for column in columns)
            out.update(zip(*rows, strict=True))
        return out

    for own, raw in PAIRS[venue].items():
        socket = prices(f"websocket/{venue}", f"BINANCE:{raw}")
        kafka = prices(f"kafka/{venue}", f"{venue}:{own}")
        assert socket == kafka
        assert socket


def test_trades_of_cryptofeed_have_the_price_and_the_time_of_the_venue(market_data: Path) -> None:
    batches = itertools.chain.from_iterable(recordings(market_data).values())
    for batch in batches:
        if not batch.source.topic.startswith("trades-"):
            continue
        read = decode(batch, "auto", {})
        wanted = [orjson.loads(value or b"") for value in batch.values]
        assert read.price.tolist() == [float(w["price"]) for w in wanted]
        # the venue's clock, to the microsecond that its float holds
        seconds = [w["timestamp"] for w in wanted]
        assert (read.time_ns / 1e9).tolist() == pytest.approx(seconds, rel=0.0, abs=1e-6)
