"""The dashboards against Grafana's published schema, as the classes of its own SDK have it.

The SDK decodes without judging: it keeps any value, and drops keys that it does not know. So what
it read is written again, where nothing may be missing, and held against the types of its classes.
"""

import enum
import json
import math
import re
import types
import typing
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.dashboards import DASHBOARDS

with warnings.catch_warnings():
    # the SDK would rather have the second model; the classic one is what every version provisions
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.cog.runtime import UnknownDataquery
    from grafana_foundation_sdk.models.dashboard import Dashboard

register_default_plugins()
each_board = pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board["uid"])


def again(decoded: Any) -> Any:
    """Return what the SDK writes of what it has read."""
    return json.loads(JSONEncoder().encode(decoded))


def lost(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of what is not in ``theirs``, which may have more keys."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from lost(value, theirs[key], f"{path}.{key}")
            else:
                yield f"{path}.{key} is not known"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{path}[{i}]")
    elif ours != theirs:
        yield f"{path} became {theirs!r}"


def wrong(value: Any, hint: Any, path: str = "") -> Iterator[str]:
    """Yield what is of another type than the classes of the SDK say."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, dict) and hasattr(hint, "from_json"):  # the links of panels stay as read
        yield from lost(value, again(hint.from_json(value)), path)
        yield from wrong(hint.from_json(value), hint, path)
    elif hasattr(value, "to_json"):
        if isinstance(value, UnknownDataquery):
            yield f"{path} is a query of an unknown kind"
        for name, own in typing.get_type_hints(type(value)).items():
            if hasattr(value, name):
                yield from wrong(getattr(value, name), own, f"{path}.{name}")
    elif origin in {typing.Union, types.UnionType}:
        faults = [list(wrong(value, choice, path)) for choice in choices]
        if all(faults):  # what is told is of the choice that fits the furthest
            yield from max(faults, key=lambda found: min(len(one.split(" ")[0]) for one in found))
    elif origin is list and isinstance(value, list):
        for i, item in enumerate(value):
            yield from wrong(item, choices[0], f"{path}[{i}]")
    elif origin is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from wrong(item, choices[1], f"{path}[{key}]")
    elif origin is typing.Literal or (isinstance(hint, type) and issubclass(hint, enum.Enum)):
        known = choices or [one.value for one in hint]
        if value not in known:
            yield f"{path} is {value!r}, not one of {known}"
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            yield f"{path} is {value!r}, not a number"
    elif hint not in {object, Any} and (
        not isinstance(value, origin or hint) or (hint is int and isinstance(value, bool))
    ):
        yield f"{path} is {value!r}, not {hint}"


@each_board
def test_the_sdk_loses_nothing_of_a_dashboard(board: dict[str, Any]) -> None:
    assert list(lost(board, again(Dashboard.from_json(board)))) == []


@each_board
def test_every_value_is_of_its_type(board: dict[str, Any]) -> None:
    assert list(wrong(Dashboard.from_json(board), Dashboard)) == []


def changed(board: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the dashboard with one value changed."""
    board = json.loads(json.dumps(board))
    *steps, last = (int(word) if word.isdigit() else word for word in path.split("."))
    place: Any = board
    for step in steps:
        place = place[step]
    place[last] = value
    return board


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("colour", "blue"),
        ("panels.1.kind", "stat"),
        ("panels.1.options.textmode", "auto"),
        ("panels.1.targets.0.expression", "up"),
        ("panels.9.fieldConfig.defaults.custom.drawstyle", "bars"),
        ("annotations.list.0.target.query", "up"),
    ],
)
def test_a_key_that_grafana_does_not_know_is_found(path: str, value: Any) -> None:
    board = changed(DASHBOARDS[0], path, value)
    (found,) = lost(board, again(Dashboard.from_json(board)))
    expected = re.sub(r"\.(\d+)", r"[\1]", path)
    assert found == f".{expected} is not known"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("title", 3),
        ("schemaVersion", "42"),
        ("graphTooltip", 7),
        ("links.0.type", "dashboard"),
        ("panels.1.options.colorMode", "values"),
        ("panels.1.gridPos.w", "3"),
        ("panels.1.targets.0.format", "timeseries"),
        ("panels.1.fieldConfig.defaults.thresholds.mode", "relative"),
        ("panels.9.fieldConfig.defaults.custom.drawStyle", "bar"),
        ("panels.9.fieldConfig.defaults.color.mode", "shade"),
        ("templating.list.1.type", "queries"),
        ("annotations.list.0.enable", "yes"),
    ],
)
def test_a_value_that_grafana_does_not_take_is_found(path: str, value: Any) -> None:
    board = changed(DASHBOARDS[0], path, value)
    assert len(list(wrong(Dashboard.from_json(board), Dashboard))) == 1
