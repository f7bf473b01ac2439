"""``config check`` and ``config show``."""

import tomllib
from typing import Any

import typer
from rich.console import Console

from stream_calib.cli.options import ConfigFile

app = typer.Typer(help="Check and show the settings.", no_args_is_help=True)


@app.command()
def check(config: ConfigFile) -> None:
    """Check a configuration; exit 3 and name the key if it cannot be used."""
    from stream_calib.config import load_config
    from stream_calib.wire.ticks import check_format

    settings = load_config(config)
    check_format(settings.input.format)
    names = ", ".join(f"{u.name} ({len(u.symbols)} symbols)" for u in settings.universe)
    print(f"{config}: good; universes: {names}")


@app.command()
def show(config: ConfigFile) -> None:
    """Print all settings in force as TOML, secrets masked."""
    from stream_calib.config import load_config

    settings = load_config(config).model_dump(mode="json", by_alias=True, exclude_none=True)
    text = _toml(settings)
    tomllib.loads(text)
    Console(soft_wrap=True, highlight=False).print(text, markup=False, end="")


def _toml(tree: dict[str, Any], path: str = "") -> str:
    plain = {k: v for k, v in tree.items() if not _is_table(v)}
    lines = [f"{key} = {_value(value)}" for key, value in plain.items()]
    text = "\n".join(lines) + "\n" if lines else ""
    for key, value in tree.items():
        if not _is_table(value):
            continue
        name = f"{path}{key}"
        for table in value if isinstance(value, list) else [value]:
            head = f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
            text += f"\n{head}\n{_toml(table, f'{name}.')}"
    return text


def _is_table(value: object) -> bool:
    is_list = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    return isinstance(value, dict) or is_list


def _value(value: object) -> str:
    import orjson

    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return orjson.dumps(value).decode()  # TOML's strings, numbers and booleans are JSON's
