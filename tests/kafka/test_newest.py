"""The newest records of a partition, as they are read back for who looks."""

from stream_calib.adapters.kafka import KafkaSink, read_newest
from stream_calib.config import KafkaConfig
from stream_calib.values import Output
from tests.real_parts import TopicMaker


async def test_the_newest_are_read_as_far_as_their_weight_allows(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    topic = await new_topic("newest")
    config = KafkaConfig(bootstrap_servers=kafka_bootstrap)
    assert await read_newest(config, topic, 0, 100, 1000) == []
    assert await read_newest(config, topic, 7, 100, 1000) == []  # no such partition
    assert await read_newest(config, f"{topic}-x", 0, 100, 1000) == []
    sink = KafkaSink(config)
    await sink.start()
    values = [b"%03d" % k + b"x" * 97 for k in range(200)]
    await sink.publish([Output(topic, 0, b"key", v, (("a", b"b"),)) for v in values])
    await sink.close()

    async def read(n: int, n_bytes: int) -> list[bytes | None]:
        found = await read_newest(config, topic, 0, n, n_bytes)
        assert {(r.topic, r.partition, r.key, *map(tuple, r.headers)) for r in found} <= {
            (topic, 0, b"key", ("a", b"b"))
        }
        return [record.value for record in found]

    assert await read(10, 10**6) == values[-10:]
    assert await read(1000, 10**6) == values
    assert await read(1000, 5000) == values[-50:]  # of 100 bytes each
    assert await read(1000, 10) == values[-16:]  # the first few tell what they weigh
