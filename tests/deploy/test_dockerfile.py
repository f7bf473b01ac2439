"""The Dockerfile is what it should be, as far as that shows without an engine that builds it.

``deploy/rehearse.py`` follows it for real.
"""

import fnmatch
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from deploy.rehearse import instructions, words_of
from stream_calib.config import HttpConfig
from tests.cli.command import environment, run_process
from tests.deploy.settings import unknown_variables
from tests.real_parts import ROOT

PATH = ROOT / "deploy" / "Dockerfile"
LINES = list(instructions(PATH.read_text()))
LAST = [i for i, (word, _) in enumerate(LINES) if word == "FROM"][-1]
RUNTIME = LINES[LAST + 1 :]
HEALTHCHECK = ROOT / "deploy" / "healthcheck.py"


def only(word: str) -> str:
    (rest,) = [rest for own, rest in RUNTIME if own == word]
    return rest


def copied() -> list[str]:
    """Return what is copied out of the repository."""
    lists = [rest.split() for word, rest in LINES if word == "COPY" and "--from=" not in rest]
    return [source for words in lists for source in words[:-1] if not source.startswith("--")]


def ignored(path: str) -> bool:
    """Tell whether .dockerignore keeps a path out; the last line that matches decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line.startswith("#") and (
            fnmatch.fnmatch(path, pattern) or path.startswith(f"{pattern}/")
        ):
            out = not line.startswith("!")
    return out


def test_both_stages_have_the_same_pinned_python() -> None:
    (version,) = [rest.partition("=")[2] for word, rest in LINES[:LAST] if rest[:6] == "PYTHON"]
    images = [rest.split(" AS ")[0] for word, rest in LINES if word == "FROM"]
    assert images == ["python:${PYTHON}"] * 2
    assert re.fullmatch(r"3\.\d+\.\d+-slim-\w+", version)
    # constraints.txt was made for this one, and the tests run on it
    assert version.startswith("3.11.")


def test_what_it_copies_is_there_and_not_kept_out() -> None:
    assert copied()
    for path in copied():
        assert (ROOT / path).exists(), path
        assert not ignored(path), path


@pytest.mark.parametrize("path", [".git", ".venv", ".kafka", "tests", "deploy/.env", "snapshots"])
def test_nothing_else_gets_near_the_image(path: str) -> None:
    assert ignored(path)


def test_packages_are_those_of_the_constraints() -> None:
    installs = [line for _, rest in LINES for line in re.findall(r"install[^&]*", rest)]
    of_packages = [line for line in installs if not line.startswith("install -d")]
    assert len(of_packages) == 3
    assert all("-c constraints.txt" in line for line in of_packages)


def test_it_runs_as_nobody_of_this_machine_and_in_exec_form() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", only("USER"))
    assert [word for word, _ in RUNTIME].index("USER") > [word for word, _ in RUNTIME].index("RUN")
    assert words_of(only("ENTRYPOINT")) == ["stream-calib"]
    assert words_of(only("CMD"))[:2] == ["run", "--config"]
    assert only("STOPSIGNAL") == "SIGTERM"  # for which the service listens


def test_its_variables_are_ones_that_are_read() -> None:
    pairs = dict(pair.split("=", 1) for pair in re.split(r"\s+", only("ENV")))
    assert unknown_variables(pairs) == []
    assert not any("TOKEN" in name or "PASSWORD" in name for name in pairs)


def test_all_that_is_written_lies_in_volumes() -> None:
    volumes = words_of(only("VOLUME"))
    pairs = dict(pair.split("=", 1) for pair in re.split(r"\s+", only("ENV")))
    for name in ("NUMBA_CACHE_DIR", "STREAM_CALIB__SNAPSHOTS__FOLDER"):
        assert any(pairs[name].startswith(volume) for volume in volumes), name
    assert only("WORKDIR") in volumes


def test_the_port_is_the_service_s_own() -> None:
    assert only("EXPOSE") == str(HttpConfig().port)


def test_the_version_is_that_of_the_package() -> None:
    (version,) = re.findall(r'image\.version="([^"]+)"', only("LABEL"))
    assert run_process("--version").out == f"stream-calib {version}\n"


class Answering(http.server.BaseHTTPRequestHandler):
    """Is ready for whoever has the token."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Bearer secret"
        self.send_response(200 if known and self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(b'{"ready":true}' if known else b'{"reasons":["no matrix yet"]}')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def check(**variables: str) -> tuple[int, str]:
    """Run the health check of the image with these variables of its section."""
    program, path = words_of(only("HEALTHCHECK").partition(" CMD ")[2])
    assert program == "python"
    (target,) = [rest.split()[1] for word, rest in RUNTIME if word == "COPY" and "deploy/" in rest]
    assert path == target
    named = {f"STREAM_CALIB__HTTP__{name}": value for name, value in variables.items()}
    command = [sys.executable, str(HEALTHCHECK)]
    env = environment() | named
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=60)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_health_check_asks_with_the_token(port: int) -> None:
    everywhere = {"HOST": "0.0.0.0", "PORT": str(port)}
    assert check(TOKEN="secret", **everywhere) == (0, '{"ready":true}\n')
    code, said = check(**everywhere)
    assert (code, said) == (1, '{"reasons":["no matrix yet"]}\n')


def test_the_health_check_fails_where_nobody_answers(port: int) -> None:
    code, said = check(PORT="1")
    assert code == 1
    assert said.startswith("no answer: ")
    assert check(PORT="http")[0] == 1


def test_its_interval_is_longer_than_a_check_may_take() -> None:
    found = dict(re.findall(r"--([a-z-]+)=(\d+)s", only("HEALTHCHECK")))
    assert int(found["timeout"]) < int(found["interval"])
    # compiling, which a foreign cache makes necessary, took 110 s on two busy cores
    assert int(found["start-period"]) > 110
