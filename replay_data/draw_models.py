"""Write down how DCC forecasts real markets beside EWMA and constant correlation: models.md.

Needs the real market data that the tests use (STREAM_CALIB_MARKET_DATA names its folder), and
about ten minutes.

STREAM_CALIB_MARKET_DATA=../shared/market_data .venv/bin/python -m replay_data.draw_models
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stream_calib.values import Fit
from tests.estimation.model_markets import RISK_METRICS, markets
from tests.estimation.model_study import Walk, newey_west, walk

FOLDER = Path(__file__).parent
CHOSEN = 2  # place of the EWMA that all are compared with


def main() -> None:
    """Walk through the markets and write the tables down."""
    folder = Path(os.environ["STREAM_CALIB_MARKET_DATA"])
    (FOLDER / "models.md").write_text(document([walk(market) for market in markets(folder)]))


def document(walks: Sequence[Walk]) -> str:
    """Put the document together."""
    lines = [INTRODUCTION, ""]
    for walked in walks:
        lines += [f"## {walked.market.name}", "", *summary(walked), "", *scores(walked), ""]
        lines += [*differences(walked), ""]
    return "\n".join(lines) + READING


def summary(walked: Walk) -> list[str]:
    """Say what was walked through and what became of the fits."""
    market = walked.market
    fits = [answer for _, answer in walked.answers if isinstance(answer, Fit)]
    dcc = np.array([fit.arrays["dcc"][:2] for fit in fits])
    alone = [int(np.isnan(fit.arrays["garch"][1]).sum()) for fit in fits]
    still = sum(not fit.arrays["dcc"].any() for fit in fits)
    days = walked.time_ns[[0, -1]].astype("datetime64[ns]").astype("datetime64[D]")
    return [
        f"{len(walked.observed)} bars forecast, {days[0]} to {days[1]}; window {market.window}, "
        f"a fit every {market.every} bars from bar {market.first} on: {len(walked.answers)} asked "
        f"for, {len(fits)} made, {still} of them a constant correlation. "
        f"a {dcc[:, 0].min():.4f} to {dcc[:, 0].max():.4f}, b {dcc[:, 1].min():.3f} to "
        f"{dcc[:, 1].max():.3f}; symbols without a GARCH of their own: "
        f"{min(alone)} to {max(alone)}."
    ]


def scores(walked: Walk) -> list[str]:
    """Tell of each model how it did over all bars."""
    lines = [
        "| model | log score | per symbol | QLIKE | raw: log score | raw: not definite | "
        "least eigenvalue, raw | repaired | portfolio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    reference = float(np.mean(walked.portfolio[:, CHOSEN] ** 2))
    for k, name in enumerate(walked.models):
        raw, good = walked.log_score[:, k, 0], walked.log_score[:, k, 1]
        known = np.isfinite(raw)
        cells = (
            name,
            _number(float(np.mean(good))),
            _number(float(np.mean(good / walked.observed))),
            _number(float(np.mean(walked.qlike[:, k, 1]))),
            _number(float(np.mean(raw[known]))),
            str(int((~known).sum())),
            f"{walked.least[:, k].min():.2g}",
            str(int((walked.least[:, k] < walked.floor).sum())),
            f"{np.mean(walked.portfolio[:, k] ** 2) / reference:.3f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def differences(walked: Walk) -> list[str]:
    """Compare each model with the chosen EWMA, in calm and in storms."""
    everywhere = np.ones(len(walked.observed), dtype=bool)
    start, stop = walked.market.crash
    lines = [
        f"| against {walked.models[CHOSEN]} | all | calm | storms | {start} to {stop} |",
        "|---|---|---|---|---|",
    ]
    for column, what, sign in (("log_score", "log score", 1.0), ("qlike", "QLIKE", -1.0)):
        figures = getattr(walked, column)[:, :, 1]
        for k, name in enumerate(walked.models):
            if k == CHOSEN or name in RISK_METRICS:
                continue
            cells = [f"{name}, {what}"]
            for mask in (everywhere, ~walked.storm, walked.storm, walked.crash):
                gain, t = newey_west(sign * (figures[mask, k] - figures[mask, CHOSEN]))
                verdict = " **wins**" if t > 2.0 else " **loses**" if t < -2.0 else ""
                cells.append(f"{_number(gain, sign='+')} (t {t:+.1f}){verdict}")
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _number(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.3f" if abs(value) < 1000.0 else f"{sign}.2e")


INTRODUCTION = """# DCC on real markets, beside EWMA and constant correlation

Made by `python -m replay_data.draw_models` from the study in `tests/estimation/model_study.py`; held by
`tests/estimation/test_model_study.py`. As the service does it under its defaults: `calibrate` on the window so far (GARCH for each
symbol, QIS target, cDCC by the likelihood of all symbols together, z capped at 3), state rebuilt from the window, then bar by bar until the next
fit. The pairs of coins come through the files, the filter and the sampling of the service, with the holes that those leave.

All models forecast the same next bar of the same symbols from the same z, returns over the deviations that GARCH predicted;
so only correlations differ. **DCC, pairs** has its a and b by composite likelihood; **constant** is the target of the fit. **EWMA** with a number has that half-life in bars, the best of 10,
20, ... 640 on the second half of the first window; .94 and .97 are RiskMetrics' on days, 30 the service's half hour.

- **log score**: mean of -(n ln 2 pi + ln |R| + z' R^-1 z) / 2 over bars, z as it came, of the matrix that would be published
  (repaired to the eigenvalue floor); **raw**: before repair, over the bars where it is positive definite. Higher is better.
- **QLIKE**: mean of ln |R| + z' R^-1 z with z capped as the models see it. Lower is better.
- **portfolio**: mean square of the minimum-variance portfolio of the z, over that of the chosen EWMA.
- **repaired**: bars whose matrix had to be. **not definite**: on the symbols observed in the next bar.
- Second table: gain over the chosen EWMA per bar (positive: better), with Newey-West t. **storms** are the most volatile
  twentieth of weeks (of coins: hours), told afterwards; **wins** and **loses** are beyond two standard errors."""  # noqa: E501

READING = """
What these say:

- **Fits.** All are made; a few of stocks and coins are at the edge of the region and become a constant correlation. Coins whose price stands still in
  six minutes of ten (NXS, BRD) often have no GARCH of their own and go by the mean of their squares.
- **Where DCC wins**: on currencies (.34 nats a bar over the best EWMA, t 3.5), and in the storms of both sets of stocks (.3 and .6, t 4.1 and 3.6),
  the falls of 2008 and 2020 among them. The constant correlation and the half-lives of RiskMetrics are beaten by far.
- **Where it does not**: in the calm of the Dow an EWMA of 640 days is better by .04 (t -2.7), on all days level (t -1.6); the 20 stocks are level but for
  storms. That half-life was chosen on the first window, by somebody who knew which to try.
- **Where it loses: coins**, 4 nats a bar (t -1.0), more in storms and in the crash of 19 May, where all slow models do better. One held print spoils
  the matrix for a while: a pair of which one is missing takes no news, so that what is left need not stay positive definite. It is
  repaired where it is indefinite, not where it is barely definite. Zero news for a pair that misses a bar would keep it definite, but
  let a symbol that stays away fade to half of its target.
- **Why not by pairs**: the composite likelihood asks for pairs, and takes more news (a .02 for the currencies, where all together take .01) than a matrix of 20
  or 30 can bear, whose smallest eigenvalues are what the log score looks at. It loses .1 to .7 nats a bar to the likelihood of all together.
- **Long memory wins.** The half-lives chosen are 160 bars and more; those of RiskMetrics and the half hour remember about as many bars as there
  are symbols, and lose by 2 to 22 nats a bar.
- **Refits** are asked for by schedule and installed before the next bar; the tests see to one after the low of 19 May, 13:09.
"""  # noqa: E501


if __name__ == "__main__":
    main()
