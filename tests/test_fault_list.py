"""Every fault of the list has a test that exists, or a reason why it has none."""

import ast
import re

import pytest

from tests.real_parts import ROOT

LIST = ROOT / "tests" / "kafka" / "FAULTS.md"
ROW = re.compile(r"\| F(\d+) \| ([^|]+) \| ([^|]*) \| ([^|]+) \|")
TEST = re.compile(r"\b(test_\w+)::(test_\w+)\b")
AS_ANOTHER = re.compile(r"\bas F(\d+)\b")


def rows() -> dict[int, str]:
    """Return what holds each fault."""
    lines = [ROW.fullmatch(line) for line in LIST.read_text().splitlines()]
    return {int(row[1]): row[4] for row in lines if row is not None}


def known_tests() -> set[tuple[str, str]]:
    return {
        (path.stem, node.name)
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_fault_has_one_row_in_order() -> None:
    assert list(rows()) == list(range(1, 74))
    assert len(re.findall(r"^\| F\d+ ", LIST.read_text(), re.MULTILINE)) == 73


def test_every_test_that_is_named_exists() -> None:
    named = {found for held in rows().values() for found in TEST.findall(held)}
    assert named
    assert named - known_tests() == set()


@pytest.mark.parametrize("number", range(1, 74))
def test_fault_is_held_by_a_test_or_said_to_be_missing(number: int) -> None:
    held = rows()[number]
    other = AS_ANOTHER.search(held)
    assert TEST.search(held) or held.startswith("missing") or other
    if other is not None:  # whose row names a test itself
        assert TEST.search(rows()[int(other[1])])
