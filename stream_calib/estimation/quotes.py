"""Ticks to prices under a policy: the last trade, the middle of the quote, or its microprice."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.filtering import adjusted
from stream_calib.estimation.protocol import Layout
from stream_calib.kernels.quotes import LAST, MICROPRICE, MID, WARM_SPREADS, price_ticks
from stream_calib.values import F64, I64

POLICIES = {"last": LAST, "mid": MID, "microprice": MICROPRICE}


class Priced(NamedTuple):
    """Prices of m ticks, NaN where there is none; the codes are those of ``kernels.quotes``.

    PRICED; UNUSED: the policy makes no price of it (a trade under ``mid``, a quote under
    ``last``, a side that is not there or not known yet); CROSSED: the bid is above the ask, no
    price until it is not; SPREAD: the quote is too wide and was not believed.
    """

    price: F64
    code: npt.NDArray[np.int8]


class QuoteTable:
    """The quote of every symbol, put together from rows that carry one side, both, or sizes.

    What a row does not carry (NaN) stays as it was: the size of a side stays when only its price
    is written anew. A side written at a price of 0 is no side: it is taken out, and there is no
    price until it is quoted again; a stale side is worse than none. (Where prices may be 0, it
    is taken out if its size is 0 as well.) Every row that carries some of the quote makes a
    price, also one that does not change it.

    In a feed of single sides a bid may move up an instant before the ask: the table takes it in,
    and makes no price while bid > ask. Bid = ask is a price.

    A quote wider than ``spread_max`` median spreads is refused, and the quote before it stays
    believed. What was refused is not forgotten: it counts in the median of the last k spreads
    that were quoted, so that a lasting change is believed when it is the larger half of them;
    and once it makes an ordinary quote together with what came after it, it is believed. So a
    market that moves up ask first is followed as soon as the bid has moved. Until ten spreads
    above zero are known every quote is believed. Sizes that are not positive are not known.

    Parameters
    ----------
    n
        Number of symbols.
    policy
        ``last``, ``mid`` or ``microprice``; ``mid`` stands in where sizes are not known.
    spread_max
        Widest quote, in median spreads.
    k
        Spreads that the median is of.
    positive
        Whether prices are above zero; of a spread or a rate they may be negative.

    Raises
    ------
    ValueError
        If ``policy`` is not known, ``k`` is less than ten, or ``n`` or ``spread_max`` not positive.

    References
    ----------
    Barndorff-Nielsen, Hansen, Lunde and Shephard (2009), Realized kernels in practice: trades
    and quotes, Econometrics Journal 12, C1-C32, rules Q2 and Q3.
    """

    LAYOUT = Layout(by_symbol={"tables": math.nan, "spreads": math.inf, "counts": 0})

    def __init__(
        self, n: int, policy: str, spread_max: float = 50.0, k: int = 60, *, positive: bool = True
    ) -> None:
        if policy not in POLICIES:
            message = f"policy must be one of {', '.join(POLICIES)}, not {policy!r}"
            raise ValueError(message)
        if k < WARM_SPREADS:
            message = f"k must be at least {WARM_SPREADS}, not {k}"
            raise ValueError(message)
        for name, value in {"n": n, "spread_max": spread_max}.items():
            if not value > 0:
                message = f"{name} must be positive, not {value}"
                raise ValueError(message)
        self.policy = POLICIES[policy]
        self.spread_max = spread_max
        self.positive = positive
        self._tables = np.full((2, 4, n), np.nan)
        self._windows = np.full((2, n, k + 1), np.inf)
        self._counts = np.zeros((2, n), dtype=np.int64)

    def price(
        self, asset: I64, price: F64, bid: F64, ask: F64, bid_size: F64, ask_size: F64
    ) -> Priced:
        """Take in ticks in total order; all columns (m,), NaN for what a tick does not carry.

        Any cut of the ticks gives the same prices.
        """
        out = Priced(np.empty(len(asset)), np.empty(len(asset), dtype=np.int8))
        price_ticks(
            asset,
            price,
            bid,
            ask,
            bid_size,
            ask_size,
            self.policy,
            not self.positive,
            self.spread_max,
            self._tables,
            self._windows,
            self._counts,
            *out,
        )
        return out

    def adjust(self, asset: int, factor: float = 1.0, offset: float = 0.0) -> None:
        """Turn every price p in the quote of a symbol into factor p + offset: a split, a roll.

        Raises
        ------
        ValueError
            If ``factor`` is not positive, or a price would not be finite, or not positive where
            prices are. Nothing has changed then.
        """
        sides = adjusted(self._tables[:, :2, asset], factor, offset, positive=self.positive)
        with np.errstate(over="ignore"):
            windows = self._windows[:, asset] * factor
        self._tables[:, :2, asset] = sides
        self._windows[:, asset] = windows

    def reset(self, asset: int) -> None:
        """Forget a symbol."""
        self._tables[:, :, asset] = np.nan
        self._windows[:, asset] = np.inf
        self._counts[:, asset] = 0

    def state(self) -> dict[str, F64 | I64]:
        """Return copies of all arrays that make up the state, symbols on the last axis."""
        k = self._windows.shape[2] - 1
        return {
            "settings": np.array([self.policy, self.positive], dtype=np.int64),
            "spread_max": np.array([self.spread_max]),
            "tables": self._tables.copy(),
            "spreads": self._windows[0, :, :k].T.copy(),
            "counts": self._counts.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Continue from what ``state`` returned."""
        code, positive = (int(number) for number in state["settings"])
        (policy,) = (name for name, known in POLICIES.items() if known == code)
        k, n = state["spreads"].shape
        own = cls(n, policy, float(state["spread_max"][0]), k, positive=bool(positive))
        own._tables[:] = state["tables"]
        own._windows[0, :, :k] = state["spreads"].T
        own._windows[1] = np.sort(own._windows[0], axis=1)
        own._counts[:] = state["counts"]
        return own
