"""A cleaned matrix, repaired to the floor of its wire type, is positive definite as decoded."""

from dataclasses import replace

import numpy as np
import pytest

from stream_calib.estimation.cleaning import repair_correlation
from stream_calib.estimation.eigenvalues import EigenvalueCleaner
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.shrinkage import clip_correlation, shrink_target
from stream_calib.values import F64, JSON_MAX_SYMBOLS, eigenvalue_floor
from stream_calib.wire.matrices import encode, join
from tests.golden.values import matrix


def sent_and_received(corr: F64) -> F64:
    records = encode(replace(matrix(len(corr)), corr=corr), "calib.correlations", 0)
    return join([(record.value, dict(record.headers)) for record in records]).corr


@pytest.mark.parametrize("n", [10, 50, 100, JSON_MAX_SYMBOLS, JSON_MAX_SYMBOLS + 1, 300])
@pytest.mark.parametrize("own", [0.0, 1e-3, 1.0])
def test_a_cleaned_matrix_is_positive_definite_as_decoded(n: int, own: float) -> None:
    # three factors and hardly anything of a symbol's own: eigenvalues next to zero, holes too
    rng = np.random.default_rng(n)
    z = rng.standard_normal((60, 3)) @ rng.standard_normal((3, n))
    z = (z + own * rng.standard_normal((60, n))) / np.sqrt(3.0 + own**2)
    holed = np.where(rng.random(z.shape) < 0.1, np.nan, z)
    estimate, cleaner = Ewma(n, half_life_obs=8.0, clock="time"), EigenvalueCleaner(n)
    for start in range(0, 60, 20):
        rows = holed[start : start + 20]
        cleaner.update(rows, lambda: estimate.correlation().corr)
        estimate.update(rows)
    corr = estimate.correlation().corr
    for cleaned in (cleaner.clean(corr, 20.0), clip_correlation(corr, 20.0), shrink_target(holed)):
        repaired = repair_correlation(cleaned, eigenvalue_floor(n))
        got = sent_and_received(repaired.corr)
        np.linalg.cholesky(got)
        assert (np.diagonal(got) == 1.0).all()
        assert got.tobytes() == np.ascontiguousarray(got.T).tobytes()
