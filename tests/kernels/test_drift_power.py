"""The expected delay against one run at a time."""

import numpy as np
import pytest

from stream_calib.estimation.drift_power import normal_table
from stream_calib.kernels.drift_power import expected_delay
from tests.oracles import drift_power as oracle


@pytest.mark.parametrize("shift", [0.0, 0.7, 3.0])
def test_the_delay_is_the_mean_over_runs(shift: float) -> None:
    rng = np.random.default_rng(3)
    ordered = np.sort(rng.standard_normal((2, 40)), axis=1)
    pools = rng.standard_normal((3, 2, 30)) + shift
    begins, inflation, slopes = np.array([0, 5, 20]), np.array([1.0, 1.3]), np.array([0.3, 0.9])
    arguments = (ordered, pools, begins, normal_table(), 70, 30.0, inflation, slopes, 3, 90)
    # a sum of three delays is exact
    assert expected_delay(*arguments) == pytest.approx(oracle.expected_delay(*arguments), rel=1e-14)
