"""The in-process log as an output log."""

from collections.abc import Sequence

from stream_calib.adapters.embedded.log import EmbeddedLog
from stream_calib.values import Output


class EmbeddedSink:
    """Writes to an EmbeddedLog."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log

    async def start(self) -> None:
        """Be ready at once."""

    async def publish(self, outputs: Sequence[Output]) -> None:
        """Write the records in order, all or none."""
        for output in outputs:
            self._log.bounds(output.topic, output.partition)
        for o in outputs:
            self._log.append(o.topic, o.partition, o.key, o.value, o.headers)

    async def close(self) -> None:
        """Let go; nothing is held."""
