"""The whole engine over recorded files, without a broker or a clock."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from stream_calib.adapters.files import FileSource
from stream_calib.config import Config, load_config
from stream_calib.service.runner import Runner, unobserved
from stream_calib.service.wiring import VERSION
from stream_calib.values import Effects, Matrix
from stream_calib.wire.ticks import check_format


def replay_effects(
    files: Iterable[str | Path],
    config: Config,
    on_records: Callable[[int], None] | None = None,
) -> Iterator[tuple[Runner, Effects]]:
    """Run every universe of ``config`` over the files; yield what each step brought about.

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
    paths = [Path(file) for file in files]
    for universe in config.universe:
        runner = Runner(config, universe, VERSION, unobserved())
        source = FileSource(paths)
        discovered = source.open()
        exhausted = False
        try:
            while not exhausted:
                exhausted = source.exhausted()
                source.pause(runner.paused(source.ends()))
                batches = source.read(config.input.max_records)
                if on_records is not None:
                    on_records(sum(len(batch.values) for batch in batches))
                for effects in runner.turn(
                    batches, discovered, source.ends(), 0.0, exhausted=exhausted
                ):
                    yield runner, effects
                discovered = ()
        finally:
            source.release()


def replay(
    files: Iterable[str | Path] | str | Path, config: Config | str | Path
) -> Iterator[Matrix]:
    """Run the engine over recorded ticks and yield every matrix it would publish.

    Parameters
    ----------
    files
        One path or several: JSON lines, csv with a header, tsv of recorded topics, each
        optionally gzipped or zstandard-compressed.
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
