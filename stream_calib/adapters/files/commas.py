"""The text of a CSV file to records: blocks of lines where nothing is quoted, else row by row."""

import csv
import itertools
from collections.abc import Iterator, Sequence

from stream_calib.adapters.files.layouts import table
from stream_calib.adapters.files.tables import ROWS, Table
from stream_calib.adapters.files.unpacking import Member
from stream_calib.errors import InputError

LINE_MAX = 100_000  # of longer ones the library judges the cells


def csv_records(member: Member) -> Iterator[list[bytes]]:
    """Yield the records of a CSV file, a block at a time.

    Raises
    ------
    InputError
        It is not UTF-8 or not CSV, which is told by line, or has no header.
    """
    found: Table | None = None
    number, blocks = 0, member.lines()
    for block in blocks:
        lines = _unquoted(block)
        if lines is None:
            # a cell may go on in the next block: from here on the library keeps count
            yield from _quoted(member, itertools.chain([block], blocks), number, found)
            return
        number += len(lines)
        if found is None:
            first = lines[0].split(",") if lines[0] else []
            found, has_header = table(first, member.name, member.label)
            lines = lines[1:] if has_header else lines
        yield found.of_lines(lines)


def _unquoted(block: Sequence[bytes]) -> list[str] | None:
    joined = b"\n".join(block)
    if b'"' in joined or b"\r" in joined or max(map(len, block)) > LINE_MAX:
        return None
    try:
        return joined.decode().split("\n")
    except UnicodeDecodeError:
        return None


def _quoted(
    member: Member, blocks: Iterator[list[bytes]], number: int, found: Table | None
) -> Iterator[list[bytes]]:
    def texts() -> Iterator[str]:
        nonlocal number
        for block in blocks:
            for line in block:
                number += 1
                yield f"{line.decode()}\n"

    rows = csv.reader(texts())
    try:
        if found is None:
            first = next(rows, [])
            found, has_header = table(first, member.name, member.label)
            if not has_header:
                yield found.records([first])
        while part := list(itertools.islice(rows, ROWS)):
            yield found.records(part)
    except csv.Error as error:
        raise InputError(f"{member.label}: line {number} is not CSV ({error})") from None
    except UnicodeDecodeError:
        raise InputError(f"{member.label}: line {number} is not UTF-8 text") from None
