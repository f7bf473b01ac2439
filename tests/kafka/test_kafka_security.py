"""TLS and passwords: what reaches the client, and what a real broker says to it."""

import asyncio
import ssl
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import SecretStr

from deploy.kafka.broker import BRIEF, HOST, LocalBroker, UnavailableError, free_port
from deploy.kafka.jars import java_command
from deploy.kafka.jars import resolve_libs as jars
from stream_calib.adapters.kafka import (
    KafkaSink,
    KafkaSource,
    TopicSpec,
    check_topics,
    client_options,
    ensure_topics,
)
from stream_calib.config import KafkaConfig
from stream_calib.errors import ConfigError, TransportError
from stream_calib.values import Output, Source
from tests.contract.test_record_logs import read_records, values_of
from tests.kafka.commit_log import Universe
from tests.kafka.listeners import Listener, settings_of
from tests.real_parts import missing

PASSWORD = "open-sesame"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class Certificates(NamedTuple):
    """Files of an authority, of a certificate for this host by it, and of its keys."""

    authority: Path
    certificate: Path
    key: Path
    locked_key: Path
    store: Path
    other_authority: Path
    other_key: Path


@pytest.fixture(scope="module")
def certificates(
    tmp_path_factory: pytest.TempPathFactory, require_binary: Callable[[str], Path]
) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    program = require_binary("openssl")

    def openssl(words: str) -> None:
        subprocess.run([program, *words.split()], cwd=folder, capture_output=True, check=True)

    for name in ("ca", "other"):
        openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
            f"-subj /CN={name} -keyout {name}.key -out {name}.pem"
        )
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=host "
        "-keyout host.key -out host.csr"
    )
    (folder / "names").write_text(f"subjectAltName=IP:{HOST}\n")
    openssl("x509 -req -in host.csr -CA ca.pem -CAkey ca.key -days 2 -extfile names -out host.pem")
    openssl(f"pkcs8 -topk8 -in host.key -out locked.key -passout pass:{PASSWORD}")
    store = folder / "store.pem"
    store.write_text((folder / "host.key").read_text() + (folder / "host.pem").read_text())
    names = ("ca.pem", "host.pem", "host.key", "locked.key", "store.pem", "other.pem", "other.key")
    return Certificates(*(folder / name for name in names))


@pytest.fixture(scope="module")
def secure_bootstrap(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[str]:
    """A broker that wants a certificate and a password."""
    plain, secure = free_port(), free_port()
    prefix = "listener.name.secure."
    settings = {
        **settings_of({"PLAINTEXT": Listener(plain), "SECURE": Listener(secure, "SASL_SSL")}),
        prefix + "ssl.keystore.type": "PEM",
        prefix + "ssl.keystore.location": str(certificates.store),
        prefix + "ssl.truststore.type": "PEM",
        prefix + "ssl.truststore.location": str(certificates.authority),
        prefix + "ssl.client.auth": "required",
        prefix + "sasl.enabled.mechanisms": ",".join(MECHANISMS),
        prefix + "plain.sasl.jaas.config": (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'user_alice="{PASSWORD}";'
        ),
    } | {
        f"{prefix}{mechanism.lower()}.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        )
        for mechanism in MECHANISMS[1:]
    }
    try:
        with LocalBroker(tmp_path_factory.mktemp("secure"), plain, settings, BRIEF) as broker:
            alice = f"--bootstrap-server {broker.bootstrap} --entity-type users --entity-name alice"
            for mechanism in MECHANISMS[1:]:
                secret = f"--alter --add-config {mechanism}=[password={PASSWORD}]"
                words = ["kafka.admin.ConfigCommand", *alice.split(), *secret.split()]
                command = java_command(jars(), *BRIEF, *words)
                subprocess.run(command, check=True, capture_output=True)
            yield f"{HOST}:{secure}"
    except UnavailableError as error:
        missing("STREAM_CALIB_REQUIRE_BROKER", f"no Kafka of our own: {error}")


def secure_config(
    certificates: Certificates, /, bootstrap: str = "127.0.0.1:1", **more: Any
) -> KafkaConfig:
    settings = {
        "bootstrap_servers": bootstrap,
        "security_protocol": "SASL_SSL",
        "sasl_username": "alice",
        "sasl_password": SecretStr(PASSWORD),
        "ssl_cafile": certificates.authority,
        "ssl_certfile": certificates.certificate,
        "ssl_keyfile": certificates.key,
    }
    return KafkaConfig.model_validate(settings | more)


def test_plain_options_are_no_more_than_needed() -> None:
    config = KafkaConfig(bootstrap_servers=("a:1", "b:2"), client_id="me")
    assert client_options(config) == {
        "bootstrap_servers": ["a:1", "b:2"],
        "client_id": "me",
        "security_protocol": "PLAINTEXT",
    }
    assert client_options(KafkaConfig())["bootstrap_servers"] == "127.0.0.1:9092"


def test_sasl_options_carry_the_password(certificates: Certificates) -> None:
    config = secure_config(
        certificates, security_protocol="SASL_PLAINTEXT", sasl_mechanism="SCRAM-SHA-512"
    )
    options = client_options(config)
    assert "ssl_context" not in options
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["sasl_plain_username"] == "alice"
    assert options["sasl_plain_password"] == PASSWORD


def test_tls_options_check_the_broker_and_its_name(certificates: Certificates) -> None:
    context = client_options(secure_config(certificates))["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert [found["subject"] for found in context.get_ca_certs()] == [((("commonName", "ca"),),)]
    lax = client_options(secure_config(certificates, ssl_check_hostname=False))["ssl_context"]
    assert lax.verify_mode is ssl.CERT_REQUIRED
    assert not lax.check_hostname


def test_tls_without_files_trusts_what_the_system_trusts() -> None:
    context = client_options(KafkaConfig(security_protocol="SSL"))["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_locked_key_opens_with_its_password_only(certificates: Certificates) -> None:
    locked = certificates._replace(key=certificates.locked_key)
    client_options(secure_config(locked, ssl_password=SecretStr(PASSWORD)))
    for wrong in (SecretStr("wrong"), None):
        with pytest.raises(ConfigError, match=r"^kafka\.ssl_keyfile: .*locked\.key holds no key"):
            client_options(secure_config(locked, ssl_password=wrong))


@pytest.mark.parametrize("key", ["ssl_cafile", "ssl_certfile", "ssl_keyfile"])
def test_file_that_cannot_be_read_is_named_by_its_key(
    certificates: Certificates, tmp_path: Path, key: str
) -> None:
    nowhere = tmp_path / "nowhere.pem"
    changed: dict[str, Any] = {key: nowhere}
    with pytest.raises(ConfigError, match=rf"^kafka\.{key}: {nowhere} cannot be read \(No such"):
        client_options(secure_config(certificates, **changed))


def test_file_that_holds_something_else_is_named_by_its_key(
    certificates: Certificates, tmp_path: Path
) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    with pytest.raises(ConfigError, match=rf"^kafka\.ssl_cafile: {text} holds no certificate"):
        client_options(secure_config(certificates, ssl_cafile=text))
    with pytest.raises(ConfigError, match=rf"^kafka\.ssl_keyfile: {text} holds no key"):
        client_options(secure_config(certificates, ssl_keyfile=text))
    with pytest.raises(ConfigError, match=r"^kafka\.ssl_keyfile: .*other\.key holds no key"):
        client_options(secure_config(certificates, ssl_keyfile=certificates.other_key))
    with pytest.raises(ConfigError, match=rf"^kafka\.ssl_certfile: {text} holds no key"):
        client_options(secure_config(certificates, ssl_certfile=text, ssl_keyfile=None))


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_records_pass_with_certificate_and_password(
    secure_bootstrap: str, certificates: Certificates, mechanism: str
) -> None:
    config = secure_config(certificates, secure_bootstrap, sasl_mechanism=mechanism)
    topic = f"secret-{mechanism}"
    assert await ensure_topics(config, [TopicSpec(topic)]) == [topic]
    sink, source = KafkaSink(config), KafkaSource(config, [topic])
    await sink.publish([Output(topic, 0, b"key", b"value", ())])
    await source.start()
    await source.discover()
    assert values_of(await read_records(source, 1)) == [b"value"]
    assert await source.bounds([Source(topic, 0)]) == {Source(topic, 0): (0, 1)}
    await source.close()
    await sink.close()
    universe = await Universe.create(config)
    ahead = universe.write_ahead_log()
    for log in (universe.log(), ahead):
        number = len(await log.own())
        entry = universe.entry(number)
        await log.commit(universe.outputs(number), entry, {Source(topic, 0): 1})
        await log.close()
    assert ahead.mark_failures == 0
    await universe.assert_whole([0, 1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sasl_password": SecretStr("wrong-word")}, "does not accept the user name and password"),
        (
            {"sasl_password": SecretStr("wrong-word"), "sasl_mechanism": "SCRAM-SHA-256"},
            "does not accept the user name and password",
        ),
        ({"ssl_cafile": "other_authority"}, "its certificate is not trusted"),
        ({"ssl_certfile": None, "ssl_keyfile": None}, "hangs up"),
        ({"security_protocol": "PLAINTEXT"}, "hangs up, perhaps on security_protocol PLAINTEXT"),
        ({"security_protocol": "SASL_PLAINTEXT"}, "hangs up, perhaps on security_protocol SASL_"),
    ],
)
async def test_refusal_is_one_sentence_without_the_password(
    secure_bootstrap: str, certificates: Certificates, change: dict[str, Any], words: str
) -> None:
    change = {
        key: getattr(certificates, value) if value == "other_authority" else value
        for key, value in change.items()
    }
    config = secure_config(certificates, secure_bootstrap, connect_timeout=3_000_000_000, **change)
    for work in (
        KafkaSource(config, ["t"]).start(),
        KafkaSink(config).start(),
        check_topics(config, ["t"]),
    ):
        with pytest.raises(TransportError, match=words) as caught:
            await asyncio.wait_for(work, 10)
        assert str(caught.value).startswith(f"Kafka at {secure_bootstrap} ")
        told = "".join(traceback.format_exception(caught.value)) + repr(config)
        assert PASSWORD not in told
        assert "wrong-word" not in told


async def test_tls_to_a_broker_without_tls_is_refused(
    kafka_bootstrap: str, certificates: Certificates
) -> None:
    config = secure_config(certificates, kafka_bootstrap, connect_timeout=3_000_000_000)
    with pytest.raises(TransportError, match=r"cannot be reached|did not answer"):
        await check_topics(config, ["t"])
