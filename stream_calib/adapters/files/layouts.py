"""What a table is, told by its header and its name, and how its rows become records."""

from collections.abc import Sequence

from stream_calib.adapters.files import binance, databento, tardis
from stream_calib.adapters.files.tables import Table, cell, plain
from stream_calib.errors import InputError


def table(first: Sequence[str], name: str, label: str) -> tuple[Table, bool]:
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
    dump = binance.table(first, name)
    if dump is not None:
        return dump
    names = [text.strip() for text in first]
    if names and not isinstance(cell(names[0]), str):
        raise InputError(
            f"{label}: line 1 is no header that names its columns, "
            "and the file's name is not that of a dump of Binance without one"
        )
    return named(names), True


def named(names: Sequence[str]) -> Table:
    """Return what reads the rows of a table whose columns have these names."""
    return tardis.table(names) or databento.table(names) or plain(names)
