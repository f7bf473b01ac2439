"""Settings of the model half: DCC bars, full fits, where they run, and the watch for drift."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stream_calib.config.durations import UNITS_NS, PositiveNs
from stream_calib.config.tick_layer import Section


class DccConfig(Section):
    """The DCC-GARCH estimator, on bars of its own.

    ``window_bars`` are kept for fits, the first of which is due at ``first_fit_bars``, further
    ones every ``refit_bars`` (0: never). ``vol_half_life_bars`` is that of volatility where
    there is no GARCH fit; ``winsor`` caps standardised returns, 0 for nowhere. ``likelihood``
    is the full one up to 40 symbols, unless told, and the composite one above.
    """

    enabled: bool = True
    bar: PositiveNs = UNITS_NS["m"]
    model: Literal["dcc", "cdcc", "adcc"] = "cdcc"
    likelihood: Literal["auto", "composite", "full"] = "auto"
    leverage: bool = False
    target: Literal["qis", "ledoit_wolf", "none"] = "qis"
    winsor: float = 3.0
    vol_half_life_bars: Annotated[float, Field(ge=10.0, le=1e6)] = 20.0
    window_bars: Annotated[int, Field(ge=5, le=100_000)] = 2000
    first_fit_bars: Annotated[int, Field(ge=5, le=100_000)] = 250
    refit_bars: Annotated[int, Field(ge=0)] = 250
    pooled_below_bars: Annotated[int, Field(ge=0)] = 1000

    @model_validator(mode="after")
    def _coherent(self) -> "DccConfig":
        if self.winsor and not 2.0 <= self.winsor <= 10.0:
            message = f"winsor must be 0 for none, or from 2 to 10, not {self.winsor:g}"
            raise ValueError(message)
        if self.first_fit_bars > self.window_bars:
            message = (
                f"first_fit_bars {self.first_fit_bars} is more than window_bars {self.window_bars}"
            )
            raise ValueError(message)
        return self

    def bars_per_bar(self, bar_ns: int) -> int:
        """Bars of the universe in a DCC bar: whole ones, together at least as long as ``bar``."""
        return max(1, -(-self.bar // bar_ns))


class DriftConfig(Section):
    """When the correlations of the model are said to have shifted, and what is done then.

    ``arl0_bars``: DCC bars from one false alarm to the next, on average; ``arl0`` says the same
    as a time in which the market is open. After an alarm targets are fitted to what came since
    the change; one that predicts better by ``lead`` nats is installed. The alarm was false when
    none has been after ``give_up_bars``. Within ``cool_down_bars`` the old model comes back when
    it leads by ``lead_back``.
    """

    detector: Literal["conformal", "none"] = "conformal"
    arl0_bars: Annotated[float, Field(ge=100.0, le=1e9)] = 5000.0
    arl0: PositiveNs | None = None
    lead: Annotated[float, Field(gt=0.0, le=100.0)] = 1.6
    lead_back: Annotated[float, Field(gt=0.0, le=100.0)] = 3.0
    give_up_bars: Annotated[int, Field(ge=50, le=100_000)] = 500
    cool_down_bars: Annotated[int, Field(ge=0, le=100_000)] = 250

    def arl0_rows(self, bar_ns: int) -> float:
        """Return the target in DCC bars of a length."""
        return self.arl0_bars if self.arl0 is None else max(100.0, self.arl0 / bar_ns)


class RefitConfig(Section):
    """Where full fits run, and what is done meanwhile.

    ``late``: go on and install a fit ``when_ready``, or ``wait`` for it before the next bar, so
    that the output does not depend on how long it takes.
    """

    late: Literal["when_ready", "wait"] = "when_ready"
    timeout: PositiveNs = UNITS_NS["s"] * 60
    memory_mb: Annotated[int, Field(ge=256)] = 4096
