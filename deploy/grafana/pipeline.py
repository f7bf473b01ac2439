"""From a tick to a matrix: how much, how fast, what was refused, what it takes."""

from deploy.grafana.blocks import (
    UE,
    Dashboard,
    Panel,
    Query,
    each,
    latest,
    mean,
    per_second,
    place,
    quantile,
    since,
)

BUCKETS = place("bar_close_to_publish_seconds_bucket")

ROWS: dict[str, tuple[Panel, ...]] = {
    "Throughput": (
        Panel("Ticks by outcome", "cps", "Applied ones are used. Late, unknown and unused ones are "
              "only counted; rejected ones go to the topic of rejects. Many unknown: the names in "
              "the settings and in the topic differ.",
              (per_second("ticks_total", "outcome"),)),
        Panel("Message formats", "cps", "Decoded per second, by format; silent ones carry no "
              "price. A new format that nobody announced: a producer was changed.",
              (per_second("decoded_total", "universe", "format"),)),
        Panel("Bars and matrices", "cps", "Bars closed and matrices made per second. No bars while "
              "ticks come: the watermark stands still, see the Kafka dashboard.",
              (per_second("bars_total", "universe", legend="{{universe}} bars"),
               per_second("matrices_total", *UE))),
        Panel("Rejects by reason", "cps", "Why ticks and records were not usable, and how many "
              "were beyond input.rejects_per_second and so only counted. The topic of rejects has "
              "the records themselves.",
              (per_second("rejects_total", "universe", "reason"),
               per_second("rejects_suppressed_total", "universe",
                          legend="{{universe}} beyond the cap")), width=12),
        Panel("Set aside, duplicates", "cps", "Applied ticks that no bar used (refuted by the next "
              "tick, out of session, crossed), and those that repeat the one before. A rise: a "
              "broken producer, or a calendar that is off.",
              (per_second("set_aside_total", "universe", "reason"),
               per_second("duplicates_total", "universe", legend="{{universe}} duplicates")),
              width=12),
    ),
    "Latency": (
        Panel("Bar close to publication", "s", "From the poll that closed a bar until its matrix "
              "was durable: half, and all but one in a hundred, take no longer.",
              (quantile(0.5, "bar_close_to_publish_seconds", "universe"),
               quantile(0.99, "bar_close_to_publish_seconds", "universe"))),
        Panel("Bar close to publication, distribution", "s", "Colour: publications per interval. A "
              "second band above the first: something now and then takes long, such as a commit.",
              (Query(f"sum by (le) (increase({BUCKETS}[$__rate_interval]))", "{{le}}"),),
              "heatmap"),
        Panel("Time per batch, by stage", "s", "99 % of the batches take no longer. The stage on "
              "top is what to make faster: decode, advance (the kernels) or publish (Kafka).",
              (quantile(0.99, "step_seconds", "universe", "stage"),
               quantile(0.99, "bar_seconds", "universe")._replace(
                   legend="p99 {{universe}} kernels, a bar"))),
    ),
    "Resources": (
        Panel("Event loop lag", "s", "99 % of the wake-ups are no later. Above .5 s the machine "
              "has too few cores, and Kafka may drop the member.",
              (quantile(0.99, "event_loop_lag_seconds", "instance"),), width=6,
              steps=(("green", 0), ("red", 0.5))),
        Panel("Processor", "none", "Cores in use. Near the number of cores there is no room for a "
              "refit or a burst.",
              (Query(f"rate({place('process_cpu_seconds_total')}[$__rate_interval])",
                     "{{instance}}"),), width=6),
        Panel("Memory", "bytes", "Resident set. It is flat after the first hour; steady growth is "
              "a leak to report.",
              (Query(place("process_resident_memory_bytes"), "{{instance}}"),), width=6),
        Panel("Viewers and open files", "none", "Browsers that look at the live view (50 may), "
              "and file descriptors in use, connections among them. Files that only grow: "
              "somebody opens connections and leaves them.",
              (latest("view_clients", "instance", legend="{{instance}} viewers"),
               Query(place("process_open_fds"), "{{instance}} files")), width=6),
    ),
    "Viewers, snapshots, starts": (
        Panel("Frames to viewers", "cps", "Matrices sent to browsers, and passed over because a "
              "newer one was there, requests and connections turned away, with the bytes sent "
              "(right). Many passed over: slow browsers, no fault of the service.",
              (per_second("view_frames_total", "instance", "outcome"),
               per_second("http_refused_total", "instance", "reason",
                          legend="{{instance}} turned away: {{reason}}"),
               per_second("view_bytes_total", "instance", legend="{{instance}} bytes")),
              right={"bytes": "Bps"}),
        Panel("Age of the snapshot", "s", "Since the last snapshot was saved, and how long it "
              "takes to repeat what none holds. It only grows: look at the disk and its rights.",
              (since("last_snapshot_timestamp_seconds", "universe"),
               latest("snapshot_distance_seconds", "universe", legend="{{universe}} to repeat"))),
        Panel("Snapshots", "none", "Attempts by outcome. Failed ones cost nothing now, and a "
              "longer start later.", (each("snapshots_total", "outcome"),), style="bars"),
        Panel("Size and time of a snapshot", "bytes", "Bytes of the last one, and seconds to write "
              "one (right), off the compute thread.",
              (latest("snapshot_bytes", "universe", legend="{{universe}} bytes"),
               mean("snapshot_seconds", "universe")._replace(legend="{{universe}} seconds")),
              width=12, right={"seconds": "s"}),
        Panel("Starts", "none", "States built again since the process started, journal entries "
              "that the last one repeated, seconds it took, seconds to compile or load the "
              "kernels, and lines of the log that nobody took. Many entries: snapshots fail, or "
              "are too rare.",
              (latest("recoveries_total", "universe", legend="{{universe}} recoveries"),
               latest("recovery_entries", "universe", legend="{{universe}} entries"),
               mean("recovery_seconds", "universe")._replace(legend="{{universe}} seconds"),
               Query(f"max by (instance) ({place('compile_seconds')})",
                     "{{instance}} compile seconds"),
               latest("log_lines_dropped_total", "instance", legend="{{instance}} log lines lost"),
               ), "stat", 12, steps=(("blue", 0),),
              right={"seconds": "s"}),
    ),
}  # fmt: skip

PIPELINE = Dashboard(
    "stream-calib-pipeline",
    "pipeline.json",
    "stream_calib: pipeline",
    "From a tick to a matrix: how much, how fast, what was refused, what it takes.",
    ROWS,
)
