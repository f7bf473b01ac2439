"""Input that is there and may not be read: a transaction of its writer that does not end."""

from collections.abc import Mapping

import structlog

from stream_calib.values import Source

HELD_S = 10.0  # the transactions of a writer that is well are far shorter


class Withholding:
    """Tells of sources where records wait behind a transaction for longer than they should.

    A reader of committed records comes no further than the first transaction that is open. To
    it, the source looks silent; so this is told apart, and told.

    Parameters
    ----------
    universe
        Whose input it is.

    Attributes
    ----------
    reason
        What is held up, in words; "" for nothing.
    """

    def __init__(self, universe: str) -> None:
        self.reason = ""
        self._log = structlog.get_logger().bind(universe=universe)
        self._since: dict[Source, tuple[int, float]] = {}

    def look(
        self, ends: Mapping[Source, int], withheld: Mapping[Source, int], now_s: float
    ) -> None:
        """Judge once; log when ``reason`` changes from or to none.

        Parameters
        ----------
        ends
            How far each source can be read.
        withheld
            How many positions there are beyond.
        now_s
            A clock that never goes back.
        """
        before, held = self.reason, []
        self._since = {s: since for s, since in self._since.items() if withheld.get(s, 0) > 0}
        for source in sorted(s for s, n in withheld.items() if n > 0):
            end, since_s = self._since.get(source, (-1, now_s))
            if ends.get(source) != end:
                self._since[source] = (ends.get(source, -1), now_s)
            elif now_s - since_s >= HELD_S:
                held.append(
                    f"topic {source.topic!r} partition {source.partition} cannot be read beyond "
                    f"position {end}: a transaction of its writer does not end"
                )
        self.reason = "; ".join(held[:3])
        if self.reason and not before:
            self._log.warning("input is held up", reason=self.reason)
        elif before and not self.reason:
            self._log.info("input goes on")
