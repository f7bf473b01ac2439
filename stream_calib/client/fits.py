"""The model behind a matrix: what it was fitted to, off the service's own topics."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from stream_calib.client.blocking import LoopThread
from stream_calib.client.connection import kept_records
from stream_calib.errors import InputError
from stream_calib.estimation.calibrated import GARCH_NAMES, dcc_params, garch_params
from stream_calib.estimation.dcc import Dcc
from stream_calib.values import F64, Fit, PublishedFit
from stream_calib.wire.fits import decode_fit

Facts = Mapping[str, Any]


def read_fit(
    bootstrap_servers: str,
    universe: str,
    model_version: int,
    *,
    prefix: str = "calib",
    symbols: Sequence[str] | None = None,
    **kafka: object,
) -> PublishedFit:
    """Return the fit that a version of a universe's model is, for ``Matrix.forecast``.

    The record of the version on ``<prefix>.calibrations`` tells which of the fits on
    ``<prefix>.fits`` it is: the one with the same numbers. It waits for Kafka; where an event
    loop runs, ``asyncio.to_thread`` calls it.

    Parameters
    ----------
    bootstrap_servers
        Kafka address.
    universe, model_version
        As a matrix has them.
    prefix
        ``output.prefix`` of the service.
    symbols
        Those of the universe in the order of its settings. Otherwise they are told by their
        volatilities, which fails where two have the same.
    **kafka
        More options of the client library, such as TLS and SASL.

    Raises
    ------
    TransportError, MissingTopicError
        The broker or a topic cannot be reached.
    InputError
        The version, or its fit, is not in the log (any more), or symbols cannot be told apart.
    """
    thread = LoopThread()
    try:
        return thread.call(
            _read(bootstrap_servers, universe, model_version, prefix, symbols, kafka)
        )
    finally:
        thread.stop(_nothing)


async def _nothing() -> None:
    pass


async def _read(
    address: str,
    universe: str,
    version: int,
    prefix: str,
    symbols: Sequence[str] | None,
    kafka: Mapping[str, object],
) -> PublishedFit:
    topic, key = f"{prefix}.calibrations", f"{universe}|{version}".encode()
    value: bytes | None = None
    async with contextlib.aclosing(kept_records(address, topic, kafka)) as records:
        async for record in records:
            value = record.value if record.key == key else value
    if value is None:
        message = f"model version {version} of universe {universe!r} is not on topic {topic!r}"
        raise InputError(message)
    facts = orjson.loads(value)
    topic = f"{prefix}.fits"
    chunks: dict[str, dict[int, bytes]] = {}
    async with contextlib.aclosing(kept_records(address, topic, kafka)) as records:
        async for record in records:
            fit = _completed(universe, chunks, record)
            if fit is not None and is_of(fit, facts):
                return published_fit(fit, facts, symbols)
    message = (
        f"the fit of {universe!r}, model version {version}, is not on topic {topic!r} any more"
    )
    raise InputError(message)


def _completed(
    universe: str,
    chunks: dict[str, dict[int, bytes]],
    record: Any,  # noqa: ANN401
) -> Fit | None:
    # The fit that this record completes; what is whole is not kept any longer.
    headers = dict(record.headers)
    if record.value is None or headers.get("universe") != universe.encode():
        return None
    name, (number, _, count) = headers["hash"].decode(), headers["chunk"].partition(b"/")
    parts = chunks.setdefault(name, {})
    parts[int(number)] = record.value
    if len(parts) < int(count):
        return None
    del chunks[name]
    return decode_fit([parts[k] for k in sorted(parts)], name)


def is_of(fit: Fit, facts: Facts) -> bool:
    """Tell whether a record of calibrations is of this fit: all its numbers are the same."""
    arrays, said = fit.arrays, facts["correlation"]
    mine = [*arrays["dcc"], *arrays["loglik"], arrays["target_average"][0], arrays["bars"][0]]
    names = [said[name]["value"] if name in said else 0.0 for name in ("a", "b", "g")]
    theirs = [*names, said["loglik"], said["composite_loglik"], said["target_average"]]
    if [_number(x) for x in mine] != [*theirs, facts["window"]["bars"]]:
        return False
    return sorted(_columns(fit), key=repr) == sorted(_said_columns(facts).values(), key=repr)


def published_fit(fit: Fit, facts: Facts, symbols: Sequence[str] | None = None) -> PublishedFit:
    """Name the symbols of a fit.

    Raises
    ------
    InputError
        ``symbols`` are not those of the fit, or, without them, two cannot be told apart.
    """
    columns, said = _columns(fit), _said_columns(facts)
    if symbols is None:
        symbols = [*_told_apart(columns, said)]
    elif [said.get(symbol) for symbol in symbols] != columns:
        message = f"symbols are not those of {facts['universe']!r} in the order of its settings"
        raise InputError(message)
    params = dcc_params(fit)
    return PublishedFit(
        facts["universe"],
        facts["model_version"],
        int(facts["time_ns"]),
        tuple(symbols),
        params,
        garch_params(fit),
        Dcc(params, len(columns)).long_run(),
    )


Column = tuple[float | None, ...]


def _columns(fit: Fit) -> list[Column]:
    # What is known of each asset; the last number is whether correlations leave it out.
    left_out = np.isnan(np.diagonal(dcc_params(fit).target))
    table: F64 = fit.arrays["garch"]
    return [
        (*(_number(x) for x in column), float(out))
        for column, out in zip(table.T, left_out, strict=True)
    ]


def _said_columns(facts: Facts) -> dict[str, Column]:
    return {
        symbol: (
            *(garch[name]["value"] if name in garch else None for name in GARCH_NAMES),
            float(symbol in facts["left_out"]),
        )
        for symbol, garch in facts["garch"].items()
    }


def _told_apart(columns: Sequence[Column], said: Mapping[str, Column]) -> Iterator[str]:
    names: dict[Column, list[str]] = {}
    for symbol, column in sorted(said.items()):
        names.setdefault(column, []).append(symbol)
    for column in columns:
        alike = names[column]
        if len(alike) > 1 and not column[-1]:  # of those left out it does not matter which is which
            message = f"{alike[0]!r} and {alike[1]!r} have the same volatility: give symbols="
            raise InputError(message)
        yield alike.pop(0)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
