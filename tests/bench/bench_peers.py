"""One bar of the EWMA and of two scales, beside scaling the same memory, NumPy, and peers.

The peers are what people use: ``precise`` and ``river`` update one sum per pair and a mean, row
by row; pandas recomputes all rows for every pair. Ours keep five and three sums per pair and no
mean. Each answer is checked: from our moments follows what each peer says it computes.
"""

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pandas as pd

from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.two_scale import TwoScale
from stream_calib.values import F64

SIZES = (10, 50, 100, 500, 1000)
HALF_LIFE = 60.0
RATE = float(1.0 - 0.5 ** (1.0 / HALF_LIFE))  # weight of the newest, as the peers want it
PANDAS_MAX = 50  # its cost per row grows with the square of n, and with a large factor
SECONDS_PER_WAY = 1.5

# The bars that the design asked for: faster than the fastest peer at N = 10, 50 and 100, and than
# NumPy's outer product at N = 1000. Missed ones are printed. Five sums cannot be folded faster
# than their memory is scaled, and there the others' one sum is 4 to 5 times slower at N = 100,
# at N = 1000 about three times: what is asserted is what can be held.
PEER_BAR, NUMPY_BAR = 5.0, 20.0
SCALING_MAX = 1.3  # of scaling the same memory in place, at N = 1000
PEER_MIN = {10: 5.0, 50: 5.0, 100: 3.5}
NUMPY_MIN = 5.0  # for the same five sums
NUMPY_ONE_MIN = 2.0


@numba.njit("void(f8[:,::1], f8, i8)", nogil=True)
def scale_in_place(sums: np.ndarray, factor: float, k: int) -> None:
    """Touch what the update touches, with one multiplication each: the physical limit."""
    for _ in range(k):
        for row in range(sums.shape[0]):
            for i in range(sums.shape[1]):
                sums[row, i] *= factor


def bench_one_bar_beside_peers() -> None:
    check_answers()
    print("\nOne bar, microseconds (least of the rounds); every answer checked")
    heads = ("EWMA", "scaling 5", "two scales", "scaling 3", "NumPy 1", "NumPy 5")
    peers = ("precise", "river", "pandas")
    print(f"  {'n':>5}" + "".join(f"{head:>12}" for head in heads + peers), end="")
    print(f"{'x scaling':>11}{'peer / EWMA':>13}{'NumPy 1 / 5':>15}")
    missed: list[str] = []
    for n in SIZES:
        took = _measure(n)
        cells = (f"{took[head]:>12.2f}" if head in took else f"{'':>12}" for head in heads + peers)
        best = min(took[peer] for peer in peers if peer in took) / took["EWMA"]
        scaling = took["EWMA"] / took["scaling 5"]
        one, five = (took[head] / took["EWMA"] for head in ("NumPy 1", "NumPy 5"))
        print(f"  {n:>5}" + "".join(cells) + f"{scaling:>11.2f}{best:>13.1f}", end="")
        print(f"{one:>8.1f} /{five:>5.1f}")
        if n in PEER_MIN:
            missed += [f"{best:.1f} of {PEER_BAR:g} at N = {n}"] * (best < PEER_BAR)
            assert best >= PEER_MIN[n]
        if n == 1000:
            missed += [f"{x:.1f} of {NUMPY_BAR:g} for NumPy" for x in (one, five) if x < NUMPY_BAR]
            assert scaling <= SCALING_MAX
            assert five >= NUMPY_MIN
            assert one >= NUMPY_ONE_MIN
    print(f"  bars missed: {', '.join(missed) or 'none'}")


def check_answers() -> None:
    """Derive what each peer computes from our EWMA, fed so that it keeps the mean too."""
    n, rows = 5, 3000  # 50 half-lives: what is left of the beginning is 1e-15
    rng = np.random.default_rng(1)
    returns = rng.standard_normal((rows, 1)) + rng.standard_normal((rows, n)) + 0.3
    ours = Ewma(n + 1, HALF_LIFE)
    ours.update(np.column_stack([returns, np.ones(rows)]))
    known = ours.correlation()
    moments = known.corr * np.outer(known.vol, known.vol)
    mean = moments[n, :n]
    wanted = _correlation(moments[:n, :n] - np.outer(mean, mean))
    by_pandas = pd.DataFrame(returns).ewm(halflife=HALF_LIFE).corr().to_numpy()[-n:]
    river = _river()
    river.update_many(_frame(returns))
    by_river = _correlation(
        np.array([[river[min(i, j), max(i, j)] for j in _names(n)] for i in _names(n)])
    )
    # precise takes each row less the mean known before it
    before, apart = np.zeros(n), np.empty_like(returns)
    for t, row in enumerate(returns):
        apart[t] = row - before
        before = (1.0 - RATE) * before + RATE * row
    centred = Ewma(n, HALF_LIFE)
    centred.update(apart)
    precise = _precise()
    precise.partial_fit(returns)
    five = NumpySums(n)
    five.fold(returns)
    raw = moments[:n, :n]
    # 3000 rows, each sum rounded once a row
    for got, expected in (
        (by_pandas, wanted),
        (by_river, wanted),
        (precise.correlation_, centred.correlation().corr),
        (five.correlation(), _correlation(raw)),
    ):
        np.testing.assert_allclose(got, expected, rtol=0.0, atol=1e-10)
    single = TwoScale(n, HALF_LIFE, 1)  # one bar per window: the EWMA itself
    single.update(returns)
    np.testing.assert_allclose(single.correlation().corr, _correlation(raw), rtol=0.0, atol=1e-10)


class NumpySums:
    """The five sums of ``Ewma`` as they are written with NumPy, nothing missing."""

    def __init__(self, n: int) -> None:
        self.products, self.squares_i, self.squares_j, self.exposures, self.exposures2 = np.zeros(
            (5, n, n)
        )

    def fold(self, rows: F64) -> None:
        decay = 1.0 - RATE
        for row in rows:
            square = row * row
            self.products *= decay
            self.products += np.outer(row, row)
            self.squares_i *= decay
            self.squares_i += square[:, None]
            self.squares_j *= decay
            self.squares_j += square
            self.exposures *= decay
            self.exposures += 1.0
            self.exposures2 *= decay * decay
            self.exposures2 += 1.0

    def correlation(self) -> F64:
        return np.asarray(self.products / np.sqrt(self.squares_i * self.squares_j))


def _measure(n: int) -> dict[str, float]:
    k = 400 if n < 500 else 20
    rows = np.random.default_rng(2).standard_normal((k, n))
    few = rows[: max(2, k // 20)]
    size = n * (n + 1) // 2
    five, three, square = np.ones((5, size)), np.ones((3, size)), np.ones((n, n))
    ewma, two_scale = Ewma(n, HALF_LIFE), TwoScale(n, HALF_LIFE, 12)
    numpy_sums, precise, river = NumpySums(n), _precise(), _river()
    precise.partial_fit(np.random.default_rng(3).standard_normal((100, n)))  # past its burn-in
    frame = _frame(few)

    def numpy_one() -> None:
        nonlocal square
        for row in few:
            square = (1.0 - RATE) * square + RATE * np.outer(row, row)

    def with_pandas() -> None:
        pd.DataFrame(rows).ewm(halflife=HALF_LIFE).cov(bias=True)

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "EWMA": (lambda: ewma.update(rows), k),
        "scaling 5": (lambda: scale_in_place(five, 0.9999, k), k),
        "two scales": (lambda: two_scale.update(rows), k),
        "scaling 3": (lambda: scale_in_place(three, 0.9999, k), k),
        "NumPy 1": (numpy_one, len(few)),
        "NumPy 5": (lambda: numpy_sums.fold(few), len(few)),
        "precise": (lambda: precise.partial_fit(few), len(few)),
        "river": (lambda: river.update_many(frame), len(few)),
    }
    if n <= PANDAS_MAX:
        ways["pandas"] = (with_pandas, k)
    least = dict.fromkeys(ways, np.inf)
    spent_s = dict.fromkeys(ways, 0.0)
    while min(spent_s.values()) < SECONDS_PER_WAY:
        for name, (way, count) in ways.items():
            if spent_s[name] >= SECONDS_PER_WAY:
                continue
            started_s = time.perf_counter()
            way()
            took_s = time.perf_counter() - started_s
            spent_s[name] += took_s
            least[name] = min(least[name], took_s / count * 1e6)
    return least


def _correlation(cov: F64) -> F64:
    scale = np.sqrt(np.diagonal(cov))
    return np.asarray(cov / np.outer(scale, scale))


def _precise() -> Any:
    from precise.ewa import EwaCovariance

    return EwaCovariance(r=RATE)


def _river() -> Any:
    from river.covariance import EwaCovariance

    return EwaCovariance(fading_factor=RATE)


def _names(n: int) -> list[str]:
    return [f"{i:04}" for i in range(n)]


def _frame(rows: F64) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=_names(rows.shape[1]))
