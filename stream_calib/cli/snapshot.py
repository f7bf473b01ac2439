"""``snapshot list``, ``inspect`` and ``verify``; none of them disturbs a service that runs."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from stream_calib.cli.options import Bootstrap, ClientConfig, ConfigFile, overrides

if TYPE_CHECKING:
    from stream_calib.config import Config
    from stream_calib.values import JournalEntry, Snapshot

app = typer.Typer(no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
NEWEST = 1  # column of the engine's "marks" that is the newest event time of each source


class Read(NamedTuple):
    """A file or object, and what is in it: a snapshot, or why there is none."""

    place: str
    name: str
    again: Callable[[], bytes]
    n_bytes: int | None
    snapshot: "Snapshot | None"
    reason: str = ""

    def is_there(self) -> bool:
        """Tell whether it still is."""
        try:
            self.again()
        except OSError:
            return False
        return True


@app.callback()
def snapshot() -> None:
    """Look at the saved states that a start goes on from."""


@app.command("list")
def list_(config: ConfigFile, as_json: AsJson = False) -> None:
    """List the snapshots of every universe, newest first."""
    from stream_calib.config import load_config

    rows = [{"universe": universe, **_row(read)} for universe, read in _kept(load_config(config))]
    if as_json:
        _print_json(rows)
        return
    lines: list[tuple[str, ...]] = [
        ("universe", "entry", "as of", "bytes", "valid", "version", "file")
    ]
    for row in rows:
        words = [row["universe"], row["number"], row["as_of"], row["bytes"]]
        words += ["yes" if row["valid"] else "no", row["software_version"], row["file"]]
        lines.append(tuple("-" if word is None else str(word) for word in words))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines if rows else [("no snapshots",)]:
        print("  ".join(map(str.ljust, line, widths)).rstrip())


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A snapshot.")],
    as_json: AsJson = False,
) -> None:
    """Show what a snapshot says about itself, and its arrays."""
    from stream_calib.errors import InputError
    from stream_calib.wire.snapshots import read_head

    try:
        head = read_head(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if as_json:
        _print_json(head)
    else:
        print("\n".join(_lines(head)))


@app.command()
def verify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Snapshots; default: all of the configuration."),
    ] = None,
    config: ClientConfig = None,
    bootstrap: Bootstrap = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Check the bytes alone, not against the journal.")
    ] = False,
) -> None:
    """Check every byte, and that the journal on Kafka has the entry that each stands for.

    Without a configuration there is no journal to check against. Exit 8 when one cannot be used.
    """
    from stream_calib.config import load_config
    from stream_calib.errors import InputError

    if config is None and not files:
        raise InputError("Nothing to verify: name snapshots, or a configuration with --config")
    settings = None
    if config is not None:
        settings = load_config(config, overrides(kafka__bootstrap_servers=bootstrap))
    if files:
        found = [("", _at_file(file)) for file in files]
    else:
        assert settings is not None
        found = list(_kept(settings))
    reads = [read._replace(reason=read.reason or _misnamed(name, read)) for name, read in found]
    if settings is not None and not offline:
        reads = asyncio.run(_against_journal(settings, reads))
    for read in reads:
        if not read.reason:
            print(f"{read.place}: good")
    bad = [read for read in reads if read.reason]
    for read in bad:
        typer.echo(f"stream-calib: {read.place}: {read.reason}", err=True)
    if not reads:
        print("no snapshots")
    if bad:
        from stream_calib.errors import RecoveryError

        raise typer.Exit(RecoveryError.exit_code)


def _kept(config: "Config") -> Iterator[tuple[str, Read]]:
    from functools import partial

    from stream_calib.adapters.objectstore import SnapshotObjects
    from stream_calib.errors import InputError, TransportError
    from stream_calib.service.stores import snapshot_store

    for universe in config.universe:
        store = snapshot_store(config, universe)
        if store is None:
            raise InputError("The configuration keeps no snapshots: snapshots.enabled is false")
        place = store.place if isinstance(store, SnapshotObjects) else str(store.folder)
        try:
            names = store.names()
        except OSError as error:
            raise TransportError(f"{place}: cannot be listed ({error.strerror})") from None
        for name in names:
            yield universe.name, _read(f"{place}/{name}", name, partial(store.load, name))


def _at_file(path: Path) -> Read:
    return _read(str(path), path.name, path.read_bytes)


def _read(place: str, name: str, load: Callable[[], bytes]) -> Read:
    from stream_calib.errors import InputError
    from stream_calib.wire.snapshots import decode_snapshot

    value = None
    try:
        value = load()
        return Read(place, name, load, len(value), decode_snapshot(value))
    except InputError as error:
        return Read(place, name, load, len(value or b""), None, str(error))
    except OSError as error:
        return Read(place, name, load, None, None, f"cannot be read ({error.strerror})")


def _misnamed(universe: str, read: Read) -> str:
    from stream_calib.wire.snapshots import snapshot_name

    found = read.snapshot
    assert found is not None
    if universe and found.universe != universe:
        return f"it is of universe {found.universe!r}, in the folder of {universe!r}"
    if read.name != (name := snapshot_name(found.number, found.chain)):
        return f"by what is in it, its name would be {name}"
    return ""


async def _against_journal(config: "Config", reads: list[Read]) -> list[Read]:
    from stream_calib.service.kept import misfit

    journals: dict[str, Mapping[int, JournalEntry]] = {}
    names = [universe.name for universe in config.universe]
    checked = []
    for read in reads:
        if read.snapshot is None or read.reason:
            checked.append(read)
            continue
        name = read.snapshot.universe
        if name not in names:
            reason = f"it is of universe {name!r}, which the configuration does not name"
            checked.append(read._replace(reason=reason))
            continue
        if name not in journals:
            journals[name] = await _journal(config, name, names.index(name))
        reason = misfit(read.snapshot, name, journals[name])
        # a service that runs may have dropped it meanwhile, and the journal before the next
        if not reason or read.is_there():
            checked.append(read._replace(reason=reason))
    return checked


async def _journal(config: "Config", universe: str, partition: int) -> "dict[int, JournalEntry]":
    from stream_calib.adapters.kafka import check_topics, read_journal
    from stream_calib.service.kept import decode_journal

    topic = f"{config.output.prefix}.journal"
    counts = await check_topics(config.kafka, [topic])
    if partition >= counts[topic]:
        return {}
    records = await read_journal(config.kafka, topic, partition)
    return {entry.number: entry for entry in decode_journal(records, universe).values()}


def _row(read: Read) -> dict[str, Any]:
    found = read.snapshot
    return {
        "number": None if found is None else found.number,
        "as_of": None if found is None else _as_of(found),
        "bytes": read.n_bytes,
        "valid": found is not None,
        "reason": read.reason,
        "software_version": None if found is None else found.software_version,
        "file": read.place,
    }


def _as_of(found: "Snapshot") -> str | None:
    from stream_calib.values import NO_TIME
    from stream_calib.wire.cloudevents import rfc3339

    for name, array in found.arrays.items():
        if name.rpartition(".")[2] == "marks" and array.ndim == 2 and len(array):
            newest_ns = int(array[:, NEWEST].max())
            return None if newest_ns == NO_TIME else rfc3339(newest_ns)
    return None


def _lines(head: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    import numpy as np

    for name, value in head.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        elif name != "arrays":
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{indent}{name}: {text}"
    if not indent:
        yield "arrays:"
        for array in head["arrays"]:
            shape = ", ".join(map(str, array["shape"]))
            yield f"  {array['name']}: {np.dtype(array['dtype']).name} ({shape})"


def _print_json(document: object) -> None:
    import orjson

    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
