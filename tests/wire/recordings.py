"""Recorded messages of market_data/raw as batches of records."""

import gzip
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson
import zstandard

from stream_calib.values import RecordBatch, Source


def websocket_batch(file: Path) -> RecordBatch:
    """Return all that was received in a recording of cryptofeed's version 3, with its times."""
    values, stamps_ms = [], []
    with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as reader:
        for text in io.TextIOWrapper(reader):
            event = orjson.loads(text)
            if event["t"] == "recv":
                values.append(event["data"].encode())
                stamps_ms.append(int(event["ts"] * 1000))
    return _batch(f"raw-{file.name.partition('.')[0]}", values, stamps_ms)


def kafka_batches(file: Path) -> Iterator[RecordBatch]:
    """Yield what cryptofeed wrote to Kafka, one batch per topic; it kept no times."""
    topics: dict[str, list[bytes]] = {}
    for line in gzip.decompress(file.read_bytes()).splitlines():
        topic, _, value = line.partition(b"\t")
        topics.setdefault(topic.decode(), []).append(value)
    for name, values in topics.items():
        yield _batch(name, values, [-1] * len(values))


def recordings(market_data: Path) -> Mapping[str, list[RecordBatch]]:
    """Return all recordings by name."""
    raw = market_data / "raw"
    files = {
        f"websocket/{file.name.partition('.')[0]}": [websocket_batch(file)]
        for file in sorted((raw / "cryptofeed_v3").glob("*.jsonl.zst"))
    }
    return files | {
        f"kafka/{file.name.partition('.')[0]}": list(kafka_batches(file))
        for file in sorted((raw / "cryptofeed_kafka").glob("*.tsv.gz"))
    }


def _batch(topic: str, values: list[bytes], stamps_ms: list[int]) -> RecordBatch:
    n = len(values)
    return RecordBatch(Source(topic, 0), 0, n, range(n), stamps_ms, values)
