"""What an operator looks at first."""

from deploy.grafana.blocks import (
    JOB,
    UE,
    UNIVERSE,
    Dashboard,
    Panel,
    Query,
    latest,
    over,
    per_second,
    place,
    quantile,
    share,
    since,
)

FIRING = 'ALERTS{alertname=~"StreamCalib.*", alertstate="firing", job=~"$job|"}'
READY = (
    f'sum(stream_calib_universe_symbols{{{UNIVERSE}, state="ready"}})'
    f" / sum({place('universe_symbols')})"
)
PUBLISHING = (
    f"count(count by (universe) ({place('last_matrix_timestamp_seconds')}))"
    f" / count(count by (universe) ({place('universe_symbols')}))"
)
MARKET, CALIBRATION = "stream-calib-market", "stream-calib-calibration"
PIPELINE, KAFKA = "stream-calib-pipeline", "stream-calib-kafka"

ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel("Up", "none", "Whether Prometheus reaches every process. Down: see whether it runs, "
              "and compare http.token with the credentials of the scrape.",
              (Query(f"min(up{{{JOB}}})"),), "stat", 3,
              steps=(("red", 0), ("green", 1)), labels={"0": "down", "1": "up"}),
        Panel("Alerts firing", "none", "Alerts of deploy/prometheus/rules that fire now. README, "
              "Alerts, says what to do about each.",
              (Query(f"count({FIRING}) or vector(0)"),), "stat", 3,
              steps=(("green", 0), ("red", 1))),
        Panel("Universes publishing", "percentunit", "Part of the universes that have published a "
              "matrix since the start. Below 100 % long after it: /readyz says why.",
              (Query(PUBLISHING),), "stat", 4, high=1, steps=(("red", 0), ("green", 1))),
        Panel("Since last matrix", "s", "Since a matrix was published: the oldest of those shown. "
              "It should stay near the publishing period; if it grows, see lag and latency.",
              (Query(f"max({since('last_matrix_timestamp_seconds', *UE).expr})"),), "stat", 4,
              steps=(("green", 0), ("yellow", 60), ("red", 600)), leads_to=PIPELINE),
        Panel("Records behind", "short", "Records in the input log that have not been read yet. "
              "It should go back to 0 after a start; if it keeps growing, the input is faster.",
              (Query(f"sum({place('consumer_lag_records')})"),), "stat", 4,
              steps=(("green", 0), ("yellow", 10_000), ("red", 1_000_000)), leads_to=KAFKA),
        Panel("Symbols ready", "percentunit", "Part of the symbols that have ticked enough to be "
              "in the matrix. Low after an hour: some symbols hardly tick, or have other names.",
              (Query(READY),), "stat", 3, high=1,
              steps=(("red", 0), ("yellow", 0.5), ("green", 0.95)), leads_to=MARKET),
        Panel("Version", "none", "Software version: the name of the value, which is always 1. Two "
              "versions at once: an upgrade is on its way.",
              (Query(f"max by (version) ({place('build_info')})", "{{version}}"),),
              "stat", 3, steps=(("blue", 0),), text="name"),
    ),
    "Market and input": (
        Panel("Average correlation", "none", "Mean over all pairs. When it rises everything moves "
              "together, and a portfolio is less diversified than it looks.",
              (latest("average_correlation", *UE),), low=-1, high=1, leads_to=MARKET),
        Panel("Drift level", "percentunit", "How near the next alarm is. At 100 % the correlations "
              "are said to have shifted, and a new target is fitted.",
              (latest("drift_level_ratio", "universe"),),
              steps=(("green", 0), ("red", 1)), leads_to=MARKET),
        Panel("Ticks", "cps", "Ticks per second, whatever became of them. A fall to 0 while the "
              "market is open: look at the feed and at Kafka.",
              (per_second("ticks_total", "universe"),), leads_to=PIPELINE),
    ),
    "Service": (
        Panel("Bar close to publication, p99", "s", "From the poll that closed a bar until its "
              "matrix was durable; one in a hundred takes longer. If it grows, the pipeline "
              "dashboard shows the slow stage.",
              (quantile(0.99, "bar_close_to_publish_seconds", "universe"),), leads_to=PIPELINE),
        Panel("Rejected and late", "percentunit", "Rejected, at once or refuted at the close of "
              "their bar: part of all ticks. Late: part of "
              "those that would have been used. Above 1 %: see rejects by reason, and "
              "time.lateness.",
              (Query(f"{per_second('rejects_total', 'universe').expr} / "
                     f"({per_second('ticks_total', 'universe').expr} > 0)",
                     "{{universe}} rejected"),
               share("ticks_total", "outcome", "late", "applied|late", "universe",
                     legend="{{universe}} late")),
              steps=(("green", 0), ("red", 0.01)), leads_to=PIPELINE),
        Panel("In the 95 % band", "percentunit", "Part of the pairs whose correlation over the "
              "next bars lay in the published band, over six hours. Some 75 to 95 % are usual; "
              "below 60 %: do not trust the bands; the calibration dashboard says more.",
              (over(share("band_pairs_total", "outcome", "covered", ".*", "universe",
                          "estimator"), "6h"),),
              low=0.5, high=1, steps=(("red", 0), ("yellow", 0.6), ("green", 0.7)),
              leads_to=CALIBRATION),
    ),
    "History": (
        Panel("Alerts over time", "none", "Which alerts fired when; 0 while there are none.",
              (Query(f"count by (alertname) ({FIRING}) or on () vector(0)", "{{alertname}}"),),
              width=16, style="bars", steps=(("green", 0), ("red", 1))),
        Panel("Running since", "dateTimeFromNow", "Start of each process. A start that nobody "
              "asked for: the last line of the log says why it ended.",
              (Query(f"max by (instance) ({place('process_start_time_seconds')} * 1000)",
                     "{{instance}}"),), "stat", low=None, steps=(("blue", 0),)),
        Panel("Owner and standbys", "none", "What each process is to a universe: its owner, a "
              "standby that follows, or neither. One owner each; none for longer than a session "
              "means that nobody is there to take over.",
              (Query(f"stream_calib_role{{{UNIVERSE}}} == 1",
                     "{{universe}} {{role}} {{instance}}"),), width=24, high=1),
    ),
}  # fmt: skip

OVERVIEW = Dashboard(
    "stream-calib",
    "overview.json",
    "stream_calib: overview",
    "Whether it works, what it is told, what it says; four more dashboards have the details.",
    ROWS,
)
