"""How the tests of `make chaos` ended, one line each, once nothing can fail any more.

The file that ``CHAOS_FIGURES`` names is added to: "begun" before a test, how it ended after its
last fixture was given back, with its figures where it has told some. `tests.kafka.chaos_table`
makes the table.
"""

import os
import uuid
from collections.abc import Generator, Mapping
from pathlib import Path

import orjson
import pytest

FIGURES = "CHAOS_FIGURES"
RUN = uuid.uuid4().hex[:12]

_told: list[dict[str, object]] = []
_outcomes: dict[str, str] = {}


def note(figures: Mapping[str, object]) -> None:
    """Keep the figures of the test that runs until it is known how it ends."""
    _told.append(dict(figures))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Write that a test has begun, for the case that nothing of it is heard any more."""
    _told.clear()
    path = os.environ.get(FIGURES)
    if path and item.get_closest_marker("chaos") is not None:
        _write(path, item, "begun", [{}])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Take in how a phase of a test ended; after its last one, write its lines."""
    report = yield
    _follow(item, report)
    return report


def seed_of(config: pytest.Config) -> int:
    """Return the seed of schedules, from ``CHAOS_SEED`` to repeat another one's."""
    return int(os.environ.get("CHAOS_SEED") or config.getoption("randomly_seed", 0))


def _follow(item: pytest.Item, report: pytest.TestReport) -> None:
    path = os.environ.get(FIGURES)
    if not path or item.get_closest_marker("chaos") is None:
        _told.clear()
        return
    test = item.nodeid
    if report.when == "setup":
        _outcomes[test] = "passed"
    if report.failed or (report.skipped and _outcomes[test] == "passed"):
        _outcomes[test] = report.outcome
    if report.when == "teardown":
        _write(path, item, _outcomes.pop(test), _told or [{}])
        _told.clear()


def _write(path: str, item: pytest.Item, outcome: str, figures: list[dict[str, object]]) -> None:
    known = {"test": item.nodeid, "run": RUN, "seed": seed_of(item.config), "outcome": outcome}
    lines = [orjson.dumps(known | own).decode() + "\n" for own in figures]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("a") as file:
        file.write("".join(lines))
