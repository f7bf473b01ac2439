"""What is read, what is written, and the feeds that fill the input."""

from deploy.grafana.blocks import (
    UE,
    Dashboard,
    Panel,
    Query,
    each,
    latest,
    per_second,
    place,
    quantile,
    since,
)

NEWEST = latest("newest_event_timestamp_seconds", "universe").expr
MATRIX = latest("last_matrix_event_timestamp_seconds", *UE).expr

ROWS: dict[str, tuple[Panel, ...]] = {
    "How far it has read": (
        Panel("Records behind, by partition", "short", "Not read yet. It should not keep growing. "
              "One partition far above the others holds the bars back: its producer or broker "
              "is slow, or it has far more ticks.",
              (latest("consumer_lag_records", "universe", "topic", "partition"),
               latest("consumer_withheld_records", "universe", "topic", "partition",
                      legend="{{universe}} {{topic}} {{partition}} in an open transaction")),
              steps=(("green", 0), ("red", 10_000)), width=12),
        Panel("Position and end", "short", "Summed over partitions. Parallel lines: the reader "
              "keeps up; lines that part: it falls behind; an end that is flat: nobody writes.",
              (latest("consumer_position", "universe", how="sum", legend="{{universe}} position"),
               latest("consumer_end", "universe", how="sum", legend="{{universe}} end")),
              low=None, width=12),
        Panel("Age of the newest tick", "s", "Wall time minus newest event time, and minus the "
              "watermark (a day at most). Large when the market is closed or replayed, or the "
              "clocks of producers are off.",
              (since("newest_event_timestamp_seconds", "universe"),
               latest("watermark_age_seconds", "universe", legend="{{universe}} watermark")),
              low=None, width=12),
        Panel("Watermark and matrix behind newest", "s", "Event time to the newest tick. Of the "
              "watermark, up to which bars are closed: the allowed lateness, plus how far the "
              "slowest partition is behind. Of a matrix: the publishing period more. It grows "
              "while one partition is silent.",
              (latest("watermark_lag_seconds", "universe", legend="{{universe}} watermark"),
               Query(f"{NEWEST} - on (universe) group_right () ({MATRIX})",
                     "{{universe}} {{estimator}}")), width=12),
    ),
    "In and out": (
        Panel("Records in", "cps", "Records read per second, by input topic.",
              (per_second("records_total", "universe", "topic"),), width=6),
        Panel("Bytes in", "Bps", "Bytes of their values per second.",
              (per_second("record_bytes_total", "universe", "topic"),), width=6),
        Panel("Records out", "cps", "Records written per second, by output topic. No correlations "
              "while bars close: see commits.",
              (per_second("published_records_total", "topic"),), width=6),
        Panel("Bytes out", "Bps", "Bytes of their keys and values per second. It grows with the "
              "square of the symbols: above 200 they are packed.",
              (per_second("published_bytes_total", "topic"),), width=6),
        Panel("Changes of owner", "none", "Universes gained, lost to another worker, and taken "
              "while this one owned them (fenced). A change at each start and stop is usual; many "
              "without one mean that workers lose contact with Kafka.",
              (each("ownership_changes_total", "universe", "outcome"),), width=24),
        Panel("Commits", "none", "Outputs and journal in one transaction, by outcome. Failed: the "
              "broker gave no answer, and the state is built again; fenced: another process has "
              "taken the universe over.",
              (each("commits_total", "universe", "outcome"),), width=6, style="bars"),
        Panel("Time of a commit", "s", "Half of the commits, and all but one in a hundred, take no "
              "longer. Slow ones delay every matrix: look at the broker's disks and replicas.",
              (quantile(0.5, "commit_seconds", "universe"),
               quantile(0.99, "commit_seconds", "universe")), width=6),
        Panel("Starting over", "none", "Times that memory was thrown away and built again from the "
              "journal, by reason. Again and again: the log has what Kafka said.",
              (each("restarts_total", "universe", "reason"),), width=6, style="bars"),
        Panel("Sequence", "none", "Number of the last matrix; it goes on after a restart. A step "
              "down: the state was reset.", (latest("sequence", *UE),), low=None, width=6),
    ),
    "Feeds from exchanges": (
        Panel("Messages and ticks", "cps", "Of stream-calib feed: messages of the websocket, and "
              "ticks by what became of them. Unwritten and overrun ones are lost.",
              (per_second("feed_messages_total", "exchange", legend="{{exchange}} messages"),
               per_second("feed_ticks_total", "exchange", "outcome")), width=6),
        Panel("Gaps and connections", "none", "Jumps in trade ids, ids that they left out, "
              "messages out of order or unreadable, and connections that ended by reason. Now and "
              "then is normal; many: the exchange throttles, or its messages have changed.",
              (each("feed_gaps_total", "exchange", legend="{{exchange}} gaps"),
               each("feed_missed_total", "exchange", legend="{{exchange}} ids missed"),
               each("feed_late_total", "exchange", legend="{{exchange}} late"),
               each("feed_garbled_total", "exchange", legend="{{exchange}} garbled"),
               each("feed_reconnects_total", "exchange", "reason",
                    legend="{{exchange}} ended: {{reason}}")), width=6, style="bars"),
        Panel("Age on arrival", "s", "Age of the last tick when it came: the way from the "
              "exchange, and the difference of clocks. Above a second: a slow line, or a clock "
              "that is off.",
              (latest("feed_lag_seconds", "exchange"),), low=None, width=6,
              steps=(("green", 0), ("yellow", 1), ("red", 10))),
        Panel("Waiting for Kafka", "none", "Ticks that are read and not yet written. At 100,000 "
              "the feed stops reading.",
              (Query(f"max by (instance) ({place('feed_waiting_ticks')})", "{{instance}}"),),
              width=6, steps=(("green", 0), ("yellow", 10_000), ("red", 100_000))),
    ),
}  # fmt: skip

KAFKA = Dashboard(
    "stream-calib-kafka",
    "kafka.json",
    "stream_calib: Kafka",
    "What is read, what is written, and the feeds that fill the input.",
    ROWS,
)
