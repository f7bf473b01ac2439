"""What is said of every real recording, beside what is known of it; and its settings run."""

import gzip
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from stream_calib.adapters.files import FileSource
from stream_calib.config import load_config
from stream_calib.service.examination import Findings, as_document, examine, settings_text
from stream_calib.service.replay import replay_effects
from stream_calib.values import RecordBatch

RECORDS_MOST = 60_000


class Truth(NamedTuple):
    """Formats, kinds and units of time; ``overlap``: two symbols move together in time."""

    written: set[tuple[str, str, str]]
    overlap: bool
    calendar: str = ""


S, MS, NS, RFC = "s", "ms", "ns", "RFC 3339"
TRADES_S, QUOTES_S = ("cryptofeed", "trade", S), ("cryptofeed", "quote", S)
NATIVE, NATIVE_QUOTES = ("native", "trade", NS), ("native", "quote", NS)
BINANCE = {("binance", "trade", MS), ("binance", "quote", MS)}
TRUTHS = {
    # two quotes of one symbol a second, of two others a handful
    "raw/cryptofeed_kafka/BINANCE.tsv.gz": Truth({TRADES_S, QUOTES_S}, overlap=False),
    "raw/cryptofeed_kafka/BINANCE_DELIVERY.tsv.gz": Truth({TRADES_S, QUOTES_S}, overlap=True),
    "raw/cryptofeed_kafka/BINANCE_FUTURES.tsv.gz": Truth(
        {TRADES_S, QUOTES_S, ("cryptofeed", "candle", S)}, overlap=True
    ),
    "raw/cryptofeed_kafka/BINANCE_US.tsv.gz": Truth(
        {TRADES_S, QUOTES_S, ("cryptofeed", "candle", S)}, overlap=True
    ),
    # INDEX.md: tickers and candles of BYBIT in milliseconds, its trades in seconds
    "raw/cryptofeed_kafka/BYBIT.tsv.gz": Truth(
        {TRADES_S, ("cryptofeed", "quote", MS)}, overlap=True
    ),
    "raw/cryptofeed_kafka/KRAKEN.tsv.gz": Truth({TRADES_S, QUOTES_S}, overlap=False),
    # its history comes newest first
    "raw/cryptofeed_kafka/PHEMEX.tsv.gz": Truth({TRADES_S}, overlap=True),
    # spot quotes have no time
    "raw/cryptofeed_v3/BINANCE.jsonl.zst": Truth(
        {("binance", "trade", MS), ("binance", "quote", "of the log")}, overlap=False
    ),
    "raw/cryptofeed_v3/BINANCE_DELIVERY.jsonl.zst": Truth(BINANCE, overlap=True),
    "raw/cryptofeed_v3/BINANCE_FUTURES.jsonl.zst": Truth(
        BINANCE | {("binance", "candle", MS)}, overlap=True
    ),
    "raw/cryptofeed_v3/BYBIT.jsonl.zst": Truth(
        {("bybit", kind, MS) for kind in ("trade", "quote", "ticker", "candle")}, overlap=True
    ),
    "raw/cryptofeed_v3/COINBASE.jsonl.zst": Truth(
        {("coinbase_advanced", "trade", RFC), ("coinbase_advanced", "ticker", RFC)}, overlap=True
    ),
    # arrays of version 1, which no format knows
    "raw/cryptofeed_v3/KRAKEN.jsonl.zst": Truth(set(), overlap=False),
    # a time as decimal text becomes a number of seconds
    "ticks/phemex_10sym_trades_20210703.csv.gz": Truth({("native", "trade", S)}, overlap=True),
    "ticks/R_sampleMultiTradeData_3sym.csv.gz": Truth(
        {("native", "trade", RFC)}, overlap=True, calendar="us_equity_as_utc"
    ),
    "ticks/lean/equity/usa/tick/ibm/20131007_trade.zip": Truth(
        {NATIVE}, overlap=False, calendar="us_equity"
    ),
    "ticks/lean/equity/usa/second/aig/20131007_quote.zip": Truth(
        {NATIVE_QUOTES}, overlap=False, calendar="us_equity"
    ),
    "ticks/lean/forex/oanda/tick/nzdusd/20140507_quote.zip": Truth({NATIVE_QUOTES}, overlap=False),
    "bars/binance_1m_close_40pairs_20210410_20210520.csv.gz": Truth({NATIVE}, overlap=True),
    # 22 sessions whose dates were made up, Saturdays among them
    "bars/R_sampleOneMinuteData_2sym.csv.gz": Truth(
        {NATIVE}, overlap=True, calendar="us_equity_as_utc"
    ),
    "daily/skfolio_sp500_20.csv.gz": Truth({NATIVE}, overlap=True),
}


def look(*paths: Path, most: int = RECORDS_MOST) -> Findings:
    source = FileSource(paths)
    source.open()
    batches: list[RecordBatch] = []
    try:
        while not source.exhausted() and sum(len(batch.values) for batch in batches) < most:
            batches += source.take(20_000)
    finally:
        source.release()
    return examine(batches)


def n_matrices(found: Findings, paths: list[Path], folder: Path, enough: int = 1) -> int:
    """Replay the recommended settings until there are enough matrices."""
    (folder / "pasted.toml").write_text(settings_text(found.advice))
    n = 0
    config = load_config(folder / "pasted.toml")
    for _, effects in replay_effects(paths, config, fitted=False):
        n += len(effects.matrices)
        if n >= enough:
            break
    return n


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.full if name.startswith(("bars", "daily")) else ())
        for name in TRUTHS
    ],
)
def test_what_is_said_of_a_recording_is_what_is_known_and_its_settings_publish(
    market_data: Path, tmp_path: Path, name: str
) -> None:
    path, truth = market_data / name, TRUTHS[name]
    found = look(path)
    orjson.dumps(as_document(found))
    assert {tuple(label) for topic in found.topics for label in topic.written} == truth.written
    assert found.sessions.name == truth.calendar
    assert (len(found.advice.symbols) > 1) == truth.overlap
    if truth.overlap:
        assert n_matrices(found, [path], tmp_path) > 0


@pytest.mark.full
def test_every_other_recording_is_looked_at_without_an_exception(market_data: Path) -> None:
    names = {*TRUTHS}
    paths = sorted(market_data.rglob("*.dbn.zst"))
    paths += [p for p in sorted(market_data.rglob("*.csv.gz")) if "1m_" not in p.name]
    for path in paths:
        if path.relative_to(market_data).as_posix() not in names:
            orjson.dumps(as_document(look(path, most=20_000)))


def test_four_shares_of_new_york_are_a_universe_in_its_hours(
    market_data: Path, tmp_path: Path
) -> None:
    folder = market_data / "ticks" / "lean" / "equity" / "usa" / "second"
    paths = sorted(folder.glob("*/20131007_quote.zip"))
    found = look(*paths, most=200_000)
    assert {*found.advice.symbols} == {"SPY", "BAC", "IBM", "AIG"}
    assert found.advice.policy == "mid"
    assert found.sessions.name == "us_equity"
    spreads = {one.symbol: one.spread_bp for one in found.symbols}
    # a cent of 168, 13.9 and 49 dollars
    assert spreads["SPY"] == pytest.approx(0.595, abs=0.01)
    assert spreads["BAC"] == pytest.approx(7.21, abs=0.05)
    assert n_matrices(found, paths, tmp_path, enough=10) >= 10


@pytest.mark.full
@pytest.mark.parametrize("pair", ["eurusd", "nzdusd"])
def test_the_clock_of_fxcm_is_five_hours_behind_where_it_is_taken_as_it_stands(
    market_data: Path, tmp_path: Path, pair: str
) -> None:
    paths = [
        market_data / "ticks" / "lean" / "forex" / broker / "tick" / pair / "20140507_quote.zip"
        for broker in ("oanda", "fxcm")
    ]
    assert look(*paths, most=300_000).shifts == []  # the reader knows FXCM's zone
    # rows of UTC-5 taken for UTC: five hours early
    source = FileSource(paths)
    source.open()
    batches: list[RecordBatch] = []
    while not source.exhausted():
        batches += source.take(50_000)
    source.release()
    rows = [orjson.loads(value or b"") for batch in batches for value in batch.values]
    for row in rows:
        if row["symbol"].startswith("FXCM:"):
            row["time"] -= 5 * 3600 * 10**9
    rows.sort(key=lambda row: row["time"])
    (tmp_path / "both.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    (shift,) = look(tmp_path / "both.jsonl", most=300_000).shifts
    hours = shift.hours if shift.symbol.startswith("FXCM:") else -shift.hours
    assert hours == 5
    assert shift.correlation > 0.9  # INDEX.md: .99 and .97 at 30 s
    assert abs(shift.unshifted) < 0.1


def test_bitflyer_leads_btcbox_by_a_quarter_of_a_minute(market_data: Path, tmp_path: Path) -> None:
    lines = []
    for venue in ("bitflyer", "btcbox"):
        path = market_data / "ticks" / f"leadlag_{venue}JPY_2018-08-12.csv.gz"
        _, *rows = gzip.decompress(path.read_bytes()).decode().split()
        for day, clock_price in zip(rows[::2], rows[1::2], strict=True):
            clock, price = clock_price.split(",")
            row = {"symbol": f"{venue.upper()}:BTCJPY", "time": f"{day}T{clock}Z", "price": price}
            lines.append((row["time"], orjson.dumps(row)))
    (tmp_path / "both.jsonl").write_bytes(b"\n".join(line for _, line in sorted(lines)))
    (lead,) = look(tmp_path / "both.jsonl").leads
    assert (lead.leader, lead.follower) == ("BITFLYER:BTCJPY", "BTCBOX:BTCJPY")
    # INDEX.md: 15 s by Hayashi and Yoshida with shifts; the lead is broad, 10 to 24 s by lag, and
    # nine lags are added up
    assert lead.lead_s == pytest.approx(15.0, abs=6.0)
