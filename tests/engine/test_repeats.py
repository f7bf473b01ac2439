"""Trades that are sent twice count once, whatever stands between them."""

from random import Random

import pytest

from stream_calib.config import Config
from stream_calib.values import Source
from tests.engine.driver import Driver, Value, settings, tick

SYMBOLS = ("A", "B")
ONE, TWO = Source("ticks", 0), Source("ticks", 1)


def trades(seed: int, n: int = 400) -> list[Value]:
    """Trades with ids, some of one symbol at one time."""
    random = Random(seed)
    values: list[Value] = []
    for i in range(n):
        price = 100.0 + random.choice([0.0, 0.25, 0.5])
        seconds = i // 4 * 0.25  # four at a time
        values.append(tick(random.choice(SYMBOLS), seconds, price, id=i + 1))
    return values


def config() -> Config:
    # every tick is seen by the audit, and two scales tell noise from signal
    ewma = {"half_life": "20s", "window": "5s"}
    return settings(SYMBOLS, universe__ewma=ewma, universe__filter={"enabled": True})


@pytest.mark.parametrize("seed", range(4))
def test_a_second_partition_with_the_same_trades_changes_no_matrix(seed: int) -> None:
    values = trades(seed)
    once = Driver(config()).run({ONE: values}, Random(seed))
    twice = Driver(config()).run({ONE: values, TWO: values}, Random(seed))
    assert twice.published("correlations") == once.published("correlations")
    assert once.counts.get("duplicate", 0) == 0
    # but for the open bar at the end, which is closed by the flush in both
    assert twice.counts["duplicate"] == len(values)


@pytest.mark.parametrize("seed", range(4))
def test_trades_sent_again_in_blocks_change_no_matrix(seed: int) -> None:
    values = trades(seed)
    again = [v for at in range(0, len(values), 4) for v in 2 * values[at : at + 4]]
    once = Driver(config()).run({ONE: values}, Random(seed))
    twice = Driver(config()).run({ONE: again}, Random(seed))
    assert twice.published("correlations") == once.published("correlations")
    assert twice.counts["duplicate"] == len(values)


def test_trades_without_an_id_or_of_another_price_are_not_taken_for_repeats() -> None:
    plain = [tick("A", 0.0, 100.0), tick("A", 0.0, 101.0)]
    corrected = [tick("A", 1.0, 100.0, id=7), tick("A", 1.0, 101.0, id=7)]
    others = [tick("A", 2.0, 100.0, id=7), tick("B", 2.0, 100.0, id=7)]
    values: list[Value] = [*plain, *plain, *corrected, *others, tick("B", 9.0, 1.0, id=8)]
    driver = Driver(config()).run({ONE: values}, Random(1))
    assert driver.counts.get("duplicate", 0) == 0
