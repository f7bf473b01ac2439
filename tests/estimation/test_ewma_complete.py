"""The EWMA of complete bars keeps one triangle instead of five; nothing else shows it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.estimation.ewma import Ewma
from stream_calib.values import ReturnBlock

HALF_LIFE = 23.0


def mostly_complete(n: int, k: int, seed: int) -> ReturnBlock:
    """Bars of all symbols, bars of nobody, and from a random one on bars with holes."""
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(5, (k, 1)) + rng.standard_t(5, (k, n))
    returns[rng.random(k) < 0.1] = np.nan
    exposure = np.where(np.isnan(returns), 0.0, rng.choice([1.0, 1.0, 2.0], (k, 1)))
    holes = rng.random((k, n)) < 0.1
    holes[: rng.integers(0, k + 1)] = False
    returns[holes], exposure[holes] = np.nan, 0.0
    elapsed = rng.choice([0.5, 1.0, 1.0, 1.0, 3.0], k)
    return ReturnBlock(np.arange(k, dtype=np.int64), returns, exposure, elapsed)


@pytest.mark.parametrize("clock", ["observations", "time"])
@given(st.integers(2, 8), st.integers(1, 150), st.integers(0, 2**32 - 1), st.data())
def test_complete_bars_give_the_bits_of_sums_kept_apart_from_the_start(
    clock: str, n: int, k: int, seed: int, data: st.DataObject
) -> None:
    rows = mostly_complete(n, k, seed)
    apart = Ewma(n, HALF_LIFE, clock, np.zeros(n, np.int64))  # with groups there is no short form
    apart.update(rows)
    then, at = apart.state(), Ewma(n, HALF_LIFE, clock)
    cuts = sorted(data.draw(st.lists(st.integers(0, k), max_size=4)))
    for start, stop in zip([0, *cuts], [*cuts, k], strict=True):
        at.update(rows.rows(start, stop))
        if data.draw(st.booleans()):
            at = Ewma.from_state(at.state())
    assert {name: array.tobytes() for name, array in at.state().items()} == {
        name: array.tobytes() for name, array in then.items() if name != "group"
    }
    one, other = at.correlation(), apart.correlation()
    assert one.corr.tobytes() == other.corr.tobytes()
    assert one.n_eff.tobytes() == other.n_eff.tobytes()
    assert one.vol.tobytes() == other.vol.tobytes()
    assert (one.kappa, one.capped) == (other.kappa, other.capped)
    if clock == "time":
        one, other = (known.since(Ewma(n, HALF_LIFE).state(), 0.5) for known in (at, apart))
        assert one.corr.tobytes() == other.corr.tobytes()
        assert one.n_eff.tobytes() == other.n_eff.tobytes()


def test_four_triangles_are_not_kept_before_the_first_hole_nor_after_restoring() -> None:
    rows = np.random.default_rng(5).normal(size=(40, 3))
    ewma = Ewma(3, HALF_LIFE)
    ewma.update(rows)
    assert not keeps_five_triangles(ewma)
    assert not keeps_five_triangles(Ewma.from_state(ewma.state()))
    ewma.update(np.array([[1.0, np.nan, 1.0]]))
    assert keeps_five_triangles(ewma)
    assert keeps_five_triangles(Ewma.from_state(ewma.state()))


def keeps_five_triangles(ewma: Ewma) -> bool:
    return ewma._apart is not None


@pytest.mark.parametrize("kind", [list, "strided", "read-only", "float32"])
def test_rows_in_any_form_give_the_same_bits(kind: object) -> None:
    rows = np.random.default_rng(6).normal(size=(50, 4)).astype(np.float32).astype(np.float64)
    forms = {
        list: rows.tolist(),
        "strided": np.repeat(rows, 2, axis=1)[:, ::2],
        "read-only": np.lib.stride_tricks.as_strided(rows, writeable=False),
        "float32": rows.astype(np.float32),
    }
    got, wanted = Ewma(4, HALF_LIFE), Ewma(4, HALF_LIFE)
    wanted.update(rows)
    got.update(forms[kind])
    one_by_one = Ewma(4, HALF_LIFE)
    for row in forms[kind]:
        one_by_one.update(row)
    for ewma in (got, one_by_one):
        assert ewma.correlation().corr.tobytes() == wanted.correlation().corr.tobytes()
