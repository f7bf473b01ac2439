"""Where states are saved."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_serializer, field_validator

from stream_calib.config.durations import UNITS_NS, PositiveNs
from stream_calib.config.tick_layer import Section


class SnapshotConfig(Section):
    """Where the state is saved, so that a start does not repeat the whole input.

    A folder that is not absolute lies beside the configuration file; without a file and
    without a folder there are no snapshots. A ``url`` takes the place of the folder: fsspec opens
    it, and a request that is not answered within ``timeout`` has failed.
    """

    enabled: bool = True
    folder: Path | None = None
    url: Annotated[str | None, Field(repr=False)] = None
    keep: Annotated[int, Field(ge=1, le=100)] = 3
    replay_cost: PositiveNs = UNITS_NS["s"] * 5
    timeout: PositiveNs = UNITS_NS["s"] * 20

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"[a-z][a-z0-9+.-]*://", url):
            message = "is no URL such as s3://bucket/path"  # its words may hold a password
            raise ValueError(message)
        return url

    @field_serializer("url")
    def _without_secrets(self, url: str | None) -> str | None:
        return None if url is None else without_secrets(url)


def is_here(url: str) -> bool:
    """Tell whether what is kept at a URL can be read on this host alone."""
    return url.partition("://")[0] in {"file", "local", "memory"}


def without_secrets(url: str) -> str:
    """Return a URL as others may see it: no user, no password, no query."""
    scheme, _, rest = url.partition("://")
    user, _, place = rest.rpartition("@")  # the last one: a password may hold any sign
    if ":" not in user and "@" not in re.split("[/?]", rest)[0]:
        user, place = "", rest  # it is of the path
    bare, is_asked, _ = place.partition("?")
    return f"{scheme}://{'***@' if user else ''}{bare}{'?***' if is_asked else ''}"
