"""The names that our processes export."""

from stream_calib.adapters.prometheus import FeedMetrics, PrometheusObserver
from stream_calib.values import FeedCounts
from tests.web.observations import PAIRS, tell


def exported_names() -> set[str]:
    """Return the names of all samples of a service and of a feed."""
    observer = PrometheusObserver("0.1.0", pairs=PAIRS)
    observer.compiled(1.0)
    tell(observer)
    counts = FeedCounts(lag_s=0.1)
    counts.reconnects["lost"] += 1
    feed = FeedMetrics({"binance": counts}, lambda: 0)
    families = [*observer.registry.collect(), *feed.registry.collect()]
    return {sample.name for family in families for sample in family.samples}
