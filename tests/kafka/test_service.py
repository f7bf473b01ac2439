"""The service as its users meet it: commands on a real broker, and how they end."""

import asyncio
import contextlib
import functools
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

import stream_calib as sc
from deploy.kafka.broker import LocalBroker, free_port
from stream_calib.adapters.kafka import KafkaSink
from stream_calib.client import subscribe
from stream_calib.config import KafkaConfig
from stream_calib.errors import MissingTopicError, TransportError
from stream_calib.service.topics import ROLES
from stream_calib.values import Matrix, Output
from stream_calib.wire.matrices import encode
from tests.cli.command import Done, but_loading, is_one_sentence, run_process, spawn
from tests.cli.forking import Forked, run_forked
from tests.kafka.killing import ends_of
from tests.kafka.living import said_at
from tests.web.observations import matrix

Process = subprocess.Popen[str] | Forked
UNALTERED = functools.partial(Forked, patient=False)  # here stops are measured

STOP_S = 5.0
DEADLINE_S = 120.0  # on a machine that is busy with other things
SECRET = "hunter2-and-more"
SYMBOLS = ("X:A", "X:B", "X:C")


class Place:
    """A folder with settings on topics of their own, and commands that use them."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.prefix = f"service-{uuid.uuid4().hex[:12]}"
        self.ticks = f"{self.prefix}.ticks"
        self.matrices = f"{self.prefix}.correlations"
        self.port = free_port()
        self._folder = folder
        self.configure([("sim", SYMBOLS, None)])

    def configure(
        self, universes: list[tuple[str, tuple[str, ...], list[str] | None]], more: str = ""
    ) -> None:
        """Write the settings: name, symbols and topics of each universe."""
        text = f'[kafka]\nbootstrap_servers = "{self.bootstrap}"\n{more}\n'
        text += f'[input]\ntopics = ["{self.ticks}"]\n[output]\nprefix = "{self.prefix}"\n'
        text += f"[http]\nport = {self.port}\n[time]\nflush_after = '1s'\n"
        for name, symbols, topics in universes:
            text += f'[[universe]]\nname = "{name}"\nsymbols = {list(symbols)}\nready_n_eff = 4\n'
            text += f"topics = {topics}\n" if topics else ""
            text += '[universe.ewma]\nhalf_life = "1m"\nwindow = "2s"\n'
        (self._folder / "settings.toml").write_text(text)

    def __call__(self, *words: object, **env: str) -> Done:
        """Run a command to its end."""
        return run_forked(*words, "-c", "settings.toml", cwd=self._folder, env=env)

    @contextlib.contextmanager
    def running(
        self,
        *words: object,
        start: Callable[..., Process] = UNALTERED,
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Process]:
        """Start a command; it is killed at the end if it still runs."""
        process = start(*words, "-c", "settings.toml", cwd=self._folder, env=env)
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def get(self, path: str, token: str = "") -> tuple[int, str]:
        """Ask the service; status 0 while it does not answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, *labels: str) -> float:
        """Return the sum of a metric over the series that have these labels."""
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(name)]
        return sum(float(line.split()[-1]) for line in lines if all(x in line for x in labels))

    async def collect(self, n: int, **options: object) -> list[Matrix]:
        """Subscribe until ``n`` matrices have come."""
        async with contextlib.aclosing(
            subscribe(self.bootstrap, topic=self.matrices, **options)  # type: ignore[arg-type]
        ) as matrices:
            found: list[Matrix] = []
            async with asyncio.timeout(DEADLINE_S):
                async for matrix_ in matrices:
                    found.append(matrix_)
                    if len(found) == n:
                        break
            return found

    def n_ticks(self) -> int:
        """Return how many ticks are there."""
        where = TopicPartition(self.ticks, 0)
        return asyncio.run(ends_of(self.bootstrap, [where]))[where]

    async def delete_topics(self) -> None:
        """Leave nothing behind."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        names = [name for name in await admin.list_topics() if name.startswith(self.prefix)]
        if names:
            await admin.delete_topics(names)
        await admin.close()


@pytest.fixture
def place(tmp_path: Path, kafka_bootstrap: str) -> Iterator[Place]:
    here = Place(tmp_path, kafka_bootstrap)
    yield here
    asyncio.run(here.delete_topics())


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def assert_stops(process: Process, number: signal.Signals = signal.SIGTERM) -> list[dict[str, Any]]:
    """Ask it to stop; return its log."""
    asked_s = time.time()
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (0, ""), err
    log = [orjson.loads(line) for line in err.splitlines()]
    assert log[-1]["event"] == "stopped"
    assert said_at(log[-1]) - asked_s < STOP_S
    assert [entry for entry in log if entry["level"] == "error"] == []
    return log


def test_ticks_become_matrices_that_others_read(place: Place) -> None:
    created = place("topics", "create")
    assert created.code == 0
    outputs = [f"{place.prefix}.{role}" for role in ROLES]
    assert [line.split()[:2] for line in created.out.splitlines()] == [
        ["created", name] for name in sorted((*outputs, place.ticks))
    ]
    assert place("topics", "create").out == created.out.replace("created ", "exists  ")

    with place.running("run", start=spawn) as service:
        until(lambda: place.get("/healthz")[0] == 200)
        until(lambda: "no matrix yet" in place.get("/readyz")[1])
        assert place.get("/readyz")[0] == 503
        fed = place("feed", "--simulated", 3, "--duration-s", 60, "--rate", 0)
        assert fed.code == 0
        n = int(fed.out.split()[0].replace(",", ""))
        until(lambda: place.get("/readyz")[0] == 200)
        until(lambda: place.metric("stream_calib_ticks_total", 'outcome="applied"') == n)
        assert place.metric("stream_calib_records_total") == n

        lines = place("watch", "--from-start", "--count", 5).out.splitlines()
        assert [line.split()[1:3] for line in lines] == [["sim|ewma", f"#{i}"] for i in range(1, 6)]
        documents = place("watch", "--from-start", "--count", 2, "--json").out.splitlines()
        assert [orjson.loads(line)["sequence"] for line in documents] == [1, 2]
        maps = place("watch", "--from-start", "--count", 1, "--map").out.splitlines()
        assert {line.split()[0] for line in maps[1:3]} < {"A", "B", "C"}

        first = asyncio.run(place.collect(10, start="earliest", universe="sim", estimator="ewma"))
        assert [m.sequence for m in first] == list(range(1, 11))
        assert all(set(m.symbols) | set(m.pending) == set(SYMBOLS) for m in first)

        with place.running("feed", "--simulated", 3, "--duration-s", 600, "--rate", 300):
            last = asyncio.run(place.collect(2, start="latest"))
            assert last[0].sequence > 10
            assert last[1].sequence == last[0].sequence + 1
        assert_stops(service)
    with place.running("run") as service:
        until(lambda: place.get("/readyz")[0] == 200)  # nothing new comes, but there are matrices
        assert_stops(service)


def test_interrupt_from_the_keyboard_is_a_clean_stop_too(place: Place) -> None:
    place("topics", "create")
    with place.running("run") as service:
        until(lambda: place.get("/readyz")[0] == 503)
        until(lambda: "not connected" not in place.get("/readyz")[1])
        assert_stops(service, signal.SIGINT)


def test_service_stops_in_time_under_load(place: Place) -> None:
    place("topics", "create")
    feed = ("feed", "--simulated", 3, "--duration-s", 30, "--rate", 20_000)
    with place.running("run") as service, place.running(*feed):
        until(lambda: place.metric("stream_calib_ticks_total", 'outcome="applied"') > 10_000)
        assert_stops(service)


def test_service_stops_in_time_while_the_broker_is_frozen(
    own_broker: LocalBroker, tmp_path: Path
) -> None:
    place = Place(tmp_path, own_broker.bootstrap)
    place("topics", "create")
    place("feed", "--simulated", 3, "--duration-s", 60, "--rate", 0)
    feed = ("feed", "--simulated", 3, "--duration-s", 60, "--rate", 500)
    with place.running("run") as service, place.running(*feed) as feeding:
        until(lambda: place.metric("stream_calib_matrices_total") > 3)
        assert own_broker.pid is not None
        os.kill(own_broker.pid, signal.SIGSTOP)
        try:
            time.sleep(1.5)  # a bar has ended, and its matrix waits to be written
            assert_stops(service)
            feeding.kill()
        finally:
            os.kill(own_broker.pid, signal.SIGCONT)


def test_subscriber_goes_on_after_the_broker_was_away(own_broker: LocalBroker) -> None:
    async def go_on() -> None:
        config = KafkaConfig(bootstrap_servers=own_broker.bootstrap)
        sink = KafkaSink(config)
        topic = f"m-{uuid.uuid4().hex[:12]}"
        await make_topic(own_broker.bootstrap, topic)
        await sink.publish(encode(matrix(sequence=1), topic, 0))
        matrices = subscribe(own_broker.bootstrap, topic=topic, start="earliest")
        async with contextlib.aclosing(matrices), asyncio.timeout(2 * DEADLINE_S):
            assert (await anext(matrices)).sequence == 1
            waiting = asyncio.ensure_future(anext(matrices))
            await asyncio.to_thread(own_broker.kill)
            await asyncio.to_thread(own_broker.start)
            while True:
                with contextlib.suppress(TransportError):
                    await sink.publish(encode(matrix(sequence=2), topic, 0))
                    break
            assert (await waiting).sequence == 2
        await sink.close()

    asyncio.run(go_on())


def test_missing_topics_are_named_with_the_command_that_makes_them(place: Place) -> None:
    done = place("run")
    assert (done.code, done.out) == (6, "")
    assert is_one_sentence(done.err), done.err
    assert f"{place.prefix}.calibrations" in done.err  # the first of them
    assert "`stream-calib topics create`" in done.err
    assert place("topics", "create", "--no-inputs").code == 0
    done = place("run")
    assert (done.code, done.out) == (6, "")
    assert is_one_sentence(done.err), done.err
    assert place.ticks in done.err
    for words in (("watch", "--topic", "no-such-topic"), ("feed", "--simulated", 3)):
        done = place(*words)
        assert (done.code, done.out) == (6, "")
        assert is_one_sentence(done.err), done.err


def test_password_is_never_printed(place: Place) -> None:
    more = 'security_protocol = "SASL_PLAINTEXT"\nsasl_username = "me"\nconnect_timeout = "2s"'
    place.configure([("sim", SYMBOLS, None)], more)
    for words in (("run", "--log-level", "debug"), ("watch",), ("config", "show")):
        done = place(*words, STREAM_CALIB__KAFKA__SASL_PASSWORD=SECRET)
        assert SECRET not in done.out + done.err
        if words[0] != "config":  # the broker does not speak SASL
            assert done.code == 5
            assert is_one_sentence(done.err), done.err


def test_two_universes_one_of_them_over_two_topics(place: Place) -> None:
    left, right = f"{place.prefix}.left", f"{place.prefix}.right"
    wide = (*SYMBOLS, "Y:A", "Y:B")
    place.configure([("wide", wide, [left, right]), ("narrow", SYMBOLS, [left])])
    place("topics", "create")
    with place.running("run") as service:
        written = {}
        for topic, n in ((left, 3), (right, 5)):
            fed = place("feed", "--topic", topic, "--simulated", n, "--rate", 0, "--seed", n)
            assert fed.code == 0
            written[topic] = int(fed.out.split()[0].replace(",", ""))
        until(lambda: place.get("/readyz")[0] == 200)
        universes = {}
        for name in ("wide", "narrow"):
            found = asyncio.run(place.collect(100, start="earliest", universe=name))
            assert [m.sequence for m in found] == list(range(1, 101))
            universes[name] = {symbol for m in found for symbol in m.symbols}
        assert universes == {"wide": set(wide), "narrow": set(SYMBOLS)}
        name, of_right = "stream_calib_records_total", f'topic="{right}"'
        until(lambda: place.metric(name, of_right) == written[right] > 0)
        assert place.metric(name, 'universe="wide"', of_right) == written[right]
        assert_stops(service)


def test_universe_that_is_added_is_given_its_partition(place: Place) -> None:
    place("topics", "create")
    place.configure([("sim", SYMBOLS, None), ("more", SYMBOLS[:2], None)])
    done = place("run")
    assert done.code == 6
    assert is_one_sentence(done.err), done.err
    assert "has 1 of the 2 partitions" in done.err
    assert f"exists   {place.prefix}.events (2 partitions)\n" in place("topics", "create").out
    with place.running("run") as service:
        until(lambda: "universe more: no matrix yet" in place.get("/readyz")[1])
        assert_stops(service)


def test_beyond_loopback_the_token_is_asked_for(place: Place) -> None:
    place("topics", "create")
    done = place("run", "--http-host", "0.0.0.0")
    assert done.code == 3
    assert is_one_sentence(done.err), done.err
    token = {"STREAM_CALIB__HTTP__TOKEN": SECRET}
    with place.running("run", "--http-host", "0.0.0.0", env=token) as service:
        until(lambda: place.get("/healthz")[0] == 200)
        assert place.get("/metrics")[0] == 401
        assert place.get("/metrics", "wrong")[0] == 401
        assert place.get("/readyz")[0] == 401
        assert place.get("/metrics", SECRET)[0] == 200
        until(lambda: "no matrix yet" in place.get("/readyz", SECRET)[1])
        assert SECRET not in str(assert_stops(service))


def test_recorded_ticks_are_fed_at_the_rate_that_is_asked_for(place: Place, tmp_path: Path) -> None:
    lines = [b'{"symbol":"X:A","time":1700000000,"price":%d}' % k for k in range(1, 301)]
    (tmp_path / "few.jsonl").write_bytes(b"\n".join(lines))
    words = ("feed", "few.jsonl", "--topic", f"{place.prefix}.own", "--rate", 200)
    assert place(*words).code == 6
    done = place(*words, "--create")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("300 records in ")
    assert 1.3 < float(done.out.split()[3]) < 10.0  # by its own clock: starting takes what it takes


def test_feeding_that_is_interrupted_says_how_much_was_written(place: Place) -> None:
    place("topics", "create")
    with place.running("feed", "--simulated", 3, "--rate", 200) as feeding:
        until(lambda: place.n_ticks() > 200)
        feeding.send_signal(signal.SIGINT)
        out, err = feeding.communicate(timeout=DEADLINE_S)
    assert (feeding.returncode, err) == (130, "")
    # what was said to be written is there; what was under way may have arrived too
    assert place.n_ticks() >= int(out.split()[0]) > 100


def test_watching_ends_quietly(place: Place) -> None:
    place("topics", "create")
    place("feed", "--simulated", 3, "--rate", 0, "--duration-s", 20)
    done = place("watch", "--topic", place.ticks, "--from-start")
    assert (done.code, done.out) == (4, "")
    assert "record 0 of topic" in done.err
    assert is_one_sentence(done.err), done.err
    asyncio.run(publish(place.bootstrap, encode(matrix(sequence=1), place.matrices, 0)))
    with place.running("watch", "--from-start") as watching:
        assert watching.stdout is not None
        assert "#1" in watching.stdout.readline()  # and now it waits for the next one
        watching.send_signal(signal.SIGINT)
        assert watching.communicate(timeout=DEADLINE_S) == ("", "")
    assert watching.returncode == 0


@pytest.mark.full
def test_demo_runs_through_kafka(place: Place) -> None:
    words = ("demo", "--seconds", 1, "--http-port", 0, "--kafka", place.bootstrap)
    done = run_process(*words)
    assert done.code == 0
    assert but_loading(done.err) == ""
    assert "stream-calib watch --bootstrap" in done.out
    assert "True and estimated correlations" in done.out
    # the last bar is still open when all ticks have been applied
    summary = r"172,104 ticks: 172,104 applied(, \d confirmed_late)?; 60\d matrices"
    assert re.search(summary, done.out)


async def publish(bootstrap: str, outputs: Sequence[Output]) -> None:
    sink = KafkaSink(KafkaConfig(bootstrap_servers=bootstrap))
    await sink.publish(outputs)
    await sink.close()


async def make_topic(bootstrap: str, name: str) -> None:
    from stream_calib.adapters.kafka import TopicSpec, ensure_topics

    await ensure_topics(KafkaConfig(bootstrap_servers=bootstrap), [TopicSpec(name)])


def test_subscriber_is_told_what_is_missing(place: Place) -> None:
    with pytest.raises(MissingTopicError, match=f"Topic '{place.matrices}' does not exist"):
        asyncio.run(place.collect(1))
    nowhere = f"127.0.0.1:{free_port()}"
    with pytest.raises(TransportError, match=f"Kafka at {nowhere} cannot be reached"):
        asyncio.run(first_of(nowhere))


async def first_of(bootstrap: str) -> Matrix:
    return await anext(sc.subscribe(bootstrap))
