"""How often the detector is wrong, and how soon it is right, on fitted models.

Figures of the full runs are in the table of decisions in ARCHITECTURE.md.
"""

import numpy as np
import pytest

from stream_calib.estimation.drift import SLOPES, DriftDetector
from stream_calib.kernels.drift import fold_bets, rank_scores
from stream_calib.values import DccParams
from tests.estimation.drift_rates import delays, drift_rows, false_alarm_rate, likelihood_ratio_rows
from tests.estimation.truths import Change, Kind, factor_target, shocks

# criterion 12: where scores are exchangeable


def exchangeable_ratio(n: int, tails: float, threshold: float, runs: int, seed: int) -> float:
    """Mean rows to the first alarm over the threshold, of angular scores of the right model."""
    rng = np.random.default_rng([seed, n])
    total = 0
    for _ in range(runs):
        ordered, in_time, x = np.empty((3, 20_000)), np.empty((3, 20_000)), np.empty(3)
        chains, row, mean = np.zeros((3, len(SLOPES))), 0, 0.0
        while mean < threshold:
            if row % 500 == 0:
                e = shocks(rng, 500, n, tails) if n < 100 else angular(rng, 500, n, tails)
                q = np.sum(e * e, axis=1)
                scores = np.array([e[:, 0] ** 2 / q, e[:, 1] ** 2 / q, e[:, 0] * e[:, 1] / q]).T
                scores, uniforms = np.ascontiguousarray(scores), rng.random((500, 3))
            rank_scores(scores[row % 500], uniforms[row % 500], row, ordered, in_time, x)
            mean = fold_bets(x, np.ones(3), SLOPES, chains)
            row += 1
        total += row
    return total / runs / threshold


def angular(rng: np.random.Generator, rows: int, n: int, tails: float) -> np.ndarray:
    # two directions and the length of the rest: what the scores above need of n shocks
    rest = np.sqrt(rng.chisquare(n - 2, (rows, 1)))
    e: np.ndarray = np.hstack([rng.standard_normal((rows, 2)), rest])
    return e * np.sqrt(tails / rng.chisquare(tails, (rows, 1))) if np.isfinite(tails) else e


def test_exchangeable_scores_alarm_no_sooner_than_asked() -> None:
    # 400 runs know a mean of nearly exponential times to 5 %: four deviations below 1.3
    assert exchangeable_ratio(10, 5.0, 100.0, 400, seed=1) >= 1.0


@pytest.mark.full
@pytest.mark.parametrize(("n", "tails"), [(10, np.inf), (100, np.inf), (1000, np.inf), (20, 5.0)])
def test_the_mean_time_is_1_3_times_the_threshold_where_scores_are_exchangeable(
    n: int, tails: float
) -> None:
    ratio = exchangeable_ratio(n, tails, 500.0, 1000, seed=2)
    print(f"n {n}, tails {tails}: ARL0 / A {ratio:.3f}")
    # 1.45 with bets on powers of p; with bets on normal scores 1.2 to 1.33 in these four
    assert 0.85 <= ratio / 1.3 <= 1.15
    assert ratio >= 1.0


def test_the_right_model_is_seldom_blamed_whatever_the_tails() -> None:
    target = factor_target(np.random.default_rng(4), 8, 0.3)
    root, alarms = np.linalg.cholesky(target), 0
    for seed, tails in enumerate((np.inf, 5.0, 3.0)):
        z = shocks(np.random.default_rng(seed), 2000, 8, tails) @ root.T
        detector = DriftDetector(DccParams(0.0, 0.0, target), 8, arl0=100.0)
        alarms += len(detector.update(z))
    # 6000 rows: 60 alarms are allowed, 31 expected; three deviations of Poisson's above 60
    assert alarms <= 60 + 3 * np.sqrt(60.0)


# criterion 13: fitted models


def test_a_fitted_model_alarms_about_as_often_as_asked_and_likelihood_ratios_do_not() -> None:
    runs, rows, arl0 = range(50, 53), 1600, 200.0
    ours = false_alarm_rate("average_15", 20, runs, rows, arl0)
    plain = false_alarm_rate("average_15", 20, runs, rows, arl0, likelihood_ratio_rows)
    # 24 alarms would be right; twice as many are five deviations of Poisson's away
    assert ours.ratio >= 0.5, ours
    assert plain.ratio < 0.3, plain


WITHIN = {  # realised over asked for, with A = ARL0 = 1000, 20 symbols
    "average_15": (0.8, 1.6),
    "average_50": (0.8, 1.6),
    "average_80": (0.8, 1.6),
    "deco": (0.8, 1.6),
    "t5": (0.8, 1.6),
    "three_factors": (0.8, 1.6),
    "diurnal": (0.7, np.inf),
    "volatility_jumps": (0.7, np.inf),
    "latent": (0.0, np.inf),  # as documented: DCC cannot follow, and every alarm has a reason
}


@pytest.mark.full
@pytest.mark.parametrize("name", WITHIN)
def test_the_realised_rate_is_near_the_one_asked_for(name: str) -> None:
    least, most = WITHIN[name]
    rate = false_alarm_rate(name, 20, range(16), 4000, 1000.0)
    print(f"{name}: realised / asked {rate.ratio:.2f} +- {rate.error:.2f}, {rate.alarms} alarms")
    # two standard errors: sixteen markets tell no more
    assert least - 2 * rate.error <= rate.ratio <= most + 2 * rate.error


@pytest.mark.full
@pytest.mark.parametrize("name", ["average_15", "t5", "three_factors"])
def test_forty_symbols_and_a_plain_likelihood_ratio(name: str) -> None:
    ours = false_alarm_rate(name, 40, range(8), 8000, 2000.0)
    plain = false_alarm_rate(name, 40, range(3), 8000, 2000.0, likelihood_ratio_rows)
    print(f"{name}: ours {ours}, plain {plain}")
    assert ours.ratio >= 0.5
    assert plain.ratio < 0.3


# criterion 14: delays


@pytest.mark.parametrize(
    ("name", "change", "g", "most"),
    [
        ("average_15", "fusing", 0.3, 75),
        ("three_factors", "loosening", 0.4, 35),
        ("three_factors", "rotation", 0.0, 60),
    ],
)
def test_a_jump_is_found_soon(name: str, change: Change, g: float, most: int) -> None:
    # the median of three, and of sixteen in the full run
    found = delays(name, 20, range(3), change, g, "jump", after=150)
    assert np.median(found) <= most, found


@pytest.mark.full
@pytest.mark.parametrize(
    ("change", "g", "kind", "most"),
    [
        ("fusing", 0.3, "jump", 75),
        ("loosening", 0.4, "jump", 35),
        ("rotation", 0.0, "jump", 60),
        ("fusing", 0.3, "target", 180),
        ("loosening", 0.4, "target", 260),
        ("rotation", 0.0, "target", 200),
    ],
)
def test_delays_with_twenty_symbols(change: Change, g: float, kind: Kind, most: int) -> None:
    # medians: where a jump of a common factor is not found in its first rows, the reference, which
    # is a DCC, has followed it by two thirds, and it is found late or not at all
    found = delays("three_factors", 20, range(16), change, g, kind)
    print(f"{change} {kind}: median {np.median(found)}, mean {found.mean():.0f}")
    assert np.median(found) <= most


@pytest.mark.full
def test_delays_fall_as_the_reference_grows() -> None:
    for change, g in (("fusing", 0.3), ("loosening", 0.4), ("rotation", 0.0)):
        by_age = [
            delays("three_factors", 20, range(12), change, g, "jump", before=rows)  # type: ignore[arg-type]
            for rows in (50, 120, 250, 500, 1000)
        ]
        print(change, [f"{np.median(found):.0f}/{found.mean():.0f}" for found in by_age])
        assert by_age[-1].mean() < by_age[0].mean()


@pytest.mark.full
def test_two_runs_of_a_market_alarm_in_the_same_rows() -> None:
    once, again = (
        delays("average_50", 20, range(2), "fusing", 0.3, "jump", alarms_of=drift_rows)
        for _ in range(2)
    )
    assert np.array_equal(once, again)
