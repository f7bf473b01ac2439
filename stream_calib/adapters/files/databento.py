"""Databento's CSV and binary files (DBN), as the JSON that ``wire/ticks/databento`` reads.

Both hold the same records: trades, ``mbp-1``, ``tbbo``, ``bbo``, ``ohlcv``. Of DBN all versions
are read, by Databento's own library (the extra ``databento``), which names the symbols by the
mappings in its head. Prices of a CSV have a point (pretty), or are whole numbers of 1e-9; times
are ns, or text; a price or a time that there is not is an empty cell.
"""

import io
from collections.abc import Iterator, Mapping, Sequence

from stream_calib.adapters.files.tables import Column, Table, objects, pieces
from stream_calib.adapters.files.unpacking import Member
from stream_calib.errors import InputError

KEYS = {"ts_event", "rtype"}
# keys in JSON: names of columns
HEAD = {name: name for name in ("ts_event", "rtype", "instrument_id")}
FIELDS = {name: name for name in ("ts_recv", "symbol", "action", "price", "close")}
TOP = {"bid_px": "bid_px_00", "ask_px": "ask_px_00", "bid_sz": "bid_sz_00", "ask_sz": "ask_sz_00"}


def table(names: Sequence[str]) -> Table | None:
    """Return what reads the rows under this header, None if it is not Databento's."""
    if not set(names) >= KEYS:
        return None
    place = {name: i for i, name in enumerate(names)}

    def read(column: Column) -> list[bytes]:
        def of(keys: Mapping[str, str]) -> list[list[bytes]]:
            return [pieces(key, column(place[name])) for key, name in keys.items() if name in place]

        fields = [_under(b',"hd":%b', of(HEAD)), *of(FIELDS)]
        if top := of(TOP):
            fields.append(_under(b',"levels":[%b]', top))
        return objects(*fields)

    return Table(frozenset({len(names)}), read)


def _under(key: bytes, fields: Sequence[Sequence[bytes]]) -> list[bytes]:
    return [key % one for one in objects(*fields)]


def dbn_lines(member: Member) -> Iterator[list[bytes]]:
    """Yield the records of a DBN file as lines of JSON, a block at a time.

    Raises
    ------
    InputError
        It is no DBN, or cut off; or the library is not there.
    """
    try:
        from databento_dbn import Compression, DBNError, Encoding, Transcoder  # noqa: PLC0415
    except ImportError:
        raise InputError(
            f"{member.label}: DBN is read by the extra databento "
            "(pip install 'stream-calib[databento]')"
        ) from None
    out, size = io.BytesIO(), 0
    try:
        transcoder = Transcoder(
            out,
            Encoding.from_str("json"),
            Compression.from_str("none"),
            pretty_px=False,
            pretty_ts=False,
            map_symbols=True,
        )
        for chunk in member.chunks:
            size += len(chunk)
            transcoder.write(chunk)
            transcoder.flush()
            yield out.getvalue().splitlines()
            out.seek(0)
            out.truncate()
        if not size or transcoder.buffer():
            raise InputError(f"{member.label}: it is cut off in the middle of a record")
    except BaseException as error:
        # of a damaged head the library panics, which is no Exception
        if not isinstance(error, DBNError) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{member.label}: it is not DBN ({reason})") from None
