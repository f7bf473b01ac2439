"""What a universe is, is told once before its matrices, and again when it changes."""

from collections.abc import Callable

import orjson
import pytest

from stream_calib.config import Config
from stream_calib.engine.arrays import Arrays, read_text, text_array
from stream_calib.engine.engine import Engine
from stream_calib.engine.state import migrate, reset
from tests.engine.driver import settings
from tests.engine.schedule import VERSION, Run, dense_run, read_dense

SETTINGS = {"time__lateness": "0s"}
LATER = {"universe__ready_n_eff": 6.0}


def told(run: Run) -> list[dict[str, object]]:
    return [orjson.loads(output.value) for output in run.outputs["universes"]]


Changed = Callable[[Run, Config], Arrays]


def gone_on(run: Run, symbols: str, change: Changed, **changes: object) -> Run:
    """The run under other settings."""
    config = settings(symbols, **SETTINGS | changes)
    own = Run(config, run.log)
    own.engine = Engine.from_state(config, config.universe[0], VERSION, change(run, config))
    return own


def migrated(run: Run, config: Config) -> Arrays:
    return migrate(run.engine.state(), run.universe, config, config.universe[0])


def begun_afresh(run: Run, config: Config) -> Arrays:
    return reset(run.engine.state(), config, config.universe[0])


def test_a_universe_is_told_once_at_the_time_of_its_first_matrix() -> None:
    run = dense_run("ABCDE", 80)
    matrices = [orjson.loads(output.value) for output in run.outputs["correlations"]]
    assert len(matrices) > 10
    (own,) = told(run)
    assert own["symbols"] == list("ABCDE")
    assert own["time_ns"] == matrices[0]["as_of_ns"]
    for key in ("universe", "universe_id", "config_fingerprint", "bar_ns", "price_policy"):
        assert own[key] == matrices[0][key], key
    assert run.outputs["universes"][0].key.decode() == matrices[0]["universe_id"]


def test_nothing_is_told_before_there_is_a_matrix() -> None:
    run = dense_run("ABCDE", 2)
    assert not run.outputs["correlations"]
    assert not told(run)


@pytest.mark.parametrize("cut", [30, 79])
def test_a_restored_universe_is_not_told_again(cut: int) -> None:
    run = dense_run("ABCDE", cut)
    n = len(told(run))
    run.restore(on_the_wire=True)
    read_dense(run, cut, 120)
    assert len(told(run)) == 1 >= n


@pytest.mark.parametrize(
    ("symbols", "change", "changes"),
    [
        ("ABCX", migrated, {}),
        ("BADCE", migrated, {}),
        ("ABCDE", begun_afresh, LATER),
    ],
    ids=["other symbols", "another order", "other settings"],
)
def test_a_changed_universe_is_told_again(
    symbols: str, change: Changed, changes: dict[str, object]
) -> None:
    before = dense_run("ABCDE", 80)
    run = gone_on(before, symbols, change, **changes)
    read_dense(run, 80, 160)
    (own,) = told(run)
    assert own["symbols"] == list(symbols)
    assert own["config_fingerprint"] != told(before)[0]["config_fingerprint"]
    same_list = symbols == "ABCDE"
    assert (own["universe_id"] == told(before)[0]["universe_id"]) == same_list


def test_a_state_of_before_there_were_descriptions_is_gone_on_with_and_told() -> None:
    before = dense_run("ABCDE", 80)
    state = before.engine.state()
    facts = read_text(state["engine.facts"])
    del facts["described"]
    state["engine.facts"] = text_array(facts)
    run = Run(before.config, before.log)
    run.engine = Engine.from_state(before.config, before.universe, VERSION, state)
    read_dense(run, 80, 120)
    assert len(told(run)) == 1
