"""A broker that lets nobody do what is not allowed, and the rights that deploy/kafka lists."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr

from deploy.kafka.broker import BRIEF, HOST, LocalBroker, free_port
from stream_calib.config import KafkaConfig
from tests.kafka.listeners import Listener, settings_of
from tests.real_parts import ROOT

LISTED: Mapping[str, Sequence[Sequence[str]]] = json.loads(
    (ROOT / "deploy" / "kafka" / "acls.json").read_text(encoding="utf-8")
)
PASSWORD = "let-me-in"
KINDS = {"topic": 2, "group": 3, "cluster": 4, "transactional-id": 5}
OPERATIONS = {
    "Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Alter": 7, "Describe": 8,
    "ClusterAction": 9, "DescribeConfigs": 10, "AlterConfigs": 11, "IdempotentWrite": 12,
}  # fmt: skip
LITERAL, ALLOW = 3, 3
SHOWN_S = 60.0


class Right(NamedTuple):
    """What somebody may do."""

    kind: str
    name: str
    operation: str


class Guarded(NamedTuple):
    """Addresses of a broker: one where everything is allowed, one for those with a password."""

    open: str
    checked: str

    def config(self, role: str, **more: Any) -> KafkaConfig:
        """Return how somebody of this role reaches the broker."""
        settings = {
            "bootstrap_servers": self.checked,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_username": role,
            "sasl_password": SecretStr(PASSWORD),
        }
        return KafkaConfig.model_validate(settings | more)


@contextlib.contextmanager
def guarded_broker(folder: Path, roles: Sequence[str]) -> Iterator[Guarded]:
    """Start a broker with Kafka's own authorizer; whoever uses its other listener may do all."""
    plain, checked = free_port(), free_port()
    users = " ".join(f'user_{role}="{PASSWORD}"' for role in roles)
    settings = settings_of(
        {"PLAINTEXT": Listener(plain), "CHECKED": Listener(checked, "SASL_PLAINTEXT")}
    ) | {
        "listener.name.checked.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.checked.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": "User:ANONYMOUS",
    }
    with LocalBroker(folder, plain, settings, BRIEF) as broker:
        yield Guarded(broker.bootstrap, f"{HOST}:{checked}")


def rights_of(role: str, **names: str) -> list[Right]:
    """Return the rights that are listed for a role, with the names of this installation."""
    return [
        Right(kind, name.format(**names), operation) for kind, name, operation, _ in LISTED[role]
    ]


@contextlib.asynccontextmanager
async def administrator(guarded: Guarded) -> AsyncIterator[Any]:
    """Connect somebody who may do everything."""
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=guarded.open)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def allow(guarded: Guarded, role: str, rights: Sequence[Right]) -> None:
    """Give rights to a role."""
    from aiokafka.protocol.admin import CreateAclsRequest

    async with administrator(guarded) as admin:
        for kind, name, operation in rights:
            words = (KINDS[kind], name, LITERAL, f"User:{role}", "*", OPERATIONS[operation], ALLOW)
            answer = await admin._send_request(CreateAclsRequest(*words))
            assert not answer.creation_responses[0][0], answer
        await _until_shown(admin, role, rights, there=True)


async def forbid(guarded: Guarded, role: str, rights: Sequence[Right]) -> None:
    """Take rights from a role."""
    from aiokafka.protocol.admin import DeleteAclsRequest

    async with administrator(guarded) as admin:
        for kind, name, operation in rights:
            words = (KINDS[kind], name, LITERAL, f"User:{role}", "*", OPERATIONS[operation], ALLOW)
            await admin._send_request(DeleteAclsRequest(*words))
        await _until_shown(admin, role, rights, there=False)


async def _until_shown(admin: Any, role: str, rights: Sequence[Right], *, there: bool) -> None:
    from aiokafka.protocol.admin import DescribeAclsRequest

    any_one = 1
    async with asyncio.timeout(SHOWN_S):
        while True:
            words = (any_one, None, any_one, f"User:{role}", None, any_one, any_one)
            answer = await admin._send_request(DescribeAclsRequest(*words))
            known = {
                (kind, name, acl[2]) for kind, name, _, acls in answer.resources for acl in acls
            }
            wanted = {(KINDS[r.kind], r.name, OPERATIONS[r.operation]) for r in rights}
            if (wanted <= known) if there else not (wanted & known):
                return
            await asyncio.sleep(0.02)
