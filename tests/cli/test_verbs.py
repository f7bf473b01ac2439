"""The verbs on settings and on Kafka, as far as they come without a broker."""

import socket
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.kafka.broker import free_port
from tests.cli.command import Done, is_one_sentence, run_process
from tests.cli.forking import run_forked

WITH_CONFIG = ("-c", "settings.toml")
SECRET = "hunter2-and-more"


def test_good_settings_are_summed_up(cli: Callable[..., Done]) -> None:
    done = cli("config", "check", *WITH_CONFIG)
    assert (done.code, done.err) == (0, "")
    assert done.out == "settings.toml is good\n  sim: 3 symbols from ticks, bars of 1s\n"


WRONG = [
    ("[kafka]\nnope = 1", "kafka.nope: unknown key"),
    ('[kafka]\nbootstrap_servers = "a:b:c"', "kafka.bootstrap_servers: 'a:b:c' is not of the"),
    (
        '[kafka]\nsecurity_protocol = "SSL"\nssl_cafile = "no.pem"',
        "kafka.ssl_cafile: no.pem cannot be read",
    ),
    ('[input]\nformat = "morse"', "input.format: 'morse' is not one of auto"),
    ("[time]\nlateness = 'soon'", "time.lateness: 'soon' is not a duration"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_wrong_settings_are_named(
    cli: Callable[..., Done], tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f"{text}\n{path.read_text()}")
    done = cli("config", "check", *WITH_CONFIG)
    assert (done.code, done.out) == (3, "")
    assert is_one_sentence(done.err), done.err
    assert said in done.err


@pytest.mark.parametrize(("text", "said"), [WRONG[0], WRONG[2], WRONG[3]])
def test_service_does_not_start_on_wrong_settings(
    cli: Callable[..., Done], tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f"{text}\n{path.read_text()}")
    done = run_forked("run", *WITH_CONFIG, "--http-port", 0, cwd=tmp_path)
    assert (done.code, done.out) == (3, "")
    assert is_one_sentence(done.err), done.err
    assert said in done.err


def test_all_settings_in_force_are_shown_without_secrets(
    cli: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAM_CALIB__HTTP__TOKEN", SECRET)
    monkeypatch.setenv("STREAM_CALIB__HTTP__PORT", "1234")
    done = cli("config", "show", *WITH_CONFIG)
    assert (done.code, done.err) == (0, "")
    assert SECRET not in done.out
    assert '# token = "**********"' in done.out
    tree = tomllib.loads(done.out)
    assert tree["http"]["port"] == 1234
    assert tree["universe"][0]["ewma"] == {
        "half_life": "1m",
        "window": "1s",
        "winsor": 3.0,
    }
    (tmp_path / "shown.toml").write_text(done.out)
    assert cli("config", "show", "-c", "shown.toml").out == done.out


def test_settings_whose_keys_need_quotes_are_shown_so_that_they_load(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    names = ["XBT/USD", "a.b", 'q"uote', "tab\there", "\x7f", "é"]
    quoted = [*names[:2], 'q\\"uote', "tab\\there", "\\u007f", "é"]
    aliases = "\n".join(f'"{name}" = "K:{k}"' for k, name in enumerate(quoted))
    text = (
        f'[input]\ntopics = ["t"]\n[input.aliases]\n{aliases}\n[[universe]]\nname = "u"\n'
        'symbols = ["K:0", "K:1", "K:2", "K:3", "K:4", "K:5"]\n[universe.returns]\n"K:0" = "diff"\n'
    )
    (tmp_path / "quoted.toml").write_text(text)
    done = cli("config", "show", "-c", "quoted.toml")
    assert (done.code, done.err) == (0, "")
    tree = tomllib.loads(done.out)
    assert tree["input"]["aliases"] == {name: f"K:{k}" for k, name in enumerate(names)}
    assert tree["universe"][0]["returns"] == {"K:0": "diff"}
    (tmp_path / "shown.toml").write_text(done.out)
    assert cli("config", "show", "-c", "shown.toml").out == done.out


def test_warmup_says_how_long_it_took(cli: Callable[..., Done]) -> None:
    done = cli("warmup")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("kernels ready after ")


@pytest.mark.parametrize(
    "words",
    [
        ("run", *WITH_CONFIG, "--http-port", "0"),
        ("topics", "create", *WITH_CONFIG),
        ("watch", *WITH_CONFIG),
        ("watch",),
        ("feed", "ticks.jsonl"),
        ("feed", "--simulated", "3", "--topic", "t"),
        ("demo", "--seconds", "0", "--http-port", "0"),
    ],
)
def test_broker_that_is_not_there_ends_with_5_and_one_sentence(
    cli: Callable[..., Done], tmp_path: Path, words: tuple[str, ...]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    option = "--kafka" if words[0] == "demo" else "--bootstrap"
    done = run_forked(*words, option, address, cwd=tmp_path)
    assert done.code == 5
    assert is_one_sentence(done.err), done.err
    assert f"Kafka at {address} cannot be reached: Connection refused" in done.err


def test_broker_is_taken_from_the_environment_too(cli: Callable[..., Done], tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    env = {"STREAM_CALIB__KAFKA__BOOTSTRAP_SERVERS": address}
    for words in (("watch",), ("feed", "ticks.jsonl")):
        done = run_forked(*words, cwd=tmp_path, env=env)
        assert done.code == 5
        assert f"Kafka at {address} cannot be reached" in done.err


def test_port_in_use_ends_with_7_and_one_sentence(cli: Callable[..., Done], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_process("run", *WITH_CONFIG, "--http-port", port, cwd=tmp_path)
    assert (done.code, done.out) == (7, "")
    assert is_one_sentence(done.err), done.err
    assert f"http.port: 127.0.0.1:{port} is taken" in done.err


def test_address_that_is_not_ours_ends_with_3_and_one_sentence(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    env = {"STREAM_CALIB__HTTP__TOKEN": SECRET}
    done = run_forked("run", *WITH_CONFIG, "--http-host", "192.0.2.1", cwd=tmp_path, env=env)
    assert done.code == 3
    assert is_one_sentence(done.err), done.err
    assert "http.host: cannot listen on 192.0.2.1:9464 (Cannot assign requested" in done.err
    assert SECRET not in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "feed takes either files or --simulated or --exchange"),
        (
            ("ticks.jsonl", "--simulated", "3"),
            "feed takes either files or --simulated or --exchange",
        ),
        (("--simulated", "3"), "needs --topic or --config"),
        (("ticks.jsonl", "--speed", "2", "--rate", "5"), "--speed is the pace of files"),
        (("--simulated", "3", "--topic", "t", "--speed", "2"), "--speed is the pace of files"),
        (("ticks.jsonl", "--speed", "slow"), "--speed slow: give max"),
        (("--exchange", "binance", "--topic", "t"), "needs --symbols and --topic"),
        (("ticks.jsonl", "--repeat"), "--repeat is for --simulated ticks"),
        (("--simulated", "3", "--repeat", "--rate", "0"), "--repeat is for --simulated ticks"),
        (("--simulated", "4", *WITH_CONFIG), "the configuration has only 3 symbols"),
        (("--simulated", "3", "--topic", "t", "--duration-s", "inf"), "duration_s must be"),
    ],
)
def test_feed_says_what_it_lacks(
    cli: Callable[..., Done], words: tuple[str, ...], said: str
) -> None:
    done = cli("feed", *words)
    assert (done.code, done.out) == (4, "")
    assert is_one_sentence(done.err), done.err
    assert said in done.err


def test_missing_file_to_feed_is_one_sentence(cli: Callable[..., Done]) -> None:
    done = cli("feed", "missing.jsonl", "--bootstrap", f"127.0.0.1:{free_port()}")
    assert is_one_sentence(done.err)
    assert done.code in {4, 5}  # whichever is looked at first


def test_internal_error_shows_where_only_when_asked(
    cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> float:
        message = "on purpose"
        raise RuntimeError(message)

    monkeypatch.setattr("stream_calib.cli.run.load_kernels", broken)
    done = cli("warmup")
    assert done.code == 1
    assert is_one_sentence(done.err)
    assert "internal error: RuntimeError: on purpose (STREAM_CALIB_TRACEBACK=1" in done.err
    monkeypatch.setenv("STREAM_CALIB_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="on purpose"):
        cli("warmup")
