"""Calibrated models on the wire, for people and programs that watch them."""

import orjson

from stream_calib.values import Calibration, Output
from stream_calib.wire.cloudevents import JSON_TYPE, headers


def encode_calibration(calibration: Calibration, topic: str, partition: int) -> Output:
    """Turn a calibration into its record: JSON, keyed by universe and model version.

    A number that is not known is null.
    """
    value = orjson.dumps(
        {
            "schema_version": 1,
            "universe": calibration.universe,
            "model": calibration.model,
            "model_version": calibration.model_version,
            "time_ns": str(calibration.time_ns),
            **calibration.details,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    key = f"{calibration.universe}|{calibration.model_version}"
    head = headers(
        "calibration",
        f"{calibration.universe}|calibrations|{calibration.model_version}",
        calibration.universe,
        calibration.time_ns,
        JSON_TYPE,
        value,
    )
    return Output(topic, partition, key.encode(), value, head)
