"""What a producer sends in a transaction: how often its end above all.

A request to commit that the client library sends twice can reach the broker late and end the
next transaction in its middle. Brokers tell the two apart by the producer's epoch, which the
library's version of the protocol does not change from one transaction to the next.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import EndTxnRequest


class EndTxnGuard:
    """Counts what a producer sends between ``watch`` and the end of a transaction.

    Parameters
    ----------
    producer
        A transactional producer; its client is watched from now on.
    at
        Called with "flush" for records and "end_txn" for the end, when the request is with the
        network and not yet answered.

    Attributes
    ----------
    ends
        How often the end of the transaction was sent.
    failures
        How many requests were not answered, which the library sends again.
    """

    def __init__(self, producer: Any, at: Callable[[str], None]) -> None:  # noqa: ANN401
        self.ends = 0
        self.failures = 0
        self._begun = False
        self._at = at
        self._client = producer.client
        self._send = producer.client.send
        producer.client.send = self._watched

    @property
    def is_safe(self) -> bool:
        """Tell whether nothing of the last transaction can still be on its way."""
        return not self._begun or (self.ends == 1 and self.failures == 0)

    def watch(self) -> None:
        """Count anew, for a transaction that begins."""
        self._begun, self.ends, self.failures = True, 0, 0

    async def _watched(
        self,
        node_id: int,
        request: Any,  # noqa: ANN401
        *,
        group: int = ConnectionGroup.DEFAULT,
    ) -> Any:  # noqa: ANN401
        try:
            if isinstance(request, EndTxnRequest):
                return await self._end(node_id, request, group)
            if isinstance(request, ProduceRequest):
                # with a connection at hand it is written before anything else gets to run
                await self._client.ready(node_id, group=group)
                asyncio.get_running_loop().call_soon(self._at, "flush")
            return await self._send(node_id, request, group=group)
        except BaseException:
            self.failures += 1
            raise

    async def _end(self, node_id: int, request: Any, group: int) -> Any:  # noqa: ANN401
        self.ends += 1
        # With a connection at hand the client writes the request in the task's first step.
        await self._client.ready(node_id, group=group)
        sending = asyncio.ensure_future(self._send(node_id, request, group=group))
        try:
            await asyncio.sleep(0)
            self._at("end_txn")
            return await sending
        finally:
            sending.cancel()
