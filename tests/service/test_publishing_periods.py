"""How often each estimator publishes, as the metrics tell it."""

from stream_calib.config import Config
from stream_calib.service.pacing import publishing_periods_s


def test_the_filter_has_the_period_of_the_universe_and_dcc_that_of_its_bars() -> None:
    universe = {
        "name": "fx",
        "symbols": ["A", "B"],
        "bar": "7s",
        "every": 5,
        "dcc": {"bar": "30m"},
    }
    config = Config.model_validate({"universe": [universe]})
    # DCC bars are whole bars: the first multiple of 7 s from half an hour on
    assert publishing_periods_s(config) == {("fx", "ewma"): 35.0, ("fx", "dcc"): 1806.0}
