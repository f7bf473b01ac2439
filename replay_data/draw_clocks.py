"""Draw how correlations of real ticks move with the clock: clocks.svg and its table, clocks.md.

Needs the real market data that the tests use (STREAM_CALIB_MARKET_DATA names its folder).

STREAM_CALIB_MARKET_DATA=../shared/market_data .venv/bin/python -m replay_data.draw_clocks
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from replay_data.drawing import GREY, INK, rule, text
from stream_calib.values import F64
from tests.estimation.clock_study import (
    ANONYMOUS_SYMBOLS,
    US_DAYS,
    US_SYMBOLS,
    WINDOWS_S,
    PairStudy,
    anonymous_trades,
    study,
    us_mids,
    us_trades,
)

FOLDER = Path(__file__).parent
MID_LAGS_S = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0)
DRAWN = {
    "SPY~AIG": "7 and 8 October 2013",
    "SPY~BAC": "7 and 8 October 2013",
    "AAA~BBB": "17 September 2014",
}
FIRST_S = 10  # two scales need several bars in a window

# Places in the picture, in pixels.
WIDTH, HEIGHT = 960, 370
LEFT, TOP, PANEL_WIDTH, PANEL_HEIGHT, GAP = 62, 88, 274, 220, 24
LEVEL_MAX = 1.1
BLUE, ORANGE, GREEN = "#1f5fa8", "#c8551b", "#3a7d44"
TICKS_S = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min"}


def main() -> None:
    """Study the pairs, draw three of them, and write all of them down."""
    folder = Path(os.environ["STREAM_CALIB_MARKET_DATA"])
    trades = study([us_trades(folder, day) for day in US_DAYS], US_SYMBOLS)
    trades += study([anonymous_trades(folder)], ANONYMOUS_SYMBOLS)
    mids = study([us_mids(folder)], US_SYMBOLS, MID_LAGS_S)
    chosen = [row for name in DRAWN for row in trades if row.name == name]
    (FOLDER / "clocks.svg").write_text(picture(chosen))
    (FOLDER / "clocks.md").write_text(document(trades, mids))


def picture(rows: Sequence[PairStudy]) -> str:
    """Draw one panel per pair."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica, Arial, sans-serif"'
        f' font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, 24, "Correlation of trades against the clock it is taken on", size=16),
        *_legend(),
        *(part for i, row in enumerate(rows) for part in _panel(i, row)),
        text(WIDTH / 2, HEIGHT - 14, "interval or window (log scale)", anchor="middle"),
        f'<text x="18" y="{TOP + PANEL_HEIGHT / 2}" text-anchor="middle"'
        f' transform="rotate(-90 18 {TOP + PANEL_HEIGHT / 2})">correlation</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> list[str]:
    entries = (
        (BLUE, "", "two scales, ± 2 standard errors"),
        (ORANGE, "", "previous ticks"),
        (GREEN, "5 4", "Hayashi-Yoshida, last tick of each interval"),
    )
    parts, x = [], float(LEFT)
    for colour, dashes, words in entries:
        if not dashes and colour == BLUE:
            parts.append(
                f'<rect x="{x}" y="36" width="26" height="12" fill="{BLUE}" opacity=".16"/>'
            )
        parts.append(_line([(x, 42.0), (x + 26, 42.0)], colour, dashes))
        parts.append(text(x + 33, 46, words))
        x += 60 + 6.1 * len(words)
    return parts


def _panel(number: int, row: PairStudy) -> list[str]:
    left = LEFT + number * (PANEL_WIDTH + GAP)
    bottom = TOP + PANEL_HEIGHT
    seconds = np.array(WINDOWS_S, dtype=np.float64)
    parts = [text(left, TOP - 8, row.name.replace("~", " ~ "), weight="bold")]
    parts.append(text(left + PANEL_WIDTH, TOP - 8, DRAWN[row.name], anchor="end", fill=GREY))
    for level in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        y = _y(level)
        parts.append(rule(left, y, left + PANEL_WIDTH, y, "#e4e4e4" if level else GREY))
        if number == 0:
            parts.append(text(left - 8, y + 4, f"{level:.1f}", anchor="end"))
    for second, words in TICKS_S.items():
        x = _x(left, second)
        parts.append(rule(x, TOP, x, bottom, "#eeeeee"))
        parts.append(rule(x, bottom, x, bottom + 5, GREY))
        anchor = "end" if second == 600 else "start" if second == 1 else "middle"
        parts.append(text(x, bottom + 19, words, anchor=anchor))
    late = seconds >= FIRST_S
    upper = (row.two_scale + 2.0 * row.error)[late]
    lower = (row.two_scale - 2.0 * row.error)[late]
    edge = [*_points(left, seconds[late], upper), *_points(left, seconds[late], lower)[::-1]]
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in edge)
    parts.append(f'<polygon points="{corners}" fill="{BLUE}" opacity=".16"/>')
    every = seconds > 0.0
    for values, where, colour, dashes in (
        (row.hayashi_yoshida, every, GREEN, "5 4"),
        (row.previous, every, ORANGE, ""),
        (row.two_scale, late, BLUE, ""),
    ):
        points = _points(left, seconds[where], values[where])
        parts.append(_line(points, colour, dashes))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in points]
    return parts


def _x(left: float, second: float) -> float:
    return left + PANEL_WIDTH * math.log(second) / math.log(WINDOWS_S[-1])


def _y(level: float) -> float:
    return TOP + PANEL_HEIGHT * (1.0 - level / LEVEL_MAX)


def _points(left: float, seconds: F64, values: F64) -> list[tuple[float, float]]:
    return [(_x(left, s), _y(v)) for s, v in zip(seconds.tolist(), values.tolist(), strict=True)]


def _line(points: Sequence[tuple[float, float]], colour: str, dashes: str = "") -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'


def document(trades: Sequence[PairStudy], mids: Sequence[PairStudy]) -> str:
    """Write every pair down, those that fail too."""
    lines = [INTRODUCTION, *_table(trades, "trades"), *_table(mids, "mids")]
    return "\n".join(lines) + READING


def _table(rows: Sequence[PairStudy], kind: str) -> list[str]:
    heads = (
        kind, "previous ticks 10 / 60 / 300 s", "two scales 10 / 60 / 300 s", "±", "moves",
        "off", "lead-lag", "cov", "vol", "shared", "HY",
    )  # fmt: skip
    lines = ["", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    at = [WINDOWS_S.index(w) for w in (10, 60, 300)]
    for row in rows:
        lead = row.lead_lag
        cells = (
            row.name,
            " / ".join(f"{value:.2f}" for value in row.previous[at]),
            " / ".join(f"{value:.2f}" for value in row.two_scale[at]),
            f"{row.error[at[-1]]:.3f}",
            f"{row.change:.3f} of {row.change_previous:.3f}"
            + ("" if row.change < 0.5 * row.change_previous else " **fails**"),
            f"{row.off:.1f}" + ("" if row.off <= 2.0 else " **fails**"),
            f"{lead.peak_s:+g} s, z {lead.z:+.1f}" + (", **leads**" if row.leads else ""),
            f"{row.cov_ratio:.2f}",
            " ".join(f"{ratio:.2f}" for ratio in row.vol_ratio),
            f"{row.shared:.2f}",
            f"{row.all_ticks:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


INTRODUCTION = """# Correlations of real ticks against the clock

Made by `replay_data/draw_clocks.py`; held by `tests/estimation/test_clock_study.py`. Regular hours, 09:30 to 16:00;
SPY, BAC, IBM and AIG on 7 and 8 October 2013 joined (mids: the 7th, once a second), three symbols without a name on
17 September 2014. Strays further than ten typical distances (and 15 bp) from the median of the 31 trades before are
dropped: 32 of 1,062,804. Two scales on a clock of a tenth of the window, between 1 and 5 s; all weights alike. Errors are of
ten-minute blocks drawn 1000 times.

- **±**: standard error of two scales at 300 s.
- **moves**: largest difference within windows of 60, 120, 180 and 300 s, of two scales and of previous ticks. The first should be
  less than half of the second.
- **off**: largest distance of those windows from 300 s, in its standard errors. Should be 2 at most where nobody leads.
- **lead-lag**: where the Hayashi-Yoshida covariance with one side shifted is largest (positive: the first leads), and the
  difference of its two sides over 0.1 to 30 s in standard errors; above 2 one is taken to lead.
- **cov**, **vol**: covariance and the two volatilities by windows of 60 s over those by 300 s. **shared**: the part of 60 s windows that
  both have ticks for. **HY**: `HayashiYoshida.correlation()` of all ticks."""  # noqa: E501

READING = """

What two scales take out is most of the Epps effect: at 10 s previous ticks of trades have a half of what two scales
find at 300 s (median of nine pairs), two scales are within 15 % of it for seven (not SPY~BAC and BAC~AIG). What remains:

- **Moves by half as much or more (6 of 15).** Of SPY~IBM and IBM~AIG (trades) and IBM~AIG (mids) the whole movement is below one
  standard error; SPY~IBM's previous ticks happen to stand still. SPY~BAC and BAC~AIG (mids) rise with the window, and
  BBB~ETF falls. Over all 15 two scales move .46 as much as previous ticks; over mids alone .51: a mid is known every
  second, so there is no asynchrony to correct.
- **Off at shorter windows (2 of 15).** SPY~BAC (mids), where SPY is diagnosed to lead; and BBB~ETF, where a lead of 0.1 s is at the
  border of being diagnosed and far too short to explain it: there the criterion fails. The next two points are the causes.
- **BAC** costs 14 dollars: a tick is 7 bp, half a tick of the mid 4 bp. It follows in steps, late: its covariances with SPY and AIG
  by 60 s are a tenth below those by 300 s, in trades and mids alike, as if it took 8 s on average to follow. Its mid is also off for longer than
  a window's clock (volatility by 60 s 1.17 of that by 300 s), which is no noise independent from tick to tick.
- **Trades come when prices move.** In seconds without a trade the mid has 0 to .11 of its average variance
  (tested). Two scales count such time as time not seen and correct for it, so short windows are corrected too
  much, by at most 1 / shared: BBB~ETF .99 at 60 s, .96 at 300 s. Windows of 60 s and more keep this below 10 %.
- **Below about 10 s** two scales are of no use on trades: bounces last longer than a bar of a second, and the variance that is
  left is far too small (correlations up to the cap).
- **Hayashi-Yoshida of all ticks** is unbiased for independent noise only. Here it finds a tenth to a half of the correlation (eight to nine tenths in 2014):
  bounces are not independent, and symbols follow each other within seconds. As an audit it is good for sums, and for thinned ticks.
"""  # noqa: E501


if __name__ == "__main__":
    main()
