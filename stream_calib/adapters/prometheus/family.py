"""A metric of the library with its children at hand."""

from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from stream_calib.adapters.prometheus.metrics import LABEL_VALUES_MAX, OTHER

M = TypeVar("M", Counter, Gauge, Histogram)


class Family(Generic[M]):
    """A metric and its children: looking one up here costs a fifth of the library's labels().

    Parameters
    ----------
    metric
        The metric as it was registered.
    """

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}
        self._seen: list[set[str]] = []

    def __call__(self, *values: str) -> M:
        """Return the child with these label values, or that of ``OTHER`` for surplus ones."""
        child = self._children.get(values)
        if child is not None:
            return child
        if not values:
            child = self._metric
        else:
            bounded = tuple(self._bound(place, value) for place, value in enumerate(values))
            child = self._metric.labels(*bounded)
            if bounded != values:
                return child  # not kept: there is no end to what would be
        self._children[values] = child
        return child

    def forget(self, first: str) -> None:
        """Show no child any more whose first label has this value."""
        for values in [values for values in self._children if values[:1] == (first,)]:
            del self._children[values]
            self._metric.remove(*values)

    def _bound(self, place: int, value: str) -> str:
        while len(self._seen) <= place:
            self._seen.append(set())
        seen = self._seen[place]
        if len(seen) < LABEL_VALUES_MAX:
            seen.add(value)
        return value if value in seen else OTHER
