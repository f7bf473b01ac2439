"""Raw captures of cryptofeed, old and new, as a record log with the times of receipt."""

from pathlib import Path

import orjson
import pytest

from stream_calib.adapters.files import FileSource
from stream_calib.wire.ticks import decode
from tests.contract.test_files_lean import batches_of
from tests.wire.recordings import recordings

TRADE = {"e": "trade", "E": 1633998512000, "T": 1633998511999, "s": "NKNUSDT", "t": 5, "p": "0.35"}
QUOTE = {"u": 1, "s": "NKNUSDT", "b": "0.3521", "B": "672", "a": "0.3526", "A": "3199"}
OLD = """configuration: {'BINANCE': {'trades': ['NKN-USDT']}}
https://api.binance.com/api/v3/exchangeInfo -> 1633998511.0: {"symbols": []}
wss://stream.binance.com:9443 <-> 1633998511.25
wss://stream.binance.com:9443 <- 1633998511.5: {"method": "SUBSCRIBE"}

1633998512.0078125: TRADE
garbage
1633998513: QUOTE
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    packed = text.replace("TRADE", orjson.dumps(TRADE).decode())
    path.write_text(packed.replace("QUOTE", orjson.dumps(QUOTE).decode()))
    return path


def test_an_old_capture_gives_what_was_received_at_the_time_it_was(tmp_path: Path) -> None:
    (batch,) = batches_of(written(tmp_path, "BINANCE.ws.1.0", OLD))
    assert batch.values == [orjson.dumps(TRADE), b"garbage", orjson.dumps(QUOTE)]
    assert batch.timestamps_ms == [1633998512007, -1, 1633998513000]
    read = decode(batch, "auto", {"BINANCE:NKNUSDT": 0})
    # the venue's own time where there is one, else that of the receipt
    assert read.time_ns.tolist() == [1633998511999000000, 1633998513000000000]
    assert [(one.row, one.reason) for one in read.malformed] == [(1, "json")]


@pytest.mark.parametrize("first", range(7))
def test_an_old_capture_is_known_by_whatever_line_it_begins_with(
    tmp_path: Path, first: int
) -> None:
    lines = OLD.splitlines(keepends=True)
    path = written(tmp_path, "capture", "\n" + "".join(lines[first:]))
    (batch,) = batches_of(path)
    if first < 6:
        assert batch.values[0] == orjson.dumps(TRADE)
    else:  # and is not one when it begins with none
        assert batch.values[0] == b"garbage"
        assert batch.timestamps_ms == [-1, -1]


def test_lines_of_json_that_are_no_capture_stay_what_they_are(tmp_path: Path) -> None:
    lines = [b'{"t":"recv","data":"x"}', b'{"t":"header"}', b'{"t":1633998512,"data":"y"}']
    for order in (lines, lines[::-1]):
        path = tmp_path / "t.jsonl"
        path.write_bytes(b"\n".join(order))
        (batch,) = batches_of(path)
        assert batch.values == order


def test_a_new_capture_is_the_same_records_as_read_by_hand(market_data: Path) -> None:
    for name, (batch, *_) in recordings(market_data).items():
        if not name.startswith("websocket/"):
            continue
        path = market_data / "raw" / "cryptofeed_v3" / f"{name.partition('/')[2]}.jsonl.zst"
        read = batches_of(path)
        assert [value for one in read for value in one.values] == batch.values
        assert [stamp for one in read for stamp in one.timestamps_ms] == batch.timestamps_ms
        assert {one.source.topic for one in read} == {path.name}


def test_odd_lines_of_a_new_capture_stay_records(tmp_path: Path) -> None:
    header = '{"t":"header","format":2}\n'
    odd = ["{", "[]", '{"t":"recv","data":7}', '{"t":"recv","ts":1e300,"data":"x"}', '{"u":1}']
    (batch,) = batches_of(written(tmp_path, "c.jsonl", header + "\n".join(odd)))
    assert batch.values == [b"{", b"[]", b'{"t":"recv","data":7}', b"x", b'{"u":1}']
    assert batch.timestamps_ms == [-1] * 5


def test_times_of_receipt_are_read_again_with_their_records(tmp_path: Path) -> None:
    source = FileSource([written(tmp_path, "c", "1633998512.5: a\n1633998513.5: b\nc\n")])
    (here,) = source.open()
    for _ in range(2):
        batch = source.take_range(here, 1, 3, 10)
        assert (batch.values, batch.timestamps_ms) == ([b"b", b"c"], [1633998513500, -1])
    source.release()
