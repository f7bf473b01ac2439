"""What ``verify`` says of logs that a broker could hold, one damage at a time, without a broker."""

import dataclasses
import hashlib
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pytest

from stream_calib.service.verification.chain import Chain
from stream_calib.service.verification.cursor import Cursor
from stream_calib.service.verification.findings import Book, Journal, Where
from stream_calib.service.verification.ledger import Ledger
from stream_calib.service.verification.matrices import reason_against
from stream_calib.service.verification.plain import (
    PlainStream,
    RejectStream,
    UniverseStream,
)
from stream_calib.service.verification.streams import EventStream, MatrixStream
from stream_calib.values import Event, JournalEntry, Output, Reject, Source
from stream_calib.wire.cloudevents import JSON_TYPE, rfc3339
from stream_calib.wire.events import encode_event, encode_reject
from stream_calib.wire.journal import OutputDigest, encode_entry, link
from stream_calib.wire.matrices import encode
from tests.golden.values import AS_OF_NS, matrix

WRITTEN_MS = 1_000_000


@dataclass
class Record:
    """A record as the client library gives it."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int = WRITTEN_MS


@dataclass
class Log:
    """What a service of one universe has published."""

    outputs: dict[str, list[Output]] = field(default_factory=dict)
    entries: list[JournalEntry] = field(default_factory=list)

    def commit(self, outputs: Sequence[Output], *, write_ahead: bool = False) -> None:
        digest, sequences = OutputDigest(), dict[str, tuple[int, int]]()
        digest.update(outputs)
        for output in outputs:
            self.outputs.setdefault(output.topic, []).append(output)
            head = dict(output.headers)
            if "sequence" in head:
                n = int(head["sequence"])
                name = [*output.key.decode().split("|"), "events"][1]
                sequences[name] = (sequences.get(name, (n, n))[0], n)
        number = len(self.entries)
        entry = JournalEntry(
            "u",
            number,
            sequences=sequences,
            n_outputs=digest.n_outputs,
            outputs_digest=digest.value(),
            emitted=number - 1 if write_ahead else number,
            previous=self.entries[-1].chain if self.entries else "",
        )
        self.entries.append(link(entry))

    def records(self) -> dict[str, list[Record]]:
        journal = [encode_entry(entry, "out.journal", 0) for entry in self.entries]
        topics = {**self.outputs, "out.journal": journal}
        return {
            topic.removeprefix("out."): [
                Record(topic, 0, i, o.key, o.value, list(o.headers)) for i, o in enumerate(outputs)
            ]
            for topic, outputs in topics.items()
        }


def reject(offset: int) -> Output:
    value = b"broken %d" % offset
    sha256 = hashlib.sha256(value).hexdigest()
    what = Reject("u", Source("ticks", 0), offset, "malformed", value, len(value), sha256)
    return encode_reject(what, "out.rejects", 0)


def event(sequence: int) -> Output:
    return encode_event(Event("u", sequence, "gap", 5, {}), "out.events", 0)


def matrices(sequence: int, n: int = 3) -> tuple[Output, ...]:
    n_eff = np.where(np.eye(n, dtype=bool), np.nan, 100.0)
    named = dataclasses.replace(matrix(n), universe="u", estimator="ewma", n_eff=n_eff)
    whole = dataclasses.replace(named, sequence=sequence, as_of_ns=AS_OF_NS + sequence)
    return encode(whole, "out.correlations", 0)


def written(n_symbols: int = 3, *, write_ahead: bool = False) -> Log:
    log = Log()
    for k in range(12):
        outputs: list[Output] = [*matrices(2 * k + 1, n_symbols), *matrices(2 * k + 2, n_symbols)]
        if k % 3 == 0:
            outputs.append(event(k // 3 + 1))
        outputs += [reject(10 * k + i) for i in range(k % 4)]
        log.commit(outputs, write_ahead=write_ahead)
    return log


async def walk(records: Sequence[Record]) -> AsyncIterator[Record]:
    for record in records:
        yield record


async def verified(
    topics: dict[str, list[Record]],
    *,
    compacts: bool = False,
    is_whole: bool = True,
    gone: Callable[[str, int], bool] = lambda _role, _ms: False,
) -> tuple[Counter[str], Journal, Book]:
    book = Book()
    journal = Journal("out.journal", 0, "u")
    streams: dict[str, Any] = {
        "correlations": MatrixStream(book, "u", {}, matrices=True, compacts=compacts),
        "events": EventStream(book, "u"),
        "rejects": RejectStream(book, "u"),
    }
    cursors = {role: Cursor(walk(topics.get(role, [])), s) for role, s in streams.items()}
    ledger = Ledger(book, journal, cursors, gone, is_whole=is_whole)
    chain = Chain(book, journal)
    for record in topics["journal"]:
        entry = chain.add(record)
        if entry is not None:
            where = Where(record.topic, record.partition, record.offset)
            await ledger.compare(entry, where, record.timestamp, after_gap=chain.after_gap)
    await ledger.finish()
    return +book.counts, journal, book


@pytest.mark.parametrize("n_symbols", [3, 420])
async def test_all_that_was_published_is_well(n_symbols: int) -> None:
    counts, journal, book = await verified(written(n_symbols).records())
    assert counts == {}, book.findings
    assert (journal.entries, journal.equal) == (12, 12)


@pytest.mark.parametrize("chunk", [0, 1])
async def test_chunk_that_is_missing_in_the_middle_is_a_torn_matrix(chunk: int) -> None:
    topics = written(420).records()
    n = sum(r.key.endswith(b"|0") for r in topics["correlations"])
    per_matrix = len(topics["correlations"]) // n
    assert per_matrix > 1
    del topics["correlations"][5 * per_matrix + chunk]
    counts, journal, book = await verified(topics, compacts=True)
    assert counts == {"torn": 1}, book.findings
    assert (book.findings[0].first, book.findings[0].last) == (6, 6)
    assert (journal.equal, journal.told) == (11, 1)


async def test_hole_between_records_of_one_key_is_a_gap_also_where_the_topic_is_compacted() -> None:
    topics = written().records()
    del topics["correlations"][3:6]
    counts, _journal, book = await verified(topics, compacts=True, gone=lambda *_: True)
    assert counts == {"gap": 1}
    assert (book.findings[0].first, book.findings[0].last) == (4, 6)


async def test_what_compaction_leaves_is_no_error() -> None:
    """Of the older records the newest of each key."""
    topics = written(420).records()
    newest = {record.key: record for record in topics["correlations"][:7]}
    kept = sorted(newest.values(), key=lambda record: record.offset)
    topics["correlations"] = kept + topics["correlations"][7:]
    is_gone = lambda role, _ms: role == "correlations"  # noqa: E731
    counts, journal, book = await verified(topics, compacts=True, gone=is_gone)
    assert counts == {}, book.findings
    assert journal.not_kept > 0
    assert journal.equal + journal.not_kept == 12


async def test_old_key_of_a_universe_that_grew_is_no_gap_where_the_topic_is_compacted() -> None:
    """A matrix of few symbols has one key, which stays for ever when there are chunks instead."""
    log = Log()
    for k in range(1, 10):
        log.commit(matrices(k, 3 if k < 5 else 420))
    topics = log.records()
    topics["correlations"] = topics["correlations"][3:4] + topics["correlations"][8:]
    counts, _journal, book = await verified(topics, compacts=True, gone=lambda *_: True)
    assert counts == {}, book.findings
    assert book.stretches["out.correlations", 0, "u", "ewma"].not_kept > 0
    counts, _, _ = await verified(topics, compacts=False)
    assert counts["gap"] == 1


async def test_entries_written_ahead_may_be_published_twice_and_the_last_not_yet() -> None:
    topics = written(write_ahead=True).records()
    again = [*topics["correlations"][:20], *topics["correlations"][16:]]
    topics["correlations"] = again
    counts, journal, _ = await verified(topics)
    assert counts == {"repeated": 4}  # which the report leaves out: see service/verification/report
    assert (journal.write_ahead, journal.equal) == (True, 12)
    topics = written(write_ahead=True).records()
    del topics["correlations"][-2:]
    del topics["rejects"][-3:]
    counts, journal, _ = await verified(topics)
    assert (counts, journal.pending, journal.equal) == ({}, 1, 11)


@pytest.mark.parametrize("seed", range(20))
async def test_any_one_record_that_is_lost_is_found(seed: int) -> None:
    random = np.random.default_rng(seed)
    topics = written().records()
    role = ["correlations", "events", "rejects", "journal"][seed % 4]
    n = len(topics[role])
    # of the first of all nothing tells that it was there, where a journal may begin anywhere
    i = int(random.integers(1, n))
    lost = topics[role].pop(i)
    counts, _, book = await verified(topics)
    is_last_entry = role == "journal" and i == n - 1
    assert sum(counts.values()) > 0, (role, lost.offset)
    if not is_last_entry:
        assert len(counts) == 1, (role, lost.offset, book.findings)


def test_numbers_that_are_no_correlation_matrix_are_told() -> None:
    good = matrix(4)
    assert reason_against(good) == ""
    for change, words in [
        ({"corr": np.full((4, 4), np.nan)}, "corr is not finite"),
        ({"corr": np.full((4, 4), 2.0)}, "corr is beyond one"),
        ({"vol": np.array([1.0, np.nan, 1.0, 1.0])}, "vol is not finite"),
    ]:
        assert reason_against(dataclasses.replace(good, **change)).startswith(words)  # type: ignore[arg-type]
    indefinite = np.full((4, 4), -0.9)
    np.fill_diagonal(indefinite, 1.0)
    words = "corr is not positive definite: its least eigenvalue is -1.7"
    assert reason_against(dataclasses.replace(good, corr=indefinite)) == words


def universe_record(**changes: Any) -> Record:
    """A record of the universes topic with something else in its document."""
    document = {"universe": "u", "universe_id": "x", "config_fingerprint": "a", "time_ns": "1"}
    value = orjson.dumps(document | changes)
    headers = {
        "ce_type": b"stream_calib.universe.v1",
        "crc32": b"%08x" % zlib.crc32(value),
        "ce_source": b"/stream-calib/u",
        "ce_id": b"u|universes|a|1",
        "ce_time": rfc3339(1).encode(),
        "content-type": JSON_TYPE.encode(),
    }
    return Record("calib.universes", 0, 0, b"x", value, [*headers.items()])


@pytest.mark.parametrize(
    ("stream", "record", "kind"),
    [
        (RejectStream, Record("calib.rejects", 0, 0, b"\xff\xfe", None, []), "tombstone"),
        (UniverseStream, universe_record(), "undecodable"),  # no symbols
        (UniverseStream, universe_record(symbols=["A"], universe_id=5), "undecodable"),
    ],
)
def test_whatever_a_record_holds_is_told(
    stream: type[PlainStream], record: Record, kind: str
) -> None:
    book = Book()
    stream(book, "u").add(record)
    assert [finding.kind for finding in book.findings] == [kind]
