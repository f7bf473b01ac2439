"""The main job on a real broker, on real and on broken input."""

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import orjson
import pandas as pd
import pytest

from stream_calib.adapters.files import FileSource
from stream_calib.values import F64
from tests.kafka.service import AFTERWARDS, create, kcat, running, settings, write
from tests.real_parts import TopicMaker

BAR_S = 5
HALF_LIFE_BARS = 240


async def test_phemex_trades_give_the_matrices_that_pandas_gives(
    kafka_bootstrap: str,
    new_topic: TopicMaker,
    market_data: Path,
    require_binary: Callable[[str], Path],
) -> None:
    path = market_data / "ticks" / "phemex_10sym_trades_20210703.csv.gz"
    trades = pd.read_csv(path)
    symbols = sorted(trades["symbol"].unique())
    topic = await new_topic("ticks")
    source = FileSource([path])
    source.open()
    (batch,) = source.take(1_000_000)
    universe = {
        "name": "phemex",
        "symbols": symbols,
        "bar": f"{BAR_S}s",
        # bars alone, to be compared with pandas
        "ewma": {"half_life": f"{HALF_LIFE_BARS * BAR_S}s", "window": f"{BAR_S}s", "winsor": 0.0},
        "filter": {"enabled": False},
        "dcc": {"enabled": False},  # the first fit is there before the last tick on a busy machine
    }
    config = settings(kafka_bootstrap, [topic], universe, flush_after=f"{BAR_S}s")
    await write(kafka_bootstrap, [(topic, 0, value or b"") for value in batch.values])
    last_s = trades["timestamp"].max()
    end_ns = (int(last_s // BAR_S) + 1) * BAR_S * 1_000_000_000
    async with running(config) as service:
        await service.until_as_of(end_ns)
        assert service.outcomes["applied"] == len(trades) == service.seen

    read = kcat(require_binary("kcat"), kafka_bootstrap, f"{config.output.prefix}.correlations")
    assert [record["value"]["sequence"] for record in read] == list(range(1, len(read) + 1))
    assert len(read) > 1000
    expected = _pandas_matrices(trades, symbols)
    worst = 0.0
    for record in read:
        value = record["value"]
        corr, n_eff = expected(int(value["as_of_ns"]))
        chosen = [symbols.index(symbol) for symbol in value["symbols"]]
        upper = np.triu_indices(len(chosen), 1)
        repair = value["quality"]["repair"]
        found = np.array(value["corr"]) / (1.0 - repair)
        # the cap at 1 - 1e-6 is ours, not pandas'
        wanted = np.clip(corr[np.ix_(chosen, chosen)][upper], -1 + 1e-6, 1 - 1e-6)
        worst = max(worst, float(np.abs(found - wanted).max()))
        # masked in the same cells: who is published has the data for it, who is not has not
        own = np.diagonal(n_eff)
        assert (own[chosen] >= 10.0 * (1 - 1e-9)).all()
        assert sorted(value["symbols"] + value["pending"]) == symbols
        for symbol in value["pending"]:
            others = n_eff[symbols.index(symbol), chosen]
            assert own[symbols.index(symbol)] < 20.0 or others.min() < 10.0
    assert worst < 1e-9, worst


def _pandas_matrices(trades: pd.DataFrame, symbols: list[str]) -> Callable[[int], tuple[F64, F64]]:
    """EWMA correlation on the bars, by pandas' own ewm.

    A return runs from the last observed bar to this one and spans that many bars; a pair is
    observed in the bars where both returns span the same, and its variances are taken there too.
    Prices older than 60 bars are no basis for a return.
    """
    bar = (trades["timestamp"] // BAR_S).astype("int64").rename("bar")
    first = int(bar.min())
    last_of_bar = trades.groupby([bar, trades["symbol"]])["price"].last()
    price = last_of_bar.unstack().reindex(range(first, int(bar.max()) + 1))
    seen = {s: price[s].dropna() for s in symbols}
    spans = {s: seen[s].index.to_series().diff() for s in symbols}
    spans = {s: span.where(span <= 60).reindex(price.index) for s, span in spans.items()}
    returns = {s: np.log(seen[s]).diff().reindex(price.index).where(spans[s] > 0) for s in symbols}
    decay = 0.5 ** (1 / HALF_LIFE_BARS)

    def decayed(column: pd.Series, rate: float) -> F64:
        # adjust=True divides by the sum of the weights; multiplied back it is the plain sum
        values = column.fillna(0.0).ewm(alpha=1 - rate, adjust=True).mean().to_numpy()
        return np.asarray(values * np.cumsum(rate ** np.arange(len(values))))

    n = len(symbols)
    corr, n_eff = np.empty((n, n, len(price))), np.empty((n, n, len(price)))
    for i, a in enumerate(symbols):
        for j, b in enumerate(symbols):
            alike = spans[a] == spans[b]
            ri, rj = returns[a].where(alike), returns[b].where(alike)
            overlap = spans[a].where(alike)
            square = decayed(ri * ri, decay) * decayed(rj * rj, decay)
            with np.errstate(invalid="ignore"):
                corr[i, j] = decayed(ri * rj, decay) / np.sqrt(square)
                n_eff[i, j] = decayed(overlap, decay) ** 2 / decayed(overlap**2, decay**2)

    def at(as_of_ns: int) -> tuple[F64, F64]:
        row = as_of_ns // (BAR_S * 1_000_000_000) - 1 - first
        return corr[:, :, row], np.nan_to_num(n_eff[:, :, row])

    return at


@pytest.mark.full
async def test_every_recorded_trades_message_is_applied_counted_or_rejected(
    kafka_bootstrap: str, market_data: Path
) -> None:
    rows: list[tuple[str, int, bytes]] = []
    for path in sorted((market_data / "raw" / "cryptofeed_kafka").glob("*.tsv.gz")):
        with gzip.open(path) as file:
            for line in file:
                topic, _, value = line.rstrip(b"\n").partition(b"\t")
                if topic.startswith(b"trades-"):
                    rows.append((topic.decode(), 0, value))
    topics = sorted({topic for topic, _, _ in rows})
    symbols = sorted(
        {f"{d['exchange']}:{d['symbol']}" for d in map(orjson.loads, (v for _, _, v in rows))}
    )
    assert len(rows) > 10_000
    assert len(topics) == len(symbols) == 30
    outcomes: dict[str, Counter[str]] = {}
    # each venue was recorded on a day of its own, so each is a universe of its own
    venues = sorted({symbol.split(":")[0] for symbol in symbols})
    for venue in venues:
        own_topics = [topic for topic in topics if topic.startswith(f"trades-{venue}-")]
        own = [symbol for symbol in symbols if symbol.startswith(f"{venue}:")]
        if len(own) < 2:
            own = [*own, f"{venue}:NOBODY"]
        universe = {"name": venue, "symbols": own, "bar": "10s"}
        here = [row for row in rows if row[0] in own_topics]
        renamed = {name: f"{venue}-{name}-{Random().getrandbits(40):x}" for name in own_topics}
        await create(kafka_bootstrap, renamed.values())
        await write(kafka_bootstrap, [(renamed[t], p, value) for t, p, value in here])
        config = settings(
            kafka_bootstrap, list(renamed.values()), universe, lateness="60s", flush_after="10s"
        )
        async with running(config) as service:
            # held ticks get their outcome when the source has been silent for long enough
            await service.until_seen(len(here))
        first = {name: n for name, n in service.outcomes.items() if name not in AFTERWARDS}
        outcomes[venue] = Counter(first)
        assert set(outcomes[venue]) <= {"applied", "late", "time_jump"}
        assert outcomes[venue]["applied"] > 0
    # PHEMEX begins with its history newest first: what is older than the lateness is late
    assert outcomes["PHEMEX"]["late"] > 5000
    assert sum(sum(counts.values()) for counts in outcomes.values()) == len(rows)


async def test_garbage_loses_nothing_and_changes_no_byte(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    random = Random(20210703)
    symbols = ["SIM:A", "SIM:B", "SIM:C"]
    start_ns = pd.Timestamp.now().value // 10**9 * 10**9 - 600 * 10**9
    good = [
        orjson.dumps(
            {
                "symbol": random.choice(symbols),
                "time": start_ns + k * 50_000_000,
                "price": round(100 + random.gauss(0, 1), 4),
            }
        )
        for k in range(4000)
    ]
    bad = [_garbage(random, start_ns) for _ in range(998)]
    bad += [random.randbytes(2_000_000), b"{" * 2_000_000]
    random.shuffle(bad)
    spots = sorted(random.randrange(len(good)) for _ in bad)
    mixed: list[bytes] = []
    at = 0
    for spot, value in zip(spots, bad, strict=True):
        mixed += good[at:spot]
        at = spot
        mixed.append(value)
    mixed += good[at:]
    universe = {
        "name": "g",
        "symbols": symbols,
        "bar": "1s",
        "ewma": {"half_life": "1m", "window": "2s"},
    }
    matrices: list[list[bytes]] = []
    rejects: list[list[bytes]] = []
    for values in (good, mixed):
        topic = await new_topic("ticks", configs={"max.message.bytes": "4000000"})
        config = settings(kafka_bootstrap, [topic], universe, flush_after="2s")
        await write(kafka_bootstrap, [(topic, 0, value) for value in values])
        async with running(config) as service:
            await service.until_seen(len(values))
            last_ns = (start_ns + 3999 * 50_000_000) // 10**9 * 10**9 + 10**9
            await service.until_as_of(last_ns)
        assert service.outcomes["applied"] == len(good)
        matrices.append(await _values(kafka_bootstrap, f"{config.output.prefix}.correlations"))
        rejects.append(await _values(kafka_bootstrap, f"{config.output.prefix}.rejects"))
    assert len(matrices[0]) > 150
    assert matrices[0] == matrices[1]
    assert rejects[0] == []
    assert Counter(rejects[1]) == Counter(value[:65_536] for value in bad)


async def _values(bootstrap: str, topic: str) -> list[bytes]:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        out: list[bytes] = []
        while await consumer.position(partition) < end:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                out += [record.value for record in records]
        return out
    finally:
        await consumer.stop()


def _garbage(random: Random, now_ns: int) -> bytes:
    def tick(**changes: object) -> bytes:
        return orjson.dumps({"symbol": "SIM:A", "time": now_ns, "price": 100.0} | changes)

    kinds: list[Callable[[], bytes]] = [
        lambda: random.randbytes(random.randint(1, 200)),
        lambda: b'{"symbol":"SIM:A\xff\xfe","time":1,"price":2}',
        lambda: tick()[: random.randint(1, 40)],
        lambda: tick(price=random.choice([True, None, [], {}, "abc"])),
        lambda: tick(symbol=random.choice([1, None, [], ""])),
        lambda: tick(time=random.choice([None, "yesterday", [1], True])),
        lambda: tick().replace(b"100.0", random.choice([b"NaN", b"1e400", b"-1e999", b"Infinity"])),
        lambda: tick(price=-abs(random.gauss(0, 100)) - 1e-9),
        lambda: tick(price=0),
        lambda: tick(time=random.choice([0, 1000, 86_400_000])),
        lambda: tick(time=3_786_912_000_000_000_000 + random.randint(0, 10**15)),
        lambda: tick(time=now_ns + 3600 * 10**9 + random.randint(10**12, 10**13)),
        lambda: tick(price=None, bid=101.0, ask=100.0),
        lambda: b"",
        lambda: b"[]" * random.randint(1, 5),
        lambda: b"null",
    ]
    return random.choice(kinds)()
