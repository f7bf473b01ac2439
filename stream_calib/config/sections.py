"""The settings tree as models."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from stream_calib.config.currency import CurrencyConfig
from stream_calib.config.dcc import DccConfig, DriftConfig, RefitConfig
from stream_calib.config.durations import (
    UNITS_NS,
    DurationNs,
    Ns,
    PositiveNs,
    format_duration,
    parse_duration,
)
from stream_calib.config.input import InputConfig, Name, TopicName
from stream_calib.config.metrics import MetricsConfig, check_pairs
from stream_calib.config.ownership import OwnershipConfig
from stream_calib.config.snapshots import SnapshotConfig
from stream_calib.config.tick_layer import (
    CalendarConfig,
    DiurnalConfig,
    EwmaConfig,
    FilterConfig,
    ReturnType,
    Section,
)

ENV_PREFIX = "STREAM_CALIB__"
CALENDARS_MAX = 16  # of one universe: each is a clock of its own
TOKEN_MIN = 16  # characters: fewer can be guessed
WINDOW_BARS_MAX = 1000  # each bar costs a pass over the bars of a window, for each symbol


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


class DeliveryConfig(Section):
    """How results become durable, and when an owner gives up."""

    mode: Literal["exactly_once", "at_least_once"] = "exactly_once"
    commit_interval: PositiveNs = UNITS_NS["s"]
    transaction_timeout: Annotated[Ns, Field(ge=UNITS_NS["s"])] = UNITS_NS["s"] * 15
    give_up_after: PositiveNs = UNITS_NS["m"] * 10
    watchdog_after: PositiveNs = UNITS_NS["m"]


class HttpConfig(Section):
    """The address of the live view, /metrics, /healthz and /readyz.

    Beyond loopback a token is required, of at least 16 characters.
    """

    enabled: bool = True
    view: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    token: SecretStr | None = None

    @field_validator("token")
    @classmethod
    def _token_is_long(cls, token: SecretStr | None) -> SecretStr | None:
        # spaces at its ends, and what is no ASCII, do not come through a header as they are
        pattern = rf"(?! )[ -~]{{{TOKEN_MIN},}}(?<! )"
        if token is not None and not re.fullmatch(pattern, token.get_secret_value()):
            needed = f"at least {TOKEN_MIN} printable ASCII characters are needed"
            message = f"{needed}, without spaces around them"
            raise ValueError(message)
        return token

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


class UniverseConfig(Section):
    """A named ordered list of symbols with its settings."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    symbols: tuple[Name, ...]
    topics: Annotated[tuple[TopicName, ...], Field(min_length=1)] | None = None
    bar: PositiveNs = UNITS_NS["s"]
    every: Annotated[int, Field(ge=1)] = 1
    price: Literal["last", "mid", "microprice"] = "last"
    return_type: Annotated[ReturnType, Field(alias="return")] = "log"
    returns: dict[str, ReturnType] = Field(default_factory=dict)
    calendar: str | None = None
    calendars: dict[str, str] = Field(default_factory=dict)
    currency: CurrencyConfig | None = None
    audit: bool = True
    stale_after: PositiveNs | None = None
    ready_n_eff: Annotated[float, Field(ge=2)] = 20.0
    ewma: EwmaConfig = EwmaConfig()
    filter: FilterConfig = FilterConfig()
    diurnal: DiurnalConfig = DiurnalConfig()
    dcc: DccConfig = DccConfig()
    drift: DriftConfig = DriftConfig()

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
        for key in ("returns", "calendars"):
            for symbol in getattr(self, key):
                if symbol not in self.symbols:
                    message = f"{key} names {symbol!r}, which is not among the symbols"
                    raise ValueError(message)
        if self.currency is not None:
            self._check_currency(self.currency)
        if len({self.calendar, *self.calendars.values()}) > CALENDARS_MAX:
            message = f"calendars names more than {CALENDARS_MAX} calendars"
            raise ValueError(message)
        if self.diurnal.enabled and self.bar > self.diurnal.bin:
            message = f"diurnal.bin {format_duration(self.diurnal.bin)} is shorter than the bar"
            raise ValueError(message)
        k = self.ewma.bars_per_window(self.bar)
        if k > WINDOW_BARS_MAX:
            message = (
                f"ewma.window {format_duration(self.ewma.window)} holds {k} bars of "
                f"{format_duration(self.bar)}, more than {WINDOW_BARS_MAX}"
            )
            raise ValueError(message)
        most = self.n_eff_max
        if self.ready_n_eff > 0.8 * most:
            window_ns = max(self.ewma.window, self.bar)
            message = (
                f"ewma.half_life {format_duration(self.ewma.half_life)} holds at most {most:.0f} "
                f"effective windows of {format_duration(window_ns)}, too few for "
                f"ready_n_eff {self.ready_n_eff:g}"
            )
            raise ValueError(message)
        return self

    def _check_currency(self, currency: CurrencyConfig) -> None:
        rates = {symbol: currency.rate_of(symbol)[0] for symbol in currency.symbols}
        for symbol in (*rates, *rates.values()):
            where = "rates" if symbol in rates.values() else "symbols"
            if symbol not in self.symbols:
                message = f"currency.{where} names {symbol!r}, which is not among the symbols"
                raise ValueError(message)
            if self.return_of(symbol) != "log":
                message = (
                    f"currency.{where} names {symbol!r}, whose return is "
                    f"{self.return_of(symbol)}: only log returns add up across currencies"
                )
                raise ValueError(message)

    @property
    def n_eff_max(self) -> float:
        """Effective observations of a pair in the steady state, every bar observed."""
        k = self.ewma.bars_per_window(self.bar)
        # overlapping windows count less, methods 1.4
        return 2.885 * self.ewma.half_life / self.bar * 3.0 * k / (2.0 * k * k + 1.0)

    @property
    def universe_id(self) -> str:
        """Identity of the ordered symbol list."""
        return identity_of(self.symbols)

    def return_of(self, symbol: str) -> ReturnType:
        """Return what a return of ``symbol`` is."""
        return self.returns.get(symbol, self.return_type)

    def settings(self) -> dict[str, Any]:
        """Every setting of its own that can change what is published, as JSON values."""
        unset = {"currency"} if self.currency is None else set()  # as before there was one
        return self.model_dump(mode="json", by_alias=True, exclude={"topics", *unset})

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
    delivery: DeliveryConfig = DeliveryConfig()
    refit: RefitConfig = RefitConfig()
    snapshots: SnapshotConfig = SnapshotConfig()
    ownership: OwnershipConfig = OwnershipConfig()
    http: HttpConfig = HttpConfig()
    metrics: MetricsConfig = MetricsConfig()
    log: LogConfig = LogConfig()
    calendar: dict[str, CalendarConfig] = Field(default_factory=dict)
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
        known = {symbol for universe in self.universe for symbol in universe.symbols}
        for name, symbol in self.input.aliases.items():
            if symbol not in known or name in known:
                what = f"{symbol!r}, which no universe has"
                if name in known:
                    what = f"{name!r}, which is a symbol itself, for {symbol!r}"
                message = f"input.aliases names {what}"
                raise ValueError(message)
        check_pairs(self.metrics.pairs, {u.name: u.symbols for u in self.universe})
        flush_after = self.time.flush_after
        for universe in self.universe:
            for calendar in (*universe.calendars.values(), universe.calendar):
                if calendar is not None and calendar not in self.calendar:
                    message = (
                        f"universe.calendar names {calendar!r}, and there is no "
                        f"[calendar.{calendar}]"
                    )
                    raise ValueError(message)
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

    def pairs_of(self, universe: UniverseConfig) -> list[tuple[str, str]]:
        """Pairs of ``universe`` that are measured on their own."""
        return [pair for pair in self.metrics.pairs if {*pair} <= {*universe.symbols}]

    def topics_of(self, universe: UniverseConfig) -> tuple[str, ...]:
        """Input topics of ``universe`` that are named."""
        return (self.input.topics or ()) if universe.topics is None else universe.topics

    def reads(self, universe: UniverseConfig, topic: str) -> bool:
        """Tell whether ``universe`` reads a topic, by its name or because it matches."""
        if topic in self.topics_of(universe):
            return True
        pattern = self.input.topics_pattern
        if pattern is None or universe.topics is not None:
            return False
        ours = topic.startswith(("__", f"{self.output.prefix}."))
        return not ours and re.fullmatch(pattern, topic) is not None

    def settings(self, universe: UniverseConfig) -> dict[str, Any]:
        """Every setting that can change the bytes published for ``universe``, as JSON values."""
        known = {
            name: own.model_dump(mode="json")
            for name, own in self.calendar.items()
            if name == universe.calendar or name in universe.calendars.values()
        }
        return {
            **({"calendar": known} if known else {}),
            **({"refit": {"late": self.refit.late}} if universe.dcc.enabled else {}),
            "universe": universe.settings(),
            "time": self.time.model_dump(mode="json", exclude={"idle_slack", "flush_after"}),
            "input": self.input.model_dump(mode="json", include={"format", "rejects_per_second"})
            | self._namings(universe)
            | (
                {}
                if self.input.schema_registry is None
                else {"schemas": self.input.missing_schemas}
            ),
        }

    def _namings(self, universe: UniverseConfig) -> dict[str, dict[str, str]]:
        """Return the other names of this universe's symbols, told where there are any."""
        names = self.input.aliases
        namings = {
            "aliases": {name: own for name, own in names.items() if own in universe.symbols},
            "exchanges": {
                topic: own
                for topic, own in self.input.exchanges.items()
                if self.reads(universe, topic)
            },
        }
        return {key: own for key, own in namings.items() if own}

    def under(self, settings: Mapping[str, Any]) -> "Config":
        """Return the configuration of one universe with what ``settings`` once returned."""
        document, own = self.model_dump(), dict(settings["input"])
        if (missing := own.pop("schemas", None)) is None:
            own["schema_registry"] = None
        else:
            own["missing_schemas"] = missing
        time = document["time"] | settings["time"]
        flush_after = self.time.flush_after
        if flush_after is not None and flush_after < parse_duration(settings["universe"]["bar"]):
            time["flush_after"] = None  # it belongs to the bars of today
        return Config(
            **document
            | {
                "time": time,
                "input": document["input"] | {"aliases": {}, "exchanges": {}} | own,
                "refit": document["refit"] | settings.get("refit", {}),
                "metrics": {},  # of the symbols of today
                "calendar": document["calendar"] | settings.get("calendar", {}),
                "universe": [settings["universe"]],
            }
        )

    def fingerprint(self, universe: UniverseConfig) -> str:
        """Identity of ``settings``, but for whether fits are waited for."""
        settings = {k: v for k, v in self.settings(universe).items() if k != "refit"}
        return _digest(json.dumps(settings, sort_keys=True))


def identity_of(symbols: Sequence[str]) -> str:
    """Return the identity of an ordered list of symbols."""
    return _digest("\n".join(symbols))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
