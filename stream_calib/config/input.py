"""Settings of what is read: topics, their formats, and where schemas of records are."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from stream_calib.config.tick_layer import Section

Name = Annotated[str, Field(min_length=1)]
ExchangeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class InputConfig(Section):
    """Where ticks come from and how they are written.

    ``topics_pattern`` is a regular expression for whole names of topics, those that appear later
    too; beside it ``topics`` may be left out. Topics of our own and of Kafka's never match.
    ``aliases`` are symbols by the other names that messages have for them. ``exchanges`` are
    those of the symbols of a topic, where its messages do not name it (ccxt), or cannot know it
    (BINANCE for spot and futures alike). ``schema_registry`` has the schemas of records in frames
    (the extra avro); of one that it does not know the partition waits, or the record is rejected
    (``missing_schemas``).
    """

    topics: Annotated[tuple[TopicName, ...], Field(min_length=1)] | None = ("ticks",)
    topics_pattern: str | None = None
    format: str = "auto"
    max_records: Annotated[int, Field(ge=1, le=100_000)] = 5000
    rejects_per_second: Annotated[int, Field(ge=0)] = 100
    aliases: dict[Name, Name] = Field(default_factory=dict)
    exchanges: dict[TopicName, ExchangeName] = Field(default_factory=dict)
    schema_registry: str | None = None
    schema_registry_username: str | None = None
    schema_registry_password: SecretStr | None = None
    missing_schemas: Literal["wait", "reject"] = "wait"

    @model_validator(mode="before")
    @classmethod
    def _pattern_alone(cls, section: object) -> object:
        if isinstance(section, Mapping) and section.get("topics_pattern") is not None:
            return {"topics": None, **section}
        return section

    @model_validator(mode="after")
    def _coherent(self) -> "InputConfig":
        if self.topics is None and self.topics_pattern is None:
            message = "topics or topics_pattern is needed"
            raise ValueError(message)
        url = self.schema_registry
        if url is not None and not re.fullmatch(r"https?://[^@\s]+", url):
            message = (
                "schema_registry must be an http or https address, with the user in "
                "schema_registry_username"
            )
            raise ValueError(message)
        if (self.schema_registry_username is None) != (self.schema_registry_password is None):
            message = (
                "schema_registry_username and schema_registry_password (environment "
                "STREAM_CALIB__INPUT__SCHEMA_REGISTRY_PASSWORD) go together"
            )
            raise ValueError(message)
        try:
            re.compile(self.topics_pattern or "")
        except re.error as error:
            message = f"topics_pattern {self.topics_pattern!r} is no regular expression ({error})"
            raise ValueError(message) from None
        return self
