"""Settings of how workers share universes."""

from typing import Annotated, Literal

from pydantic import Field

from stream_calib.config.durations import UNITS_NS, Ns
from stream_calib.config.tick_layer import Section


class OwnershipConfig(Section):
    """How the workers of one journal share its universes.

    ``standby`` says which of them repeat the universes of others, so that they take over at
    once: those that own none ("spare"), all, or none. ``instance`` names this worker among all
    others and over its restarts; by default it is made of the name of the host.
    """

    instance: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")] | None = None
    standby: Literal["spare", "always", "never"] = "spare"
    session_timeout: Annotated[Ns, Field(ge=UNITS_NS["s"])] = UNITS_NS["s"] * 10
