"""``doctor``: what is wrong before anything is started, and what a topic or a file holds."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_calib.cli.options import Bootstrap, ClientConfig, client_settings, overrides

if TYPE_CHECKING:
    from stream_calib.config import Config
    from stream_calib.config.sections import KafkaConfig
    from stream_calib.service.examination import Findings
    from stream_calib.values import RecordBatch

SAMPLE_RECORDS = 50_000
FILE_RECORDS = 500_000  # of all files together, unless it is said


def doctor(
    ticks: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[TICKS...]", help="Recorded ticks to look at, not topics."),
    ] = None,
    config: ClientConfig = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Look at this topic, or all that match; may be repeated."
        ),
    ] = None,
    records: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Newest records of each partition to look at; default: {SAMPLE_RECORDS}.",
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the recommended settings there, if it is new."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is found as JSON.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Say what topics or files hold and recommend settings, or check those of --config.

    With --config: looks for the broker and its topics, the client library's compiled part, the
    folder of snapshots, and whether windows are long enough for the slowest symbol. What would
    keep the service from starting ends it with the exit code of ``run``. Without it, or with
    --topic: formats, time units, symbols, clocks, rejects and splits, and settings to paste.
    """
    from stream_calib.errors import InputError

    if topic and ticks:
        message = "doctor looks at either files or topics"
        raise InputError(message)
    if topic:
        settings = client_settings(config, bootstrap)
        found = _at_topics(settings, topic, records or SAMPLE_RECORDS)
        _tell(found, write, as_json=as_json, kafka=settings.kafka)
    elif config is not None:
        if write or as_json:
            message = "--write and --json are for ticks without --config, or --topic"
            raise InputError(message)
        _check(config, ticks or [], bootstrap)
    elif ticks:
        _tell(_at_files(ticks, records), write, as_json=as_json)
    else:
        message = "doctor needs --config, --topic, or files of ticks"
        raise InputError(message)


def _at_topics(settings: "Config", patterns: Sequence[str], records: int) -> "Findings":
    from stream_calib.service.examination import examine
    from stream_calib.service.wiring import topic_ends

    ends = asyncio.run(topic_ends(settings, patterns, records))
    return examine(ends.tails, ends.heads)


def _at_files(paths: Sequence[Path], records: int | None) -> "Findings":
    from stream_calib.adapters.files import FileSource
    from stream_calib.errors import InputError
    from stream_calib.service.examination import examine

    source = FileSource(paths)
    sources = source.open()
    most = FILE_RECORDS if records is None else records * len(sources)
    batches: list[RecordBatch] = []
    try:
        while most > 0 and not source.exhausted():
            taken = source.take(min(most, SAMPLE_RECORDS))
            batches += taken
            most -= sum(len(batch.values) for batch in taken)
    finally:
        source.release()
    if not batches:
        message = "the files hold no records"
        if len(paths) == 1:
            message = f"{paths[0]}: it holds no records"
        raise InputError(message)
    return examine(batches)


def _tell(
    found: "Findings",
    write: Path | None,
    *,
    as_json: bool,
    kafka: "KafkaConfig | None" = None,
) -> None:
    import orjson

    from stream_calib.cli.findings import show
    from stream_calib.errors import InputError
    from stream_calib.service.examination import as_document, settings_text

    known = len(found.advice.symbols) > 1
    address = None if kafka is None else kafka.bootstrap_servers
    secured = kafka is not None and kafka.security_protocol != "PLAINTEXT"
    text = settings_text(found.advice, address, secured=secured) if known else None
    if as_json:
        typer.echo(orjson.dumps(as_document(found) | {"config": text}).decode())
    else:
        show(found, text)
    if not any(topic.ticks for topic in found.topics):
        reasons = sorted({reason for topic in found.topics for reason in topic.refused})
        why = f", refused as: {', '.join(reasons)}" if reasons else ""
        n = sum(topic.records for topic in found.topics)
        message = f"none of {n:,} records is a tick{why}"
        raise InputError(message)
    if write is not None:
        if text is None:
            message = "there is nothing to write: fewer than two symbols tick enough"
            raise InputError(message)
        try:
            with write.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            message = f"{write}: it is there already, and is left as it is"
            raise InputError(message) from None
        typer.echo(f"wrote {write}", err=True)


def _check(config: Path, ticks: list[Path], bootstrap: str | None) -> None:
    from stream_calib.config import load_config

    settings = load_config(config, overrides(kafka__bootstrap_servers=bootstrap))
    warnings = 0
    for name, found in _look(settings, ticks):
        for sentence in found:
            print(f"warning  {name}: {sentence}")
        if not found:
            print(f"ok       {name}")
        warnings += len(found)
    print("nothing to complain about" if not warnings else f"{warnings} to look at")


def _look(settings: "Config", files: list[Path]) -> Iterator[tuple[str, list[str]]]:
    from stream_calib.engine.trading_time import check_calendars
    from stream_calib.wire.ticks import check_format

    check_format(settings.input.format)
    check_calendars(settings)
    yield "settings", []
    if files:
        batches = _recorded(files)
    else:
        from stream_calib.service import topics, wiring

        yield "client library", _client()
        yield "broker and topics", list(asyncio.run(topics.check_topics(settings)))
        yield "snapshots", _snapshots(settings)
        batches = asyncio.run(wiring.recent_records(settings, SAMPLE_RECORDS))
    from stream_calib.service.diagnosis import slow_symbols, tick_rates_hz

    for universe in settings.universe:
        rates_hz = tick_rates_hz(settings, universe, batches)
        found = slow_symbols(universe, rates_hz)
        if (rates_hz != rates_hz).any():  # noqa: PLR0124  NaN
            found = ["too few ticks to tell their rates"]
        yield f"ticks of universe {universe.name}", found


def _recorded(files: list[Path]) -> "list[RecordBatch]":
    from stream_calib.adapters.files import FileSource

    source = FileSource(files)
    source.open()
    batches: list[RecordBatch] = []
    while not source.exhausted():
        batches += source.take(SAMPLE_RECORDS)
    return batches


def _client() -> list[str]:
    from stream_calib.adapters.kafka import is_compiled

    slow = "aiokafka lacks its compiled part and reads several times slower without it"
    return [] if is_compiled() else [slow]


def _snapshots(settings: "Config") -> list[str]:
    import os

    from stream_calib.adapters.objectstore import SnapshotObjects
    from stream_calib.service.stores import snapshot_store

    store = snapshot_store(settings, settings.universe[0])
    if isinstance(store, SnapshotObjects):
        store.open()
        return [] if store.unusable is None else [store.unusable]
    folder = settings.snapshots.folder
    if folder is None or store is None:
        return ["none are kept: every start repeats the whole journal"]
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return [] if os.access(existing, os.W_OK) else [f"{existing} cannot be written to"]
