"""Ticks scanned from bytes have the values that a JSON parser gives them, or are left to it."""

import math
import struct
from fractions import Fraction
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_calib.kernels.scanning import place_names, scan_ticks
from tests.oracles.scanning import plain_tick

SYMBOLS = ("A", "B", "SIM:12", "BINANCE:BTC-USDT", "a b")
NUMBER_MAX = 9_223_372_036_854_775_799  # mantissas up to here are read


def as_bytes(values: list[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    text = np.frombuffer(bytearray().join(values), np.uint8)
    return text, np.cumsum([len(value) for value in values], dtype=np.int64)


def scanned(values: list[bytes]) -> list[tuple[int, int, float, float, float] | None]:
    names, name_ends = as_bytes([symbol.encode() for symbol in SYMBOLS])
    slots = np.full(16, -1, np.int64)
    place_names(names, name_ends, slots)
    n = len(values)
    plain = np.empty(n, np.bool_)
    time, asset = np.full((2, n), -7, np.int64)
    numbers = np.empty((3, n))
    out = (plain, time, asset, *numbers)
    count = scan_ticks(*as_bytes(values), names, name_ends, slots, *out)
    assert count == plain.sum()
    rows = zip(time.tolist(), asset.tolist(), *numbers.tolist(), strict=True)
    return [row if ok else None for row, ok in zip(rows, plain, strict=True)]


def price_of(literal: str) -> float | None:
    (found,) = scanned([b'{"symbol":"A","time":1,"price":%b}' % literal.encode()])
    return None if found is None else found[2]


def same(one: object, other: object) -> bool:
    return repr(one) == repr(other)  # NaN equals itself, -0.0 does not equal 0.0


@pytest.mark.parametrize(
    "value",
    [
        b'{"symbol":"A","time":1625291738612292000,"price":101.25}',
        b' { "price" : -0.5 , "time" : 0 , "symbol" : "SIM:12" } ',
        b'{"symbol":"BINANCE:BTC-USDT","time":12,"bid":1,"ask":2.50}',
        b'{"symbol":"nobody","time":12,"ask":1.0,"price":3,"bid":-0}',
        b'{"symbol":"a b","time":9223372036854775799,"price":0.000001}',
    ],
)
def test_plain_ticks_are_read(value: bytes) -> None:
    expected = plain_tick(value, SYMBOLS)
    assert expected is not None
    assert same(scanned([value]), [expected])


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"null",
        b'{"symbol":"A","time":1}',
        b'{"symbol":"A","time":1,"bid":1}',
        b'{"symbol":"A","time":1,"price":1,"id":4}',
        b'{"symbol":"A","time":1,"price":1,"price":2}',
        b'{"symbol":"","time":1,"price":1}',
        b'{"symbol":"\\u0041","time":1,"price":1}',
        b'{"symbol":"\xc3\xa9","time":1,"price":1}',
        b'{"symbol":"A\x01","time":1,"price":1}',
        b'{"symbol":"A","time":01,"price":1}',
        b'{"symbol":"A","time":-1,"price":1}',
        b'{"symbol":"A","time":1.5,"price":1}',
        b'{"symbol":"A","time":99999999999999999999,"price":1}',
        b'{"symbol":"A","time":1,"price":.5}',
        b'{"symbol":"A","time":1,"price":5.}',
        b'{"symbol":"A","time":1,"price":00.5}',
        b'{"symbol":"A","time":1,"price":1e3}',
        b'{"symbol":"A","time":1,"price":+1}',
        b'{"symbol":"A","time":1,"price":"1"}',
        b'{"symbol":"A","time":1,"price":NaN}',
        b'{"symbol":"A","time":1,"price":1},',
        b'{"symbol":"A","time":1,"price":1',
        b'{"symbol":"A","time":1,"price":1,}',
        b'{"symbol":"A" "time":1,"price":1}',
        b'{"symbol":"A",,"time":1,"price":1}',
        b'{"symbol":"A","time":1,"price":1 2}',
        b'["symbol","A","time",1,"price",1]',
        b'{"symbol":"A","time":1,"price":1}\n',
        b'{"symbol":"A","time":1,"price":1}\x00',
    ],
)
def test_anything_else_is_left_alone(value: bytes) -> None:
    good = b'{"symbol":"B","time":5,"price":2.5}'
    read = (5, 1, 2.5, math.nan, math.nan)
    assert same(scanned([good, value, good]), [read, None, read])
    assert plain_tick(value, SYMBOLS) is None


TEXT = b'"symbol"|"time"|"price"|"bid"|"ask"|"A"|"B"|"|:|,|{|}| |0|1|17|-|.|5|e|\\|\n|\xff|1.25|['
PIECES = st.sampled_from(TEXT.split(b"|"))


@given(st.lists(st.lists(PIECES, max_size=16).map(b"".join), max_size=8))
def test_any_bytes_mean_what_the_oracle_says(values: list[bytes]) -> None:
    assert same(scanned(values), [plain_tick(value, SYMBOLS) for value in values])


@given(st.data())
def test_a_tick_with_one_byte_changed_means_what_the_oracle_says(data: st.DataObject) -> None:
    value = b'{"symbol":"SIM:12","time":1625291738612292000,"bid":101.25,"ask":102}'
    at = data.draw(st.integers(0, len(value)))
    put = data.draw(st.binary(max_size=2))
    changed = value[:at] + put + value[at + data.draw(st.integers(0, 2)) :]
    (found,) = scanned([changed])
    expected = plain_tick(changed, SYMBOLS)
    # digits of which the double is not certain are left to the parser
    assert same(found, expected) or found is None


@given(st.floats(allow_nan=False, allow_infinity=False, width=64))
@example(101.23456789012345)
@example(0.1)
@example(5e-324)
@example(-0.0)
def test_a_number_is_read_to_the_last_bit_or_not_at_all(value: float) -> None:
    found = price_of(repr(value))
    assert found is None or same(found, value + 0.0)  # no zero has a sign


@pytest.mark.parametrize("seed", range(3))
def test_prices_of_usual_size_are_read_to_the_last_bit(seed: int) -> None:
    random = Random(seed)
    for _ in range(2000):
        price = random.uniform(1.0, 1e5)
        for digits in (2, 5, 9, None):
            literal = repr(price if digits is None else round(price, digits))
            found = price_of(literal)
            # 16 or 17 digits of which 15 or more are behind the point may be left to the parser
            assert found is not None or len(literal.partition(".")[2]) > 14
            assert found is None or same(found, float(literal))


@pytest.mark.parametrize("seed", range(3))
def test_numbers_in_the_middle_between_two_doubles_are_rounded_as_they_should_be(seed: int) -> None:
    random = Random(seed)
    for _ in range(2000):
        digits = random.randint(1, 14)
        near = random.randrange(2**53, NUMBER_MAX) / 10.0**digits
        middle = Fraction(near) + Fraction(math.ulp(near)) / 2
        mantissa = round(middle * 10**digits) + random.choice((-1, 0, 1))
        if not 0 < mantissa < NUMBER_MAX:
            continue
        text = str(mantissa).rjust(digits + 1, "0")
        literal = f"{text[:-digits]}.{text[-digits:]}"
        assert same(price_of(literal), float(literal)), literal


def test_the_largest_double_is_no_surprise() -> None:
    huge = struct.unpack("<d", struct.pack("<Q", 0x7FEFFFFFFFFFFFFF))[0]
    assert price_of(f"{int(huge)}") is None
    assert price_of("9223372036854775799") == 9223372036854775799.0
