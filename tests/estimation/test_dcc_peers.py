"""Fits of DCC beside rmgarch's published ones and pymgarch's."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from stream_calib.estimation.calibration.dcc import fit_dcc
from stream_calib.estimation.calibration.objective import Full
from stream_calib.values import F64
from tests.estimation.dcc_truths import fixture, forecast_path

NAMES = ("AA", "AXP", "BA", "BAC", "C")
# rmgarch 1.4-2 on dji30ret[1:1000, AA AXP BA BAC C] x 100: mu, omega, alpha, beta of each.
MARGINALS = np.array(
    [
        [0.198126649, 0.112884120, 0.176399517, 0.822600287],
        [-0.004277480, 0.431502900, 0.148553169, 0.779195585],
        [0.128953751, 0.032571908, 0.016433677, 0.974714469],
        [0.188374451, 0.903508991, 0.291980359, 0.571242378],
        [0.087541978, 1.179889197, 0.106460612, 0.720579187],
    ]
)
RMGARCH_A, RMGARCH_B = 0.0108409458507285, 0.786948216873906
RMGARCH_LOGLIK = -10111.2993183835
RMGARCH_LAST = [0.4598413037, 0.3655782417, 0.3755999005, 0.3768380574, 0.4453019823]
RMGARCH_NEXT = [0.4445962619, 0.355695333, 0.3564558918, 0.3657874704, 0.4543350994]


@pytest.fixture(scope="module", name="dow")
def _dow(market_data: Path) -> tuple[F64, float]:
    """Returns standardised by rmgarch's variances, and the sum of ln h / 2."""
    path = market_data / "daily" / "R_dji30ret.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path.name} among the real market data")
    with gzip.open(path, "rt") as file:
        header = file.readline().strip().split(",")
        rows = [line.split(",") for _, line in zip(range(1000), file, strict=False)]
    columns = [header.index(name) for name in NAMES]
    returns = 100.0 * np.array([[float(row[c]) for c in columns] for row in rows])
    mu, omega, alpha, beta = MARGINALS.T
    e = returns - mu
    h = np.empty_like(e)
    h[0] = np.mean(e**2, axis=0)
    for t in range(1, len(e)):
        h[t] = omega + alpha * e[t - 1] ** 2 + beta * h[t - 1]
    return e / np.sqrt(h), 0.5 * float(np.log(h).sum())


def test_the_likelihood_at_rmgarchs_parameters_is_rmgarchs(dow: tuple[F64, float]) -> None:
    z, volatility = dow
    full = Full(z, z, "dcc", np.cov(z.T))
    theta = np.array([RMGARCH_A, RMGARCH_B, 0.0])
    # its estimation pads the bar before the first with zeros: .015 is that
    assert full(theta)[0] - volatility == pytest.approx(RMGARCH_LOGLIK, abs=0.02)


def test_correlations_at_rmgarchs_parameters_are_rmgarchs(dow: tuple[F64, float]) -> None:
    z, _ = dow
    path = forecast_path(np.vstack([z, z[-1:]]), np.cov(z.T), RMGARCH_A, RMGARCH_B, aielli=False)
    # the printed marginals have nine digits
    first = np.triu_indices(5, 1)[0][:5], np.triu_indices(5, 1)[1][:5]
    np.testing.assert_allclose(path[-2][first], RMGARCH_LAST, atol=1e-6)
    np.testing.assert_allclose(path[-1][first], RMGARCH_NEXT, atol=1e-6)


def test_a_full_fit_is_at_least_as_likely_as_rmgarchs(dow: tuple[F64, float]) -> None:
    z, volatility = dow
    fit = fit_dcc(z, model="dcc", likelihood="full", target=np.cov(z.T))
    # a is weakly identified here; the likelihood is not
    assert fit.loglik - volatility >= RMGARCH_LOGLIK - 0.02
    assert fit.loglik - volatility <= RMGARCH_LOGLIK + 2.0
    assert abs(fit.a - RMGARCH_A) < 3 * max(fit.se["a"], 0.005)


def test_a_full_fit_is_pymgarchs_under_its_target() -> None:
    estimation = pytest.importorskip("pymgarch.correlation")
    z = fixture()
    target, _ = estimation.correlation_targets(z)
    fit = fit_dcc(z, model="dcc", likelihood="full", target=np.ascontiguousarray(target))
    full = Full(z, z, "dcc", np.ascontiguousarray(target))
    best = full(np.array([fit.a, fit.b, 0.0]))[0]
    path = estimation.dcc_path(z, fit.a, fit.b, 0.0, target, None)
    total = 4 * np.log(2 * np.pi) + path.logdet + path.quad
    assert best == pytest.approx(-0.5 * total.sum(), rel=1e-10)  # the same recursion: rounding


def test_a_fit_with_its_garch_stage_is_near_the_truth() -> None:
    pytest.importorskip("stream_calib.estimation.calibration.garch")
    z = fixture()
    fit = fit_dcc(0.01 * z, standardised=False)
    plain = fit_dcc(z)
    assert fit.garch is not None
    # GARCH of returns without any takes a little of the news
    assert abs(fit.a - plain.a) < 2 * plain.se["a"]
    assert abs(fit.b - plain.b) < 3 * plain.se["b"]
