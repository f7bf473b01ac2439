"""The heat map fits its terminal and colours by sign."""

import dataclasses

import numpy as np
import pytest
from rich.console import Console

from stream_calib.cli.screen import Tally, heat_map, matrix_line
from stream_calib.values import Effects, Matrix
from tests.web.observations import matrix


def many(n: int) -> Matrix:
    corr = np.eye(n)
    corr[0, 1] = corr[1, 0] = -0.5
    return dataclasses.replace(matrix(), symbols=tuple(f"X:S{i}" for i in range(n)), corr=corr)


def drawn(shown: Matrix, width: int) -> list[str]:
    return heat_map(shown, width).plain.splitlines()


def test_each_symbol_has_a_row_with_its_correlations() -> None:
    rows = drawn(matrix(), 80)
    assert rows[0].split() == ["A", "+.50", "+.20"]
    assert rows[1].split() == ["B", "+.50", "+.30"]
    assert rows[-1].split() == ["-1", "-.5", "0", "+.5", "+1"]


@pytest.mark.parametrize("n", [2, 10, 30, 100, 300])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_map_fits_the_width(n: int, width: int) -> None:
    rows = drawn(many(n), width)
    assert max(map(len, rows[:-1])) <= width
    if n * 5 + 12 <= width:
        assert "-.50" in rows[0]
    assert ("more symbols do not fit" in rows[-2]) == (len(rows) - 1 < n + ("more" in rows[-2]))


def test_sign_is_told_by_colour() -> None:
    console = Console(width=80, color_system="truecolor", force_terminal=True)
    with console.capture() as captured:
        console.print(heat_map(many(2), 80))
    positive, negative = "48;2;178;24;43", "48;2;140;174;210"
    assert positive in captured.get()
    assert negative in captured.get()


def test_line_says_which_matrix_it_is() -> None:
    line = matrix_line(matrix("fx", 7))
    assert line.startswith("2023-11-14T22:13:20.000Z  fx|ewma #7  3 symbols (+1 pending)  average ")
    assert "\n" not in line


def test_tally_adds_outcomes_over_topics() -> None:
    tally = Tally()
    tally.read(3)
    tally.add(Effects(matrices=(matrix(),), counts={("a", "applied"): 2, ("b", "applied"): 1}))
    tally.add(Effects(counts={("a", "late"): 1}))
    assert tally == Tally(3, 1, {"applied": 3, "late": 1})
