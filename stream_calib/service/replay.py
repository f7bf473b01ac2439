"""The whole engine over recorded files, or over a journal and the input it names."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from stream_calib.adapters.files import FileSource
from stream_calib.adapters.kafka import read_journal
from stream_calib.config import Config, UniverseConfig, load_config
from stream_calib.engine.trading_time import check_calendars
from stream_calib.errors import InputError, RecoveryError
from stream_calib.estimation.calibration.model import calibrate
from stream_calib.service.kept import decode_journal, installed_fits, misfit
from stream_calib.service.numerics import Build, numeric_fingerprint
from stream_calib.service.repetition import Allowed, Repetition
from stream_calib.service.runner import Runner, unobserved
from stream_calib.service.stores import snapshot_store
from stream_calib.service.topics import topics_by_role
from stream_calib.service.wiring import VERSION, kafka_log, kafka_source
from stream_calib.values import (
    Effects,
    Fit,
    FitFailure,
    FitRequest,
    JournalEntry,
    Matrix,
    Output,
    Snapshot,
)
from stream_calib.wire.snapshots import decode_snapshot
from stream_calib.wire.ticks import check_format


def replay_effects(
    files: Iterable[str | Path],
    config: Config,
    on_records: Callable[[int], None] | None = None,
    *,
    fitted: bool = True,
) -> Iterator[tuple[Runner, Effects]]:
    """Run every universe of ``config`` over the files; yield what each step brought about.

    Full fits are made on the way, if ``fitted``, and no bar goes ahead of one that it should
    know.

    Parameters
    ----------
    files
        Recorded ticks, each file a topic of its own.
    config
        Settings; ``input.topics`` is not looked at.
    on_records
        Told how many records were read, each time some were.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    check_format(config.input.format)
    check_calendars(config)
    refit = config.refit.model_copy(update={"late": "wait" if fitted else "when_ready"})
    config = config.model_copy(update={"refit": refit})
    paths = [Path(file) for file in files]
    for universe in config.universe:
        runner = Runner(config, universe, VERSION, unobserved(), ask=calibrate if fitted else None)
        source = FileSource(paths)
        discovered = source.open()
        exhausted = False
        try:
            while not exhausted:
                exhausted = source.exhausted()
                source.pause(runner.paused(source.ends()))
                batches = source.take(config.input.max_records)
                if on_records is not None:
                    on_records(sum(len(batch.values) for batch in batches))
                for effects in runner.turn(
                    batches, discovered, source.ends(), 0.0, exhausted=exhausted
                ):
                    yield runner, effects
                discovered = ()
        finally:
            source.release()


async def repeat_journal(
    config: Config, universe: UniverseConfig
) -> AsyncIterator[tuple[JournalEntry, list[Output]]]:
    """Repeat the journal of a universe on Kafka; yield its entries and what they published.

    Nothing is owned and nothing written: this can be done beside the running service. Where
    the journal was trimmed, it begins behind the oldest snapshot.

    Raises
    ------
    RecoveryError, LostInputError
        The journal or the input is not whole, or does not give the same bits.
    TransportError
        Kafka cannot be reached.
    """
    build = Build(VERSION, numeric_fingerprint())
    source = kafka_source(config, universe)
    log = kafka_log(config, universe)
    try:
        await source.start()
        topic, partition = topics_by_role(config)["journal"], config.universe.index(universe)
        records = await read_journal(config.kafka, topic, partition)
        entries = list(decode_journal(records, universe.name).values())
        loop = asyncio.get_running_loop()
        repetition = Repetition(
            config, universe, source, build, Allowed(), partial(loop.run_in_executor, None)
        )
        if entries and entries[0].number != 0:  # what is before was trimmed
            repetition.restore(_oldest_snapshot(config, universe, entries))
            entries = [entry for entry in entries if entry.number > repetition.number]
        fits = await installed_fits(entries, log, universe.name)
        for entry in entries:
            yield entry, await repetition.repeat(entry, fits)
    finally:
        await source.close()
        await log.close()


def _oldest_snapshot(
    config: Config, universe: UniverseConfig, entries: Sequence[JournalEntry]
) -> Snapshot:
    store, known = snapshot_store(config, universe), {e.number: e for e in entries}
    for name in reversed(store.names() if store is not None else []):
        assert store is not None
        with contextlib.suppress(OSError, InputError):
            snapshot = decode_snapshot(store.load(name))
            if not misfit(snapshot, universe.name, known):
                return snapshot
    raise RecoveryError(
        f"The journal of universe {universe.name!r} begins at entry {entries[0].number}, and no "
        "snapshot that fits it is here: what is before was trimmed, and nothing can be repeated"
    )


def fit_files(
    files: Iterable[str | Path],
    config: Config,
    on_records: Callable[[int], None] | None = None,
) -> Iterator[tuple[UniverseConfig, FitRequest, Fit | FitFailure]]:
    """Fit the model of every universe to the last of its bars in the files.

    Parameters
    ----------
    files, config, on_records
        As ``replay_effects`` takes them.

    Yields
    ------
    universe, request, answer
        What was fitted to, and what came of it; symbols in the order of their names.
    """
    runners: dict[str, Runner] = {}
    for runner, _ in replay_effects(files, config, on_records, fitted=False):
        runners[runner.universe.name] = runner
    for runner in runners.values():
        request = runner.engine.window()
        if request is not None:
            yield runner.universe, request, calibrate(request)


def replay(
    files: Iterable[str | Path] | str | Path, config: Config | str | Path
) -> Iterator[Matrix]:
    """Run the engine over recorded ticks and yield every matrix it would publish.

    Parameters
    ----------
    files
        One path or several, of any kind that ``adapters/files/lines`` lists: JSON lines, CSV,
        Parquet, recorded topics, files of vendors. They are read in event time, whatever their
        order.
    config
        Settings, or the path of a TOML file.

    Yields
    ------
    Matrix
        As a subscriber would read it; universe after universe.

    Raises
    ------
    ConfigError, InputError
        One sentence each.
    """
    if isinstance(files, str | Path):
        files = [files]
    if not isinstance(config, Config):
        config = load_config(config)
    for _, effects in replay_effects(files, config):
        yield from effects.matrices
