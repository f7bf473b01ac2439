"""What lets the service in is taken away while it works, and given back."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.kafka.broker import BRIEF, LocalBroker, UnavailableError, free_port
from tests.kafka.guarded import PASSWORD, Guarded, allow, forbid, rights_of
from tests.kafka.listeners import Listener, settings_of
from tests.kafka.living import Live, asked, start
from tests.kafka.proxy import KafkaProxy
from tests.kafka.service import write
from tests.kafka.test_acls import guarded
from tests.kafka.test_faults_process import (
    HalfFed,
    catches_up,
    ends_whole,
    half_fed,
    settings,
)
from tests.kafka.test_kafka_security import Certificates, certificates
from tests.real_parts import missing

__all__ = ["certificates", "guarded"]  # fixtures

AWAY_S = 5.0
STARTS_MOST = 6  # in that time: pauses of .5, 1, 2 and 5 s between them, not several a second
SECRET = "STREAM_CALIB__KAFKA__SASL_PASSWORD"
AS_SERVICE = '''"
security_protocol = "SASL_PLAINTEXT"
sasl_username = "service"'''


class Secured(NamedTuple):
    """A broker of which one address speaks TLS, with a certificate that can be changed."""

    bootstrap: str
    proxy: KafkaProxy
    tls: ssl.SSLContext


@pytest.fixture
async def secured(tmp_path: Path, certificates: Certificates) -> AsyncIterator[Secured]:
    plain, behind, port = free_port(), free_port(), free_port()
    listeners = {"PLAINTEXT": Listener(plain), "BEHIND": Listener(behind, advertised=port)}
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates.certificate, certificates.key)
    try:
        with LocalBroker(tmp_path / "kafka", plain, settings_of(listeners), BRIEF) as broker:
            async with KafkaProxy(port, behind, tls) as proxy:
                yield Secured(broker.bootstrap, proxy, tls)
    except UnavailableError as error:
        missing("STREAM_CALIB_REQUIRE_BROKER", f"no Kafka of our own: {error}")


async def at_work(fed: HalfFed) -> Live:
    """Start the service, and wait until it has done what there is to do."""
    live = await start(fed.victim)
    await catches_up(live, fed.victim)
    return live


async def restarts(url: str) -> int:
    """How often what was in memory has been thrown away, for whatever reason."""
    page = (await asked(url, "/metrics", r"(?s).+"))[0]
    return sum(
        int(float(n)) for n in re.findall(r"(?m)^stream_calib_restarts_total.* (\S+)$", page)
    )


async def stays_away(fed: HalfFed, live: Live, reason: str, *, at_rest: bool = True) -> None:
    """There is more to read: it is told why that is not done, and tried again with pauses.

    ``at_rest`` says that it is told before there is more, too.
    """
    before = await fed.victim.published()
    if at_rest:  # a fetch that was let in may still be under way, and would bring some of it
        await asked(fed.url, "/readyz", reason)
    await write(fed.victim.bootstrap, fed.rest)
    await asked(fed.url, "/readyz", reason)
    first = await restarts(fed.url)
    await asyncio.sleep(AWAY_S)
    assert await restarts(fed.url) - first <= STARTS_MOST
    await asked(fed.url, "/readyz", reason)
    assert await fed.victim.published() == before
    assert live.process.poll() is None


async def goes_on(fed: HalfFed, live: Live) -> None:
    """All is published that would have been, by the same process, and it says nothing more."""
    await catches_up(live, fed.victim)
    await asked(fed.url, "/readyz", r'"ready": ?true')
    done = await ends_whole(live, fed.victim)
    assert PASSWORD not in repr(done.log)


@pytest.mark.parametrize(
    ("kind", "name", "operation"),
    [
        ("topic", "{input}", "Read"),
        pytest.param("topic", "{prefix}.correlations", "Write", marks=pytest.mark.chaos),
        pytest.param("topic", "{prefix}.journal", "Write", marks=pytest.mark.chaos),
        pytest.param("transactional-id", "{prefix}.{universe}", "Write", marks=pytest.mark.chaos),
    ],
)
async def test_f46_a_right_is_lost(
    guarded: Guarded,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chaos_seed: int,
    kind: str,
    name: str,
    operation: str,
) -> None:
    fed = await half_fed(guarded.open, tmp_path, chaos_seed)
    fed.victim.secrets[SECRET] = PASSWORD
    monkeypatch.setenv(SECRET, PASSWORD)  # of the oracle, which takes the same settings
    names = {"input": fed.victim.topics[0], "prefix": fed.victim.prefix}
    rights = rights_of("service", **names, app=fed.victim.prefix, universe="u")
    (lost,) = [
        one
        for one in rights
        if (one.kind, one.operation) == (kind, operation)
        and one.name == name.format(**names, universe="u")
    ]
    await allow(guarded, "service", rights)
    settings(fed.victim, f'{guarded.open}"', guarded.checked + AS_SERVICE)
    live = await at_work(fed)
    await forbid(guarded, "service", [lost])
    await stays_away(fed, live, re.escape(lost.name), at_rest=operation == "Read")
    await allow(guarded, "service", [lost])
    await goes_on(fed, live)


@pytest.mark.chaos
async def test_f46_the_certificate_is_not_trusted_any_more(
    secured: Secured, certificates: Certificates, tmp_path: Path, chaos_seed: int
) -> None:
    fed = await half_fed(secured.bootstrap, tmp_path, chaos_seed)
    trusting = f'"\nsecurity_protocol = "SSL"\nssl_cafile = "{certificates.authority}"'
    settings(fed.victim, f'{secured.bootstrap}"', secured.proxy.bootstrap + trusting)
    live = await at_work(fed)
    secured.tls.load_cert_chain(certificates.other_authority, certificates.other_key)
    assert secured.proxy.hang_up() > 0
    await stays_away(fed, live, "certificate is not trusted")
    secured.tls.load_cert_chain(certificates.certificate, certificates.key)
    await goes_on(fed, live)
