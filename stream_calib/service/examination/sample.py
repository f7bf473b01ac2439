"""The ticks of a look at some sources, as columns; other names of an instrument made one."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from stream_calib.values import F64, I64, TICK, RecordBatch, Source
from stream_calib.wire.ticks.reading import NO_FORMAT
from stream_calib.wire.ticks.survey import OF_LOG, Label, Survey, Surveyed

NAME_TAKES = 0.02  # by how much prices of one instrument under two names may differ
STRANGE_MAX, KEYS_MAX, KEY_LENGTH = 1000, 12, 20  # of messages that no format knows
EXCHANGES = (
    *("binance", "bybit", "coinbase", "kraken", "okx", "bitfinex", "bitstamp", "bitmex", "deribit"),
    *("gateio", "huobi", "kucoin", "gemini", "phemex", "bitget", "poloniex", "oanda", "fxcm"),
)


class Sample(NamedTuple):
    """Ticks in the order of their records, source after source; all columns are (m,).

    ``source`` and ``label`` are indices into ``sources`` and ``labels``; ``stamp_ns`` is when the
    log took a tick in (-1: it does not say), ``received_ns`` when whoever wrote it had it (0). What
    a tick does not carry is NaN; ``ident`` is 0 for none.
    """

    symbols: Sequence[str]
    sources: Sequence[Source]
    labels: Sequence[Label]
    asset: I64
    time_ns: I64
    price: F64
    bid: F64
    ask: F64
    ident: I64
    source: I64
    label: I64
    stamp_ns: I64
    received_ns: I64

    def chosen(self, which: Any) -> "Sample":  # noqa: ANN401
        """Pick ticks by a mask or indices."""
        return Sample(*self[:3], *(column[which] for column in self[3:]))

    @property
    def own_time(self) -> npt.NDArray[np.bool_]:
        """Whether a tick has a time of its own, which is not the log's."""
        of_log = np.array([label.unit == OF_LOG for label in self.labels], dtype=np.bool_)
        return ~of_log[self.label] if len(self.labels) else np.empty(0, np.bool_)


class Look(NamedTuple):
    """What was read: the ticks, and what became of records that brought none."""

    sample: Sample
    records: Mapping[str, int]
    envelopes: Mapping[str, int]
    refused: Mapping[tuple[str, str], int]
    silent: Mapping[tuple[str, str], int]
    unknown: Mapping[tuple[str, ...], int]
    batches: Sequence[Surveyed]


def look_at(batches: Sequence[RecordBatch]) -> Look:
    """Decode records and put their ticks together; refused and silent ones are by topic, reason."""
    survey = Survey()
    records: Counter[str] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    silent: Counter[tuple[str, str]] = Counter()
    unknown: Counter[tuple[str, ...]] = Counter()
    taken: list[Surveyed] = []
    for batch in batches:
        found = survey.take(batch)
        topic = batch.source.topic
        records[topic] += len(batch.values)
        refused.update((topic, bad.reason) for bad in found.ticks.malformed)
        silent.update({(topic, reason): n for reason, n in found.ticks.silent.items()})
        strange = [bad.row for bad in found.ticks.malformed if bad.reason == NO_FORMAT]
        unknown.update(_keys(batch.values[row]) for row in strange[:STRANGE_MAX])
        taken.append(found)
    sample = _sample(survey, taken)
    return Look(sample, records, survey.envelopes, refused, silent, unknown, taken)


def _keys(value: bytes | None) -> tuple[str, ...]:
    """Return the names in a message that no format knows, never what they hold."""
    try:
        document = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return ()
    if not isinstance(document, dict):
        return (type(document).__name__,)
    return tuple(key[:KEY_LENGTH] for key in document)[:KEYS_MAX]


def _sample(survey: Survey, taken: Sequence[Surveyed]) -> Sample:
    sources = sorted({found.ticks.records.source for found in taken})
    at = {source: i for i, source in enumerate(sources)}
    # one source's batches one after the other, as its partition has them
    taken = sorted(taken, key=lambda found: found.ticks.records.source)
    columns: defaultdict[str, list[npt.NDArray[Any]]] = defaultdict(list)
    for found in taken:
        ticks = found.ticks
        stamps = np.array(ticks.records.timestamps_ms, dtype=np.int64)[ticks.row]
        ordinary = np.ones(len(ticks.row), np.bool_) if ticks.kind is None else ticks.kind == TICK
        own: dict[str, npt.NDArray[Any]] = {
            "asset": ticks.asset,
            "time_ns": ticks.time_ns,
            "price": ticks.price,
            "bid": np.where(ticks.bid > 0.0, ticks.bid, np.nan),
            "ask": np.where(ticks.ask > 0.0, ticks.ask, np.nan),
            "ident": ticks.ident,
            "source": np.full(len(ticks.row), at[ticks.records.source]),
            "label": found.label,
            "stamp_ns": np.where(stamps < 0, -1, stamps * 1_000_000),
            "received_ns": found.received_ns,
        }
        for name, column in own.items():
            columns[name].append(column[ordinary])
    joined = {name: np.concatenate(columns[name]) for name in columns}
    if not joined:
        nothing = np.empty(0, np.int64)
        joined = dict.fromkeys(Sample._fields[3:], nothing)
    return Sample(survey.symbols, sources, survey.labels, **joined)


class Naming(NamedTuple):
    """What input.exchanges and input.aliases should be for a sample, and what it is under them."""

    sample: Sample
    exchanges: Mapping[str, str]
    aliases: Mapping[str, str]


def name_symbols(sample: Sample) -> Naming:
    """Tell symbols of several topics apart, and names of one instrument together."""
    sample, exchanges = _told_apart(sample)
    sample, aliases = _put_together(sample)
    return Naming(sample, exchanges, aliases)


def _told_apart(sample: Sample) -> tuple[Sample, dict[str, str]]:
    """Name the exchange of topics whose messages do not, where one of their symbols is in two."""
    topics = np.array([source.topic for source in sample.sources] or [""])
    nameless = [label.format == "ccxt" for label in sample.labels]
    if not any(nameless):
        return sample, {}
    plain = np.array([":" not in symbol.partition("/")[0] for symbol in sample.symbols])
    loose = np.array(nameless)[sample.label] & plain[sample.asset]
    topic_of = topics[sample.source]
    pairs = {(sample.asset[i], topic_of[i]) for i in np.flatnonzero(loose)}
    times = Counter(asset for asset, _ in pairs)
    shared = {topic for asset, topic in pairs if times[asset] > 1}
    exchanges = {str(topic): _exchange_of(str(topic)) for topic in sorted(shared)}
    symbols, asset = [*sample.symbols], sample.asset.copy()
    for topic, exchange in exchanges.items():
        here = loose & (topic_of == topic)
        for old in np.unique(sample.asset[here]).tolist():
            asset[here & (sample.asset == old)] = len(symbols)
            symbols.append(f"{exchange}:{sample.symbols[old]}")
    return sample._replace(symbols=symbols, asset=asset), exchanges


def _exchange_of(topic: str) -> str:
    known = next((name for name in EXCHANGES if name in topic.lower()), None)
    return topic.upper()[:100] if known is None else known.upper()


def instrument(symbol: str) -> str:
    """Return what of a symbol says which instrument it is, however its venue spells it."""
    return "".join(c for c in symbol.partition(":")[2] or symbol if c.isalnum()).upper()


def venue(symbol: str) -> str:
    """Return the exchange that a symbol names, "" for none."""
    before, colon, _ = symbol.partition(":")
    return before if colon else ""


def _put_together(sample: Sample) -> tuple[Sample, dict[str, str]]:
    """Make one of symbols of one exchange that differ in spelling and agree in price."""
    alike: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    counts = np.bincount(sample.asset, minlength=len(sample.symbols))
    for i in np.flatnonzero(counts).tolist():
        symbol = sample.symbols[i]
        if venue(symbol):
            alike[venue(symbol), instrument(symbol)].append(i)
    aliases: dict[str, str] = {}
    asset = sample.asset.copy()
    for spellings in alike.values():
        first, *others = sorted(spellings, key=lambda i: (-counts[i], i))
        for other in others:
            one, two = (_level(sample, i) for i in (first, other))
            if one > 0.0 and abs(two / one - 1.0) < NAME_TAKES:
                aliases[sample.symbols[other]] = sample.symbols[first]
                asset[sample.asset == other] = first
    return sample._replace(asset=asset), aliases


def _level(sample: Sample, asset: int) -> float:
    own = sample.chosen(sample.asset == asset)
    levels = np.concatenate([own.price, own.bid, own.ask])
    levels = levels[~np.isnan(levels)]
    return float(np.median(levels)) if len(levels) else 0.0
