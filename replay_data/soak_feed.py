"""Writes ticks of random walks to a topic, as fast as is asked for, until it is ended.

    python -m replay_data.soak_feed BOOTSTRAP SYMBOLS TICKS_PER_SECOND

Records are put into batches by the library's own fast path, which is ten times what ``feed``
does: the writer shall not be what is measured.
"""

import asyncio
import sys
import time

import numpy as np
from aiokafka import AIOKafkaProducer

TOPIC = "soak-ticks"
TURN_S = 0.05
BATCH_BYTES = 512 * 1024
STEP = 1e-5


async def write(bootstrap: str, n_symbols: int, rate: float) -> None:
    """Write, for ever."""
    random = np.random.default_rng(1)
    own, market = np.full(n_symbols, 100.0), 1.0
    names = [f"SIM:{k}" for k in range(n_symbols)]
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES, max_request_size=2 * BATCH_BYTES
    ) as producer:
        began_s, written = time.monotonic(), 0
        while True:
            due = int(rate * (time.monotonic() - began_s)) - written
            chosen = random.integers(n_symbols, size=due)
            moves = 1.0 + STEP * random.standard_normal(due)
            # of all together: half of what a symbol varies, however many ticks a turn has
            steps = 1.0 + STEP / np.sqrt(n_symbols) * random.standard_normal(due)
            together = market * np.cumprod(steps)
            market = float(together[-1]) if due else market
            now_ns = time.time_ns()
            batch = producer.create_batch()
            for i, k in enumerate(chosen.tolist()):
                own[k] *= moves[i]
                value = b'{"symbol":"%b","time":%d,"price":%.6f}' % (
                    names[k].encode(),
                    now_ns + i,
                    own[k] * together[i],
                )
                if batch.append(key=None, value=value, timestamp=None) is None:
                    await producer.send_batch(batch, TOPIC, partition=0)
                    batch = producer.create_batch()
                    batch.append(key=None, value=value, timestamp=None)
            await producer.send_batch(batch, TOPIC, partition=0)
            written += due
            await asyncio.sleep(TURN_S)


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
