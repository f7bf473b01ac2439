"""What universes are, on the wire: of which symbols and under which settings matrices are."""

import orjson

from stream_calib.values import Description, Output
from stream_calib.wire.cloudevents import JSON_TYPE, headers


def encode_description(description: Description, topic: str, partition: int) -> Output:
    """Turn a description into its record: JSON, keyed by the identity of the symbol list.

    The newest record of a key is what holds, so that the topic can be compacted.
    """
    value = orjson.dumps(
        {
            "schema_version": 1,
            "universe": description.universe,
            "universe_id": description.universe_id,
            "time_ns": str(description.time_ns),
            "symbols": description.symbols,
            "config_fingerprint": description.config_fingerprint,
            "bar_ns": str(description.bar_ns),
            "price_policy": description.price_policy,
            "return_type": description.return_type,
            "returns": description.returns,
            "estimators": description.estimators,
        }
    )
    head = headers(
        "universe",
        f"{description.universe}|universes|{description.config_fingerprint}|{description.time_ns}",
        description.universe,
        description.time_ns,
        JSON_TYPE,
        value,
    )
    return Output(topic, partition, description.universe_id.encode(), value, head)
