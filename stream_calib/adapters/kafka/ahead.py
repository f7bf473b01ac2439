"""Where a universe's journal becomes durable first, and its outputs after it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from stream_calib.adapters.kafka.commits import KafkaLog
from stream_calib.adapters.kafka.producing import abandon, send
from stream_calib.adapters.kafka.reading import read_kept
from stream_calib.adapters.kafka.settings import check_output_topics
from stream_calib.ports import JournalRecord
from stream_calib.values import Output, Source


class KafkaWriteAheadLog(KafkaLog):
    """The journal entry first, then the outputs: after a crash the last are written once more.

    Parameters
    ----------
    config
        How to reach the broker.
    settings
        Whose outputs these are, and where they go.
    at
        Called at named points of a commit; a test may end the process there.
    may_own
        Asked before anybody else is fenced.

    Attributes
    ----------
    trim_failures
        How often the journal could not be trimmed.
    """

    write_ahead = True

    async def own(self) -> Sequence[JournalRecord]:
        """Return the journal that is kept, oldest entry first.

        An owner that commits in transactions is fenced. One that does not is found out at its
        next commit.
        """
        await self._throw_away()
        await self._stop_following()
        topics, partition = self._settings.topics, self._settings.partition
        self._checked = await check_output_topics(self._config, topics, partition)
        await abandon(await self._start_producer(transactional_id=self._settings.transactional_id))
        self._at("own")
        entries = await self._read_journal()
        self._producer = await self._start_producer()
        return entries

    async def commit(
        self, outputs: Sequence[Output], entry: Output, positions: Mapping[Source, int]
    ) -> int:
        """Write the entry, then the outputs; return the entry's offset when all are durable.

        Fits come before the entry that names them: they cannot be made again.
        """
        self._check([*outputs, entry])
        fits = [o for o in outputs if o.topic == self._settings.topics["fits"]]
        outputs = [o for o in outputs if o.topic != self._settings.topics["fits"]]
        async with self._doubting("committing"):
            if fits:
                await self._write(fits)
            offset = int((await (await send(self._producer, entry))).offset)
            if offset != self._after:  # only the owner writes here, and leaves no gaps
                await self._yield_to_earlier(entry, offset)
            self._after = offset + 1
            self._at("journal")
            await self._write(outputs)
        self._marker.mark(positions)
        self._at("commit")
        return offset

    async def _yield_to_earlier(self, entry: Output, offset: int) -> None:
        # The first entry to follow another one counts. What a process wrote that does not know of
        # the last entries is passed over by every reader, and none of its outputs was written.
        between = await read_kept(self._config, self._journal, start=self._after)
        previous = dict(entry.headers).get("previous")
        for record in between.records:
            if record.offset < offset and dict(record.headers).get("previous") == previous:
                raise self._fenced()

    async def emit(self, outputs: Sequence[Output]) -> None:
        """Write outputs of an entry that is in the journal already."""
        self._check(outputs)
        async with self._doubting("writing"):
            await self._write(outputs)

    async def _write(self, outputs: Sequence[Output]) -> None:
        acks: list[Any] = []
        try:
            for output in outputs:
                acks.append(await send(self._producer, output))
                if len(acks) == 1:
                    acks[0].add_done_callback(self._tell_first)
            await asyncio.gather(*acks)
        finally:
            for ack in acks:
                ack.cancel()  # of those that are not done nobody asks any more
        self._at("flush")
