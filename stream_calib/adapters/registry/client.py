"""A schema registry over HTTP, as Confluent, Karapace and Apicurio speak it."""

import base64
import uuid
from typing import Any
from urllib.parse import quote

import aiohttp

from stream_calib.errors import TransportError
from stream_calib.values import ValueSchema

REQUEST_S = 10.0
NOT_FOUND = 404
MISSING = ValueSchema("MISSING", ())
REFERENCES_MAX = 100  # schemas that one refers to, all together


class SchemaRegistry:
    """Gets schemas by the frames of records, and keeps them: behind an id they never change.

    Parameters
    ----------
    url
        Such as ``http://127.0.0.1:8081``.
    username, password
        For basic authentication.
    """

    def __init__(self, url: str, username: str | None = None, password: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if username is not None and password is not None:
            word = base64.b64encode(f"{username}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {word}"
        self._known: dict[bytes, ValueSchema] = {}
        self._session: aiohttp.ClientSession | None = None

    def known(self, frame: bytes) -> ValueSchema | None:
        """Return the schema of a frame if it was got before."""
        return self._known.get(frame)

    async def get(self, frame: bytes) -> ValueSchema:
        """Return the schema that a frame names, of kind ``MISSING`` when there is none.

        Raises
        ------
        TransportError
            The registry does not answer, or not as one.
        """
        if frame in self._known:
            return self._known[frame]
        if frame[0]:
            found = await self._ask(f"/schemas/guids/{uuid.UUID(bytes=frame[1:])}")
        else:
            found = await self._ask(f"/schemas/ids/{int.from_bytes(frame[1:], 'big')}")
        if found is None:
            return MISSING
        kind = str(found.get("schemaType") or "AVRO")
        texts = await self._texts(found, {}) if kind == "AVRO" else []
        self._known[frame] = ValueSchema(kind, tuple(texts))
        return self._known[frame]

    async def close(self) -> None:
        """Let go."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _texts(self, found: dict[str, Any], seen: dict[tuple[str, int], bool]) -> list[str]:
        """Return what a schema refers to, each after what it refers to, and then the schema."""
        texts: list[str] = []
        try:
            for reference in found.get("references") or ():
                place = (str(reference["subject"]), int(reference["version"]))
                if place in seen:
                    continue
                seen[place] = True
                if len(seen) > REFERENCES_MAX:
                    raise TransportError(
                        f"The schema registry at {self.url} has a schema without end"
                    )
                subject = quote(place[0], safe="")
                of = await self._ask(f"/subjects/{subject}/versions/{place[1]}")
                if of is None:
                    raise TransportError(
                        f"The schema registry at {self.url} does not know version {place[1]} of "
                        f"{place[0]!r}, which another schema refers to"
                    )
                texts += await self._texts(of, seen)
            return [*texts, str(found["schema"])]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._no_registry() from None

    async def _ask(self, path: str) -> dict[str, Any] | None:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=REQUEST_S)
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        try:
            async with self._session.get(f"{self.url}{path}") as answer:
                # a registry says with a code of its own that there is none; a page may be gone too
                if answer.status == NOT_FOUND and "error_code" in await self._json(answer):
                    return None
                if not answer.ok:
                    raise TransportError(
                        f"The schema registry at {self.url} answered {answer.status} "
                        f"{answer.reason}"
                    )
                return await self._json(answer)
        except TimeoutError:
            message = f"The schema registry at {self.url} did not answer within {REQUEST_S:g} s"
            raise TransportError(message) from None
        except (aiohttp.ClientError, OSError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise TransportError(
                f"The schema registry at {self.url} cannot be reached: {reason}"
            ) from None

    async def _json(self, answer: aiohttp.ClientResponse) -> dict[str, Any]:
        try:
            document = await answer.json(content_type=None)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._no_registry()
        return document

    def _no_registry(self) -> TransportError:
        return TransportError(f"What answers at {self.url} is no schema registry")
