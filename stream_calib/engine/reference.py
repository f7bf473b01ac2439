"""What drift is measured from: a model that stands still, and what watches it."""

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.engine.arrays import Arrays, under, within
from stream_calib.estimation.dcc_model import DccModel
from stream_calib.estimation.drift import DriftDetector
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.estimation.miscalibration import Miscalibration
from stream_calib.estimation.protocol import Layout
from stream_calib.values import F64, I64, Alarm, DccParams, ReturnBlock


class Reference:
    """A frozen model with its detectors, over the symbols that it has a target for.

    Detectors see the symbols in canonical order, so that the universe's own does not show.

    Parameters
    ----------
    volatility
        Standardises all symbols, with parameters that no refit changes.
    detector, miscalibration
        What is told of each bar.
    core : (m,)
        Places of the symbols that take part, in canonical order.
    expected : (m, m)
        The correlations that all returns to.
    bars
        What the target of its symbols rests on.
    """

    LAYOUTS: Mapping[str, Layout] = {
        "volatility": GarchVolatility.LAYOUT,
        "members": Layout(by_symbol={"core": False}),
    }

    def __init__(
        self,
        volatility: GarchVolatility,
        detector: DriftDetector,
        miscalibration: Miscalibration,
        core: I64,
        expected: F64,
        bars: float,
    ) -> None:
        self.bars = bars
        self._volatility = volatility
        self._detector = detector
        self._miscalibration = miscalibration
        self._core = core
        self._expected = expected
        self._cut = np.ix_(core, core)

    @classmethod
    def begin(cls, model: DccModel, order: I64, *, arl0: float, seed: int) -> Self:
        """Freeze a model as it stands."""
        params = model.params
        core = order[np.isfinite(np.diagonal(params.target)[order])]
        cut = np.ix_(core, core)
        own = DccParams(
            params.a,
            params.b,
            params.target[cut],
            params.model,
            params.g,
            None if params.asymmetry is None else params.asymmetry[cut],
        )
        counts = model.fit.arrays["counts"][core]
        detector = DriftDetector(
            own,
            len(core),
            arl0=arl0,
            n_target=counts,
            clock="time",
            seed=seed,
            inflation=model.fit.arrays.get("dependence"),
        )
        miscalibration = Miscalibration(own, len(core), arl0=arl0)
        expected, bars = model.long_run()[cut], float(np.median(counts))
        return cls(model.volatility(), detector, miscalibration, core, expected, bars)

    def rests_on(self, model: DccModel) -> float:
        """Return the bars that a model's target rests on, as ``bars`` are counted."""
        return float(np.median(model.fit.arrays["counts"][self._core]))

    def update(self, block: ReturnBlock, z: ReturnBlock, forecast: F64) -> list[Alarm]:
        """Take in one bar: its returns, and z and correlations of the model in force."""
        own = self._volatility.standardise(block)
        alarms = self._detector.update(_cut(own, self._core))
        return alarms + self._miscalibration.update(z.returns[:, self._core], forecast[self._cut])

    def judged(self, rows: ReturnBlock) -> tuple[F64, F64]:
        """Return rows as standardised returns (k, n), and the correlations expected (n, n)."""
        z = self._volatility.restarted().standardise(rows).returns
        expected = np.full((z.shape[1], z.shape[1]), np.nan)
        expected[self._cut] = self._expected
        return z, expected

    @property
    def n(self) -> int:
        """How many symbols are watched."""
        return len(self._core)

    @property
    def level(self) -> float:
        """The larger statistic over its threshold."""
        return max(self._detector.level, self._miscalibration.level)

    @property
    def power(self) -> float | None:
        """Expected delay in bars when correlations fuse by 35 %; None: not within sight."""
        power = self._detector.power
        return power if math.isfinite(power) else None

    @property
    def blind(self) -> bool:
        """Whether there are too few bars to compare with."""
        return self._detector.blind

    @property
    def rows(self) -> int:
        """Bars to compare with."""
        return self._detector.rows

    def state(self) -> Arrays:
        """Return copies of all arrays that make up the state."""
        return {
            "members.core": np.isin(np.arange(self._volatility.n), self._core),
            "expected": self._expected.copy(),
            "bars": np.array([self.bars]),
            **under("volatility", self._volatility.state()),
            **under("detector", self._detector.state()),
            **under("miscalibration", self._miscalibration.state()),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]], order: I64) -> Self:
        """Continue from what ``state`` returned."""
        return cls(
            GarchVolatility.from_state(within("volatility", state)),
            DriftDetector.from_state(within("detector", state)),
            Miscalibration.from_state(within("miscalibration", state)),
            order[state["members.core"][order]],
            state["expected"].copy(),
            float(state["bars"][0]),
        )


def _cut(block: ReturnBlock, places: I64) -> ReturnBlock:
    returns, exposure = block.returns[:, places], block.exposure[:, places]
    return ReturnBlock(
        block.time_ns,
        np.ascontiguousarray(returns),
        np.ascontiguousarray(exposure),
        block.elapsed_bars,
    )
