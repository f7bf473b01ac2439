"""What can be wrong with the matrices that a subscriber reads."""

import logging
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["gap", "duplicate", "torn"]
NO_PARTITION = -1  # of what is read from a file


class Fault(NamedTuple):
    """Something wrong with the matrices of one universe and estimator, wherever they come from."""

    kind: Kind
    expected: int
    sequence: int
    offset: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the matrices of one universe and estimator, as the log holds them.

    ``gap``: those from ``expected`` to before ``sequence`` are missing. ``duplicate``:
    ``sequence`` came once more, where ``expected`` was due. ``torn``: of ``sequence`` a part is
    missing or damaged. ``offset`` is of the first record concerned; in a file, ``topic``, it is
    the line, and ``partition`` is -1.
    """

    kind: Kind
    universe: str
    estimator: str
    expected: int
    sequence: int
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        match self.kind:
            case "gap" if self.expected + 1 == self.sequence:
                what = f"matrix {self.expected} is missing"
            case "gap":
                what = f"matrices {self.expected} to {self.sequence - 1} are missing"
            case "duplicate":
                what = f"matrix {self.sequence} came once more"
            case "torn":
                what = f"matrix {self.sequence} has lost a part, or is damaged"
        where = f"topic {self.topic!r} partition {self.partition} offset {self.offset}"
        if self.partition == NO_PARTITION:
            where = f"{self.topic} line {self.offset}"
        return f"{self.universe}|{self.estimator}: {what} ({where})"


def warn(problem: Problem) -> None:
    """Log a problem, which is what is done where nobody asks to be told."""
    logging.getLogger("stream_calib.client").warning("%s", problem)
