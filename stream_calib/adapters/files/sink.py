"""A file of JSON lines as an output log."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from stream_calib.errors import InputError, TransportError
from stream_calib.values import Output


class FileSink:
    """Writes one JSON line per record: topic, key, headers and value.

    A value of content type JSON is part of the line as it is, any other is base64 text.

    Parameters
    ----------
    target
        A path, overwritten; or an open binary file, which stays open.
    """

    def __init__(self, target: str | Path | BinaryIO) -> None:
        self._target = target
        self._file: BinaryIO | None = None

    async def start(self) -> None:
        """Open the file; raise InputError when it cannot be written."""
        if not isinstance(self._target, str | Path):
            self._file = self._target
            return
        try:
            self._file = Path(self._target).open("wb")  # noqa: ASYNC230, SIM115
        except OSError as error:
            message = f"{self._target}: cannot be written ({error.strerror})"
            raise InputError(message) from None

    async def publish(self, outputs: Sequence[Output]) -> None:
        """Write the records and hand them to the system."""
        assert self._file is not None
        try:
            self._file.write(b"".join(map(_line, outputs)))
            self._file.flush()
        except OSError as error:
            name = getattr(self._file, "name", "the output")
            raise TransportError(f"{name}: cannot be written ({error.strerror})") from error

    async def close(self) -> None:
        """Close the file that ``start`` opened."""
        file, self._file = self._file, None
        if file is not None and file is not self._target:
            file.close()


def _line(output: Output) -> bytes:
    headers = {name: value.decode(errors="backslashreplace") for name, value in output.headers}
    is_json = headers.get("content-type", "").startswith("application/json")
    value = orjson.Fragment(output.value) if is_json else base64.b64encode(output.value).decode()
    line: dict[str, Any] = {
        "topic": output.topic,
        "key": output.key.decode(errors="backslashreplace"),
        "headers": headers,
        "value": value,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
