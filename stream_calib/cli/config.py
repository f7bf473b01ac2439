"""``config check`` and ``config show``."""

import re
import tomllib
from typing import TYPE_CHECKING, Any

import typer

from stream_calib.cli.options import ConfigFile

if TYPE_CHECKING:
    from stream_calib.config import Config

app = typer.Typer(no_args_is_help=True)


@app.callback()
def config() -> None:
    """Check and show the settings."""


@app.command()
def check(config: ConfigFile) -> None:
    """Check the settings; exit 3 and name the key if they cannot be used."""
    from stream_calib.adapters.kafka import client_options
    from stream_calib.config import format_duration, load_config
    from stream_calib.engine.trading_time import check_calendars
    from stream_calib.wire.ticks import check_format

    settings = load_config(config)
    check_format(settings.input.format)
    check_calendars(settings)
    client_options(settings.kafka)
    print(f"{config} is good")
    for universe in settings.universe:
        names = [*settings.topics_of(universe)]
        if settings.input.topics_pattern is not None and universe.topics is None:
            names.append(f"what matches {settings.input.topics_pattern}")
        topics = ", ".join(names)
        bar = format_duration(universe.bar)
        print(f"  {universe.name}: {len(universe.symbols)} symbols from {topics}, bars of {bar}")


@app.command()
def show(config: ConfigFile) -> None:
    """Print all settings in force as TOML: file, environment, defaults.

    Secrets are masked and commented out, since they come from the environment alone.
    """
    from stream_calib.config import load_config

    text = to_toml(load_config(config))
    tomllib.loads(text)
    print(text, end="")


def to_toml(settings: "Config") -> str:
    """Write settings as TOML that loads to the same settings."""
    from stream_calib.config import ENV_SECRETS

    tree = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    return _table(tree, "", frozenset(ENV_SECRETS))


def _table(tree: dict[str, Any], path: str, secrets: frozenset[str]) -> str:
    text = ""
    for key, value in tree.items():
        if not _is_table(value):
            mark = "# " if f"{path}{key}" in secrets else ""
            text += f"{mark}{_key(key)} = {_value(value)}\n"
    for key, value in tree.items():
        name = f"{path}{_key(key)}"
        for table in value if isinstance(value, list) else [value]:
            if _is_table(value):
                head = f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
                text += f"\n{head}\n{_table(table, f'{name}.', secrets)}"
    return text


def _is_table(value: object) -> bool:
    is_list = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    return isinstance(value, dict) or is_list


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: object) -> str:
    import orjson

    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    # TOML's strings, numbers and booleans are JSON's, but for this control character
    return orjson.dumps(value).decode().replace("\x7f", "\\u007f")
