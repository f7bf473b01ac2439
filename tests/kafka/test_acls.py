"""What each role needs on a broker that forbids the rest: all of the list, and nothing less."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import stream_calib as sc
from deploy.kafka.broker import UnavailableError
from stream_calib.adapters.kafka import (
    KafkaCommitLog,
    KafkaSink,
    TopicSpec,
    ensure_topics,
    read_newest,
    read_tails,
)
from stream_calib.config import Config, parse_config
from stream_calib.errors import ForbiddenError, TransportError
from stream_calib.service.topics import output_topics, topics_by_role
from stream_calib.service.wiring import kafka_log, kafka_service
from stream_calib.values import Output, Source
from tests.kafka.guarded import (
    LISTED,
    PASSWORD,
    Guarded,
    Right,
    allow,
    forbid,
    guarded_broker,
    rights_of,
)
from tests.real_parts import ROOT, missing

START_MS = 1_700_000_000_000
SYMBOLS = ["A", "B"]
UNIVERSE = {
    "name": "fx",
    "symbols": SYMBOLS,
    "ready_n_eff": 3.0,
    "ewma": {"half_life": "10s", "window": "1s"},
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    try:
        with guarded_broker(tmp_path_factory.mktemp("guarded"), [*LISTED, "nobody"]) as broker:
            yield broker
    except UnavailableError as error:
        missing("STREAM_CALIB_REQUIRE_BROKER", f"no Kafka of our own: {error}")


def settings_of(guarded: Guarded, role: str, folder: Path, name: str) -> Config:
    kafka = guarded.config(role, connect_timeout=5_000_000_000)
    config = parse_config(
        {
            "app": f"app-{name}",
            "input": {"topics": [f"in-{name}"]},
            "time": {"flush_after": "1s"},
            "output": {"prefix": f"out-{name}"},
            "http": {"port": 0},
            "snapshots": {"folder": str(folder / name)},
            "universe": [UNIVERSE],
        }
    )
    return config.model_copy(update={"kafka": kafka})


def names_of(config: Config) -> dict[str, str]:
    return {
        "input": config.topics_of(config.universe[0])[0],
        "prefix": config.output.prefix,
        "app": config.app,
        "universe": "fx",
    }


def ticks(config: Config, first_s: int, n_s: int) -> list[Output]:
    topic = names_of(config)["input"]
    return [
        Output(
            topic, 0, b"",
            b'{"symbol":"%b","time":%d,"price":%d}'
            % (symbol.encode(), START_MS + 1000 * second + 500, 100 + (7 * second * (k + 1)) % 13),
            (),
        )
        for second in range(first_s, first_s + n_s)
        for k, symbol in enumerate(SYMBOLS)
    ]  # fmt: skip


async def prepared(guarded: Guarded, folder: Path) -> Config:
    """Make the topics of a service of its own, as somebody who may do everything."""
    name = uuid.uuid4().hex[:10]
    config = settings_of(guarded, "service", folder, name)
    everything = config.kafka.model_copy(
        update={"bootstrap_servers": guarded.open, "security_protocol": "PLAINTEXT"}
    )
    await ensure_topics(everything, [*output_topics(config), TopicSpec(names_of(config)["input"])])
    sink = KafkaSink(everything)
    await sink.publish(ticks(config, 0, 30))
    await sink.close()
    return config


class Work:
    """A service at work, and what it has published."""

    def __init__(self, config: Config) -> None:
        self.matrices: list[Any] = []
        self.service = kafka_service(config, self._note)
        self._changed = asyncio.Event()

    def _note(self, _universe: str, effects: Any) -> None:
        self.matrices += effects.matrices

    def lives(self) -> float:
        text = self.service.observer.render("")[0].decode()
        return sum(
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith("stream_calib_restarts_total")
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110  what it waits for sets no event
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def at_work(config: Config) -> AsyncIterator[Work]:
    work, stop = Work(config), asyncio.Event()
    task = asyncio.create_task(work.service.run(stop))
    try:
        yield work
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


async def served(config: Config, n: int = 1) -> Any:
    """Run the service until it has committed n matrices more; return its counters."""
    seen, enough = [], asyncio.Event()

    def note(_universe: str, effects: Any) -> None:
        seen.extend(effects.matrices)
        if len(seen) >= n:
            enough.set()

    service = kafka_service(config, note)
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    waiting = asyncio.create_task(enough.wait())
    try:
        async with asyncio.timeout(60):
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        waiting.cancel()
        await asyncio.wait({task}, timeout=30)
    await task
    return service


def everything(guarded: Guarded, config: Config) -> Any:
    return config.kafka.model_copy(
        update={"bootstrap_servers": guarded.open, "security_protocol": "PLAINTEXT"}
    )


def right_of(role: str, number: int, config: Config) -> Right:
    return rights_of(role, **names_of(config))[number]


SERVICE = range(len(LISTED["service"]))
NAMED = [" ".join(row[:3]) for row in LISTED["service"]]
# What is found out at the first commit, where the service goes on trying.
WRITING = {f"topic {{prefix}}.{role} Write" for role in ("correlations", "journal")}
# What only shows with a fit, a trim, a lag tool or a lost journal, and is asked of the log itself.
ASIDE = {
    "topic {prefix}.correlations Read",
    "topic {prefix}.events Read",
    "topic {prefix}.events Write",
    "topic {prefix}.fits Read",
    "topic {prefix}.fits Write",
    "topic {prefix}.journal Delete",
    "group {app}.{universe} Read",
}
AT_START = [i for i in SERVICE if NAMED[i] not in ASIDE | WRITING]
LATER = [i for i in SERVICE if NAMED[i] in WRITING]


def some_of(numbers: Sequence[int], n: int) -> list[Any]:
    """Return all of them, the first few for every run and the others for the full one."""
    marks = [() if k < n else pytest.mark.full for k in range(len(numbers))]
    return [pytest.param(i, id=NAMED[i], marks=m) for i, m in zip(numbers, marks, strict=True)]


async def test_the_list_is_enough_to_run_to_recover_and_to_be_read(
    guarded: Guarded, tmp_path: Path
) -> None:
    config = await prepared(guarded, tmp_path)
    names = names_of(config)
    for role in LISTED:
        await allow(guarded, role, rights_of(role, **names))
    await served(config, 5)
    feed = KafkaSink(guarded.config("feed"))
    await feed.publish(ticks(config, 30, 30))
    await feed.close()
    again = config.model_copy(
        update={"snapshots": config.snapshots.model_copy(update={"folder": tmp_path / "other"})}
    )
    await served(again, 5)  # from the journal alone
    reader = guarded.config("subscriber")
    n = 0
    async with contextlib.aclosing(
        sc.subscribe(
            guarded.checked,
            topic=f"{names['prefix']}.correlations",
            start="earliest",
            **secured(reader),
        )
    ) as matrices:
        async for _ in matrices:
            n += 1
            if n == 10:
                break
    assert n == 10


def secured(kafka: Any) -> dict[str, Any]:
    from stream_calib.adapters.kafka import client_options

    return {k: v for k, v in client_options(kafka).items() if k != "bootstrap_servers"}


@pytest.mark.parametrize("number", some_of(AT_START, 4))
async def test_a_start_without_one_of_them_says_which(
    guarded: Guarded, tmp_path: Path, number: int
) -> None:
    config = await prepared(guarded, tmp_path)
    right, all_of_them = (
        right_of("service", number, config),
        rights_of("service", **names_of(config)),
    )
    await allow(guarded, "service", all_of_them)
    if "journal" in right.name:
        await served(config, 3)  # an empty one is not read
    await forbid(guarded, "service", [right])
    with pytest.raises(TransportError) as caught:
        await served(config, 3)
    said = str(caught.value)
    assert right.name in said
    assert said.isprintable()
    assert PASSWORD not in said


@pytest.mark.parametrize("number", some_of(LATER, 1))
async def test_a_right_lost_at_work_is_told_awaited_and_taken_up_again(
    guarded: Guarded, tmp_path: Path, number: int
) -> None:
    config = await prepared(guarded, tmp_path)
    right = right_of("service", number, config)
    await allow(guarded, "service", rights_of("service", **names_of(config)))
    sink = KafkaSink(everything(guarded, config))
    async with at_work(config) as work:
        await work.until(lambda: len(work.matrices) >= 3)
        await forbid(guarded, "service", [right])
        await sink.publish(ticks(config, 30, 30))
        await work.until(lambda: right.name in " ".join(work.service._health().reasons))
        assert not work.service._health().ready
        before, lives = len(work.matrices), work.lives()
        await asyncio.sleep(4.0)
        assert (
            work.lives() - lives <= 5
        )  # pauses of 0.5, 1, 2, 5 s between them, not three a second
        await allow(guarded, "service", [right])
        await work.until(lambda: len(work.matrices) > before + 3 and work.service._health().ready)
    await sink.close()


async def log_of(config: Config) -> KafkaCommitLog:
    (universe,) = config.universe
    log = kafka_log(config, universe)
    assert isinstance(log, KafkaCommitLog)
    return log


@pytest.mark.parametrize("number", [i for i in SERVICE if NAMED[i] in ASIDE],
                         ids=[NAMED[i] for i in SERVICE if NAMED[i] in ASIDE])  # fmt: skip
async def test_what_shows_seldom_is_missed_by_the_log_itself(
    guarded: Guarded, tmp_path: Path, number: int
) -> None:
    config = await prepared(guarded, tmp_path)
    right, topics = right_of("service", number, config), topics_by_role(config)
    every = KafkaSink(everything(guarded, config))
    records = [
        Output(topics[role], 0, b"u|e", b"{}", ()) for role in ("correlations", "events", "fits")
    ]
    await every.publish(records)
    await every.close()
    mine = [one for one in rights_of("service", **names_of(config)) if one != right]
    await allow(guarded, "service", mine)
    log = await log_of(config)
    await log.own()
    entry = Output(topics["journal"], 0, b"fx", b"{}", ())
    own = Output(right.name, 0, b"fx|h|0", b"x", ())
    try:
        match right.operation, right.kind:
            case "Delete", _:
                await log.commit([], entry, {})
                await log.trim(1)
                assert log.trim_failures == 1
            case "Read", "group":
                await log.commit([], entry, {Source(names_of(config)["input"], 0): 1})
                async with asyncio.timeout(20):
                    while not log.mark_failures:  # noqa: ASYNC110  a count sets no event
                        await asyncio.sleep(0.02)
            case _:
                with pytest.raises(ForbiddenError, match=right.name):
                    await (
                        log.commit([own], entry, {}) if right.operation == "Write"
                        else log.fits(["h"]) if right.name.endswith("fits")
                        else log.last_sequences()
                    )  # fmt: skip
    finally:
        await log.close()


async def test_who_may_nothing_is_told_so_in_one_sentence(guarded: Guarded, tmp_path: Path) -> None:
    config = await prepared(guarded, tmp_path)
    names = names_of(config)
    nobody = guarded.config("nobody", connect_timeout=5_000_000_000)
    sink = KafkaSink(nobody)
    with pytest.raises(TransportError, match="its ACLs do not let this user do that"):
        await sink.publish(ticks(config, 0, 1))
    await sink.close()
    with pytest.raises(TransportError, match=r"does not exist at .* or this user may not see it"):
        async for _ in sc.subscribe(
            guarded.checked, topic=f"{names['prefix']}.correlations", **secured(nobody)
        ):
            pass
    with pytest.raises(TransportError, match=r"cannot be created: .*uthorization"):
        await ensure_topics(nobody, [TopicSpec("new-one")])
    only_seen = Right("topic", f"{names['prefix']}.correlations", "Describe")
    await allow(guarded, "nobody", [only_seen])
    with pytest.raises(TransportError, match=r"does not let this user read|failed while reading"):
        async for _ in sc.subscribe(
            guarded.checked, topic=only_seen.name, start="earliest", **secured(nobody)
        ):
            pass


async def test_an_operator_makes_topics_and_adds_partitions(
    guarded: Guarded, tmp_path: Path
) -> None:
    config = settings_of(guarded, "operator", tmp_path, uuid.uuid4().hex[:10])
    await allow(guarded, "operator", rights_of("operator", **names_of(config)))
    made = await ensure_topics(
        config.kafka, [*output_topics(config), TopicSpec(names_of(config)["input"])]
    )
    assert len(made) == 8
    two = [TopicSpec(spec.name, 2, 1, spec.settings) for spec in output_topics(config)]
    assert await ensure_topics(config.kafka, two, grow=True) == []


def test_the_page_lists_what_the_tests_use() -> None:
    page = (ROOT / "deploy" / "kafka" / "ACLS.md").read_text(encoding="utf-8")
    for role, rows in LISTED.items():
        for kind, name, operation, why in rows:
            assert f"| {role} | {kind} | `{name}` | {operation} | {why} |" in page


async def test_records_that_may_not_be_read_back_are_refused_in_one_sentence(
    guarded: Guarded, tmp_path: Path
) -> None:
    config = await prepared(guarded, tmp_path)
    await allow(guarded, "feed", rights_of("feed", **names_of(config)))  # it writes alone
    topic = names_of(config)["input"]
    kafka = guarded.config("feed", connect_timeout=5_000_000_000)
    with pytest.raises(ForbiddenError, match=f"reading the last records.*{topic}"):
        await read_newest(kafka, topic, 0, 10, 1000)
    with pytest.raises(ForbiddenError, match=f"reading the last records.*{topic}"):
        await read_tails(kafka, [topic], 10)
