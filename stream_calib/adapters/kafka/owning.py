"""The workers of one journal as a consumer group: who was given a partition may own its universe.

The group hands out, transactions enforce: a worker that has been replaced and does not know it
yet is fenced at its next commit, whatever it believes.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest

from stream_calib.adapters.kafka.connection import (
    address,
    client_options,
    completes,
    connect_s,
    reason_of,
    within,
)
from stream_calib.adapters.kafka.instances import Instance
from stream_calib.config import KafkaConfig
from stream_calib.errors import ConfigError, OwnershipError, StreamCalibError, TransportError

KEEP_S = 0.5  # between two signs of life to the client library
CONFIRM_S = 5.0
RETRY_S = 0.1
MEMBERS_AGAIN_S = 0.5
LEAVE_S = 1.0
HEARTBEATS = 5  # in a session
UNIQUE = len("-") + len(str(uuid.UUID(int=0)))


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Who belongs together, over which topic with how many universes, and who this is.

    ``local`` says that what this ``host`` has saved can be read on no other.
    """

    group: str
    topic: str
    universes: int
    host: str
    session_timeout_s: float = 10.0
    local: bool = False


class GroupOwnership(ConsumerRebalanceListener):  # type: ignore[misc]
    """Membership in a consumer group over the journal; implements ``ports.Ownership``.

    Nothing is read through it. Between two assignments everything stays as it was, for most of
    it comes back; what does not is known from the next one.

    Parameters
    ----------
    config
        How to reach the broker.
    settings
        Who belongs together.
    instance
        Where the name of this process comes from. Without a name a restart waits until the
        process before it counts as dead.
    """

    def __init__(self, config: KafkaConfig, settings: GroupSettings, instance: Instance) -> None:
        self._config = config
        self._settings = settings
        self._instance = instance
        self._held: frozenset[int] = frozenset()
        self._generation = -1
        self._member = ""
        self._joined = False
        self._failure: Exception | None = None
        self._change = asyncio.Event()
        self._ended = asyncio.Event()
        self._consumer: Any = None
        self._keeping: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        # the library keeps what an assignor remembers with its class: each member needs its own
        self._assignor: Any = type("Assignor", (StickyPartitionAssignor,), {})

    async def start(self) -> None:
        """Begin to be a member; what is given comes later.

        Raises
        ------
        TransportError
            The broker cannot be reached.
        """
        self._instance.take()
        await self._join()
        self._keeping = asyncio.create_task(self._keep())
        self._keeping.add_done_callback(self._note_end)

    def holds(self, partition: int) -> bool:
        """Tell whether this universe was given to this process, as far as it knows."""
        return partition in self._held

    @property
    def joined(self) -> bool:
        """Whether it is known what was given to whom."""
        return self._joined

    @property
    def spare(self) -> bool:
        """Whether others have been given everything, and this process nothing."""
        return self.joined and not self._held

    def changed(self) -> Coroutine[Any, Any, None]:
        """Return what ends once something was given or taken after this call.

        It raises what makes going on impossible, such as what was raised while noting a change.
        """
        change = self._change

        async def wait() -> None:
            if self._failure is None:
                await change.wait()
            if self._failure is not None:
                raise self._failure

        return wait()

    async def confirm(self, partition: int) -> bool:
        """Ask the coordinator whether this process is a member of the generation that it knows."""
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + CONFIRM_S
        while clock() < deadline_s:
            if self._failure is not None or not self._is_current(partition):
                return False
            async with within(CONFIRM_S, self._config, "asking the group of owners"):
                # the library's own sign of life, sent now instead of some time soon
                known = await self._consumer._coordinator._do_heartbeat()  # noqa: SLF001
            if known:
                return self._is_current(partition)
            await asyncio.sleep(RETRY_S)
        raise TransportError("The group of owners does not answer")

    async def close(self) -> None:
        """Leave within a few seconds; at once where somebody else is there to take over."""
        self._ended.set()
        if self._checking is not None:
            self._checking.cancel()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        if self._consumer is not None:
            await completes(self._hand_over(), LEAVE_S)
        await self._drop()
        self._instance.close()

    def _is_current(self, partition: int) -> bool:
        known = self._consumer is not None and self._coordinator.generation == self._generation
        return known and partition in self._held

    @property
    def _coordinator(self) -> Any:  # noqa: ANN401
        return self._consumer._coordinator  # noqa: SLF001

    async def _join(self) -> None:
        session_ms = int(self._settings.session_timeout_s * 1000)
        options = client_options(self._config)
        options["client_id"] = f"{self._config.client_id}@{self._settings.host}"
        consumer = AIOKafkaConsumer(
            **options,
            group_id=self._settings.group,
            group_instance_id=self._instance.name,
            partition_assignment_strategy=[self._assignor],
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // HEARTBEATS,
            rebalance_timeout_ms=session_ms,
            enable_auto_commit=False,
            auto_offset_reset="latest",
        )
        try:
            async with within(connect_s(self._config), self._config, "joining the owners"):
                await consumer.start()
        except BaseException:
            await completes(consumer.stop())
            raise
        self._consumer = consumer
        consumer.subscribe([self._settings.topic], listener=self)

    async def _keep(self) -> None:
        # The library wants to be asked for records now and then, and tells its troubles that way.
        while True:
            try:
                await self._consumer.getmany(timeout_ms=0)
            except KafkaError as error:
                if not self._member:
                    self._fail(
                        TransportError(
                            f"Kafka at {address(self._config)} does not let this process into "
                            f"group {self._settings.group!r}: {reason_of(error)}"
                        )
                    )
                    return
                await self._drop()
                while self._consumer is None:
                    await asyncio.sleep(KEEP_S)
                    with contextlib.suppress(TransportError):
                        await self._join()
            await asyncio.sleep(KEEP_S)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StreamCalibError):
            self._fail(error)
        elif error is not None:
            self._fail(TransportError(f"The group of owners: {error!r}"))

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._forget()
        if consumer is not None:
            await completes(consumer.stop())

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Note that a new generation is coming; called by the library before it joins again."""
        with self._noting():
            await self._note_revoked()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Note what this process has now; called by the library after it has joined."""
        with self._noting():
            self._note_assigned(list(assigned))

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        # the library would only log what is raised, and all would wait for universes for ever
        try:
            yield
        except Exception as error:
            if self._consumer is not None:  # one that was let go of has nothing to say
                self._fail(error)

    async def _note_revoked(self) -> None:
        forgotten = self._coordinator.member_id == JoinGroupRequest.UNKNOWN_MEMBER_ID
        if not (self._member and forgotten):
            return
        self._assignor.member_assignment = None
        self._forget()  # what was held may be another's by now
        if self._instance.name is not None and await self._is_replaced():
            self._fail(
                OwnershipError(
                    f"Another process goes by the name {self._instance.name!r} in group "
                    f"{self._settings.group!r} (ownership.instance) and has replaced this one"
                )
            )
            await self._ended.wait()  # to join again would replace the other in turn

    def _note_assigned(self, partitions: list[TopicPartition]) -> None:
        is_new = not self._member
        self._consumer.pause(*partitions)
        self._member, self._generation = self._coordinator.member_id, self._coordinator.generation
        self._assignor.on_generation_assignment(self._generation)
        if is_new and self._settings.local:  # who was there before stays
            self._checking = asyncio.create_task(self._check_hosts())
            self._checking.add_done_callback(self._note_end)
        held = {partition for _, partition in partitions}
        unknown = sorted(k for k in held if k >= self._settings.universes)
        if unknown:
            structlog.get_logger().warning(
                "given universes that the settings do not have", partitions=unknown
            )
        self._joined = True
        self._tell(frozenset(held.difference(unknown)))

    def _forget(self) -> None:
        self._joined = False
        self._tell(frozenset())

    def _tell(self, held: frozenset[int]) -> None:
        self._held = held
        self._change.set()
        self._change = asyncio.Event()

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._forget()

    async def _is_replaced(self) -> bool:
        try:
            async with asyncio.timeout(CONFIRM_S):
                members = await self._members_at_last()
        except TimeoutError:
            return False
        # the broker names a member with a name after it, and adds a unique part
        same = [m for m, _ in members if m[:-UNIQUE] == self._instance.name]
        return any(member != self._member for member in same)

    async def _check_hosts(self) -> None:
        # not at once: what was moved to another host is a member for a session after its death
        await asyncio.sleep(1.5 * self._settings.session_timeout_s)
        members = await self._members_at_last()
        hosts = {client.rpartition("@")[2] for _, client in members if "@" in client}
        others = sorted(hosts - {self._settings.host})
        if others:
            self._fail(
                ConfigError(
                    f"snapshots.folder: what is kept there can be read on this host alone, and "
                    f"{others[0]} shares its universes; set snapshots.url to a place that all "
                    "workers can read"
                )
            )

    async def _hand_over(self) -> None:
        # A member with a name is awaited after it has gone, for a session: so it says good-bye
        # when somebody else is there. Alone it does not, and its next start has everything back.
        if self._instance.name is None or not self._member:
            return
        if any(member != self._member for member, _ in await self._members()):
            request = LeaveGroupRequest(self._settings.group, self._member)
            await self._coordinator._send_req(request)  # noqa: SLF001

    async def _members_at_last(self) -> list[tuple[str, str]]:
        while True:
            try:
                return await self._members()
            except StreamCalibError:
                await asyncio.sleep(MEMBERS_AGAIN_S)

    async def _members(self) -> list[tuple[str, str]]:
        # Ids and client ids of all members, as far as they have been given ids.
        if self._consumer is None:
            raise TransportError("The group of owners is not joined now")
        request = DescribeGroupsRequest(groups=[self._settings.group])
        async with within(CONFIRM_S, self._config, "looking at the owners"):
            answer = await self._coordinator._send_req(request)  # noqa: SLF001
            for group in answer.groups:
                if group[0]:  # it has just moved, and who is in it is not known here
                    raise for_code(group[0])
        return [(row[0], row[1]) for group in answer.groups for row in group[5]]
