"""``doctor``: what is wrong before anything is started."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_calib.cli.options import Bootstrap, ConfigFile, overrides

if TYPE_CHECKING:
    from stream_calib.config import Config
    from stream_calib.values import RecordBatch

SAMPLE_RECORDS = 50_000


def doctor(
    config: ConfigFile,
    ticks: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[TICKS...]", help="Recorded ticks to look at instead of the topics."
        ),
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Check the settings against the broker and against the ticks.

    Looks for the broker and its topics, the client library's compiled part, the folder of
    snapshots, and whether windows are long enough for the slowest symbol. What would keep the
    service from starting ends it with the exit code of ``run``.
    """
    from stream_calib.config import load_config

    settings = load_config(config, overrides(kafka__bootstrap_servers=bootstrap))
    warnings = 0
    for name, found in _look(settings, ticks or []):
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
        from stream_calib.service import wiring

        yield "client library", _client()
        yield "broker and topics", list(asyncio.run(wiring.check_topics(settings)))
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

    folder = settings.snapshots.folder
    if folder is None or not settings.snapshots.enabled:
        return ["none are kept: every start repeats the whole journal"]
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return [] if os.access(existing, os.W_OK) else [f"{existing} cannot be written to"]
