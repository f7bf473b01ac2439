"""Plain JSON ticks to columns, byte by byte, without making an object of any of them."""

import numpy as np

from stream_calib.kernels._jit import kernel

SPACE, QUOTE, BACKSLASH, COLON, COMMA, OPEN, CLOSE = 32, 34, 92, 58, 44, 123, 125
MINUS, POINT, ZERO, NINE = 45, 46, 48, 57
SYMBOL, TIME, PRICE, BID, ASK = 1, 2, 4, 8, 16
_SYMBOL, _TIME, _PRICE, _BID, _ASK = (
    int.from_bytes(name, "big") for name in (b"symbol", b"time", b"price", b"bid", b"ask")
)
MANTISSA_MAX = 922_337_203_685_477_579  # one digit more fits into 63 bits
EXACT_MAX = 2**53
DIGITS_EXACT = 22  # powers of ten up to here are doubles
DIGITS_DIVIDED = 14  # up to here a quotient of 63 bits is rounded as it should be
SPLIT = 134_217_729.0  # 2^27 + 1
HASH_START, HASH_FACTOR = np.uint64(14_695_981_039_346_656_037), np.uint64(1_099_511_628_211)


@kernel("i8(u1[::1], i8, i8)")
def _skip(text: np.ndarray, at: int, stop: int) -> int:
    while at < stop and text[at] == SPACE:
        at += 1
    return at


@kernel("u8(u1[::1], i8, i8)")
def _hash(text: np.ndarray, start: int, stop: int) -> np.uint64:
    # FNV-1a
    h = HASH_START
    for at in range(start, stop):
        h = (h ^ np.uint64(text[at])) * HASH_FACTOR
    return h ^ (h >> np.uint64(32))


@kernel("f8(i8, i8)")
def _quotient(mantissa: int, digits: int) -> float:
    # mantissa / 10^digits, correctly rounded, or NaN where this is not certain
    power = 1.0
    for _ in range(digits):
        power *= 10.0
    if mantissa < EXACT_MAX:
        return mantissa / power if digits <= DIGITS_EXACT else np.nan
    if digits > DIGITS_DIVIDED:
        return np.nan
    # One step of long division in doubles: the remainder of the first quotient is exact, by
    # Dekker's product. What is left over, 2^-105, is less than any such fraction is away from
    # the middle of two doubles without being the middle, 1 / (10^14 2^53).
    high = float(mantissa)
    low = float(mantissa - np.int64(high))
    first = high / power
    a = first * SPLIT
    a_high = a - (a - first)
    a_low = first - a_high
    b = power * SPLIT
    b_high = b - (b - power)
    b_low = power - b_high
    product = first * power
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return first + ((high - product) - error + low) / power


@kernel("Tuple((i8, f8))(u1[::1], i8, i8)")
def _number(text: np.ndarray, at: int, stop: int) -> tuple[int, float]:
    # returns where the number ends and its value, or -1: not a plain decimal
    negative = at < stop and text[at] == MINUS
    if negative:
        at += 1
    first, mantissa, digits, point = at, 0, 0, -1
    while at < stop:
        c = text[at]
        if ZERO <= c <= NINE:
            if mantissa > MANTISSA_MAX:
                return -1, 0.0
            mantissa = 10 * mantissa + (c - ZERO)
            digits += 1
        elif c == POINT and point < 0 and digits > 0:
            point = at
        else:
            break
        at += 1
    whole = (at if point < 0 else point) - first
    fraction = 0 if point < 0 else at - point - 1
    if whole == 0 or (point >= 0 and fraction == 0) or (whole > 1 and text[first] == ZERO):
        return -1, 0.0
    value = _quotient(mantissa, fraction)
    if value != value:
        return -1, 0.0
    return at, 0.0 - value if negative else value  # no zero has a sign


@kernel("Tuple((i8, i8))(u1[::1], i8, i8)")
def _integer(text: np.ndarray, at: int, stop: int) -> tuple[int, int]:
    first, value = at, 0
    while at < stop and ZERO <= text[at] <= NINE:
        if value > MANTISSA_MAX:
            return -1, 0
        value = 10 * value + (text[at] - ZERO)
        at += 1
    if at == first or (at - first > 1 and text[first] == ZERO):
        return -1, 0
    return at, value


@kernel("i8(u1[::1], i8, i8)")
def _string(text: np.ndarray, at: int, stop: int) -> int:
    # ``at`` is behind the opening quote; returns where the closing one is, or -1
    while at < stop:
        c = text[at]
        if c == QUOTE:
            return at
        if c == BACKSLASH or c < 32 or c > 126:
            return -1
        at += 1
    return -1


@kernel("i8(u1[::1], i8, i8)")
def _key(text: np.ndarray, start: int, stop: int) -> int:
    # the bytes of a name as one number
    if stop - start > 6:
        return 0
    word = 0
    for at in range(start, stop):
        word = word << 8 | text[at]
    if word == _SYMBOL:
        return SYMBOL
    if word == _TIME:
        return TIME
    if word == _PRICE:
        return PRICE
    if word == _BID:
        return BID
    return ASK if word == _ASK else 0


@kernel("i8(u1[::1], i8, i8, u1[::1], i8[::1], i8[::1])")
def _find(
    text: np.ndarray,
    start: int,
    stop: int,
    names: np.ndarray,
    name_ends: np.ndarray,
    slots: np.ndarray,
) -> int:
    mask = np.uint64(slots.size - 1)
    slot = _hash(text, start, stop) & mask
    while slots[slot] >= 0:
        i = slots[slot]
        begin = name_ends[i - 1] if i > 0 else 0
        if name_ends[i] - begin == stop - start:
            same = True
            for k in range(stop - start):
                if names[begin + k] != text[start + k]:
                    same = False
                    break
            if same:
                return int(i)
        slot = (slot + np.uint64(1)) & mask
    return -1


@kernel("void(u1[::1], i8[::1], i8[::1])")
def place_names(names: np.ndarray, name_ends: np.ndarray, out_slots: np.ndarray) -> None:
    """Lay names out in a table by their hash, for ``scan_ticks``.

        slot = FNV-1a(name) mod size, then the next free one

    Parameters
    ----------
    names : (b,)
        The bytes of all names, one after the other; ``name_ends`` (n,) is where each ends.
    out_slots : (size,), -1 everywhere, changed in place
        ``size`` is a power of two above n.
    """
    mask = np.uint64(out_slots.size - 1)
    for i in range(name_ends.size):
        start = name_ends[i - 1] if i > 0 else 0
        slot = _hash(names, start, name_ends[i]) & mask
        while out_slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        out_slots[slot] = i


@kernel(
    "i8(u1[::1], i8[::1], u1[::1], i8[::1], i8[::1],"
    " b1[::1], i8[::1], i8[::1], f8[::1], f8[::1], f8[::1])"
)
def scan_ticks(
    text: np.ndarray,
    ends: np.ndarray,
    names: np.ndarray,
    name_ends: np.ndarray,
    slots: np.ndarray,
    out_plain: np.ndarray,
    out_time: np.ndarray,
    out_asset: np.ndarray,
    out_price: np.ndarray,
    out_bid: np.ndarray,
    out_ask: np.ndarray,
) -> int:
    """Read records that are plain JSON ticks.

        {"symbol": S, "time": T, "price": P}        or "bid" and "ask", or all three; any order

    S is printable ASCII without escapes, T an integer of up to 18 digits and a bit, P a decimal
    without exponent whose double is certain. Nothing else is plain: an unknown or repeated key,
    another type, anything that is not JSON. What is plain has the values that a JSON parser
    gives it, to the last bit.

    Parameters
    ----------
    text : (b,)
        The bytes of all records, one after the other; ``ends`` (m,) is where each ends.
    names, name_ends, slots
        As ``place_names`` made them.
    out_plain : (m,), overwritten
        Whether a record is plain; in the rows that are not, the other outputs mean nothing.
    out_time, out_asset : (m,), overwritten
        The integer as written, and the index of the symbol or -1.
    out_price, out_bid, out_ask : (m,), overwritten
        NaN where the record has none.

    Returns
    -------
    int
        How many are plain.
    """
    n_plain = 0
    for row in range(ends.size):
        at = ends[row - 1] if row > 0 else 0
        stop = ends[row]
        out_plain[row] = False
        out_price[row] = out_bid[row] = out_ask[row] = np.nan
        at = _skip(text, at, stop)
        if at >= stop or text[at] != OPEN:
            continue
        seen = 0
        while True:
            at = _skip(text, at + 1, stop)
            if at >= stop or text[at] != QUOTE:
                break
            end = _string(text, at + 1, stop)
            key = _key(text, at + 1, end) if end >= 0 else 0
            if key == 0 or seen & key:
                break
            at = _skip(text, end + 1, stop)
            if at >= stop or text[at] != COLON:
                break
            at = _skip(text, at + 1, stop)
            value = 0.0
            if key == SYMBOL:
                end = _string(text, at + 1, stop) if at < stop and text[at] == QUOTE else -1
                if end <= at + 1:
                    break
                out_asset[row] = _find(text, at + 1, end, names, name_ends, slots)
                at = end + 1
            elif key == TIME:
                at, out_time[row] = _integer(text, at, stop)
            else:
                at, value = _number(text, at, stop)
            if at < 0:
                break
            if key == PRICE:
                out_price[row] = value
            elif key == BID:
                out_bid[row] = value
            elif key == ASK:
                out_ask[row] = value
            seen |= key
            at = _skip(text, at, stop)
            if at < stop and text[at] == COMMA:
                continue
            if at < stop and text[at] == CLOSE and _skip(text, at + 1, stop) == stop:
                whole = seen & (SYMBOL | TIME) == SYMBOL | TIME
                both = seen & (BID | ASK)
                if whole and (both == 0 or both == BID | ASK) and seen & (PRICE | BID):
                    out_plain[row] = True
                    n_plain += 1
            break
    return n_plain
