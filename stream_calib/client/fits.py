"""The model behind a matrix: what it was fitted to, off the service's own topics."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from stream_calib.client.blocking import LoopThread
from stream_calib.client.connection import kept_records
from stream_calib.client.recorded import records_in
from stream_calib.errors import InputError, MissingTopicError
from stream_calib.estimation.calibrated import GARCH_NAMES, dcc_params, garch_params
from stream_calib.estimation.dcc import Dcc
from stream_calib.values import F64, Fit, PublishedFit
from stream_calib.wire.fits import FIT_TYPE, decode_fit

UNIVERSE_TYPE = "stream_calib.universe.v1"
NOTED_TYPES = ("stream_calib.calibration.v1", UNIVERSE_TYPE)

Facts = Mapping[str, Any]


def read_fit(
    source: str | Path,
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
    source
        Kafka address, or an output file of ``replay``.
    universe, model_version
        As a matrix has them.
    prefix
        ``output.prefix`` of the service.
    symbols
        Those of the universe in the order of its settings. Otherwise they are told by their
        volatilities, and where two have the same by ``<prefix>.universes``.
    **kafka
        More options of the client library, such as TLS and SASL.

    Raises
    ------
    TransportError, MissingTopicError
        The broker or a topic cannot be reached.
    InputError
        The version, or its fit, is not in the log (any more), or symbols cannot be told apart.
    """
    search = _Search(str(source), universe, model_version)
    path = Path(source)
    if path.is_file():
        for record in records_in(path, lambda headers: headers.get("ce_type") in NOTED_TYPES):
            search.note(record)
        search.check()
        for record in records_in(path, lambda headers: headers.get("content-type") == FIT_TYPE):
            if search.found(record):
                break
    else:
        thread = LoopThread()
        try:
            thread.call(_search_kafka(search, str(source), prefix, kafka))
        finally:
            thread.stop(_nothing)
    return published_fit(search.fit(), search.facts, symbols, search.orders)


async def _nothing() -> None:
    pass


async def _search_kafka(
    search: "_Search", address: str, prefix: str, kafka: Mapping[str, object]
) -> None:
    async def note(topic: str) -> None:
        async with contextlib.aclosing(kept_records(address, topic, kafka)) as records:
            async for record in records:
                search.note(record)

    await note(f"{prefix}.calibrations")
    search.check()
    with contextlib.suppress(MissingTopicError):  # a service of before wrote none
        await note(f"{prefix}.universes")
    async with contextlib.aclosing(kept_records(address, f"{prefix}.fits", kafka)) as records:
        async for record in records:
            if search.found(record):
                return


class _Search:
    # First what is said of the version, then the fit that it is said of.
    def __init__(self, source: str, universe: str, version: int) -> None:
        self.facts: Facts = {}
        self.orders: list[tuple[int, list[str]]] = []  # since when which symbols in which order
        self._name = f"model version {version} of universe {universe!r}"
        self._source = source
        self._universe, self._key = universe, f"{universe}|{version}".encode()
        self._chunks: dict[str, dict[int, bytes]] = {}
        self._fit: Fit | None = None

    def note(self, record: Any) -> None:  # noqa: ANN401
        if record.value is None:
            return
        if dict(record.headers).get("ce_type") == UNIVERSE_TYPE.encode():
            document = orjson.loads(record.value)
            if document["universe"] == self._universe:
                self.orders.append((int(document["time_ns"]), document["symbols"]))
        elif record.key == self._key:
            self.facts = orjson.loads(record.value)

    def check(self) -> None:
        if not self.facts:
            raise InputError(f"{self._source}: {self._name} is not there")

    def found(self, record: Any) -> bool:  # noqa: ANN401
        fit = _completed(self._universe, self._chunks, record)
        if fit is not None and is_of(fit, self.facts):
            self._fit = fit
        return self._fit is not None

    def fit(self) -> Fit:
        if self._fit is None:
            raise InputError(f"{self._source}: the fit of {self._name} is not there any more")
        return self._fit


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


def published_fit(
    fit: Fit,
    facts: Facts,
    symbols: Sequence[str] | None = None,
    orders: Sequence[tuple[int, Sequence[str]]] = (),
) -> PublishedFit:
    """Name the symbols of a fit.

    Parameters
    ----------
    fit, facts
        The fit, and the record of calibrations that is of it.
    symbols
        The universe's, in the order of the fit; None where that has to be found out.
    orders
        What the universe was said to be: since when, and of which symbols in which order.

    Raises
    ------
    InputError
        ``symbols`` are not those of the fit, or, without them, two cannot be told apart.
    """
    columns, said = _columns(fit), _said_columns(facts)
    if symbols is None:
        # a later order may be another one of the same symbols
        known = [o for since_ns, o in sorted(orders) if since_ns <= int(facts["time_ns"])]
        fitting = [o for o in known if [said.get(symbol) for symbol in o] == columns]
        symbols = fitting[-1] if fitting else [*_told_apart(columns, said)]
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
