"""Settings: where they come from, who wins, and in which words a wrong one is refused."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from stream_calib.cli.config import to_toml
from stream_calib.config import (
    Config,
    KafkaConfig,
    UniverseConfig,
    format_duration,
    load_config,
    parse_config,
    parse_duration,
    without_secrets,
)
from stream_calib.errors import ConfigError

UNIVERSE: dict[str, Any] = {"name": "u", "symbols": ["A", "B"]}
CALENDAR = {
    "zone": "America/New_York",
    "sessions": ["09:30-12:00", "13:00-16:00"],
    "holidays": ["2013-11-28"],
    "half_days": {"2013-11-29": "13:00"},
}
SECRET = "hunter2-and-more"
NOT_FOR_USERS = ("pydantic", "http://", "https://", "validation error", "input_value", "tuple",
                 "dictionary", "instance of", "KafkaConfig", "\n")  # fmt: skip


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.upper().startswith("STREAM_CALIB__"):
            monkeypatch.delenv(name)


def parse(flags: dict[str, object] | None = None, **sections: Any) -> Config:
    return parse_config({"universe": [UNIVERSE], **sections}, flags, "f.toml")


def refusal(flags: dict[str, object] | None = None, **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(flags, **sections)
    text = str(caught.value)
    assert [word for word in NOT_FOR_USERS if word in text] == []
    return text


def test_environment_wins_over_the_file_and_flags_over_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert parse().http.port == 9464
    assert parse(http={"port": 1}).http.port == 1
    monkeypatch.setenv("STREAM_CALIB__HTTP__PORT", "2")
    assert parse(http={"port": 1}).http.port == 2
    assert parse({"http.port": 3}, http={"port": 1}).http.port == 3


def test_later_sources_leave_the_rest_of_a_section_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_CALIB__KAFKA__CLIENT_ID", "from-env")
    kafka = parse({"kafka.bootstrap_servers": "c:3"}, kafka={"connect_timeout": "3s"}).kafka
    assert kafka.client_id == "from-env"
    assert kafka.bootstrap_servers == "c:3"
    assert kafka.connect_timeout == 3_000_000_000


def test_flag_can_mend_what_the_file_has_wrong() -> None:
    assert parse({"http.host": "127.0.0.1"}, http={"host": "0.0.0.0"}).http.host == "127.0.0.1"


@pytest.mark.parametrize("text", ['["a", "b"]', "a,b", " a , b "])
def test_environment_holds_lists_as_json_or_with_commas(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("STREAM_CALIB__INPUT__TOPICS", text)
    assert parse(input={"topics": ["c"]}).input.topics == ("a", "b")


def test_environment_holds_one_topic_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_CALIB__INPUT__TOPICS", "ticks")
    assert parse().input.topics == ("ticks",)


def test_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_CALIB__HTTP__PORT", "")
    monkeypatch.setenv("STREAM_CALIB__HTTP__TOKEN", "")
    assert parse().http.port == 9464
    # an empty token would let everybody in
    assert "http: token is needed" in refusal(http={"host": "0.0.0.0"})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NOPE", "1", "nope: unknown key"),
        ("NOPE__X", "1", "nope: unknown key"),
        ("KAFKA__NOPE", "1", "kafka.nope: unknown key"),
        ("HTTP__PORT", "x", "http.port: must be a whole number"),
        ("HTTP__PORT__X", "1", "http.port: must be a whole number"),
        ("KAFKA", "x", "kafka: must be a table"),
        ("INPUT__TOPICS", "[a", "topics: what the environment holds"),
        ("UNIVERSE", "x", "universe[0]: must be a table"),
    ],
)
def test_wrong_variable_is_refused_with_its_path(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"STREAM_CALIB__{name}", value)
    assert said in refusal()


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"nope": 1}, "f.toml: nope: unknown key"),
        ({"kafka": {"nope": 1}}, "f.toml: kafka.nope: unknown key"),
        ({"universe": [UNIVERSE | {"x": 1}]}, "f.toml: universe[0].x: unknown key"),
        (
            {"universe": [UNIVERSE, UNIVERSE | {"name": "v", "ewma": {"x": 1}}]},
            "f.toml: universe[1].ewma.x: unknown key",
        ),
        ({"http": {"port": 65536}}, "http.port: must be at most 65535"),
        ({"http": {"port": 1.5}}, "http.port: must be a whole number"),
        ({"http": {"enabled": "maybe"}}, "http.enabled: must be true or false"),
        ({"log": {"level": "loud"}}, "log.level: must be 'debug', 'info'"),
        ({"kafka": "x"}, "kafka: must be a table"),
        ({"kafka": {"bootstrap_servers": 5}}, "kafka.bootstrap_servers: must be text"),
        ({"input": {"topics": "ticks"}}, "input.topics: must be a list"),
        ({"input": {"topics": []}}, "input.topics: must not be empty"),
        ({"input": {"schema_registry": "ftp://a"}}, "input: schema_registry must be an http"),
        ({"input": {"schema_registry_username": "me"}}, "_PASSWORD) go together"),
        (
            {"input": {"schema_registry_password": "x"}},
            "STREAM_CALIB__INPUT__SCHEMA_REGISTRY_PASSWORD",
        ),
        ({"input": {"topics_pattern": "("}}, "topics_pattern '(' is no regular expression"),
        ({"input": {"topics_pattern": "a", "topics": []}}, "input.topics: must not be empty"),
        ({"input": {"topics": ["a b"]}}, "input.topics[0]: must be made of letters"),
        ({"time": {"max_gap": "0s"}}, "time.max_gap: must be more than 0"),
        ({"time": {"flush_after": "10ms"}}, "time.flush_after 10ms is shorter than the bar"),
        ({"universe": []}, "universe needs at least one"),
        ({"universe": {"name": "u"}}, "universe: must be a list"),
        ({"universe": [UNIVERSE, UNIVERSE]}, "universe.name 'u' is used twice"),
        ({"universe": [{"symbols": ["A", "B"]}]}, "universe[0].name: is missing"),
        ({"universe": [UNIVERSE | {"name": "a b"}]}, "universe[0].name: must be made of letters"),
        ({"universe": [UNIVERSE | {"symbols": ["A"]}]}, "universe[0]: symbols needs at least two"),
        ({"universe": [UNIVERSE | {"symbols": ["{x}"] * 2}]}, "symbols lists '{x}' twice"),
        ({"universe": [UNIVERSE | {"symbols": [1, 2]}]}, "universe[0].symbols[0]: must be text"),
        ({"universe": [UNIVERSE | {"symbols": ["A", ""]}]}, "symbols[1]: must not be empty"),
        ({"universe": [UNIVERSE | {"return": "x"}]}, "universe[0].return: must be 'log'"),
        ({"universe": [UNIVERSE | {"bar": "1h"}]}, "ewma.half_life 30m holds at most 1 effective"),
    ],
)
def test_wrong_file_is_refused_with_the_path_of_the_key(
    sections: dict[str, Any], said: str
) -> None:
    text = refusal(**sections)
    assert said in text
    assert text.startswith("f.toml: ")


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("http.port", 99_999, "http.port: must be at most 65535"),
        ("log.level", "loud", "log.level: must be 'debug'"),
        ("http.host", "0.0.0.0", "http: token is needed to listen on 0.0.0.0"),
        ("kafka.nope", 1, "kafka.nope: unknown key"),
        ("nope.x", 1, "nope: unknown key"),
        ("app", "a b", "app: must be made of letters"),
    ],
)
def test_wrong_flag_is_refused_with_the_path_of_the_key(
    flag: str, value: object, said: str
) -> None:
    assert said in refusal({flag: value})


def test_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    for name, content in (("a.toml", b"[kafka"), ("b.toml", b"\xff\xfe")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"^\S*{name}: .+") as caught:
            load_config(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1ns", 1),
        ("500us", 500_000),
        ("500ms", 500_000_000),
        ("5s", 5_000_000_000),
        (" 5 s ", 5_000_000_000),
        ("1.5h", 5_400_000_000_000),
        ("2m", 120_000_000_000),
        ("2min", 120_000_000_000),
        ("1d", 86_400_000_000_000),
        (17, 17),
    ],
)
def test_duration_is_a_number_with_a_unit(text: object, time_ns: int) -> None:
    assert parse_duration(text) == time_ns
    assert parse_duration(format_duration(time_ns)) == time_ns


@pytest.mark.parametrize(
    "value",
    ["5", "s", "-1s", "5 parsecs", "1e3s", "", True, 1.5, None, -1, "9" * 400 + "s", "1000000d"],
)
def test_anything_else_is_no_duration(value: object) -> None:
    assert "time.lateness: " in refusal(time={"lateness": value})


@pytest.mark.parametrize("key", ["kafka.sasl_password", "kafka.ssl_password", "http.token"])
def test_secret_in_the_file_is_refused_and_not_repeated(key: str) -> None:
    section, name = key.split(".")
    text = refusal(None, **{section: {name: SECRET}})
    assert f"{key}: a secret comes from the environment only" in text
    assert f"STREAM_CALIB__{section.upper()}__{name.upper()}" in text
    assert SECRET not in text


def test_secret_is_in_no_error_and_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA__SASL_PASSWORD", "KAFKA__SSL_PASSWORD", "HTTP__TOKEN"):
        monkeypatch.setenv(f"STREAM_CALIB__{name}", SECRET)
    config = parse()
    assert config.kafka.sasl_password == SecretStr(SECRET)
    texts = [repr(config), str(config), config.model_dump_json(), to_toml(config)]
    texts += [refusal(kafka={"nope": 1}), refusal(http={"port": "x"})]
    monkeypatch.delenv("STREAM_CALIB__KAFKA__SASL_PASSWORD")
    monkeypatch.setenv("STREAM_CALIB__KAFKA__SASL_PASSWORD__X", SECRET)
    texts.append(refusal())
    monkeypatch.setenv("STREAM_CALIB__KAFKA", f'{{"sasl_password": "{SECRET}"')
    texts.append(refusal())
    assert [text for text in texts if SECRET in text] == []


@pytest.mark.parametrize("password", ["[x", '{"a": 1}', "12345", "true", "null", "a,b"])
def test_password_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("STREAM_CALIB__KAFKA__SASL_PASSWORD", password)
    assert parse().kafka.sasl_password == SecretStr(password)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "localhost.a.b", "127.0.0.1.a"])
def test_listening_beyond_loopback_needs_a_token(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    text = refusal(http={"host": host})
    assert "token is needed" in text
    assert "STREAM_CALIB__HTTP__TOKEN" in text
    assert parse(http={"host": host, "enabled": False}).http.host == host
    monkeypatch.setenv("STREAM_CALIB__HTTP__TOKEN", SECRET)
    assert parse(http={"host": host}).http.host == host


@pytest.mark.parametrize(
    "token", ["x", " ", "a" * 15, " " * 16, "a" * 16 + " ", "a" * 16 + "\n", "a" * 16 + "\u00e9"]
)
def test_a_token_is_long_and_comes_through_a_header_as_it_is(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("STREAM_CALIB__HTTP__TOKEN", token)
    text = refusal()
    assert "http.token: at least 16 printable ASCII characters are needed" in text
    monkeypatch.setenv("STREAM_CALIB__HTTP__TOKEN", "a" * 16)
    assert parse().http.token == SecretStr("a" * 16)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert parse(http={"host": host}).http.token is None


def test_sasl_is_whole_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sasl = {"security_protocol": "SASL_SSL"}
    assert "sasl_username is needed" in refusal(kafka=sasl)
    text = refusal(kafka=sasl | {"sasl_username": "me"})
    assert "sasl_password is needed" in text
    assert "STREAM_CALIB__KAFKA__SASL_PASSWORD" in text
    monkeypatch.setenv("STREAM_CALIB__KAFKA__SASL_PASSWORD", SECRET)
    assert parse(kafka=sasl | {"sasl_username": "me"}).kafka.sasl_username == "me"
    assert "sasl_mechanism" in refusal(kafka=sasl | {"sasl_mechanism": "MAGIC"})


def test_key_of_a_certificate_needs_the_certificate() -> None:
    assert "ssl_certfile is needed with ssl_keyfile" in refusal(kafka={"ssl_keyfile": "k.pem"})


IN_B: dict[str, Any] = {"base": "B", "symbols": {"A": "C"}, "rates": {"C": "B"}}
STATE_KEYS: dict[str, list[dict[str, Any]]] = {
    "universe": [
        {"symbols": ["B", "A"]},
        {"symbols": ["A", "B", "C"]},
        {"bar": "2s"},
        {"every": 2},
        {"price": "mid"},
        {"return": "simple"},
        {"stale_after": "30s"},
        {"ready_n_eff": 30},
        {"ewma": {"half_life": "31m"}},
        {"ewma": {"window": "2m"}},
        {"ewma": {"winsor": 4.0}},
        {"returns": {"A": "diff"}},
        {"filter": {"enabled": False}},
        {"diurnal": {"enabled": True}},
        {"dcc": {"enabled": False}},
        {"dcc": {"bar": "2m"}},
        {"dcc": {"model": "dcc"}},
        {"dcc": {"likelihood": "composite"}},
        {"dcc": {"leverage": True}},
        {"dcc": {"target": "none"}},
        {"dcc": {"winsor": 0.0}},
        {"dcc": {"vol_half_life_bars": 30.0}},
        {"dcc": {"window_bars": 1000}},
        {"dcc": {"first_fit_bars": 200}},
        {"dcc": {"refit_bars": 0}},
        {"dcc": {"pooled_below_bars": 0}},
        {"drift": {"detector": "none"}},
        {"drift": {"arl0_bars": 1000.0}},
        {"drift": {"arl0": "30d"}},
        {"drift": {"lead": 3.0}},
        {"drift": {"lead_back": 4.0}},
        {"drift": {"give_up_bars": 200}},
        {"drift": {"cool_down_bars": 100}},
        {"currency": IN_B},
        {"currency": IN_B | {"hedged": ["A"]}},
        {"audit": False},
        {"calendar": "us"},
        {"calendars": {"B": "us"}},
        {"name": "v"},
    ],
    "time": [{"lateness": "3s"}, {"max_ahead": "2m"}, {"max_jump": "2h"}, {"max_gap": "2h"}],
    "input": [
        {"schema_registry": "http://a"},
        {"schema_registry": "http://a", "missing_schemas": "reject"},
        {"format": "native"},
        {"rejects_per_second": 5},
        {"aliases": {"X:a": "A"}},
        {"exchanges": {"ticks": "X"}},
    ],
}
OTHER_KEYS: dict[str, list[dict[str, Any]]] = {
    "universe": [{"topics": ["other"]}],
    "time": [{"idle_slack": "9s"}, {"flush_after": "9s"}],
    "input": [
        {"topics": ["other"]},
        {"topics_pattern": "ticks-.*"},
        {"missing_schemas": "reject"},  # without a registry there are none
        {"max_records": 7},
        {"exchanges": {"other": "X"}},
    ],
    "kafka": [{"bootstrap_servers": "b:2"}, {"client_id": "x"}, {"connect_timeout": "1s"}],
    "output": [{"prefix": "x"}],
    "delivery": [
        {"mode": "at_least_once"},
        {"commit_interval": "2s"},
        {"transaction_timeout": "20s"},
        {"give_up_after": "1m"},
        {"watchdog_after": "2m"},
    ],
    "refit": [{"late": "wait"}, {"timeout": "9s"}, {"memory_mb": 512}],
    "snapshots": [
        {"enabled": False},
        {"folder": "/x"},
        {"keep": 2},
        {"replay_cost": "1s"},
        {"url": "memory://x"},
        {"timeout": "1s"},
    ],
    "http": [{"port": 1}, {"enabled": False}],
    "log": [{"level": "debug"}],
    "calendar": [],
}


def test_a_calendar_counts_where_it_is_used() -> None:
    changed = CALENDAR | {"zone": "Europe/London"}
    used = [UNIVERSE | {"calendar": "us"}]
    prints = set()
    for calendar in (CALENDAR, changed):
        config = parse(None, calendar={"us": calendar, "uk": changed}, universe=used)
        prints.add(config.fingerprint(config.universe[0]))
        unused = parse(None, calendar={"us": calendar})
        assert unused.fingerprint(unused.universe[0]) == fingerprint()
    assert len(prints) == 2


def test_names_of_symbols_count_where_they_are_used() -> None:
    other = UNIVERSE | {"name": "v", "symbols": ["C", "D"]}
    config = parse(None, input={"aliases": {"c": "C"}}, universe=[UNIVERSE, other])
    own, others = config.universe
    assert config.fingerprint(own) == fingerprint()
    # what the journal holds of one universe is whole without the other
    assert config.under(config.settings(own)).input.aliases == {}
    assert config.under(config.settings(others)).input.aliases == {"c": "C"}


def test_names_have_to_name_a_symbol_that_has_another_name() -> None:
    assert "aliases names 'Z', which no universe has" in refusal(input={"aliases": {"a": "Z"}})
    text = refusal(input={"aliases": {"B": "A"}})
    assert "aliases names 'B', which is a symbol itself, for 'A'" in text


def test_a_calendar_that_is_not_there_is_named() -> None:
    assert "names 'uk', and there is no [calendar.uk]" in refusal(
        calendar={"us": CALENDAR}, universe=[UNIVERSE | {"calendars": {"A": "uk"}}]
    )
    assert "calendars names 'C'" in refusal(
        calendar={"us": CALENDAR}, universe=[UNIVERSE | {"calendars": {"C": "us"}}]
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base": "C"}, "symbols names 'A', which is in the base C already"),
        ({"rates": {}}, "rates has no symbol for C, in which 'A' is quoted"),
        ({"rates": {"C": "A"}}, "rates names 'A' for C, which is not in B itself"),
        ({"rates": {"C": "1/X"}}, "currency.rates names 'X', which is not among the symbols"),
        ({"symbols": {"X": "C"}}, "currency.symbols names 'X', which is not among the symbols"),
        ({"symbols": {}}, "currency.symbols: must not be empty"),
        ({"hedged": ["B"]}, "hedged names 'B', which has no currency in symbols"),
        ({"base": "a b"}, "currency.base: must be made of letters"),
    ],
)
def test_currencies_have_to_fit_the_symbols(change: dict[str, Any], said: str) -> None:
    assert said in refusal(universe=[UNIVERSE | {"currency": IN_B | change}])


def test_only_log_returns_add_up_across_currencies() -> None:
    text = refusal(universe=[UNIVERSE | {"currency": IN_B, "returns": {"B": "diff"}}])
    assert "currency.rates names 'B', whose return is diff" in text


def test_a_window_of_too_many_bars_is_refused() -> None:
    text = refusal(universe=[UNIVERSE | {"bar": "10ms"}])
    assert "ewma.window 1m holds 6000 bars of 10ms, more than 1000" in text


def test_settings_of_dcc_are_checked() -> None:
    def dcc(**change: Any) -> str:
        return refusal(universe=[UNIVERSE | {"dcc": change}])

    assert "first_fit_bars 300 is more than window_bars 200" in dcc(
        first_fit_bars=300, window_bars=200
    )
    assert "winsor must be 0 for none, or from 2 to 10, not 1" in dcc(winsor=1.0)
    assert "dcc.vol_half_life_bars" in dcc(vol_half_life_bars=5)
    assert "dcc.model" in dcc(model="bekk")
    assert "refit.late" in refusal(refit={"late": "never"})


def fingerprint(section: str = "log", **change: Any) -> str:
    value: Any = [UNIVERSE | change] if section == "universe" else change
    config = parse(None, **{"calendar": {"us": CALENDAR}, section: value})
    return config.fingerprint(config.universe[0])


def test_fingerprint_changes_with_every_setting_that_changes_the_state() -> None:
    prints = [fingerprint(s, **change) for s, changes in STATE_KEYS.items() for change in changes]
    assert len({fingerprint(), *prints}) == len(prints) + 1


def test_fingerprint_changes_with_no_other_setting() -> None:
    for section, changes in OTHER_KEYS.items():
        for change in changes:
            assert fingerprint(section, **change) == fingerprint(), (section, change)


def test_every_setting_was_judged_for_the_fingerprint() -> None:
    judged = {
        f"{section}.{key}"
        for keys in (STATE_KEYS, OTHER_KEYS)
        for section, changes in keys.items()
        for change in changes
        for key in change
    }
    for section, model in Config.model_fields.items():
        fields = getattr(model.annotation, "model_fields", {})
        if section == "universe":
            fields = UniverseConfig.model_fields
        if section in {"kafka", "http", "log", "metrics", "ownership"}:
            continue  # how to reach and to watch it
        names = {f"{section}.{field.alias or name}" for name, field in fields.items()}
        names -= {f"input.schema_registry_{own}" for own in ("username", "password")}  # as above
        assert names <= judged, names - judged


def test_shown_settings_load_to_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAM_CALIB__KAFKA__SASL_PASSWORD", SECRET)
    monkeypatch.setenv("STREAM_CALIB__HTTP__TOKEN", SECRET)
    odd = ["A:é/$", 'quo"te', "back\\slash", "tab\tdel\x7f\x01", "# no comment"]
    config = parse(
        app="me",
        kafka={"bootstrap_servers": ["a:1", "b:2"], "sasl_username": "me"},
        input={"topics": ["t.1", "t.2"]},
        time={"flush_after": "1.5s", "lateness": 1},
        universe=[
            UNIVERSE | {"symbols": odd, "return": "diff", "stale_after": "90s", "topics": ["x"]},
            UNIVERSE
            | {"name": "v", "ready_n_eff": 2.5, "ewma": {"half_life": "1h"}, "calendar": "us"},
        ],
        calendar={"us": CALENDAR},
    )
    path = tmp_path / "shown.toml"
    shown = to_toml(config)
    path.write_text(shown)
    loaded = load_config(path)
    beside = config.snapshots.model_copy(update={"folder": tmp_path / "snapshots"})
    assert loaded == config.model_copy(update={"snapshots": beside})
    path.write_text(to_toml(loaded))
    assert load_config(path) == loaded
    assert SECRET not in shown
    assert '# sasl_password = "**********"' in shown
    assert "sasl_password" not in tomllib.loads(shown)["kafka"]


SHORT = [UNIVERSE | {"bar": "1ms", "ewma": {"half_life": "1s", "window": "5ms"}}]


def test_settings_that_were_written_down_give_the_same_fingerprint() -> None:
    config = parse(universe=[UNIVERSE | {"return": "diff"}, UNIVERSE | {"name": "v"}])
    for universe in config.universe:
        written = json.loads(json.dumps(config.settings(universe)))
        under = parse(time={"lateness": "7s", "flush_after": "1ms"}, universe=SHORT).under(written)
        assert under.fingerprint(under.universe[0]) == config.fingerprint(universe)
        assert under.universe[0].name == universe.name
        assert under.time.flush_after is None
    later = parse(time={"flush_after": "9s"}).under(config.settings(config.universe[0]))
    assert later.time.flush_after == 9_000_000_000


def test_snapshots_lie_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    base = to_toml(parse())
    for text, expected in [("", "snapshots"), ('folder = "x/y"', "x/y"), ('folder = "/z"', "/z")]:
        path.write_text(base.replace("[snapshots]", f"[snapshots]\n{text}"))
        assert load_config(path).snapshots.folder == tmp_path / expected


def test_settings_cannot_be_changed() -> None:
    config = parse()
    with pytest.raises(Exception, match="frozen"):
        config.app = "x"
    assert KafkaConfig() == config.kafka


def test_a_pattern_stands_for_whole_names_of_topics_that_are_not_our_own() -> None:
    config = parse(input={"topics_pattern": "trades-.*|calib.*|__.*"})
    (universe,) = config.universe
    assert config.input.topics is None
    assert config.topics_of(universe) == ()
    assert config.reads(universe, "trades-a")
    assert config.reads(universe, "calibrated")
    for topic in ("ticks", "my-trades-a", "trades", "calib.events", "__consumer_offsets"):
        assert not config.reads(universe, topic)
    both = parse(input={"topics_pattern": "trades-.*", "topics": ["ticks"]})
    assert both.topics_of(universe) == ("ticks",)
    assert both.reads(universe, "trades-a")
    named = parse(input={"topics_pattern": "trades-.*"}, universe=[UNIVERSE | {"topics": ["t"]}])
    assert named.reads(named.universe[0], "t")
    assert not named.reads(named.universe[0], "trades-a")
    # what a journal says is put over the settings of today
    again = config.under(config.settings(universe))
    assert again.reads(again.universe[0], "trades-a")


def test_the_address_of_a_registry_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(input={"schema_registry": f"http://me:{SECRET}@a"})
    assert "schema_registry_username" in said
    assert SECRET not in said
    monkeypatch.setenv("STREAM_CALIB__INPUT__SCHEMA_REGISTRY_PASSWORD", SECRET)
    config = parse(input={"schema_registry": "http://a", "schema_registry_username": "me"})
    (universe,) = config.universe
    assert SECRET not in str(config.settings(universe)) + repr(config)


def test_a_journal_from_before_there_was_a_registry_is_repeated_without() -> None:
    before, now = parse(), parse(input={"schema_registry": "http://a"})
    (universe,) = now.universe
    assert now.under(before.settings(universe)).input.schema_registry is None
    again = now.under(now.settings(universe))
    assert (again.input.schema_registry, again.input.missing_schemas) == ("http://a", "wait")


def test_url_of_snapshots_shows_no_secret_and_has_one_from_the_environment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calib.toml"
    text = '[[universe]]\nname = "u"\nsymbols = ["A", "B"]\n[snapshots]\n'
    path.write_text(f'{text}url = "s3://bucket/path"\n')
    assert load_config(path).snapshots.url == "s3://bucket/path"
    for url in ("ftp://me:pa55@host/x", "ftp://me@host/x", "s3://bucket?key=pa55", "pa55 nonsense"):
        path.write_text(f'{text}url = "{url}"\n')
        with pytest.raises(ConfigError, match=r"snapshots\.url") as caught:
            load_config(path)
        assert "pa55" not in str(caught.value)
    monkeypatch.setenv("STREAM_CALIB__SNAPSHOTS__URL", "ftp://me:pa55@host/x?y=pa55")
    path.write_text(text)
    loaded = load_config(path)
    assert loaded.snapshots.url == "ftp://me:pa55@host/x?y=pa55"
    assert "pa55" not in to_toml(loaded) + repr(loaded) + loaded.model_dump_json()
    assert 'url = "ftp://***@host/x?***"' in to_toml(loaded)


@pytest.mark.parametrize("password", ["pa/55", "pa?55", "pa@55", "/", "?x=/", "pa#55@/?"])
def test_a_password_in_a_url_may_hold_any_sign(password: str) -> None:
    assert without_secrets(f"ftp://me:{password}@host/x?y=1") == "ftp://***@host/x?***"
    assert without_secrets(f"ftp://me:{password}@host/x") == "ftp://***@host/x"


def test_a_url_without_secrets_is_shown_as_it_is() -> None:
    for url in ("s3://bucket/path", "s3://bucket/a@b", "ftp://host:21/x", "file:///a/b"):
        assert without_secrets(url) == url
    assert without_secrets("s3://bucket/a?key=b@c") == "s3://bucket/a?***"


COINS = ["BTC/USDT", "ETH/USDT", "SOL/USDT"]
TWO = [
    {"name": "coins", "symbols": COINS},
    {"name": "more", "symbols": [*COINS, "A,B", "A ~ B"]},
]


def test_pairs_are_of_every_universe_that_has_both() -> None:
    pairs = [["ETH/USDT", "BTC/USDT"], ["A,B", "SOL/USDT"]]
    config = parse(universe=TWO, metrics={"pairs": pairs})
    coins, more = config.universe
    assert config.pairs_of(coins) == [("ETH/USDT", "BTC/USDT")]
    assert config.pairs_of(more) == [("ETH/USDT", "BTC/USDT"), ("A,B", "SOL/USDT")]
    assert parse_config(tomllib.loads(to_toml(config))) == config
    # what is shown of a matrix is no part of it, and symbols of an old journal may be others
    assert config.fingerprint(more) == parse(universe=TWO).fingerprint(more)
    assert config.under(config.settings(coins)).metrics.pairs == ()


def test_pairs_from_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_CALIB__METRICS__PAIRS", '[["A", "B"]]')
    assert parse().metrics.pairs == (("A", "B"),)
    monkeypatch.setenv("STREAM_CALIB__METRICS__PAIRS", "A,B")
    assert "metrics.pairs[0]: must be a list" in refusal()


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ("BTC/USDT,ETH/USDT", "metrics.pairs: must be a list"),
        (["BTC/USDT,ETH/USDT"], "metrics.pairs[0]: must be a list"),
        ([["BTC/USDT"]], "metrics.pairs[0][1]: is missing"),
        ([COINS], "metrics.pairs[0]: must have no more than 2"),
        ([["BTC/USDT", ""]], "metrics.pairs[0][1]: must not be empty"),
        ([["BTC/USDT", 5]], "metrics.pairs[0][1]: must be text"),
        ([["BTC/USDT", "BTC/USDT"]], "metrics.pairs names 'BTC/USDT' as a pair with itself"),
        ([COINS[:2], COINS[1::-1]], "metrics.pairs names 'ETH/USDT' with 'BTC/USDT' twice"),
        ([["BTC/USDT", "X"]], "metrics.pairs names 'BTC/USDT' with 'X', and no universe has both"),
        ([["A ~ B", "A,B"]], "metrics.pairs cannot name a symbol with ' ~ ' in it"),
    ],
)
def test_a_pair_that_cannot_be_watched_is_refused_with_its_key(pairs: object, said: str) -> None:
    assert said in refusal(universe=TWO, metrics={"pairs": pairs})


def test_twenty_pairs_of_a_universe_are_watched_and_no_more() -> None:
    symbols = [f"S{i}" for i in range(22)]
    universe = [{"name": "wide", "symbols": symbols}]
    pairs = [["S0", symbol] for symbol in symbols[1:]]
    assert len(parse(universe=universe, metrics={"pairs": pairs[:20]}).metrics.pairs) == 20
    text = refusal(universe=universe, metrics={"pairs": pairs})
    assert "metrics.pairs names more than 20 pairs of universe 'wide'" in text
