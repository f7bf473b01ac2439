"""The recent past of one estimator: its frames, and one point of each line."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from stream_calib.values import Matrix
from stream_calib.wire.live import LiveFrame

FRAMES_MAX = 300  # of the dense and of the sparse part of a history, each
FRAMES_BYTES = 16 * 2**20  # the same
SPARSE_EVERY = 8


class Summary(NamedTuple):
    """One point of the lines below the matrix."""

    as_of_ns: int
    average_correlation: float
    top_eigenvalue_share: float
    drift_level: float | None

    @classmethod
    def of(cls, matrix: Matrix) -> "Summary":
        """Return that of a matrix."""
        regime = matrix.regime
        return cls(
            matrix.as_of_ns,
            regime.average_correlation,
            regime.top_eigenvalue_share,
            matrix.drift_level,
        )


class _Part:
    # Frames in order, of which the oldest fall out.

    def __init__(self) -> None:
        self.frames: deque[LiveFrame] = deque()
        self.n_bytes = 0

    def add(self, frame: LiveFrame) -> list[LiveFrame]:
        self.frames.append(frame)
        self.n_bytes += len(frame.value)
        fallen = []
        while len(self.frames) > FRAMES_MAX or (
            len(self.frames) > 1 and self.n_bytes > FRAMES_BYTES
        ):
            fallen.append(self.frames.popleft())
            self.n_bytes -= len(fallen[-1].value)
        return fallen


class Past:
    """The newest frames, and every eighth of those before them, in order."""

    def __init__(self) -> None:
        self._dense, self._sparse = _Part(), _Part()
        self._n_fallen = 0

    def __iter__(self) -> Iterator[LiveFrame]:
        yield from self._sparse.frames
        yield from self._dense.frames

    @property
    def n_bytes(self) -> int:
        """What all of them hold."""
        return self._sparse.n_bytes + self._dense.n_bytes

    def add(self, frame: LiveFrame) -> None:
        """Add a newer one."""
        for fallen in self._dense.add(frame):
            if self._n_fallen % SPARSE_EVERY == 0:
                self._sparse.add(fallen)
            self._n_fallen += 1
