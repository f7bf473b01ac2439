"""Every command that goes to Kafka, at a broker that wants a certificate and a password."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.command import Done, is_one_sentence
from tests.cli.forking import Forked, run_forked
from tests.kafka.living import Live
from tests.kafka.test_kafka_security import (
    PASSWORD,
    Certificates,
    certificates,
    secure_bootstrap,
)

__all__ = ["certificates", "secure_bootstrap"]  # fixtures

VARIABLE = "STREAM_CALIB__KAFKA__SASL_PASSWORD"
SETTINGS = """
[kafka]
bootstrap_servers = "{bootstrap}"
security_protocol = "SASL_SSL"
sasl_username = "alice"
ssl_cafile = "{files.authority}"
ssl_certfile = "{files.certificate}"
ssl_keyfile = "{files.key}"
connect_timeout = "5s"
[input]
topics = ["ticks-by-command"]
[output]
prefix = "by-command"
[http]
port = 0
[[universe]]
name = "u"
symbols = ["SIM:0", "SIM:1", "SIM:2"]
bar = "5s"
ready_n_eff = 2
ewma.half_life = "60s"
"""


class Operator:
    """Types commands in a folder with settings; none of them may say the password."""

    def __init__(self, folder: Path, settings: str) -> None:
        self._folder = folder
        (folder / "at_work.toml").write_text(settings)

    def __call__(self, *words: str, password: str = PASSWORD) -> Done:
        done = run_forked(
            *words, "--config", "at_work.toml", cwd=self._folder, env={VARIABLE: password}
        )
        assert PASSWORD not in done.out + done.err
        assert password not in done.out + done.err
        return done

    @contextmanager
    def serving(self) -> Iterator[Live]:
        """Run the service."""
        words = ("run", "--config", "at_work.toml")
        live = Live(Forked(*words, cwd=self._folder, env={VARIABLE: PASSWORD}))
        try:
            yield live
        finally:
            live.close()
        assert not any(PASSWORD in line for line in live.lines)


@pytest.fixture
def operator(secure_bootstrap: str, certificates: Certificates, tmp_path: Path) -> Operator:
    return Operator(tmp_path, SETTINGS.format(bootstrap=secure_bootstrap, files=certificates))


def test_a_day_of_an_operator(operator: Operator, tmp_path: Path) -> None:
    assert "created" in operator("topics", "create").out
    assert operator("feed", "--simulated", "3", "--duration-s", "1200", "--rate", "0").code == 0
    with operator.serving() as service:
        shown = operator("watch", "--from-start", "--count", "1", "--json")
        assert (shown.code, '"universe":"u"' in shown.out.replace(" ", "")) == (0, True)
        assert service.ended(signal.SIGTERM).code == 0
    verified = operator("verify", "--matrices")
    assert verified.code == 0, verified
    assert operator("export", "--out", "all.csv").code == 0
    assert len((tmp_path / "all.csv").read_text().splitlines()) > 50
    assert operator("doctor").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("topics", "create"),
        ("feed", "--simulated", "3"),
        ("run",),
        ("watch", "--count", "1"),
        ("export", "--out", "all.csv"),
        ("verify",),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_a_password_that_is_wrong_is_one_sentence(
    operator: Operator, words: tuple[str, ...]
) -> None:
    done = operator(*words, password="wrong-word")
    assert done.code == 5, done
    if words[0] != "doctor":  # which lists what it has found
        assert is_one_sentence(done.err), done.err
    assert "does not accept the user name and password" in done.out + done.err
