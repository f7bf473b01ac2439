"""Matrices out of what ``replay --out`` has written."""

import base64
import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from stream_calib.client.assembly import Assembly
from stream_calib.client.problem import NO_PARTITION, Problem, warn
from stream_calib.client.start import Given, Start
from stream_calib.errors import InputError
from stream_calib.values import Matrix
from stream_calib.wire.cloudevents import JSON_TYPE, parse_rfc3339
from stream_calib.wire.compression import reading, unzstd

CHUNK_BYTES = 256 * 1024
LINE_BYTES = 16 * 1024 * 1024  # beyond, it is not a file of lines
MATRIX_TYPE = "stream_calib.matrix.v1"
VALUE = b',"value":'


def read_matrices(
    paths: Iterable[str | Path] | str | Path,
    *,
    universe: str | None = None,
    estimator: str | None = None,
    start: Given = "earliest",
    on_problem: Callable[[Problem], None] | None = None,
) -> Iterator[Matrix]:
    """Yield the matrices in output files of ``replay``, as ``subscribe`` would.

    Parameters
    ----------
    paths
        One file of JSON lines or several, of which each goes on where another one ends: they are
        read in the order of their first matrices' times. Each plain, ``.gz`` or ``.zst``; lines of
        other topics are passed over.
    universe, estimator
        Only these; None is all.
    start
        ``earliest``, a sequence (of the ``universe`` that is named), or a time with a zone.
    on_problem
        Called when matrices are missing, repeated or torn, before the next one is yielded; by
        default the problem is logged as a warning.

    Yields
    ------
    Matrix
        In the order of the lines; chunks put together.

    Raises
    ------
    InputError
        A file cannot be read, a line is no output of ``replay``, or ``start`` cannot be
        understood.

    Examples
    --------
    >>> import stream_calib as sc
    >>> for matrix in sc.read_matrices("matrices.jsonl"):  # doctest: +SKIP
    ...     print(matrix.to_pandas())
    """
    begin = Start.of(start, universe)
    if begin.reset == "latest":
        message = "start: a file has no latest, only 'earliest', a sequence or a time"
        raise InputError(message)
    if isinstance(paths, str | Path):
        paths = [paths]
    return _read(
        [Path(path) for path in paths], Assembly(universe, estimator, begin, on_problem or warn)
    )


def _read(paths: Sequence[Path], assembly: Assembly) -> Iterator[Matrix]:
    for path in sorted(paths, key=_first_time) if len(paths) > 1 else paths:
        for record in _matrices_in(path):
            matrix = assembly.add(record)
            if matrix is not None:
                yield matrix


def _matrices_in(path: Path) -> Iterator["Line"]:
    return records_in(path, lambda headers: headers.get("ce_type") == MATRIX_TYPE)


def _first_time(path: Path) -> int:
    first = next(_matrices_in(path), None)
    try:
        return 0 if first is None else parse_rfc3339(dict(first.headers)["ce_time"].decode())
    except (KeyError, ValueError):
        raise InputError(f"{path}: its first matrix has no time") from None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an output file, as its record would come from Kafka; ``offset`` counts from 1."""

    topic: str
    partition: int
    offset: int
    key: bytes
    headers: list[tuple[str, bytes]]
    value: bytes


def records_in(path: Path, is_wanted: Callable[[Mapping[str, str]], bool]) -> Iterator[Line]:
    """Yield the records of an output file whose headers are wanted.

    Raises
    ------
    InputError
        The file cannot be read, or a line is no output of ``replay``.
    """
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            document, value = _split(line)
            headers: Mapping[str, str] = document["headers"]
            if not is_wanted(headers):
                continue
            if headers.get("content-type") != JSON_TYPE:
                value = base64.b64decode(orjson.loads(value), validate=True)
            fields = [(name, text.encode()) for name, text in headers.items()]
            key = document["key"].encode()
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InputError(f"{path}: line {number} is no output record of replay") from None
        yield Line(str(path), NO_PARTITION, number, key, fields, value)


def _split(line: bytes) -> tuple[dict[str, Any], bytes]:
    # The value is what its checksum is of, to the byte; it is the last field.
    head, found, value = line.rstrip().partition(VALUE)  # no quote stands bare in a text
    if found and value.endswith(b"}"):
        return orjson.loads(head + b"}"), value[:-1]
    document = orjson.loads(line)  # written anew by somebody
    return document, orjson.dumps(document["value"])


def _lines(path: Path) -> Iterator[bytes]:
    rest = b""
    with reading(path):
        for chunk in _chunks(path):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
            if len(rest) > LINE_BYTES:
                raise InputError(f"{path}: it has no line ends where a record should end")
    if rest:
        yield rest


def _chunks(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        if path.suffix == ".zst":
            yield from unzstd(iter(partial(file.read, CHUNK_BYTES // 16), b""))
            return
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
