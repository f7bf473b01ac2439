"""What is said of records whose truth is known."""

import base64
import itertools
import tomllib

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.config import Config, parse_config
from stream_calib.service.examination import Findings, as_document, examine, settings_text
from stream_calib.service.examination.symbols import SymbolFinding
from stream_calib.values import RecordBatch, Source
from stream_calib.wire.ticks.survey import Label
from tests.service.looking import (
    SECOND_NS,
    START_NS,
    arrivals,
    at_ns,
    batch,
    in_order,
    quotes,
    trades,
    walk,
)

HOUR_NS = 3600 * SECOND_NS


def symbol(found: Findings, name: str) -> SymbolFinding:
    return next(one for one in found.symbols if one.symbol == name)


def loaded(found: Findings) -> Config:
    return parse_config(tomllib.loads(settings_text(found.advice)))


@pytest.mark.parametrize("seed", [1, 2])
def test_rates_are_those_of_the_time_in_which_a_symbol_is_open(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rates = {"A": 2.0, "B": 0.25}
    parts = []
    for name, rate in rates.items():
        # two hours, a night of twelve, and two hours again
        before, after = (arrivals(rng, rate, 7200.0) for _ in range(2))
        seconds = np.concatenate([before, 50_400 + after])
        parts.append(trades(name, at_ns(seconds), walk(rng, len(seconds))))
    found = examine([batch(in_order(*parts))])
    for name, rate in rates.items():
        own = symbol(found, name).trades
        assert own is not None
        # four sigmas of as many arrivals
        assert own.rate_hz == pytest.approx(rate, rel=4.0 / np.sqrt(rate * 14_400))
        assert symbol(found, name).active_s == pytest.approx(14_400, abs=60.0)


def a_mixture() -> tuple[list[object], dict[tuple[str, str, str], int], dict[str, int]]:
    """Messages of many formats, in turn, and what is true of them."""
    time_ms = START_NS // 1_000_000
    own: list[object] = []
    for k in range(40):
        s, ms, price = (time_ms + 1000 * k) / 1000, time_ms + 1000 * k, 100.0 + k % 7
        feed = {"exchange": "X", "symbol": "A-B", "receipt_timestamp": s + 0.1}
        own += [
            feed | {"side": "buy", "amount": 1.0, "price": price, "id": None, "type": None,
                    "timestamp": s},
            feed | {"bid": price, "ask": price + 1, "timestamp": ms},
            {"e": "trade", "E": ms, "s": "AB", "t": k + 1, "p": str(price), "q": "1", "T": ms,
             "m": False},
            {"e": "trade", "E": ms * 1000, "s": "AB", "t": k + 1001, "p": str(price), "q": "1",
             "T": ms * 1000, "m": False},
            {"u": k, "s": "AB", "b": str(price), "B": "1", "a": str(price + 1), "A": "1"},
            {"arg": {"channel": "trades", "instId": "A-B"}, "data": [
                {"instId": "A-B", "tradeId": str(k + 1), "px": str(price), "sz": "1", "side": "buy",
                 "ts": str(ms)}]},
            {"symbol": "N", "time": ms * 1_000_000, "price": price},
            {"symbol": "N", "time": "2024-07-03T10:00:00Z", "price": price},
            {"schema": {"type": "struct"}, "payload": {"symbol": "N", "time": ms, "price": price}},
            {"op": "c", "before": None, "after": {"symbol": "N", "time": ms, "price": price}},
            {"stream": "x", "data": {"symbol": "N", "time": ms // 1000, "price": price}},
            b"\x00\x00\x00\x00\x07" + orjson.dumps({"symbol": "N", "time": ms, "bid": price}),
            [{"symbol": "N", "time": ms, "price": price}] * 2,
            {"e": "kline", "E": ms, "s": "AB", "k": {"t": ms - 999, "T": ms, "s": "AB", "c": "7",
                                                     "x": True}},
            b"garbage",
            {"what": "else"},
        ]  # fmt: skip
    written = {
        ("cryptofeed", "trade", "s"): 40,
        ("cryptofeed", "quote", "ms"): 40,
        ("binance", "trade", "ms"): 40,
        ("binance", "trade", "us"): 40,
        ("binance", "quote", "of the log"): 40,
        ("binance", "candle", "ms"): 40,
        ("okx", "trade", "ms"): 40,
        ("native", "trade", "ns"): 40,
        ("native", "trade", "RFC 3339"): 40,
        ("native", "trade", "ms"): 160,
        ("native", "trade", "s"): 40,
        ("native", "quote", "ms"): 40,
    }
    envelopes = {"connect": 40, "debezium": 40, "stream": 40, "schema registry": 40, "array": 40}
    return own, written, envelopes


def test_formats_kinds_units_and_envelopes_of_a_mixture_are_told_one_by_one() -> None:
    rows, written, envelopes = a_mixture()
    stamps = [START_NS + i * SECOND_NS // 16 for i in range(len(rows))]
    found = examine([batch(rows, stamps_ns=stamps)])
    (topic,) = found.topics
    assert topic.written == {Label(*label): n for label, n in written.items()}
    assert topic.refused == {"json": 40, "format": 40}
    assert found.envelopes == envelopes
    assert found.unknown == {("what",): 40}
    assert topic.records == len(rows)
    assert sum(topic.outcomes.values()) - topic.outcomes.get("repeated", 0) == topic.ticks


def test_how_records_are_cut_into_batches_changes_nothing() -> None:
    rows, _, _ = a_mixture()
    stamps = [START_NS + i * SECOND_NS // 16 for i in range(len(rows))]
    whole = examine([batch(rows, stamps_ns=stamps)])
    parts = []
    for at in range(0, len(rows), 97):
        part = batch(rows[at : at + 97], stamps_ns=stamps[at : at + 97])
        n = len(part.values)
        parts.append(RecordBatch(part.source, at, at + n, range(at, at + n),
                                 part.timestamps_ms, part.values))  # fmt: skip
    assert as_document(examine(parts)) == as_document(whole)


def test_one_trade_sent_twice_is_a_repeat_and_equal_times_are_counted() -> None:
    rows = []
    for k in range(100):
        time_ns = START_NS + k // 4 * SECOND_NS  # four to a time: three of four as the one before
        row = {"symbol": "A", "time": time_ns, "price": 10.0 + k % 3, "id": k + 1}
        rows += [row, row] if k % 10 == 0 else [row]
    found = examine([batch(rows)])
    own = symbol(found, "A")
    assert own.repeated == pytest.approx(10 / 110)
    assert found.topics[0].outcomes["repeated"] == 10
    assert own.equal_stamps == pytest.approx(75 / 99)


def clocked(offset_s: float, rng: np.random.Generator) -> Findings:
    seconds = arrivals(rng, 1.0, 3600.0)
    stamps = np.array(at_ns(seconds)) + rng.uniform(0.1, 0.3, len(seconds)) * SECOND_NS
    times = [t + round(offset_s * SECOND_NS) for t in at_ns(seconds)]
    return examine([batch(trades("V:A", times, walk(rng, len(times))), stamps_ns=stamps)])


@pytest.mark.parametrize("seed", [3])
def test_skew_against_the_log_is_the_delay_that_was_put_in(seed: int) -> None:
    (skew,) = clocked(0.0, np.random.default_rng(seed)).skews
    assert (skew.format, skew.venue, skew.against, skew.remark) == ("native", "V", "log", "")
    # uniform from .1 to .3 s; of 3600 delays quantiles are right to 2 ms, the log's times to 1
    assert (skew.low_s, skew.median_s, skew.high_s) == pytest.approx((-0.29, -0.2, -0.11), abs=0.01)


@pytest.mark.parametrize("seed", [4])
def test_a_clock_ahead_and_local_time_are_told_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (ahead,) = clocked(0.5, rng).skews
    assert ahead.median_s == pytest.approx(0.3, abs=0.01)
    assert ahead.remark == f"its clock is ahead by {1000 * ahead.median_s:.0f} ms"
    (local,) = clocked(-5 * 3600.0, rng).skews
    assert local.remark == "off by -5 h: looks like local time written as UTC"
    east = clocked(2 * 3600.0, rng)
    assert east.skews[0].remark.startswith("off by +2 h")


@pytest.mark.parametrize("seed", [5])
def test_a_backfill_says_nothing_about_clocks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seconds = arrivals(rng, 1.0, 7200.0)
    stamps = START_NS + 86_400 * SECOND_NS + np.arange(len(seconds)) * 1_000_000
    rows = trades("A", at_ns(seconds), walk(rng, len(seconds)))
    (skew,) = examine([batch(rows, stamps_ns=stamps)]).skews
    assert skew.remark == "written to the log long after it happened: says nothing about clocks"


@pytest.mark.parametrize("hours", [0, -5, 3])
@pytest.mark.parametrize("seed", [6])
def test_a_venue_on_local_time_is_found_by_another_one_of_the_same_instrument(
    hours: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    n = 18 * 3600
    truth = walk(rng, n, bp=0.5, start=1.4)
    parts = []
    for name, shift_h, rate in (("ONE:EURUSD", 0, 0.5), ("TWO:EUR-USD", hours, 0.4)):
        seconds = arrivals(rng, rate, n - 1.0)
        mid = truth[seconds.astype(int)]
        times = at_ns(seconds, START_NS + shift_h * HOUR_NS)
        parts.append(batch(quotes(name, times, mid, 1e-5), name.replace(":", "-")))
    found = examine(parts)
    if hours == 0:
        assert found.shifts == []
        return
    (shift,) = found.shifts
    assert (shift.symbol, shift.reference) == ("TWO:EUR-USD", "ONE:EURUSD")
    assert shift.hours == -hours  # put so much later it agrees
    assert shift.correlation > 0.8 > 0.2 > shift.unshifted  # prices a second apart, bars of 30


@pytest.mark.parametrize("seed", [7])
def test_lateness_is_what_keeps_all_but_one_in_a_thousand_in_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seconds = np.linspace(0.0, 1999.9, 20_000)
    held = rng.random(20_000) < 0.01
    order = np.argsort(seconds + np.where(held, 8.0, 0.0), kind="stable")
    names = ["A", "B"]
    price = walk(rng, 20_000)
    rows = [
        {"symbol": names[i % 2], "time": t, "price": p}
        for i, (t, p) in enumerate(zip(at_ns(seconds), price.tolist(), strict=True))
    ]
    found = examine([batch([rows[i] for i in order.tolist()])])
    assert found.order.lateness_s == pytest.approx(8.0, abs=0.1)  # ticks are .1 s apart
    assert found.order.late == found.topics[0].outcomes["late"] == held.sum()
    assert loaded(found).time.lateness == 10 * SECOND_NS


@pytest.mark.parametrize("seed", [8])
def test_idle_slack_covers_what_one_partition_is_behind_the_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for partition, (name, delay_s) in enumerate((("A", 0.1), ("B", 8.0))):
        seconds = arrivals(rng, 2.0, 3600.0)
        stamps = [t + round(delay_s * SECOND_NS) for t in at_ns(seconds)]
        rows = trades(name, at_ns(seconds), walk(rng, len(seconds)))
        parts.append(batch(rows, partition=partition, stamps_ns=stamps))
    found = examine(parts)
    # 7.9 s, and what passes until the next tick of the partition that is in time
    assert found.order.slack_s == pytest.approx(7.9, abs=0.5)
    assert found.order.lateness_s == 0.0
    assert loaded(found).time.idle_slack == 10 * SECOND_NS


@pytest.mark.parametrize("seed", [9])
def test_splits_are_found_where_prices_stay_and_not_where_one_print_is_off(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seconds = np.arange(1000.0)
    price = walk(rng, 1000)
    price[300:] /= 2.0
    price[700:] *= 5.0
    price[500] *= 3.0  # a single print
    rows = trades("A", at_ns(seconds), price)
    own = symbol(examine([batch(rows)]), "A")
    assert [(time_ns, name) for time_ns, _, name in own.splits] == [
        (START_NS + 300 * SECOND_NS, "2:1"),
        (START_NS + 700 * SECOND_NS, "1:5"),
    ]


@pytest.mark.parametrize("seed", [10, 11])
def test_a_lead_is_found_and_makes_the_window_twenty_times_as_long(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = walk(rng, 7300, bp=2.0)
    first, second = (arrivals(rng, 1.0, 7200.0) for _ in range(2))
    parts = (
        trades("A", at_ns(first), truth[first.astype(int) + 10]),
        trades("B", at_ns(second), truth[second.astype(int)]),  # 10 s behind
    )
    found = examine([batch(in_order(*parts))])
    (lead,) = found.leads
    assert (lead.leader, lead.follower) == ("A", "B")
    assert lead.lead_s == pytest.approx(10.0, abs=1.0)
    window_s = loaded(found).universe[0].ewma.window / SECOND_NS
    assert 20 * lead.lead_s <= window_s <= 300.0  # the next round time


@pytest.mark.parametrize("seed", [12])
def test_symbols_without_leads_have_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = walk(rng, 7300, bp=2.0)
    parts = []
    for name in "ABCDEF":
        seconds = arrivals(rng, 1.0, 7200.0)
        parts.append(trades(name, at_ns(seconds), truth[seconds.astype(int)]))
    assert examine([batch(in_order(*parts))]).leads == []


@pytest.mark.parametrize("seed", [13])
def test_quotes_are_recommended_where_trades_bounce_between_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for name in ("A", "B"):
        seconds = arrivals(rng, 2.0, 3600.0)
        mid = np.round(walk(rng, len(seconds), bp=0.3), 2)
        parts.append(quotes(name, at_ns(seconds), mid, 0.05))
        side = rng.choice([-0.05, 0.05], len(seconds))
        later = [t + 1000 for t in at_ns(seconds)]
        parts.append(trades(name, later, np.round(mid + side, 2)))
    found = examine([batch(in_order(*parts))])
    for name in ("A", "B"):
        own = symbol(found, name)
        assert own.spread_bp == pytest.approx(10.0, rel=0.03)  # .1 of about 100
        assert own.step == pytest.approx(0.01)
        assert own.trades is not None
        assert own.mids is not None
        # Roll: minus the autocovariance is the square of half a spread; 5 % of 7200 returns
        assert own.trades.bounce_bp == pytest.approx(5.0, rel=0.1)
        assert own.mids.bounce_bp < 1.0
    assert loaded(found).universe[0].price == "mid"


@pytest.mark.parametrize("seed", [14])
def test_a_symbol_too_slow_for_the_window_of_the_others_is_left_out_and_said(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for name, rate in (("A", 1.0), ("B", 0.8), ("C", 0.9), ("SLOW", 0.01), ("MID", 0.1)):
        seconds = arrivals(rng, rate, 14_400.0)
        parts.append(trades(name, at_ns(seconds), walk(rng, len(seconds))))
    found = examine([batch(in_order(*parts))])
    universe = loaded(found).universe[0]
    assert {*universe.symbols} == {"A", "B", "C", "MID"}
    ((name, why),) = found.advice.left_out
    assert name == "SLOW"
    assert "windows" in why
    assert universe.ewma.window == 60 * SECOND_NS  # three ticks of MID are 30 s
    assert universe.n_eff_max >= 50.0


@pytest.mark.parametrize("seed", [15])
def test_bars_are_recommended_as_bars(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seconds = np.linspace(0.0, 2999 * 300.0, 3000)
    parts = [trades(name, at_ns(seconds), walk(rng, 3000, bp=20.0)) for name in ("A", "B", "C")]
    universe = loaded(examine([batch(in_order(*parts))])).universe[0]
    assert universe.bar == 300 * SECOND_NS
    assert universe.ewma.bars_per_window(universe.bar) == 3  # three ticks
    assert universe.dcc.bar == 900 * SECOND_NS


@pytest.mark.parametrize("seed", [16])
def test_prices_of_both_signs_are_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seconds = np.arange(3000.0)
    spread = rng.normal(0.0, 1.0, 3000).cumsum() * 0.1
    parts = (
        trades("SPREAD", at_ns(seconds), spread),
        trades("A", at_ns(seconds), walk(rng, 3000)),
    )
    found = examine([batch(in_order(*parts))])
    assert loaded(found).universe[0].return_of("SPREAD") == "diff"
    assert loaded(found).universe[0].return_of("A") == "log"
    assert symbol(found, "SPREAD").splits == []


def test_dicts_of_ccxt_from_two_exchanges_are_told_apart_by_topic() -> None:
    def dicts(price: float) -> list[object]:
        return [
            {"symbol": name, "timestamp": START_NS // 1_000_000 + 1000 * k, "datetime": None,
             "price": price + k % 3, "amount": 1.0, "id": str(k), "info": {}}
            for k in range(2000) for name in ("BTC/USDT", "ETH/USDT")
        ]  # fmt: skip

    found = examine([batch(dicts(100.0), "ccxt-kraken"), batch(dicts(101.0), "mine")])
    assert found.advice.exchanges == {"ccxt-kraken": "KRAKEN", "mine": "MINE"}
    assert {*loaded(found).universe[0].symbols} == {
        f"{exchange}:{name}/USDT" for exchange in ("KRAKEN", "MINE") for name in ("BTC", "ETH")
    }


def test_two_spellings_of_one_venue_become_one_symbol_with_an_alias() -> None:
    rows: list[object] = []
    for k in range(1500):
        ms = START_NS // 1_000_000 + 1000 * k
        for name, level in (("BTC", 100.0), ("ETH", 7.0)):
            price = level + 0.01 * (k % 5)
            rows.append({"exchange": "BINANCE", "symbol": f"{name}-USDT", "side": "buy",
                         "amount": 1.0, "price": price, "id": None, "type": None,
                         "timestamp": ms / 1000, "receipt_timestamp": ms / 1000})  # fmt: skip
        rows.append({"e": "trade", "E": ms, "s": "BTCUSDT", "t": k + 1, "p": "100.02", "q": "1",
                     "T": ms, "m": False})  # fmt: skip
    found = examine([batch(rows)])
    assert {one.symbol for one in found.symbols} == {"BINANCE:BTC-USDT", "BINANCE:ETH-USDT"}
    assert loaded(found).input.aliases == {"BINANCE:BTCUSDT": "BINANCE:BTC-USDT"}


def test_names_of_any_characters_survive_the_settings() -> None:
    names = [
        "slow\n[kafka]\nclient_id = 'theirs'",
        'A"B\\',
        "\x7f\t\u2028",
        "\U0001f4c8 ü\x9b",
        "#[x]",
    ]
    rng = np.random.default_rng(17)
    parts = [
        trades(name, at_ns(np.linspace(0.0, 4500.0, n)), walk(rng, n))
        for name, n in zip(names, (180, 1500, 1500, 1500, 1500), strict=True)
    ]
    rows = in_order(*parts)
    found = examine([batch(rows, "no topic's name")])
    assert any("client_id" in reason.why for reason in found.advice.reasons)
    assert loaded(found).kafka.client_id == "stream-calib"
    assert {*loaded(found).universe[0].symbols} == {*names}


@given(st.lists(st.binary(max_size=40) | st.none(), max_size=20), st.integers(-1, 2**42))
def test_no_bytes_make_it_fail(values: list[bytes | None], stamp_ms: int) -> None:
    n = len(values)
    found = examine([RecordBatch(Source("t", 0), 0, n, range(n), [stamp_ms] * n, values)])
    orjson.dumps(as_document(found))


FRAGMENTS = [
    {"symbol": "A", "time": START_NS, "price": 1.0},
    {"symbol": "A", "time": START_NS + 1, "bid": 0.0, "ask": 1e300},
    {"symbol": "B", "time": 2**62, "price": -1e-300},
    {"symbol": "", "time": None, "price": "x"},
    {"symbols": ["A", "B"], "symbol": [0, 1], "time": [START_NS, START_NS], "price": [1.0, None]},
    {"symbol": "A", "time": START_NS, "adjust": {"factor": 0.5}},
    base64.b64decode("AAAAAAd7fQ=="),
    [], {}, [[{}]], 7, None,
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30))
def test_no_mixture_of_odd_messages_makes_it_fail(rows: list[object]) -> None:
    found = examine([batch(rows)])
    orjson.dumps(as_document(found))
    if len(found.advice.symbols) > 1:
        loaded(found)


def test_nothing_is_found_in_nothing() -> None:
    found = examine([])
    assert (found.topics, found.symbols, found.advice.symbols) == ([], [], [])
    assert [*itertools.chain(found.skews, found.shifts, found.leads)] == []


@pytest.mark.parametrize("seed", [18])
def test_times_ahead_of_the_log_are_still_accepted_by_the_settings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for name in ("A", "B"):
        seconds = arrivals(rng, 1.0, 3600.0)
        times = [t + 2 * HOUR_NS for t in at_ns(seconds)]
        rows = trades(name, times, walk(rng, len(seconds)))
        parts.append(batch(rows, name, stamps_ns=at_ns(seconds)))
    found = examine(parts)
    assert all({*topic.outcomes} == {"time_ahead"} for topic in found.topics)  # by default
    assert loaded(found).time.max_ahead > 2 * HOUR_NS


@pytest.mark.parametrize("seed", [19])
def test_a_grid_too_coarse_for_the_filter_is_said(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for name, step in (("FINE", 0.001), ("COARSE", 1.0)):
        seconds = arrivals(rng, 1.0, 3600.0)
        price = np.round(walk(rng, len(seconds), bp=3.0) / step) * step
        parts.append(trades(name, at_ns(seconds), price))
    reasons = examine([batch(in_order(*parts))]).advice.reasons
    (why,) = (reason.why for reason in reasons if reason.key == "filter.enabled")
    assert why.endswith("3 moves: COARSE")


@pytest.mark.parametrize("seed", [20])
def test_one_symbol_in_two_topics_of_different_clocks_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 10 * 3600
    truth = walk(rng, n)
    parts = []
    for topic, hours in (("london", 0), ("local", 9)):
        seconds = arrivals(rng, 0.5, n - 1.0)
        times = at_ns(seconds, START_NS + hours * HOUR_NS)
        parts.append(batch(trades("A", times, truth[seconds.astype(int)]), topic))
    (shift,) = examine(parts).shifts
    assert {shift.symbol, shift.reference} == {"A in london", "A in local"}
    assert shift.hours == (9 if shift.symbol == "A in london" else -9)
