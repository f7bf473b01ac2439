"""What a trader reads."""

from deploy.grafana.blocks import (
    UE,
    UNIVERSE,
    Dashboard,
    Panel,
    Query,
    each,
    latest,
    place,
)

PAIR = (*UE, "pair")
BY_PAIR = ", ".join(PAIR)
NAMED = "{{pair}} {{universe}} {{estimator}}"


def edge(sign: str, legend: str) -> Query:
    """Return one side of the 95 % band of the watched pairs, held inside -1 and 1."""
    value, error = (
        f"max by ({BY_PAIR}) ({place(f'pair_{name}')})"
        for name in ("correlation", "standard_error")
    )
    return Query(f"clamp({value} {sign} 1.96 * {error}, -1, 1)", f"{legend} {NAMED}")


def average_of(estimator: str) -> str:
    """Return the average correlation of one estimator."""
    return (
        "max by (universe) (stream_calib_average_correlation"
        f'{{{UNIVERSE}, estimator="{estimator}"}})'
    )


ROWS: dict[str, tuple[Panel, ...]] = {
    "How much moves together": (
        Panel("Average correlation", "none", "Mean over all pairs. When it rises everything moves "
              "together: hedges and spreads lose their effect, a portfolio its diversification.",
              (latest("average_correlation", *UE),), low=-1, high=1, width=12),
        Panel("Share of the first factor", "percentunit", "Part of the variance that one common "
              "direction explains. High: the market is one bet.",
              (latest("top_eigenvalue_share", *UE),), high=1, width=12),
        Panel("Effective bets", "none", "How many uncorrelated positions the spectrum of the "
              "matrix is worth. Fewer: size positions as if there were that many.",
              (latest("effective_bets", *UE),)),
        Panel("Distance from a crisis", "none", "Root mean square distance of the pairs from "
              "moving as one; at 0 all do. A fall below .3 has been a stressed market.",
              (latest("crisis_distance", *UE),), high=1,
              steps=(("red", 0), ("yellow", 0.15), ("green", 0.3))),
        Panel("EWMA less DCC", "none", "Average correlation of the fast estimator less that of the "
              "model. Far from 0: something moves that the model has not taken in yet.",
              (Query(f"{average_of('ewma')} - {average_of('dcc')}", "{{universe}}"),), low=None),
    ),
    "Whether it has shifted": (
        Panel("Drift level", "percentunit", "How near the next alarm is. At 100 % (red) the "
              "correlations are said to have shifted since the model was fitted.",
              (latest("drift_level_ratio", "universe"),), width=12,
              steps=(("green", 0), ("yellow", 0.7), ("red", 1))),
        Panel("Alarms", "none", "By what the shift looks like, and those that no model confirmed. "
              "Fusing: correlations rose; loosening: fell; rotation: others are related now; "
              "miscalibrated: the model predicts worse than a plain one.",
              (each("drift_alarms_total", "alternative"),
               each("drift_refuted_total", "universe", legend="{{universe}} refuted")),
              width=12, style="bars"),
        Panel("Model version", "none", "One more with each model that comes into force. Steps are "
              "marked; after an alarm one should follow, or the alarm is refuted.",
              (latest("model_version", "universe"),), low=None),
        Panel("Symbols", "none", "Ready ones are in the matrix, pending ones not yet. A fall: "
              "something stopped ticking; the log and /readyz name it.",
              (latest("universe_symbols", "universe", "state"),)),
        Panel("Events", "none", "What subscribers were told: symbols that came or went, gaps, "
              "jumps of price, turns of drift and refits. The topic of events has the details.",
              (each("events_total", "type"),), style="bars"),
    ),
    "Watched pairs": (
        Panel("Pairs with their 95 % band", "none", "Pairs of the watch list (none by default: "
              "metrics.pairs names them) with the edges of their band. A number outside the band "
              "of another moment has moved by more than noise.",
              (latest("pair_correlation", *PAIR, legend=NAMED),
               edge("-", "low"), edge("+", "high")), low=-1, high=1, width=16),
        Panel("Standard error of pairs", "none", "Sampling error of each watched pair. Above .2 "
              "a correlation says little: wait, or lengthen the half-life.",
              (latest("pair_standard_error", *PAIR, legend=NAMED),),
              steps=(("green", 0), ("red", 0.2))),
    ),
}  # fmt: skip

MARKET_REGIME = Dashboard(
    "stream-calib-market",
    "market_regime.json",
    "stream_calib: market regime",
    "How much moves together, whether it has shifted, and the pairs that are watched.",
    ROWS,
)
