"""One TOML file, the environment, command-line flags; the later wins.

Environment variables are ``STREAM_CALIB__SECTION__KEY``. Secrets come from there alone.
Unknown keys are refused with their path.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from stream_calib.config.sections import ENV_PREFIX, Config
from stream_calib.config.snapshots import without_secrets
from stream_calib.errors import ConfigError

ENV_SECRETS = (
    "kafka.sasl_password",
    "kafka.ssl_password",
    "http.token",
    "input.schema_registry_password",
)


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
    except (RecursionError, ValueError):  # the library has no bound of its own for either
        message = f"{path}: not valid TOML (a number too long, or tables too deep)"
        raise ConfigError(message) from None
    config = parse_config(tree, overrides, origin=str(path))
    folder = Path(path).resolve().parent / (config.snapshots.folder or "snapshots")
    snapshots = config.snapshots.model_copy(update={"folder": folder})
    return config.model_copy(update={"snapshots": snapshots})


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
    kept = tree.get("snapshots")
    url = kept.get("url") if isinstance(kept, Mapping) else None
    if isinstance(url, str) and without_secrets(url) != url:
        variable = f"{ENV_PREFIX}SNAPSHOTS__URL"
        message = f"{origin}: snapshots.url: with credentials it comes from the environment only"
        raise ConfigError(f"{message} ({variable})")
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
    "too_long": "must have no more than {max_length}",
    "too_short": "must not be empty",
    "tuple": "must be a list",
}


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "not UTF-8 text"
