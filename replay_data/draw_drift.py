"""Write down how long detectors take to notice a break: drift.md and drift.svg.

About a quarter of an hour on one core; everything is simulated.

.venv/bin/python -m replay_data.draw_drift
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from replay_data.drawing import GREY, INK, rule, text
from tests.estimation import scalar_study
from tests.estimation.drift_study import (
    AFTER,
    ARL0,
    BEFORE,
    BREAKS,
    DETECTORS,
    KNOWN,
    OURS,
    Break,
    Delay,
    Study,
    kswin_alpha,
    study,
    youth,
)

FOLDER = Path(__file__).parent


class Plan(NamedTuple):
    """How much is simulated for n symbols: runs with each break, without one, for the CUSUM."""

    n: int
    runs: int
    calm: int
    known: int


PLANS = (Plan(20, 40, 30, 12), Plan(100, 20, 16, 4))
YOUNG = (50, 120, 250, 500, 1000)  # rows after the fit
YOUNG_BREAKS = (Break("fusing", 0.35, "jump"), Break("fusing", 0.35, "target"))
YOUNG_RUNS = 24
SCALAR_RUNS = (3000, 20_000, 400)  # for thresholds, for delays, and for those of ranks

# Places in the picture, in pixels.
WIDTH, HEIGHT = 960, 470
LEFT, TOP, PANEL_WIDTH, PANEL_HEIGHT, GAP = 66, 92, 420, 262, 36
LEAST, MOST = 2.0, 2600.0  # rows, at the bottom and at the top
MISSED = 2050.0  # where more than half miss the break
COLOURS = dict(zip(DETECTORS, ("#1f5fa8", "#c8551b", "#8a4fa0", "#8a8a8a", "#3a7d44"), strict=True))


def main() -> None:
    """Simulate, draw and write down."""
    studies, ages = [], []
    for plan in PLANS:
        bench, found = study(*plan)
        studies.append(found)
        if plan is PLANS[0]:
            ages = [[youth(bench, what, at, YOUNG_RUNS) for at in YOUNG] for what in YOUNG_BREAKS]
    scalar = scalar_study.study(*SCALAR_RUNS)
    (FOLDER / "drift.svg").write_text(picture(studies))
    (FOLDER / "drift.md").write_text(document(studies, ages, scalar))


def document(
    studies: Sequence[Study], ages: Sequence[Sequence[Delay]], scalar: scalar_study.Study
) -> str:
    """Put the document together."""
    lines = [INTRODUCTION]
    for found in studies:
        lines += ["", f"## {found.n} symbols", "", *_reached(found), "", *_delays(found)]
    lines += ["", f"## Soon after a fit, {studies[0].n} symbols", "", *_young(ages)]
    lines += ["", "## One direction of 100, whose variance changes", "", *_scalar(scalar)]
    return "\n".join(lines) + "\n"


def _reached(found: Study) -> list[str]:
    cells = []
    for name in DETECTORS:
        low, high = found.reached[name]
        cells.append(f"{name} {low:.0f}" + (f" to {high:.0f}" if high - low >= 1.0 else ""))
    share = 100.0 / math.sqrt(max(1.0, found.calm * (1.0 - math.exp(-2.0))))
    return [
        f"{found.runs} runs with each break, {found.calm} without. Realised ARL0 of those: "
        f"{', '.join(cells)} (Monte Carlo error of each about {share:.0f} %)."
    ]


def _delays(found: Study) -> list[str]:
    heads = ["break", *DETECTORS, "ours / known", "best of river / ours"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for what, delays in found.delays.items():
        ours, known = delays[OURS].median, delays[KNOWN].median
        others = min(delays[name].median for name in DETECTORS[1:-1])
        cells = [_name(what), *(_cell(delays[name]) for name in DETECTORS)]
        cells += [_ratio(ours, known), _ratio(others, ours)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _young(ages: Sequence[Sequence[Delay]]) -> list[str]:
    heads = ["rows from the fit to the break", *map(str, YOUNG)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for what, delays in zip(YOUNG_BREAKS, ages, strict=True):
        lines.append("| " + " | ".join([_name(what), *map(_cell, delays)]) + " |")
    return lines


def _scalar(found: scalar_study.Study) -> list[str]:
    pasts = scalar_study.PASTS
    heads = ["variance times", "known change", "and scale", "mixture", "mixture / known"]
    heads += [f"ours, past of {past}" for past in pasts]
    lines = [SCALAR, "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in found.rows:
        cells = [f"{row.ratio:g}", f"{row.known:.1f}", f"{row.scaled:.1f}", f"{row.mixture:.1f}"]
        cells.append(f"{row.cost:.2f}")
        for past in pasts:
            missed = f", {100.0 * row.missed[past]:.0f} %" if row.missed[past] else ""
            cells.append(f"{row.ranks[past]:.0f}{missed}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _name(what: Break) -> str:
    size = f" {what.g:g}" if what.g else ""
    return f"{what.change}{size}, {what.kind}"


def _cell(found: Delay) -> str:
    error = f" ± {found.error:.0f}" if math.isfinite(found.error) else ""
    median = f"{found.median:.0f}{error}" if math.isfinite(found.median) else "never"
    missed = f", {100.0 * found.missed:.0f} %" if found.missed else ""
    of = f" [{found.of}]" if found.of else ""
    return f"{median} / {found.mean:.0f}{missed}{of}"


def _ratio(upper: float, lower: float) -> str:
    return f"{upper / lower:.1f}" if math.isfinite(upper) and lower > 0.0 else "∞"


def picture(studies: Sequence[Study]) -> str:
    """Draw the median delays, one panel for each number of symbols."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica, Arial, sans-serif"'
        f' font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, 24, f"Bars until a break is noticed, at one false alarm in {ARL0:.0f}", size=16),
        *_legend(),
        *(part for i, found in enumerate(studies) for part in _panel(i, found)),
        f'<text x="18" y="{TOP + PANEL_HEIGHT / 2}" text-anchor="middle"'
        f' transform="rotate(-90 18 {TOP + PANEL_HEIGHT / 2})">median delay, bars (log scale)'
        "</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> list[str]:
    parts, x = [], float(LEFT)
    for name in DETECTORS:
        words = "CUSUM that knows the change" if name == KNOWN else name
        parts.append(_dot(x + 6, 46, name))
        parts.append(text(x + 18, 50, words))
        x += 44 + 6.3 * len(words)
    return parts


def _panel(number: int, found: Study) -> list[str]:
    left = LEFT + number * (PANEL_WIDTH + GAP)
    bottom = TOP + PANEL_HEIGHT
    parts = [text(left, TOP - 10, f"{found.n} symbols", weight="bold")]
    for rows in (2, 5, 10, 20, 50, 100, 200, 500, 1000):
        parts.append(rule(left, _y(rows), left + PANEL_WIDTH, _y(rows), "#e4e4e4"))
        if number == 0:
            parts.append(text(left - 8, _y(rows) + 4, str(rows), anchor="end"))
    parts.append(rule(left, _y(MISSED), left + PANEL_WIDTH, _y(MISSED), GREY))
    if number == 0:
        parts.append(text(left - 8, _y(MISSED) + 4, "missed", anchor="end"))
    step = PANEL_WIDTH / len(BREAKS)
    for k, what in enumerate(BREAKS):
        x = left + (k + 0.5) * step
        size = f" {what.g:g}" if what.g else ""
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="end"'
            f' transform="rotate(-40 {x:.1f} {bottom + 14})">{what.change}{size}</text>'
        )
        heights = {name: _y(min(d.median, MISSED)) for name, d in found.delays[what].items()}
        parts.append(rule(x, heights[KNOWN], x, heights[OURS], "#c9d8ea", 5))
        shift = dict(zip(DETECTORS, (0.0, -9.0, 9.0, 0.0, 0.0), strict=True))
        parts += [_dot(x + shift[name], heights[name], name) for name in reversed(DETECTORS)]
    half = left + PANEL_WIDTH / 2
    parts.append(rule(half, TOP, half, bottom + 88, "#bbbbbb"))
    words = ("all correlations jump", "the target moves, they follow")
    for k, said in enumerate(words):
        middle = left + PANEL_WIDTH * (0.25 + 0.5 * k)
        parts.append(text(middle, bottom + 96, said, anchor="middle", fill=GREY))
    return parts


def _y(rows: float) -> float:
    share = math.log(max(rows, LEAST) / LEAST) / math.log(MOST / LEAST)
    return TOP + PANEL_HEIGHT * (1.0 - share)


def _dot(x: float, y: float, name: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{COLOURS[name]}"/>'


INTRODUCTION = f"""# How long a break takes to be noticed

Made by `python -m replay_data.draw_drift` from the study in `tests/estimation/drift_study.py`; held by
`tests/estimation/test_drift_baselines.py`. Every run draws its own market (one factor, average correlation .15, loadings
that differ; DCC of a = .02, b = .97 around it, normal), fits it on 1000 bars (`fit_dcc` with a QIS target) and watches
what follows. **Every detector is given the threshold at which its first false alarm came, on calm runs of this very market, once in
{ARL0:.0f} bars on average** (bars at risk over alarms, runs of {2 * ARL0:.0f} bars). Nobody has such runs of their own market: how far
each is off without them is the subject of [arl0.md](arl0.md); here are the delays. The break comes {BEFORE} bars after the fit.

- **fusing g**: R becomes (1 - g) R + g 11'. **loosening g**: (1 - g) R + g I. **rotation**: every second symbol takes the place of the next
  but one. **jump**: all correlations at once. **target**: only what they return to, so that they get there over 100 bars.
- Cells: median ± its standard error (bootstrap over runs) / mean, share that was not noticed within {AFTER} bars (in the mean as {AFTER}). Runs with a false
  alarm before the break are left out. Delays fall into two kinds, found at once or, as the model follows, late: medians of few runs scatter.
- **Page-Hinkley**, **ADWIN**, **KSWIN** are river's. They watch one number: the angular log score under the fitted model (`score`), or the average
  product of two symbols (`product`), standardised over the fit; Page-Hinkley with a delta of .005 (river's) or .25. Each break shows
  the variant that was fastest for it, which nobody knows beforehand. ADWIN's delta moves its ARL0 freely. KSWIN's p-values are those of 30 against 30
  numbers: {kswin_alpha(15):.1e}, {kswin_alpha(16):.1e}, {kswin_alpha(17):.1e} are neighbours, so its ARL0 is the nearest that exists.
- **known change** is a CUSUM that is told the true model before and after the break: the floor (Moustakides 1986). Of a break of the target, two
  versions, the faster one."""  # noqa: E501

SCALAR = f"""Rows are normal and right but for the variance of one known direction, which is multiplied. Seen is the share of a row's square in it.
All have a realised ARL0 of {scalar_study.ARL0:.0f}; mean delays in rows, of a change at the start, and the share that was not noticed within
{scalar_study.LONGEST}. **known change** is the CUSUM that is told the factor, **and scale** is told how long rows are as well, **mixture** the Shiryaev-Roberts
statistic over factors of {", ".join(f"{ratio:g}" for ratio in scalar_study.MIXED)}. **ours** are the bets of our detector on ranks, both ways, among as many
earlier scores as it says: what it costs not to know the law of a score, with which false alarms do not depend on that law."""  # noqa: E501


if __name__ == "__main__":
    main()
