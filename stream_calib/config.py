"""The settings tree: one TOML file, the environment, command-line flags; the later wins.

Environment variables are ``STREAM_CALIB__SECTION__KEY``. Secrets come from there alone.
Unknown keys are refused with their path. Durations are text with a unit: "500ms", "5s", "2h".
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from stream_calib.errors import ConfigError

ENV_PREFIX = "STREAM_CALIB__"
ENV_SECRETS = ("kafka.sasl_password", "kafka.ssl_password", "http.token")
UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
LONGEST_NS = 36_525 * UNITS_NS["d"]  # a hundred years: times stay inside 64 bits
_DURATION = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([a-z]+)\s*")


def parse_duration(text: object) -> int:
    """Turn "500ms", "5s", "1.5h", "1d" into nanoseconds; an int is nanoseconds already."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[2] not in UNITS_NS:
        message = f"{text!r} is not a duration; write a number with a unit, such as '500ms' or '2h'"
        raise ValueError(message)
    return round(float(found[1]) * UNITS_NS[found[2]])


def format_duration(time_ns: int) -> str:
    """Turn nanoseconds into the shortest text that ``parse_duration`` takes back exactly."""
    for unit in ("d", "h", "m", "s", "ms", "us"):
        if time_ns and time_ns % UNITS_NS[unit] == 0:
            return f"{time_ns // UNITS_NS[unit]}{unit}"
    return f"{time_ns}ns"


Ns = Annotated[
    int, BeforeValidator(parse_duration), PlainSerializer(format_duration), Field(le=LONGEST_NS)
]
DurationNs = Annotated[Ns, Field(ge=0)]
PositiveNs = Annotated[Ns, Field(gt=0)]
Name = Annotated[str, Field(min_length=1)]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class Section(BaseModel):
    """A part of the tree: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaConfig(Section):
    """How to reach the broker; the names are those of the client library."""

    bootstrap_servers: str | tuple[str, ...] = "127.0.0.1:9092"
    client_id: str = "stream-calib"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_password: SecretStr | None = None
    ssl_check_hostname: bool = True
    connect_timeout: PositiveNs = UNITS_NS["s"] * 10

    @model_validator(mode="after")
    def _sasl_is_whole(self) -> "KafkaConfig":
        if self.security_protocol.startswith("SASL"):
            for key in ("sasl_username", "sasl_password"):
                if getattr(self, key) is None:
                    where = f" (environment {ENV_PREFIX}KAFKA__SASL_PASSWORD)"
                    message = f"{key} is needed with security_protocol {self.security_protocol}"
                    raise ValueError(message + (where if key == "sasl_password" else ""))
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            message = "ssl_certfile is needed with ssl_keyfile"
            raise ValueError(message)
        return self


class InputConfig(Section):
    """Where ticks come from and how they are written."""

    topics: Annotated[tuple[TopicName, ...], Field(min_length=1)] = ("ticks",)
    format: str = "auto"
    max_records: Annotated[int, Field(ge=1, le=100_000)] = 5000
    rejects_per_second: Annotated[int, Field(ge=0)] = 100


class TimeConfig(Section):
    """Event time: what is late, what is absurd, and how long a silent partition is awaited."""

    lateness: DurationNs = UNITS_NS["s"] * 2
    idle_slack: DurationNs = UNITS_NS["s"] * 5
    flush_after: PositiveNs | None = None
    max_ahead: PositiveNs = UNITS_NS["m"]
    max_jump: PositiveNs = UNITS_NS["h"]
    max_gap: PositiveNs = UNITS_NS["h"]


class OutputConfig(Section):
    """Where results go: topics ``<prefix>.correlations``, ``.events``, ``.rejects``."""

    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")] = "calib"


class HttpConfig(Section):
    """The address of /metrics, /healthz and /readyz; beyond loopback a token is required."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    token: SecretStr | None = None

    @model_validator(mode="after")
    def _token_beyond_loopback(self) -> "HttpConfig":
        loopback = re.fullmatch(r"localhost|::1|127(\.\d{1,3}){3}", self.host)
        if self.enabled and not loopback and self.token is None:
            message = (
                f"token is needed to listen on {self.host} "
                f"(environment {ENV_PREFIX}HTTP__TOKEN); without one only loopback is allowed"
            )
            raise ValueError(message)
        return self


class LogConfig(Section):
    """How much is logged and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class EwmaConfig(Section):
    """The exponentially weighted estimator."""

    half_life: PositiveNs = UNITS_NS["m"] * 30


class UniverseConfig(Section):
    """A named ordered list of symbols with its settings."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    symbols: tuple[Name, ...]
    topics: Annotated[tuple[TopicName, ...], Field(min_length=1)] | None = None
    bar: PositiveNs = UNITS_NS["s"]
    every: Annotated[int, Field(ge=1)] = 1
    price: Literal["last", "mid"] = "last"
    return_type: Annotated[Literal["log", "simple", "diff"], Field(alias="return")] = "log"
    stale_after: PositiveNs | None = None
    ready_n_eff: Annotated[float, Field(ge=2)] = 20.0
    ewma: EwmaConfig = EwmaConfig()

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="after")
    def _coherent(self) -> "UniverseConfig":
        if len(self.symbols) < 2:
            message = "symbols needs at least two symbols"
            raise ValueError(message)
        doubles = sorted({s for s in self.symbols if self.symbols.count(s) > 1})
        if doubles:
            message = f"symbols lists {doubles[0]!r} twice"
            raise ValueError(message)
        most = 2.885 * self.ewma.half_life / self.bar  # steady-state n_eff, methods 1.3
        if self.ready_n_eff > 0.8 * most:
            message = (
                f"ewma.half_life {format_duration(self.ewma.half_life)} holds at most {most:.0f} "
                f"effective bars of {format_duration(self.bar)}, too few for "
                f"ready_n_eff {self.ready_n_eff:g}"
            )
            raise ValueError(message)
        return self

    @property
    def universe_id(self) -> str:
        """Identity of the ordered symbol list."""
        return _digest("\n".join(self.symbols))

    @property
    def stale_after_bars(self) -> int:
        """Bars after which a last price is no basis for a return any more."""
        return 60 if self.stale_after is None else max(1, self.stale_after // self.bar)


class Config(Section):
    """The whole tree."""

    app: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] = "stream-calib"
    kafka: KafkaConfig = KafkaConfig()
    input: InputConfig = InputConfig()
    time: TimeConfig = TimeConfig()
    output: OutputConfig = OutputConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()
    universe: tuple[UniverseConfig, ...]

    @model_validator(mode="after")
    def _coherent(self) -> "Config":
        if not self.universe:
            message = "universe needs at least one [[universe]] table"
            raise ValueError(message)
        names = [u.name for u in self.universe]
        for name in names:
            if names.count(name) > 1:
                message = f"universe.name {name!r} is used twice"
                raise ValueError(message)
        flush_after = self.time.flush_after
        for universe in self.universe:
            if flush_after is not None and flush_after < universe.bar:
                message = (
                    f"time.flush_after {format_duration(flush_after)} is shorter than the bar of "
                    f"universe {universe.name!r}, which would cut its bars short"
                )
                raise ValueError(message)
        return self

    def flush_after_ns(self, universe: UniverseConfig) -> int:
        """Total silence after which the open bar of ``universe`` is closed."""
        if self.time.flush_after is not None:
            return self.time.flush_after
        return universe.bar + max(self.time.idle_slack, self.time.lateness)

    def max_jump_ns(self, universe: UniverseConfig) -> int:
        """Jump of event time that needs confirmation; never less than ten bars."""
        return max(self.time.max_jump, 10 * universe.bar)

    def topics_of(self, universe: UniverseConfig) -> tuple[str, ...]:
        """Input topics of ``universe``."""
        return self.input.topics if universe.topics is None else universe.topics

    def fingerprint(self, universe: UniverseConfig) -> str:
        """Identity of every setting that can change the bytes published for ``universe``."""
        parts = (
            universe.model_dump_json(exclude={"topics"}),
            self.time.model_dump_json(exclude={"idle_slack", "flush_after"}),
            self.input.model_dump_json(include={"format", "rejects_per_second"}),
        )
        return _digest("\n".join(parts))


class _Environment(EnvSettingsSource):
    """The environment, refusing variables with our prefix that name no section.

    A list is written as in JSON or with commas.
    """

    def __init__(self) -> None:
        super().__init__(
            Config,  # type: ignore[arg-type]  # it is read for its fields alone
            env_prefix=ENV_PREFIX,
            env_nested_delimiter="__",
            env_ignore_empty=True,
        )

    def __call__(self) -> dict[str, Any]:
        for variable in self.env_vars:
            if variable.upper().startswith(ENV_PREFIX):
                section = variable[len(ENV_PREFIX) :].split("__")[0].lower()
                if section not in Config.model_fields:
                    message = f"{section}: unknown key, from environment {variable.upper()}"
                    raise ConfigError(message)
        return super().__call__()

    def decode_complex_value(self, field_name: str, _field: FieldInfo, value: str) -> object:
        """Read a list, or a section that is written in one piece."""
        if not value.lstrip().startswith(("[", "{")):
            return [part.strip() for part in value.split(",")]
        try:
            return json.loads(value)
        except ValueError:
            message = f"{field_name}: what the environment holds for it is not valid JSON"
            raise ConfigError(message) from None


def load_config(path: str | Path, overrides: Mapping[str, object] | None = None) -> Config:
    """Read the settings from a TOML file, the environment and ``overrides``.

    Parameters
    ----------
    path
        The TOML file.
    overrides
        Values by dotted key ("http.port"), as from command-line flags; they win.

    Raises
    ------
    ConfigError
        One sentence that names the offending key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: cannot read the configuration ({_reason(error)})"
        raise ConfigError(message) from None
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{path}: not valid TOML ({error})"
        raise ConfigError(message) from None
    return parse_config(tree, overrides, origin=str(path))


def parse_config(
    tree: Mapping[str, Any], overrides: Mapping[str, object] | None = None, origin: str = "config"
) -> Config:
    """Check a settings tree that is already in memory; otherwise as ``load_config``."""
    for dotted in ENV_SECRETS:
        section, key = dotted.split(".")
        if isinstance(tree.get(section), Mapping) and key in tree[section]:
            variable = f"{ENV_PREFIX}{section.upper()}__{key.upper()}"
            message = f"{origin}: {dotted}: a secret comes from the environment only ({variable})"
            raise ConfigError(message)
    merged = _merge(tree, _Environment()())
    for dotted, value in (overrides or {}).items():
        section, _, key = dotted.partition(".")
        merged = _merge(merged, {section: {key: value} if key else value})
    try:
        return Config(**merged)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_sentence(error)}") from None


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    path = ""
    for part in first["loc"]:
        if part == "str":  # one of the types that bootstrap_servers may have
            break
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    kind, reason = first["type"], first["msg"].removeprefix("Value error, ")
    if words := _REASONS.get(kind, _REASONS.get(kind.split("_")[0])):
        reason = words.format(**first.get("ctx", {}))
    return f"{path}: {reason}" if path else reason


# What pydantic says, in the words of a TOML file; by kind of error, or by its first word.
_REASONS = {
    "bool": "must be true or false",
    "extra": "unknown key",
    "float": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "literal": "must be {expected}",
    "missing": "is missing",
    "model": "must be a table",
    "string": "must be text",
    "string_pattern_mismatch": "must be made of letters, digits, '.', '_' and '-'",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "tuple": "must be a list",
}


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "not UTF-8 text"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
