"""Errors that a broker may answer with, given by the proxy in its place."""

import struct
from typing import Any

from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
)
from aiokafka.protocol.types import Array, Boolean, Bytes, String

from stream_calib.adapters.kafka.identity import WITH_IDS
from tests.kafka.proxy import (
    ADD_PARTITIONS,
    END_TXN,
    FETCH,
    FIND_COORDINATOR,
    HEAD,
    HEARTBEAT,
    INIT_PRODUCER_ID,
    JOIN_GROUP,
    LIST_OFFSETS,
    METADATA,
    OFFSET_COMMIT,
    PRODUCE,
    SYNC_GROUP,
    Exchange,
    Fault,
)

LEADER_NOT_AVAILABLE, NOT_LEADER, REQUEST_TIMED_OUT = 5, 6, 7
COORDINATOR_LOADING, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR = 14, 15, 16
NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND = 19, 20
REBALANCE_IN_PROGRESS = 27
CONCURRENT_TRANSACTIONS = 51
STORAGE_ERROR = 56

# What brokers answer with when they are busy, moving or short of replicas, by kind of request.
PASSING = {
    PRODUCE: (NOT_LEADER, REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS),
    INIT_PRODUCER_ID: (
        COORDINATOR_LOADING,
        COORDINATOR_NOT_AVAILABLE,
        NOT_COORDINATOR,
        CONCURRENT_TRANSACTIONS,
    ),
    ADD_PARTITIONS: (COORDINATOR_LOADING, NOT_COORDINATOR, CONCURRENT_TRANSACTIONS),
    END_TXN: (COORDINATOR_LOADING, NOT_COORDINATOR, CONCURRENT_TRANSACTIONS),
    OFFSET_COMMIT: (COORDINATOR_LOADING, NOT_COORDINATOR, REQUEST_TIMED_OUT),
}
# And to those who read, look for something, or belong to a group.
PASSING_TO_READERS = {
    METADATA: (LEADER_NOT_AVAILABLE,),
    LIST_OFFSETS: (NOT_LEADER, LEADER_NOT_AVAILABLE),
    FETCH: (NOT_LEADER, STORAGE_ERROR),
    FIND_COORDINATOR: (COORDINATOR_NOT_AVAILABLE,),
    HEARTBEAT: (NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE, REBALANCE_IN_PROGRESS),
    JOIN_GROUP: (COORDINATOR_LOADING, NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE),
    SYNC_GROUP: (REBALANCE_IN_PROGRESS, NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE),
}
_REQUESTS: dict[int, Any] = {
    PRODUCE: ProduceRequest,
    INIT_PRODUCER_ID: InitProducerIdRequest,
    ADD_PARTITIONS: AddPartitionsToTxnRequest,
    END_TXN: EndTxnRequest,
    OFFSET_COMMIT: OffsetCommitRequest,
    METADATA: MetadataRequest,
    LIST_OFFSETS: OffsetRequest,
    FETCH: FetchRequest,
    FIND_COORDINATOR: FindCoordinatorRequest,
    HEARTBEAT: HeartbeatRequest,
    JOIN_GROUP: JoinGroupRequest,
    SYNC_GROUP: SyncGroupRequest,
}


def refuse(code: int) -> Fault:
    """Answer with an error; the broker never hears of the request."""

    async def refused(exchange: Exchange) -> None:
        if exchange.api == METADATA:
            await _without_leaders(exchange, code)
        else:
            exchange.reply(_refusal(exchange, code))

    return refused


def deny(code: int) -> Fault:
    """Answer with an error when the broker has done what was asked."""

    async def denied(exchange: Exchange) -> None:
        await exchange.apply()
        exchange.reply(_refusal(exchange, code))

    return denied


async def _without_leaders(exchange: Exchange, code: int) -> None:
    # Nodes and topics are known all the same: it is the partitions that have the error.
    if HEAD.unpack_from(exchange.request)[1] == WITH_IDS:  # of which the one who asks takes none
        await exchange.forward()
        return
    frame = await exchange.apply()
    answer = _kind(exchange).RESPONSE_TYPE.decode(frame[4:])
    answer.topics = [
        (*head, [(code, partition, -1, *rest) for _, partition, _, *rest in partitions])
        for *head, partitions in answer.topics
    ]
    exchange.reply(frame[:4] + answer.encode())


def _kind(exchange: Exchange) -> Any:
    api, version, _ = HEAD.unpack_from(exchange.request)
    return next(kind for kind in _REQUESTS[api]._CLASSES if version == kind.API_VERSION)


def _refusal(exchange: Exchange, code: int) -> bytes:
    kind = _kind(exchange)
    request, schema = kind.decode(exchange.body), kind.RESPONSE_TYPE.SCHEMA
    values: list[Any] = []
    for name, of in zip(schema.names, schema.fields, strict=True):
        if name in {"topics", "errors"}:
            rest = of.array_of.fields[1].array_of.fields[2:]  # after the partition and its code
            values.append(
                [(t, [_row(p, code, rest) for p in parts]) for t, parts in request.topics]
            )
        elif name == "error_code":
            values.append(0 if exchange.api == FETCH else code)  # there it is that of a session
        else:
            values.append(0 if name == "throttle_time_ms" else _nothing(of))
    encoded: bytes = kind.RESPONSE_TYPE(*values).encode()
    return struct.pack(">i", exchange.correlation) + encoded


def _row(asked: Any, code: int, rest: Any) -> tuple[object, ...]:
    partition = asked if isinstance(asked, int) else asked[0]
    return (partition, code, *map(_nothing, rest))


def _nothing(of: Any) -> object:
    if isinstance(of, Array):
        return []
    if isinstance(of, String):
        return ""
    return {Bytes: b"", Boolean: False}.get(of, -1)
