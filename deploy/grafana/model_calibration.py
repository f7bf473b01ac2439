"""How far the numbers can be trusted."""

from deploy.grafana.blocks import UE, Dashboard, Panel, each, latest, over, quantile, share

ROWS: dict[str, tuple[Panel, ...]] = {
    "What it said of the next bars": (
        Panel("Gain in log score", "none", "Nats that the published correlations were worth in "
              "the next DCC bar, over none; mean, forgetting half in 250 bars. Below 0 they do "
              "harm: use volatilities alone until a refit is installed.",
              (latest("log_score_gain_nats", *UE),), low=None, width=6,
              steps=(("red", -1e9), ("green", 0))),
        Panel("QLIKE", "none", "Loss of the covariance in the next DCC bar per symbol, mean; lower "
              "is better. Compare estimators with each other: the level itself means little.",
              (latest("qlike", *UE),), low=None, width=6),
        Panel("Surprise", "none", "Squares of the next returns over those predicted: 1 is right, "
              "above 1 the matrix promises too little risk, below 1 too much.",
              (latest("surprise_ratio", *UE),), width=6,
              steps=(("yellow", 0), ("green", 0.7), ("yellow", 1.4), ("red", 2))),
        Panel("In the 95 % band", "percentunit", "Part of the pairs whose correlation over the "
              "next 60 DCC bars lay in the published band, over six hours. Some 75 to 95 % are "
              "usual, an alert fires below 60 %. Much lower: "
              "the market moves faster than the half-life; much higher: the bands are too wide.",
              (over(share("band_pairs_total", "outcome", "covered", ".*", *UE), "6h"),),
              high=1, width=6, steps=(("red", 0), ("yellow", 0.6), ("green", 0.7))),
    ),
    "The matrix": (
        Panel("Effective observations", "none", "Median over pairs. The sampling error of a "
              "correlation is about 1/sqrt of it. Below 20 numbers are mostly noise: lengthen the "
              "half-life or shorten the bar.",
              (latest("effective_observations", *UE),), width=6,
              steps=(("red", 0), ("yellow", 20), ("green", 50))),
        Panel("Smallest eigenvalue", "none", "Of the published matrix: always above 0, or it must "
              "not be inverted. Near 0 an optimiser makes much of little.",
              (latest("min_eigenvalue", *UE, how="min"),), low=None, width=6,
              steps=(("red", -1), ("green", 1e-12))),
        Panel("Repair", "percentunit", "How much the matrix was shrunk towards identity to be "
              "positive definite. Above 10 %: too few observations for so many symbols.",
              (latest("repair_ratio", *UE),), steps=(("green", 0), ("red", 0.1)), width=6),
        Panel("Audit", "none", "Root mean square difference to the correlations by Hayashi and "
              "Yoshida, which need no clock. A rise: the bar is too short for how rarely some "
              "symbols tick; doctor recommends a window.",
              (latest("audit_difference", *UE),), width=6),
        Panel("Capped pairs, doubtful variances", "none", "Pairs that had to be held inside "
              "(-1, 1), and variances that keep their noise or are held at their floor. Should be "
              "0; else lengthen the window of the symbols that doctor names.",
              (latest("capped_pairs", *UE, legend="capped {{universe}} {{estimator}}"),
               latest("doubtful_variances", *UE, legend="doubtful {{universe}} {{estimator}}"))),
        Panel("Model age", "s", "From the last bar that the model in force was fitted to until "
              "now, in event time. It falls with each refit; if it only grows, see Refits.",
              (latest("model_age_seconds", "universe"),)),
        Panel("Watched", "none", "Bars watched since the beginning, and those compared with. With "
              "few to compare with, small shifts are not seen.",
              (latest("drift_watched_bars", "universe", legend="{{universe}} watched"),
               latest("drift_reference_bars", "universe", legend="{{universe}} reference"))),
    ),
    "Alarms and refits": (
        Panel("Bars between false alarms", "none", "As asked for, and bars watched per alarm. True "
              "alarms are among these: lower than the target in a market that shifts is no fault.",
              (latest("drift_arl0_target_bars", "universe", legend="{{universe}} target"),
               latest("drift_bars_per_alarm", "universe", legend="{{universe}} realised")),
              width=6),
        Panel("False alarms", "percentunit", "Chance of at least one on a day without a break. "
              "Raise drift.arl0_bars if it is more than can be looked at.",
              (latest("drift_false_alarms_per_day", "universe"),), high=1, width=6),
        Panel("Expected delay", "none", "Bars until an alarm when correlations fuse by 35 %. None "
              "or without end while there is too little to compare with: the watch is blind.",
              (latest("drift_power_bars", "universe"),), width=6),
        Panel("Refits", "none", "Fits that came back, or why none did, and failures since the last "
              "success. They keep the old model in force: the event refit_failed and the log say "
              "why.",
              (each("refits_total", "outcome"),
               latest("refits_failing", "universe", legend="{{universe}} failing")),
              width=6, style="bars"),
        Panel("Time of a refit", "s", "Half of the fits, and all but one in a hundred, take no "
              "longer, over a day. Off the event loop; near refit.timeout they are killed.",
              (over(quantile(0.5, "refit_seconds", "universe"), "1d"),
               over(quantile(0.99, "refit_seconds", "universe"), "1d")), width=24),
    ),
}  # fmt: skip

MODEL_CALIBRATION = Dashboard(
    "stream-calib-calibration",
    "model_calibration.json",
    "stream_calib: model calibration",
    "How far the numbers can be trusted: scores, bands, alarms, refits.",
    ROWS,
)
