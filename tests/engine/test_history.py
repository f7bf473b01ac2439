"""A window of bars that slides."""

import numpy as np
import pytest

from stream_calib.engine.history import History


@pytest.mark.parametrize("n_rows", [0, 1, 7, 8, 9, 16, 17, 100])
def test_the_newest_rows_are_kept_in_order(n_rows: int) -> None:
    history = History(2, 8)
    for t in range(n_rows):
        history.append(t, np.full(2, float(t)), np.ones(2), 1.0 + t)
        if t % 5 == 0:
            history = History.from_state(8, history.state())
    rows = history.block()
    kept = np.arange(max(0, n_rows - 8), n_rows)
    assert len(history) == len(kept)
    assert rows.time_ns.tolist() == kept.tolist()
    assert (rows.returns == kept[:, None]).all()
    assert (rows.elapsed_bars == 1.0 + kept).all()


def test_what_is_handed_out_is_a_copy() -> None:
    history = History(1, 4)
    history.append(0, np.zeros(1), np.ones(1), 1.0)
    history.block().returns[:] = 7.0
    assert history.block().returns.tolist() == [[0.0]]
