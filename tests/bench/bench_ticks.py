"""Decoding of every tick format under `auto`, beside a loop of orjson that reads the fields."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import orjson

from stream_calib.config import Config
from stream_calib.engine.intake import Intake
from stream_calib.values import RecordBatch, Source
from stream_calib.wire.ticks import SymbolTables, decode
from stream_calib.wire.ticks.columnar import to_bytes

N_SYMBOLS = 50
RECORDS = 5000  # of a poll
ROUNDS = 7
TIME_MS = 1_700_000_000_000
PER_RECORD = 1000  # ticks, in columns
RATIO_MIN = 0.15  # of the bare loop, which keeps nothing, checks nothing, and builds no columns
COLUMNS_RATIO_MIN = 0.25
COLUMNS_HZ = 3e6  # DESIGN section 10, batched columnar records; told where a machine is slower


class Case(NamedTuple):
    """Messages of a format, and what the bare loop reads of them."""

    venue: str
    template: str  # $s symbol, $p price, $i number, $ms and $iso time
    fields: Callable[[Any], object]


CASES = {
    "native": Case(
        "",
        '{"symbol": "$s", "time": $ms000000, "price": $p}',
        lambda d: (d["symbol"], d["time"], d["price"]),
    ),
    "native, sizes": Case(
        "",
        '{"symbol": "$s", "time": $ms, "bid": $p, "ask": $p, "bid_size": 2.0, "ask_size": 3.0}',
        lambda d: (d["symbol"], d["time"], d["bid"], d["ask"], d["bid_size"], d["ask_size"]),
    ),
    "cryptofeed": Case(
        "BYBIT",
        '{"exchange": "BYBIT", "symbol": "$s", "side": "sell", "amount": 0.004, "price": $p,'
        ' "id": "$i", "type": null, "timestamp": $ms, "receipt_timestamp": 1700000001.5}',
        lambda d: (d["exchange"] + ":" + d["symbol"], d["timestamp"], d["price"], d["id"]),
    ),
    "ccxt": Case(
        "",
        '{"id": "$i", "timestamp": $ms, "datetime": "$iso", "symbol": "$s", "order": null,'
        ' "type": null, "side": "buy", "takerOrMaker": null, "price": $p, "amount": 1.0,'
        ' "cost": $p, "fee": null, "fees": [], "info": {}}',
        lambda d: (d["symbol"], d["timestamp"], d["price"], d["id"]),
    ),
    "binance": Case(
        "BINANCE",
        '{"e": "aggTrade", "E": $ms, "s": "$s", "a": $i, "p": "$p", "q": "1", "f": $i, "l": $i,'
        ' "T": $ms, "m": false, "M": true}',
        lambda d: ("BINANCE:" + d["s"], d["T"], float(d["p"]), d["a"]),
    ),
    "binance, streams": Case(
        "BINANCE",
        '{"stream": "$s@bookTicker", "data": {"e": "bookTicker", "u": $i, "s": "$s", "b": "$p",'
        ' "B": "1.5", "a": "$p", "A": "2.5", "T": $ms, "E": $ms}}',
        lambda d: (
            "BINANCE:" + d["data"]["s"],
            d["data"]["T"],
            [float(d["data"][key]) for key in "baBA"],
        ),
    ),
    "coinbase": Case(
        "COINBASE",
        '{"type": "match", "trade_id": $i, "sequence": $i, "maker_order_id": "ac928c66",'
        ' "taker_order_id": "132fb6ae", "time": "$iso", "product_id": "$s", "size": "5.2",'
        ' "price": "$p", "side": "sell"}',
        lambda d: ("COINBASE:" + d["product_id"], d["time"], float(d["price"]), d["trade_id"]),
    ),
    "coinbase_advanced": Case(
        "COINBASE",
        '{"channel": "market_trades", "timestamp": "$iso", "sequence_num": $i, "events": [{"type":'
        ' "update", "trades": [{"product_id": "$s", "trade_id": "$i", "price": "$p",'
        ' "size": "0.1", "time": "$iso", "side": "SELL"}]}]}',
        lambda d: [
            ("COINBASE:" + t["product_id"], t["time"], float(t["price"]), t["trade_id"])
            for t in d["events"][0]["trades"]
        ],
    ),
    "kraken": Case(
        "KRAKEN",
        '{"channel": "trade", "type": "update", "data": [{"symbol": "$s", "side": "sell",'
        ' "price": $p, "qty": 40.0, "ord_type": "market", "trade_id": $i, "timestamp": "$iso"}]}',
        lambda d: [
            ("KRAKEN:" + t["symbol"], t["timestamp"], t["price"], t["trade_id"]) for t in d["data"]
        ],
    ),
    "bybit": Case(
        "BYBIT",
        '{"topic": "tickers.$s", "type": "delta", "cs": $i, "ts": $ms, "data": {"symbol": "$s",'
        ' "bid1Price": "$p", "bid1Size": "1.5"}}',
        lambda d: (
            "BYBIT:" + d["data"]["symbol"],
            d["ts"],
            float(d["data"]["bid1Price"]),
            float(d["data"]["bid1Size"]),
        ),
    ),
    "okx": Case(
        "OKX",
        '{"arg": {"channel": "trades", "instId": "$s"}, "data": [{"instId": "$s", "tradeId": "$i",'
        ' "px": "$p", "sz": "0.1", "side": "buy", "ts": "$ms", "count": "3"}]}',
        lambda d: [
            ("OKX:" + t["instId"], int(t["ts"]), float(t["px"]), t["tradeId"]) for t in d["data"]
        ],
    ),
    "polygon, by ten": Case(
        "POLYGON",
        "["
        + ", ".join(
            ['{"ev": "T", "sym": "$s", "x": 4, "i": "$i", "z": 3, "p": $p, "s": 1, "t": $ms}'] * 10
        )
        + "]",
        lambda d: [("POLYGON:" + t["sym"], t["t"], t["p"], t["i"]) for t in d],
    ),
    "alpaca, by ten": Case(
        "ALPACA",
        "["
        + ", ".join(['{"T": "t", "i": $i, "S": "$s", "x": "D", "p": $p, "s": 1, "t": "$iso"}'] * 10)
        + "]",
        lambda d: [("ALPACA:" + t["S"], t["t"], t["p"], t["i"]) for t in d],
    ),
    "databento": Case(
        "DATABENTO",
        '{"ts_recv": "$ms000000", "hd": {"ts_event": "$ms000000", "rtype": 0, "publisher_id": 1,'
        ' "instrument_id": 5482}, "action": "T", "side": "A", "depth": 0, "price": "372025$i000",'
        ' "size": 5, "flags": 129, "ts_in_delta": 19251, "sequence": $i, "symbol": "$s"}',
        lambda d: ("DATABENTO:" + d["symbol"], int(d["hd"]["ts_event"]), int(d["price"]) / 1e9),
    ),
    "connect, native": Case(
        "",
        '{"schema": {"type": "struct", "fields": [{"field": "symbol", "type": "string"}, {"field":'
        ' "time", "type": "int64"}, {"field": "price", "type": "double"}]}, "payload":'
        ' {"symbol": "$s", "time": $ms, "price": $p}}',
        lambda d: (d["payload"]["symbol"], d["payload"]["time"], d["payload"]["price"]),
    ),
}


def _message(template: str, i: int, symbol: str, price: float) -> bytes:
    moment = {"$iso": f"2023-11-14T22:13:{20 + i // 1000:02}.{i % 1000:03}001Z"}
    own = moment | {"$s": symbol, "$p": f"{price:.2f}", "$i": str(i + 1), "$ms": str(TIME_MS + i)}
    for name in ("$iso", "$ms", "$s", "$p", "$i"):
        template = template.replace(name, own[name])
    return template.encode()


def _batch(values: list[bytes]) -> RecordBatch:
    n = len(values)
    return RecordBatch(Source("ticks", 0), 0, n, range(n), [TIME_MS] * n, values)


def _seconds(ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started_s = time.process_time()
            way()
            taken[name].append(time.process_time() - started_s)
    return taken


def bench_formats() -> None:
    rng = np.random.default_rng(1)
    gc.set_threshold(50_000)  # as the service does
    print(f"\nDecoding under auto, {RECORDS} records a batch, {N_SYMBOLS} symbols")
    print(f"  {'format':<20}{'ticks/s':>12}{'orjson loop':>14}{'ratio':>8}")
    slow = []
    mixed: list[bytes] = []
    for name, case in CASES.items():
        names = [f"S{i:02}USDT" for i in range(N_SYMBOLS)]
        known = [f"{case.venue}:{s}" if case.venue else s for s in names]
        values = [
            _message(case.template, i, names[i % N_SYMBOLS], price)
            for i, price in enumerate(rng.uniform(100.0, 200.0, RECORDS).tolist())
        ]
        mixed += values[: RECORDS // len(CASES)]
        tables, batch = SymbolTables(known, {}, {}, frozenset()), _batch(values)
        read, fields = decode(batch, "auto", tables), case.fields
        assert not read.malformed
        assert (read.asset >= 0).all()
        n = len(read.time_ns)

        def loop(values: list[bytes] = values, fields: Any = fields) -> None:
            for value in values:
                fields(orjson.loads(value))

        taken = _seconds({"ours": lambda b=batch, t=tables: decode(b, "auto", t), "loop": loop})  # type: ignore[misc]
        ratio = statistics.median(b / a for a, b in zip(taken["ours"], taken["loop"], strict=True))
        rates = [n / statistics.median(taken[way]) for way in ("ours", "loop")]
        print(f"  {name:<20}{rates[0]:>12,.0f}{rates[1]:>14,.0f}{ratio:>8.2f}")
        if ratio < RATIO_MIN:
            slow.append((name, ratio))
    order = rng.permutation(len(mixed)).tolist()
    batch, tables = _batch([mixed[i] for i in order]), SymbolTables([], {}, {}, frozenset())
    n = len(decode(batch, "auto", tables).time_ns)
    taken = _seconds(
        {
            "ours": lambda: decode(batch, "auto", tables),
            "loop": lambda: [orjson.loads(value) for value in batch.values if value],
        }
    )
    rates = [n / statistics.median(taken[way]) for way in ("ours", "loop")]
    print(f"  {'all of them mixed':<20}{rates[0]:>12,.0f}{rates[1]:>14,.0f}  (without fields)")
    assert not slow, slow


def bench_columns() -> None:
    rng = np.random.default_rng(2)
    names = [f"SIM:{i:02}" for i in range(N_SYMBOLS)]
    n_records = 200
    packed, texts = [], []
    for k in range(n_records):
        time_ns = (TIME_MS * 10**6) + (k * PER_RECORD + np.arange(PER_RECORD)) * 100_000
        symbol = rng.integers(0, N_SYMBOLS, PER_RECORD)
        price = np.round(rng.uniform(100.0, 200.0, PER_RECORD), 2)
        packed.append(to_bytes(names, symbol, time_ns, {"price": price}))
        columns = {"symbol": symbol.tolist(), "time": time_ns.tolist(), "price": price.tolist()}
        texts.append(orjson.dumps({"symbols": names, **columns}))
    universe = {"name": "u", "symbols": names}
    tree: Any = {"universe": [universe], "input": {"topics": ["ticks"]}}
    config = Config(**tree)
    index = {name: i for i, name in enumerate(names)}
    n = n_records * PER_RECORD

    def numpy_loop() -> None:
        for value in packed:
            np.frombuffer(value, "<i8", PER_RECORD, 16).copy()
            np.frombuffer(value, "<f8", PER_RECORD, 16 + 8 * PER_RECORD).copy()
            np.frombuffer(value, "<u2", PER_RECORD, 16 + 16 * PER_RECORD).astype(np.int64)

    def orjson_loop() -> None:
        for value in texts:
            document = orjson.loads(value)
            np.array(document["time"]), np.array(document["price"]), np.array(document["symbol"])

    def admitted(values: list[bytes]) -> None:
        intake = Intake(config, config.universe[0])
        intake.discover(Source("ticks", 0))
        intake.admit(decode(_batch(values), "auto", index))
        assert intake.counts["ticks", "applied"] == n

    print(f"\nColumns, {PER_RECORD} ticks a record, {len(packed[0])} and {len(texts[0])} bytes")
    taken = _seconds(
        {
            "bytes": lambda: decode(_batch(packed), "auto", index),
            "bytes, numpy alone": numpy_loop,
            "bytes, decoded and admitted": lambda: admitted(packed),
            "JSON": lambda: decode(_batch(texts), "auto", index),
            "JSON, orjson and numpy alone": orjson_loop,
            "JSON, decoded and admitted": lambda: admitted(texts),
        }
    )
    for name, seconds in taken.items():
        print(f"  {name:<30}{n / statistics.median(seconds) / 1e6:>8.2f} M ticks/s")
    loop, ours = taken["JSON, orjson and numpy alone"], taken["JSON"]
    assert statistics.median(a / b for a, b in zip(loop, ours, strict=True)) >= COLUMNS_RATIO_MIN
    if n / statistics.median(taken["bytes, decoded and admitted"]) < COLUMNS_HZ:
        print(f"        under the target of {COLUMNS_HZ:,.0f} ticks/s")
