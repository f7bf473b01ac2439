"""The model half of a universe on returns that are given: bars in, fits answered, turns out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stream_calib.config import Config
from stream_calib.engine.dcc_layer import DccLayer
from stream_calib.engine.refit_cycle import Turn
from stream_calib.estimation.calibration.model import calibrate
from stream_calib.values import F64, Fit, FitFailure, FitRequest, ReturnBlock
from tests.engine.driver import SECOND, START, settings

Answer = Callable[[FitRequest], Fit | FitFailure | None]
DCC = {
    "bar": "1s",
    "window_bars": 1500,
    "first_fit_bars": 600,
    "pooled_below_bars": 1000,
    "refit_bars": 0,
}


def names(n: int) -> list[str]:
    """Names of n symbols, in an order that is not theirs."""
    return [f"S{(7 * i + 3) % 1000:03d}" for i in range(n)]


def regime_settings(n: int, **drift: object) -> Config:
    """One second to a bar of DCC, and a first fit after 300 of them."""
    return settings(names(n), universe__dcc=DCC, universe__drift=drift)


@dataclass
class Regimes:
    """A layer and what it said: ``turns`` by bar, ``forecasts`` after each."""

    config: Config
    answer: Answer = calibrate
    turns: list[tuple[int, Turn]] = field(default_factory=list)
    requests: list[tuple[int, FitRequest]] = field(default_factory=list)
    answers: list[Fit | FitFailure | None] = field(default_factory=list)
    forecasts: list[F64] = field(default_factory=list)
    bars: int = 0

    def __post_init__(self) -> None:
        self.layer = DccLayer(self.config, self.config.universe[0])

    def feed(self, returns: F64) -> "Regimes":
        """Take bars in one by one; what is asked for is answered at once."""
        for row in returns:
            self.bars += 1
            end_ns = START + self.bars * SECOND
            seen = np.isfinite(row)
            block = ReturnBlock(
                np.array([end_ns]), row[None], seen[None].astype(np.float64), np.ones(1)
            )
            self.layer.fold(block)
            self.layer.close()
            self._note()
            request = self.layer.request()
            if request is not None:
                self.requests.append((self.bars, request))
                found = self.answer(request)
                self.answers.append(found)
                if isinstance(found, Fit):
                    self.layer.install(found)
                elif found is not None:
                    self.layer.fail(found)
            self._note()
            known = self.layer.correlation()
            if known is not None:
                self.forecasts.append(known.corr)
        return self

    def restore(self) -> None:
        """Go on from the saved state alone."""
        self.layer = DccLayer.from_state(self.config, self.config.universe[0], self.layer.state())

    def _note(self) -> None:
        self.turns += [(self.bars, turn) for turn in self.layer.take_turns()]

    def of(self, type_: str) -> list[tuple[int, Mapping[str, Any]]]:
        """Return the details of the turns of a type, with their bars."""
        return [(bar, turn.details) for bar, turn in self.turns if turn.type == type_]
