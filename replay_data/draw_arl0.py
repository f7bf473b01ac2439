"""Write down how often false alarms come beside how often they were asked for: arl0.md.

About ten minutes on one core; everything is simulated.

.venv/bin/python -m replay_data.draw_arl0
"""

from collections.abc import Sequence
from pathlib import Path

from tests.estimation.arl0_study import (
    ADWIN,
    OURS,
    PAGE,
    RATIO,
    SET,
    TARGETS,
    Market,
    Rate,
    study,
)
from tests.estimation.baselines import FEEDS
from tests.estimation.drift_study import CALM, FIT

FOLDER = Path(__file__).parent
RUNS = {20: 24, 40: 10}
WORDS = {
    "average_15": "DCC, average correlation .15",
    "average_50": "DCC, .5",
    "average_80": "DCC, .8",
    "deco": "one correlation for all, moving (DECO)",
    "t5": "as the first, tails of t(5)",
    "diurnal": "constant but for a daily wave of ±.1",
    "volatility_jumps": "as the first, volatilities jump",
    "latent": "correlation an AR(1) of its own, .998",
    "three_factors": "as the first, two more factors of either sign",
}


def main() -> None:
    """Simulate and write down."""
    markets: list[Market] = []
    for n, runs in RUNS.items():
        markets += study(n, runs)
    (FOLDER / "arl0.md").write_text(document(markets))


def document(markets: Sequence[Market]) -> str:
    """Put the document together."""
    lines = [INTRODUCTION]
    for n in dict.fromkeys(market.n for market in markets):
        chosen = [market for market in markets if market.n == n]
        lines += ["", f"## {n} symbols, {chosen[0].runs} runs of each market", "", *_own(chosen)]
        lines += ["", *_others(chosen)]
    return "\n".join(lines) + "\n"


def _own(markets: Sequence[Market]) -> list[str]:
    heads = ["realised over target ARL0, ours", *(f"{target:g}" for target in TARGETS)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for market in markets:
        cells = [_share(market.rates[OURS, f"{target:g}"], target) for target in TARGETS]
        lines.append("| " + " | ".join([WORDS[market.name], *cells]) + " |")
    return lines


def _others(markets: Sequence[Market]) -> list[str]:
    last = TARGETS[-1]
    feeds = " / ".join(FEEDS)
    heads = (
        "the others",
        *(f"{RATIO}, over {target:g}" for target in TARGETS[::2]),
        f"{PAGE}, river's settings: bars ({feeds})",
        f"{ADWIN}, river's settings: bars",
        f"{SET} to {last:g} on the first market: over {last:g}",
    )
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for market in markets:
        cells = [_share(market.rates[RATIO, f"{target:g}"], target) for target in TARGETS[::2]]
        for name in (PAGE, ADWIN):
            rates = (market.rates[name, feed] for feed in FEEDS)
            cells.append(" / ".join(_bars(found) for found in rates))
        cells.append(" / ".join(_share(market.rates[SET, feed], last) for feed in FEEDS))
        lines.append("| " + " | ".join([WORDS[market.name], *cells]) + " |")
    return lines


def _share(found: Rate, target: float) -> str:
    if found.rows > 20.0 * CALM:
        return f"> {CALM * 20.0 / target:.0f}"
    return f"{found.rows / target:.2f} ± {found.error / target:.2f}"


def _bars(found: Rate) -> str:
    return f"{found.rows:.0f}" if found.rows <= 20.0 * CALM else f"> {20 * CALM}"


INTRODUCTION = f"""# How often a false alarm comes, beside how often it was asked for

Made by `python -m replay_data.draw_arl0` from `tests/estimation/arl0_study.py`. Every run draws a market of its own that
never breaks, fits it on {FIT} bars (`fit_dcc` with a QIS target) and watches the next {CALM}. Realised ARL0 is bars at risk over first
alarms, ± its Monte Carlo error (bootstrap over runs): 1 is what was asked for, less is too many false alarms.

- **ours**: `sc.DriftDetector(params, n, arl0=..., inflation=...)`, the last measured on the bars of the fit, as the service does.
  First alarms only, which come sooner than later ones where the model misses how correlations move: there is little to rank among.
- **fitted likelihood ratio**: Shiryaev-Roberts over angular likelihood ratios of four tilted targets against the fitted one,
  alarm at the ARL0 asked for: exact if the fit were the truth. It is not.
- **Page-Hinkley** and **ADWIN** of river at river's settings know no ARL0: what they have, in bars, watching the log score / the
  average product. **set**: Page-Hinkley (delta .25) with the threshold that has an ARL0 of {TARGETS[-1]:g} on the first market, carried
  over to the others."""  # noqa: E501


if __name__ == "__main__":
    main()
