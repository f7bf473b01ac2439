"""The table of `make chaos` says yes of what held only, and counts nothing twice."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.kafka.chaos_table import HEAD, has_failed, main, table
from tests.real_parts import ROOT

HOOKS = """
from tests.kafka.chaos_figures import pytest_runtest_makereport, pytest_runtest_setup
"""
TESTS = """
import os
import threading
import pytest
from tests.kafka.chaos_figures import note

pytestmark = pytest.mark.chaos

def tell(name, seed, **figures):
    note({"name": name, "seed": seed} | figures)

def test_held():
    tell("kills", 7, kills=2, recovery_s=[1.0])
    tell("kills", 7, kills=3, recovery_s=[2.0])

def test_held_and_told_nothing():
    pass

def test_fails_after_it_told():
    tell("storm 1", 7, kills=1)
    assert False

def test_fails_in_a_thread():
    def fail():
        raise AssertionError("of a supervisor")
    tell("storm 2", 7, kills=1)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()

@pytest.fixture
def broken():
    yield
    assert False

def test_fails_when_all_is_given_back(broken):
    tell("storm 3", 7, kills=1)

def test_is_skipped():
    pytest.skip("no broker")

@pytest.fixture
def absent():
    assert False

def test_cannot_begin(absent):
    pass

def test_takes_everything_along():
    tell("storm 4", 7, kills=1)
    os._exit(42)
"""


def line(test: str, run: str = "r", outcome: str = "passed", **figures: object) -> str:
    seed = {"test": test, "run": run, "seed": 7, "outcome": outcome}
    return orjson.dumps(seed | figures).decode()


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_runs_of_one_name_are_added_up() -> None:
    lines = [
        line("a", name="storm 0", kills=2, recovery_s=[1.0, 3.0], caught_up_s=4.0,
             faults={"service killed": 2, "leader moved": 5}),
        line("b", name="storm 1", kills=1, recovery_s=[2.0], caught_up_s=9.0,
             faults={"service killed": 1, "node killed": 1}),
        line("c", name="kills on one node", kills=108, recovery_s=[0.5]),
    ]  # fmt: skip
    head, _, storm, kills, everything = table(lines)
    assert head == HEAD[0]
    assert storm == (
        "| storm | 3 | 5 leader moved, 1 node killed | yes | 3: 2.00 / 2.98 s |  |  | 9.0 s |"
    )
    assert kills == "| kills on one node | 108 |  | yes | 1: 0.50 / 0.50 s |  |  |  |"
    assert everything == "| all | 111 | 6 | yes | 4 | 0 |  | 9.0 s |"
    assert not has_failed(lines)


@pytest.mark.parametrize(
    ("outcome", "said"), [("failed", "**no**, 1 failed"), ("begun", "**no**, 1 did not end")]
)
def test_one_run_that_did_not_hold_is_in_its_row_and_in_the_last_one(
    outcome: str, said: str
) -> None:
    lines = [
        line("a", name="storm 0", kills=1),
        line("b", outcome=outcome, name="storm 1", kills=1),
        line("c", name="kills", kills=1),
    ]
    storm, kills, everything = table(lines)[2:]
    assert [cells(row)[3] for row in (storm, kills, everything)] == [said, "yes", said]
    assert has_failed(lines)


def test_failed_test_without_figures_has_a_row_with_its_name() -> None:
    lines = [
        line("tests/kafka/test_a.py::test_x", outcome="failed"),
        line("tests/kafka/test_a.py::test_y"),
        line("tests/kafka/test_a.py::test_z", outcome="skipped"),
    ]
    rows = [cells(row) for row in table(lines)[2:]]
    assert [row[0] for row in rows] == ["test_a.py::test_x", "tests without figures", "all"]
    said = ["**no**, 1 failed", "1 yes, 1 skipped", "**no**, 1 failed, 1 skipped"]
    assert [row[3] for row in rows] == said


def test_takeovers_have_a_column_and_those_of_two_kinds_two_rows() -> None:
    lines = [
        line("a", name="warm only", kills=2, takeover_s={"warm": [2.0, 4.0]}),
        line("b", name="both", kills=5, recovery_s=[9.0], restarts=1, ends={"-9": 5},
             takeover_s={"warm": [1.0], "cold": [3.0, 3.0]}),
    ]  # fmt: skip
    assert table(lines)[2:] == [
        "| warm only | 2 |  | yes |  | 2: 3.00 / 3.98 s |  |  |",
        "| both | 5 |  | yes | 1: 9.00 / 9.00 s |  | 1 started over within |  |",
        "| both: warm |  |  |  |  | 1: 1.00 / 1.00 s |  |  |",
        "| both: cold |  |  |  |  | 2: 3.00 / 3.00 s |  |  |",
        "| all | 7 | 0 | yes | 1 | 5 | 1 started over within |  |",
    ]


def test_what_ended_by_itself_is_said_with_its_code() -> None:
    lines = [
        line("a", name="storm 0", kills=3, ends={"-9": 3, "5": 1, "10": 2}, restarts=4),
        line("b", name="storm 1", ends={"5": 1}),
    ]
    assert cells(table(lines)[2])[6] == "2 with 5, 2 with 10, 4 started over within"


def test_second_run_of_a_test_counts_instead_of_the_first() -> None:
    lines = [
        line("a", "one", name="kills", kills=3),
        line("a", "one", name="kills", kills=4),
        line("b", "one", "failed", name="storm", kills=1),
        line("b", "two", name="storm", kills=1),
        line("a", "two", "begun"),
        line("a", "two", name="kills", kills=5),
        line("a", "two", name="kills", kills=6),
    ]
    kills, storm, everything, left_out = table(lines)[2:]
    assert [cells(row)[1] for row in (kills, storm, everything)] == ["11", "1", "12"]
    assert left_out == "\nEarlier runs of these tests, left out: 2, failed: 1."


def test_failures_of_a_run_reach_the_table_at_whatever_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conftest.py").write_text(HOOKS)
    (tmp_path / "test_them.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n    chaos: x\nfilterwarnings = error\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    figures = tmp_path / "build" / "chaos.jsonl"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    env = dict(os.environ) | {"CHAOS_FIGURES": str(figures), "CHAOS_SEED": "7"}
    done = subprocess.run(
        [*words, "-p", "no:hypothesispytest", "test_them.py"],
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 42, done.stdout  # of the last test
    monkeypatch.setattr(sys, "argv", ["chaos_table", str(figures)])
    assert main() == 1
    rows = [cells(row) for row in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("kills", "5", "yes"),
        ("storm", "3", "**no**, 3 failed"),
        ("test_them.py::test_cannot_begin", "0", "**no**, 1 failed"),
        ("test_them.py::test_takes_everything_along", "0", "**no**, 1 did not end"),
        ("tests without figures", "0", "1 yes, 1 skipped"),
        ("all", "8", "**no**, 4 failed, 1 did not end, 1 skipped"),
    ]


def test_no_figures_at_all_are_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos_table", str(tmp_path / "none")])
    assert main() == 1
    assert "no test left any figures" in capsys.readouterr().err
