"""Exponentially weighted covariances that another program printed, from returns it ships."""

import numpy as np
import pytest

from stream_calib.estimation.ewma import Ewma
from stream_calib.values import F64, ReturnBlock

FADING = 0.02
STOCKS = ("AAPL", "JPM", "XOM")
# river 0.26, EmpiricalCovariance faded by 0.02 over datasets.SP500Stocks, printed to six places
VARIANCES = (1.943785, 1.492286, 1.705386)
COVARIANCES = {(0, 1): 0.766247, (0, 2): 0.760068, (1, 2): 0.933656}
PRINTED = 5.1e-7  # half a unit of the sixth place


@pytest.fixture(scope="module")
def returns() -> F64:
    """Daily returns (1257, 3), in percent."""
    datasets = pytest.importorskip("river.datasets")
    if not hasattr(datasets, "SP500Stocks"):
        pytest.skip("this release of river does not ship SP500Stocks")
    return np.array([[x[name] for name in STOCKS] for x, _ in datasets.SP500Stocks()])


def covariance(returns: F64) -> F64:
    """Read the centred, faded covariance off an Ewma.

    Two things are different there. The first observation stands for all of the past: it has the
    weight 1 / fading, which is a return that spans so many bars. And means are subtracted: a
    fourth series that is always 1 has products that are the means.
    """
    series = np.column_stack([returns, np.ones(len(returns))])
    exposure = np.ones_like(series)
    exposure[0] = 1.0 / FADING
    series[0] *= np.sqrt(1.0 / FADING)
    ewma = Ewma(4, half_life_obs=np.log(0.5) / np.log(1.0 - FADING))
    times = np.arange(len(series))
    ewma.update(ReturnBlock(times, series, exposure, np.ones(len(series))))
    state = ewma.state()
    rows, columns = np.triu_indices(4)
    moments = np.empty((4, 4))
    moments[rows, columns] = moments[columns, rows] = state["products"] / state["exposures"]
    return np.asarray(moments[:3, :3] - np.outer(moments[3, :3], moments[3, :3]))


def test_variances_and_covariances_are_the_printed_ones(returns: F64) -> None:
    found = covariance(returns)
    np.testing.assert_allclose(np.diag(found), VARIANCES, rtol=0.0, atol=PRINTED)
    for pair, wanted in COVARIANCES.items():
        assert abs(found[pair] - wanted) < PRINTED


def test_they_equal_those_of_pandas(returns: F64) -> None:
    pandas = pytest.importorskip("pandas")
    known = pandas.DataFrame(returns).ewm(alpha=FADING, adjust=False).cov(bias=True)
    # 1257 terms, then a difference of two of the size of the variance
    np.testing.assert_allclose(covariance(returns), known.to_numpy()[-3:], rtol=1e-10)


def test_without_its_two_peculiarities_the_correlation_is_close(returns: F64) -> None:
    ewma = Ewma(3, half_life_obs=np.log(0.5) / np.log(1.0 - FADING))
    ewma.update(returns)
    found = covariance(returns)
    scale = np.sqrt(np.diag(found))
    # what the means of some fifty days are worth: their squares against the variances
    np.testing.assert_allclose(
        ewma.correlation().corr, found / np.outer(scale, scale), rtol=0.0, atol=0.03
    )
