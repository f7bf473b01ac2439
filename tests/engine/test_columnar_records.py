"""Records of thousands of ticks: what they become, and what the state keeps of them."""

from random import Random

import numpy as np
import pytest

from stream_calib.engine.arrays import original_arrays, read_originals
from stream_calib.engine.intake import Intake
from stream_calib.engine.rejects import Original
from stream_calib.values import Source
from stream_calib.wire.ticks import decode
from stream_calib.wire.ticks.columnar import to_bytes
from tests.engine.driver import SECOND, START, Driver, Value, batch_of, settings, tick

SYMBOLS = ("A", "B")
SOURCE = Source("ticks", 0)


def ticks(seed: int, n: int = 600) -> list[tuple[str, int, float]]:
    random = Random(seed)
    return [
        (random.choice(SYMBOLS), i * SECOND // 20, 100.0 + random.choice([0.0, 0.25, 0.5]))
        for i in range(n)
    ]


def packed(rows: list[tuple[str, int, float]]) -> bytes:
    names, times, prices = zip(*rows, strict=True)
    symbol = [SYMBOLS.index(name) for name in names]
    return to_bytes(SYMBOLS, symbol, START + np.array(times), {"price": prices})


@pytest.mark.parametrize("per_record", [1, 7, 100])
def test_ticks_in_columns_give_the_matrices_of_ticks_alone(per_record: int) -> None:
    rows = ticks(1)
    alone: list[Value] = [tick(name, time / SECOND, price) for name, time, price in rows]
    columns: list[Value] = [
        packed(rows[at : at + per_record]) for at in range(0, len(rows), per_record)
    ]
    config = settings(SYMBOLS)
    one, many = (Driver(config).run({SOURCE: v}, Random(2)) for v in (alone, columns))
    assert one.published("correlations")
    assert many.published("correlations") == one.published("correlations")


def test_the_state_keeps_a_record_once_however_many_ticks_it_holds() -> None:
    value = packed(ticks(3))
    config = settings(SYMBOLS, time__lateness="1h")
    intake = Intake(config, config.universe[0])
    intake.discover(SOURCE)
    intake.admit(decode(batch_of(SOURCE, [value], 0, 1), "auto", {"A": 0, "B": 1}))
    state = intake.state()
    assert len(state["ticks.time_ns"]) == 600
    assert state["ticks.original.bytes"].tobytes() == value
    again = Intake.from_state(config, config.universe[0], state).state()
    assert state.keys() == again.keys()
    assert all(np.array_equal(state[key], again[key], equal_nan=True) for key in state)


def test_originals_come_back_as_they_were() -> None:
    values: list[Value] = [b"a", b"a", None, None, b"", b"", b"b", b"a", b"x" * 100_000] * 2
    originals = [Original.of(value) for value in values]
    assert read_originals(original_arrays(originals)) == originals
