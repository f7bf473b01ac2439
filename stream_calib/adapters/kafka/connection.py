"""How a client reaches the broker, how long it may take, and in which words it fails."""

import asyncio
import contextlib
import logging
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedSaslMechanismError,
)

from stream_calib.config import KafkaConfig
from stream_calib.errors import ConfigError, ForbiddenError, TransportError
from stream_calib.values import SECOND_NS

# What a broker forbids: which kind of resource.
FORBIDDEN = {
    TopicAuthorizationFailedError: "topic",
    GroupAuthorizationFailedError: "group",
    TransactionalIdAuthorizationFailed: "transactional id",
    ClusterAuthorizationFailedError: "cluster",
}
STOP_S = 3.0
HANG_UP_S = 1.0

# The library logs every retry; what the user must know reaches them as an error. Whoever wants
# to see more sets the level of this logger.
if (_client_log := logging.getLogger("aiokafka")).level == logging.NOTSET:
    _client_log.setLevel(logging.CRITICAL)


def client_options(config: KafkaConfig) -> dict[str, Any]:
    """Return the keyword arguments that every client of the library takes.

    Raises
    ------
    ConfigError
        An address or a file of the TLS settings cannot be used.
    """
    servers = config.bootstrap_servers
    options: dict[str, Any] = {
        "bootstrap_servers": servers if isinstance(servers, str) else list(servers),
        "client_id": config.client_id,
        "security_protocol": config.security_protocol,
    }
    try:
        collect_hosts(options["bootstrap_servers"])
    except ValueError:
        message = f"kafka.bootstrap_servers: {address(config)!r} is not of the form host:port"
        raise ConfigError(message) from None
    if config.security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(config)
    if config.security_protocol.startswith("SASL"):
        assert config.sasl_password is not None
        options["sasl_mechanism"] = config.sasl_mechanism
        options["sasl_plain_username"] = config.sasl_username
        options["sasl_plain_password"] = config.sasl_password.get_secret_value()
    return options


def address(config: KafkaConfig) -> str:
    """Return the broker's address as the user wrote it."""
    servers = config.bootstrap_servers
    return servers if isinstance(servers, str) else ",".join(servers)


def connect_s(config: KafkaConfig) -> float:
    """Return the seconds that connecting may take."""
    return config.connect_timeout / SECOND_NS


@contextlib.asynccontextmanager
async def within(seconds: float, config: KafkaConfig, doing: str) -> AsyncIterator[None]:
    """Bound what is inside by a deadline and turn its failures into one TransportError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        message = f"Kafka at {address(config)} did not answer within {seconds:g} s while {doing}"
        raise TransportError(message) from error
    except (KafkaError, OSError) as error:
        message = f"Kafka at {address(config)} failed while {doing}: {reason_of(error)}"
        kind = ForbiddenError if type(error) in FORBIDDEN else TransportError
        raise kind(message) from error


async def reachable(config: KafkaConfig) -> dict[str, Any]:
    """Return the arguments for a client, with the first address that answers as Kafka does.

    All are dialled at once. The library's clients dial them one after the other, wait for one
    that is frozen as long as for an answer, and keep to themselves why none can be reached.

    Raises
    ------
    TransportError
        None of them answers.
    """
    options = client_options(config)
    servers = options["bootstrap_servers"]
    servers = servers.split(",") if isinstance(servers, str) else servers
    seconds = connect_s(config) / (2 if len(servers) > 1 else 1)  # half is for what follows
    dialling = {asyncio.ensure_future(_dial(server, options, seconds)) for server in servers}
    reason, waiting = "no answer", dialling
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for server, why in (task.result() for task in done):
                if not why:
                    return options | {"bootstrap_servers": server}
                reason = why
    finally:
        for task in dialling:
            task.cancel()
        await asyncio.wait(dialling)
    raise TransportError(f"Kafka at {address(config)} cannot be reached: {reason}")


async def _dial(server: str, options: dict[str, Any], seconds: float) -> tuple[str, str]:
    """Return the address and why it cannot be reached, "" where it can."""
    ((host, port, _),) = collect_hosts(server)
    wanted = {key: value for key, value in options.items() if key != "bootstrap_servers"}
    connection = AIOKafkaConnection(
        host, port, **wanted, request_timeout_ms=max(1, int(seconds * 1000))
    )
    try:
        await connection.connect()
        reason = ""
    except OSError as error:
        return server, reason_of(error)
    except KafkaConnectionError:
        reason = f"it hangs up, perhaps on security_protocol {options['security_protocol']}"
    except KafkaError as error:
        reason = reason_of(error)
    finally:
        closed = connection.close()
    await asyncio.wait({closed}, timeout=HANG_UP_S)
    return server, reason


async def completes(work: Coroutine[Any, Any, object], seconds: float = STOP_S) -> bool:
    """Tell whether ``work`` ends well in time.

    It runs as a task of its own: when it hangs it is cancelled, and a CancelledError that the
    library raises by itself does not look like one that is meant for us.
    """
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        return False
    return not task.cancelled() and task.exception() is None


def _ssl_context(config: KafkaConfig) -> ssl.SSLContext:
    cafile, certfile, keyfile = config.ssl_cafile, config.ssl_certfile, config.ssl_keyfile
    for key, path in (("cafile", cafile), ("certfile", certfile), ("keyfile", keyfile)):
        try:
            _ = path is None or path.read_bytes()
        except OSError as error:
            message = f"kafka.ssl_{key}: {path} cannot be read ({error.strerror})"
            raise ConfigError(message) from None
    try:
        context = ssl.create_default_context(cafile=cafile)
    except ssl.SSLError:
        raise ConfigError(f"kafka.ssl_cafile: {cafile} holds no certificate") from None
    context.check_hostname = config.ssl_check_hostname
    if certfile is not None:
        # Without any password OpenSSL would ask for one on the terminal.
        password = config.ssl_password.get_secret_value() if config.ssl_password else ""
        try:
            context.load_cert_chain(certfile, keyfile, password)
        except ssl.SSLError:
            key, path = ("keyfile", keyfile) if keyfile else ("certfile", certfile)
            message = (
                f"kafka.ssl_{key}: {path} holds no key that fits the certificate in {certfile} "
                "and opens with the password given"
            )
            raise ConfigError(message) from None
    return context


def reason_of(error: Exception) -> str:
    """Say in a few words what a broker or the way to it has against something."""
    match error:
        case TimeoutError():
            return "no answer"
        case socket.gaierror():
            return "the host name is not known"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({error.verify_message})"
        case ssl.SSLError():
            return f"no TLS connection ({error.reason})"
        case SaslAuthenticationFailed():
            return "it does not accept the user name and password"
        case UnsupportedSaslMechanismError():
            return "it does not offer this sasl_mechanism"
        case KafkaError() if type(error) in FORBIDDEN:
            return f"its ACLs do not let this user do that ({_named(error)})"
        case ConnectionError() if not str(error):
            return "it hangs up"
        case OSError():
            # several addresses of one name come as one text
            numbers = re.findall(r"Errno (\d+)", str(error))
            return os.strerror(int(numbers[-1])) if numbers else str(error)
    return str(error)


def unseen(config: KafkaConfig) -> str:
    """Return what else may be behind a topic that is not there: who may not see it is not told."""
    return "" if config.security_protocol == "PLAINTEXT" else ", or this user may not see it"


def _named(error: Exception) -> str:
    # the library gives a name, several, or none
    names: list[str] = []
    for given in error.args:
        names += [given] if isinstance(given, str) else map(str, given)
    return " ".join([FORBIDDEN[type(error)], *sorted(names)])
