"""Records without a sequence: rejects, calibrations, universes and fits."""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from stream_calib.config import identity_of
from stream_calib.service.verification.findings import Book, Where
from stream_calib.service.verification.streams import Placed, Stream
from stream_calib.values import REJECT_BYTES_MAX
from stream_calib.wire.cloudevents import JSON_TYPE, rfc3339

Headers = Mapping[str, bytes]


class PlainStream(Stream):
    """The records of one role; how each is judged is in the subclass."""

    name = ""

    def _reason(self, key: bytes, value: bytes, headers: Headers) -> tuple[str, str]:
        """Return kind and words of what is wrong with a record; empty when nothing is."""
        raise NotImplementedError

    def _universe_of(self, key: bytes, headers: Headers) -> str:
        return headers.get("universe", b"").decode(errors="replace")

    def _add(self, record: Any) -> Placed | None:  # noqa: ANN401
        where = Where(record.topic, record.partition, record.offset)
        key, headers = record.key or b"", dict(record.headers)
        universe = self._universe_of(key, headers)
        expected = self.universe
        stretch = self.book.stretch(*where[:2], expected or universe, self.name)
        stretch.records += 1
        if record.value is None:
            self._tell(
                "tombstone", where, stretch, f"it deletes the key {key.decode(errors='replace')!r}"
            )
            return None
        kind, words = self._reason(key, record.value, headers)
        if not kind and expected is not None and universe != expected:
            kind, words = "stranger", f"it is of universe {universe!r}"
        if kind:
            self._tell(kind, where, stretch, words)
        else:
            stretch.count += 1
        return None


class RejectStream(PlainStream):
    """The rejects topic."""

    name = "rejects"

    def _reason(self, key: bytes, value: bytes, headers: Headers) -> tuple[str, str]:
        try:
            said = [headers[name].decode() for name in ("topic", "partition", "offset")]
            length, sha256 = int(headers["length"]), headers["sha256"].decode()
            _ = headers["universe"], headers["reason"]
        except (KeyError, ValueError):
            return "undecodable", "it has not the headers of a reject"
        if key.decode(errors="replace") != "-".join(said):
            return "headers", "its key is not the place that its headers name"
        if len(value) != min(length, REJECT_BYTES_MAX):
            return "checksum", f"it has {len(value)} bytes of {length}"
        if len(value) == length and hashlib.sha256(value).hexdigest() != sha256:
            return "checksum", "its bytes are not those of its sha256"
        return "", ""


class JsonStream(PlainStream):
    """A topic of JSON in the envelope of CloudEvents."""

    type_ = ""

    def _universe_of(self, key: bytes, headers: Headers) -> str:
        source = headers.get("ce_source", b"").decode(errors="replace")
        return source.removeprefix("/stream-calib/")

    def _reason(self, key: bytes, value: bytes, headers: Headers) -> tuple[str, str]:
        if headers.get("ce_type") != f"stream_calib.{self.type_}.v1".encode():
            return "undecodable", f"its ce_type is not stream_calib.{self.type_}.v1"
        if headers.get("crc32") != f"{zlib.crc32(value):08x}".encode():
            return "checksum", "its bytes are not those of its crc32"
        try:
            document = orjson.loads(value)
            id_, own_key = self._identity(document)
            said = {
                "ce_id": id_,
                "ce_source": f"/stream-calib/{document['universe']}",
                "ce_time": rfc3339(int(document["time_ns"])),
                "content-type": JSON_TYPE,
            }
            wrong = [name for name, text in said.items() if headers.get(name) != text.encode()]
            if wrong or key != own_key.encode():
                return "headers", f"{wrong[0] if wrong else 'its key'} is not what the value says"
            return self._content(document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return "undecodable", f"its value cannot be understood ({error})"

    def _identity(self, document: Mapping[str, Any]) -> tuple[str, str]:
        raise NotImplementedError

    def _content(self, document: Mapping[str, Any]) -> tuple[str, str]:
        del document
        return "", ""


class CalibrationStream(JsonStream):
    """The calibrations topic."""

    name, type_ = "calibrations", "calibration"

    def _identity(self, document: Mapping[str, Any]) -> tuple[str, str]:
        universe, version = document["universe"], document["model_version"]
        return f"{universe}|calibrations|{version}", f"{universe}|{version}"


class UniverseStream(JsonStream):
    """The universes topic.

    Attributes
    ----------
    symbols
        Of each identity that was told.
    """

    name, type_ = "universes", "universe"

    def __init__(self, book: Book, universe: str | None, *, compacts: bool = False) -> None:
        super().__init__(book, universe, compacts=compacts)
        self.symbols: dict[str, Sequence[str]] = {}

    def _identity(self, document: Mapping[str, Any]) -> tuple[str, str]:
        parts = (document[name] for name in ("config_fingerprint", "time_ns"))
        return "|".join((document["universe"], "universes", *parts)), document["universe_id"]

    def _content(self, document: Mapping[str, Any]) -> tuple[str, str]:
        identity, symbols = document["universe_id"], document["symbols"]
        if identity_of(symbols) != identity:
            return "symbols", f"its universe_id {identity} is not that of its symbols"
        self.symbols[identity] = symbols
        return "", ""


class FitStream(PlainStream):
    """The fits topic, whose fits are known by the hash of what they say.

    Attributes
    ----------
    whole
        Hashes of fits that are there with all of their bytes.
    """

    name = "fits"

    def __init__(self, book: Book, universe: str | None, *, compacts: bool = False) -> None:
        super().__init__(book, universe, compacts=compacts)
        self.whole: set[str] = set()
        self._open, self._number = hashlib.blake2b(digest_size=16), 0
        self._hash = ""

    def _reason(self, key: bytes, value: bytes, headers: Headers) -> tuple[str, str]:
        try:
            hash_ = headers["hash"].decode()
            number, count = map(int, headers["chunk"].split(b"/"))
            universe = headers["universe"].decode()
        except (KeyError, ValueError):
            return "undecodable", "it has not the headers of a fit"
        if key != f"{universe}|{hash_}|{number - 1}".encode():
            return "headers", "its key is not what its headers say"
        if number == 1:
            self._open, self._number, self._hash = hashlib.blake2b(digest_size=16), 0, hash_
        if (hash_, number) != (self._hash, self._number + 1):
            return "", ""  # not whole: told where an entry needs it
        self._open.update(value)
        self._number = number
        if number == count:
            if self._open.hexdigest() != hash_:
                return "checksum", "its bytes are not those of its hash"
            self.whole.add(hash_)
        return "", ""
