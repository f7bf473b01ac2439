"""The shape of the repository: limits and names that no other tool checks."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real_parts import ROOT

PACKAGE = ROOT / "stream_calib"
MODULES = sorted(PACKAGE.rglob("*.py"))

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
# Names that say nothing about what is inside.
EMPTY_NAMES = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
# Folders of some machine; inside a web address or a longer path they mean something else.
MACHINE_PATH = re.compile(r"(?<![\w.~}])/(?:home|root|Users|work)/\w")
# Lock and settings files that write down where a package came from.
ORIGIN_FILES = re.compile(
    r"(^|/)(\.npmrc|\.pypirc|\.yarnrc.*|pip\.conf|settings\.xml|.*\.lock|package-lock\.json)$"
)
ORIGIN_TEXT = re.compile(
    r"index[-_]url|find[-_]links|trusted[-_]host|<repositor(y|ies)>|[\"']resolved[\"']\s*:"
)


def test_there_are_modules_to_judge() -> None:
    assert MODULES


def test_no_file_is_too_long() -> None:
    lengths = {_name(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: n for name, n in lengths.items() if n > FILE_LINES_MAX} == {}


def test_no_function_is_too_long() -> None:
    lengths = {
        f"{_name(path)}:{function.lineno} {function.name}": _lines_of_code(function)
        for path in MODULES
        for function in _functions(path)
    }
    assert {name: n for name, n in lengths.items() if n > FUNCTION_LINES_MAX} == {}


def test_no_module_has_an_empty_name() -> None:
    parts = {path: {*path.relative_to(PACKAGE).with_suffix("").parts} for path in MODULES}
    assert [_name(path) for path, names in parts.items() if names & EMPTY_NAMES] == []


def test_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    places = [path.relative_to(PACKAGE) for path in MODULES if path.name != "__init__.py"]
    assert [str(place) for place in places if not _is_named(place, text)] == []


def test_no_file_holds_a_path_of_some_machine() -> None:
    assert list(_lines_matching(MACHINE_PATH)) == []


def test_no_file_records_where_packages_are_downloaded_from() -> None:
    assert [name for name in map(_name, _project_files()) if ORIGIN_FILES.search(name)] == []
    assert list(_lines_matching(ORIGIN_TEXT)) == []


def test_every_program_that_tests_ask_for_is_installed_before_they_run() -> None:
    asked = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"require_binary\(\"([\w.-]+)\"\)", path.read_text())
    }
    needed = set(re.findall(r"^need (\S+) ", (ROOT / ".ci" / "run").read_text(), re.M))
    assert asked
    assert asked - needed == set()


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    # The docstring is not counted: nobody shall save on it.
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def _is_named(place: Path, text: str) -> bool:
    # kernels/ewma.py counts as named by "kernels/ewma"; a file at the top by its full name.
    name = place.as_posix()
    wanted = name.removesuffix(".py") if "/" in name else name
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text) is not None


def _project_files() -> list[Path]:
    # What git tracks or would track; without git (an unpacked archive) there is nothing to judge.
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git repository")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def _lines_matching(pattern: re.Pattern[str]) -> Iterator[str]:
    for path in _project_files():
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue  # not text
        for number, line in enumerate(lines, start=1):
            if pattern.search(line):
                yield f"{_name(path)}:{number} {line.strip()[:80]}"
