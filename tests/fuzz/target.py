"""What a fuzz target is."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from stream_calib.errors import StreamCalibError
from tests.fuzz.mutation import Spoiler


class Target(NamedTuple):
    """Valid messages, what reads others, and how these are made when not byte by byte.

    ``read`` returns when the bytes were read or refused as documented; whatever leaves it is a
    finding. ``make`` gets a spoiler and a number. ``per_input`` is how many spoilt messages one
    call reads.
    """

    corpus: Sequence[bytes]
    read: Callable[[bytes], object]
    make: Callable[[Spoiler, int], bytes] = Spoiler.spoil
    per_input: int = 1


def refused(read: Callable[..., object], *given: object) -> None:
    """Read something, or have it refused in one short sentence without control characters."""
    try:
        read(*given)
    except StreamCalibError as error:
        said = str(error)
        assert said.isprintable(), f"what a terminal would obey: {said!r}"
        assert len(said) < 5000, f"a sentence of {len(said)} characters"
