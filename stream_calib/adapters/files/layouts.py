"""What a table is, told by its header and its name, and how its rows become records."""

from collections.abc import Sequence

from stream_calib.adapters.files import binance, databento, tardis
from stream_calib.adapters.files.tables import Rows, cell, picked, plain
from stream_calib.errors import InputError


def reader(first: Sequence[str], name: str, label: str) -> tuple[Rows, bool]:
    """Return what reads the rows of a table, and whether the first row is its header.

    Parameters
    ----------
    first
        The first row.
    name
        Of the file.
    label
        What an error calls the file.

    Raises
    ------
    InputError
        The first row is neither a header nor of a layout that has none.
    """
    dump = binance.columns(first, name)
    if dump is not None:
        return picked(dump[0]), dump[1]
    names = [text.strip() for text in first]
    if names and not isinstance(cell(names[0]), str):
        raise InputError(
            f"{label}: line 1 is no header that names its columns, "
            "and the file's name is not that of a dump of Binance without one"
        )
    return named(names), True


def named(names: Sequence[str]) -> Rows:
    """Return what reads the rows of a table whose columns have these names."""
    return _known(names) or plain(names)


def plain_table(names: Sequence[str]) -> bool:
    """Tell whether a table with these columns is of nobody's layout in particular."""
    return _known(names) is None


def _known(names: Sequence[str]) -> Rows | None:
    columns = tardis.columns(names)
    return databento.rows(names) if columns is None else picked(columns)
