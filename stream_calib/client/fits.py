"""The model behind a matrix: what it was fitted to, off the service's own topics."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from stream_calib.client.blocking import LoopThread
from stream_calib.client.connection import kept_records
from stream_calib.client.recorded import records_in
from stream_calib.errors import InputError
from stream_calib.estimation.calibrated import GARCH_NAMES, dcc_params, garch_params
from stream_calib.estimation.dcc import Dcc
from stream_calib.values import F64, Fit, PublishedFit
from stream_calib.wire.fits import FIT_TYPE, decode_fit

FILES = {".jsonl", ".json", ".gz", ".zst"}  # no address ends like this
NOTED_TYPE = "stream_calib.calibration.v1"

Facts = Mapping[str, Any]


def read_fit(
    source: str | Path,
    universe: str,
    model_version: int,
    *,
    prefix: str = "calib",
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
    **kafka
        More options of the client library, such as TLS and SASL.

    Raises
    ------
    TransportError, MissingTopicError
        The broker or a topic cannot be reached.
    InputError
        The version, or its fit, is not in the log (any more).
    """
    search = _Search(str(source), universe, model_version)
    path = Path(source)
    if path.is_file():
        for record in records_in(path, lambda headers: headers.get("ce_type") == NOTED_TYPE):
            search.note(record)
        search.check()
        for record in records_in(path, lambda headers: headers.get("content-type") == FIT_TYPE):
            if search.found(record):
                break
    elif path.suffix in FILES:
        raise InputError(f"{path}: there is no such file")
    else:
        thread = LoopThread()
        try:
            thread.call(_search_kafka(search, str(source), prefix, kafka))
        finally:
            thread.stop(_nothing)
    return published_fit(search.fit(), search.facts)


async def _nothing() -> None:
    pass


async def _search_kafka(
    search: "_Search", address: str, prefix: str, kafka: Mapping[str, object]
) -> None:
    said = kept_records(address, f"{prefix}.calibrations", kafka)
    async with contextlib.aclosing(said) as records:
        async for record in records:
            search.note(record)
    search.check()
    async with contextlib.aclosing(kept_records(address, f"{prefix}.fits", kafka)) as records:
        async for record in records:
            if search.found(record):
                return


class _Search:
    # First what is said of the version, then the fit that it is said of.
    def __init__(self, source: str, universe: str, version: int) -> None:
        self.facts: Facts = {}
        self._name = f"model version {version} of universe {universe!r}"
        self._source = source
        self._universe, self._key = universe, f"{universe}|{version}".encode()
        self._chunks: dict[str, dict[int, bytes]] = {}
        self._fit: Fit | None = None

    def note(self, record: Any) -> None:  # noqa: ANN401
        if record.value is not None and record.key == self._key:
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
    return _columns(fit) == [column for _, column in sorted(_said_columns(facts).items())]


def published_fit(fit: Fit, facts: Facts) -> PublishedFit:
    """Return a fit with what the record of calibrations says of it.

    Its symbols are in the order of their names, as those of all fits are.
    """
    params, symbols = dcc_params(fit), tuple(sorted(_said_columns(facts)))
    return PublishedFit(
        facts["universe"],
        facts["model_version"],
        int(facts["time_ns"]),
        symbols,
        params,
        garch_params(fit),
        Dcc(params, len(symbols)).long_run(),
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


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
