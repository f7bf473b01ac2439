"""The regime loop: alarm, stages, a challenger in shadow, a swap between two bars, the way back."""

import numpy as np
import orjson
import pytest

from stream_calib.engine.refit_cycle import Turn
from stream_calib.estimation.calibration.model import calibrate
from stream_calib.values import F64, Fit, FitFailure, FitRequest
from tests.engine.driver import settings
from tests.engine.recoveries import cycle_recovery
from tests.engine.regimes import DCC, Regimes, names, regime_settings
from tests.engine.schedule import bits_of
from tests.estimation.test_refit_loop import BREAKS, MARKS, share
from tests.estimation.truths import Change, broken, truth

N, BEFORE, AFTER = 12, 1000, 250
SEED = 5


def market() -> F64:
    """Returns of a percent a bar, whose correlations fuse after BEFORE bars."""
    return 0.01 * broken("average_15", N, BEFORE, AFTER, "fusing", 0.4, "jump", SEED)


@pytest.fixture(scope="module")
def shifted() -> Regimes:
    """A universe after a shift that was noticed."""
    return Regimes(regime_settings(N)).feed(market())


def test_a_shift_is_noticed_named_and_dated(shifted: Regimes) -> None:
    (bar, alarm), *others = shifted.of("drift_alarm")
    assert BEFORE < bar <= BEFORE + 60
    assert alarm["alternative"] == "fusing"
    first, last = (int(time_ns) for time_ns in alarm["since_interval_ns"])
    assert first <= int(alarm["since_ns"]) <= last
    assert abs(bar - alarm["bars_since"] - BEFORE) <= 25
    assert alarm["average_after"] > alarm["average_before"] + 0.1
    assert len(alarm["pairs"]) == 10
    assert all(pair["delta"] > 0.0 for pair in alarm["pairs"])
    assert {one["symbol"] for one in alarm["symbols"]} <= set(shifted.config.universe[0].symbols)
    assert alarm["arl0_bars"] == 5000.0
    assert not others


def test_targets_are_fitted_in_stages_to_what_came_since(shifted: Regimes) -> None:
    ((bar, alarm),) = shifted.of("drift_alarm")
    change = bar - alarm["bars_since"]
    stages = [(at, r) for at, r in shifted.requests if r.reason == "drift"]
    since = [at - change for at, _ in stages]
    assert since == [max(30, alarm["bars_since"]), 50, 75, 100, 150, 200]
    for _, request in stages:
        assert request.settings["kind"] == "target"
        assert request.settings["since_ns"] == alarm["since_ns"]


def test_the_challenger_is_installed_once_it_leads_and_not_before(shifted: Regimes) -> None:
    shadowed, installed = shifted.of("refit_shadowed"), shifted.of("refit_installed")
    (first_bar, first), (bar, swap) = installed[0], installed[1]
    assert first["reason"] == "first"
    assert swap["reason"] == "drift"
    assert swap["lead"] >= shifted.config.universe[0].drift.lead
    assert swap["bars"] == bar - shadowed[0][0]
    assert first_bar < BEFORE < bar


def test_no_forecast_jumps_without_a_turn(shifted: Regimes) -> None:
    first = shifted.bars - len(shifted.forecasts) + 1
    swaps = [bar for bar, turn in shifted.turns if turn.report is not None and bar > first]
    moves = np.abs(np.diff(np.array(shifted.forecasts), axis=0)).max(axis=(1, 2))
    quiet = np.delete(moves, np.array(swaps) - first - 1)
    a = shifted.layer.state()["cycle.model.fit.dcc"][0]
    # z is capped at 3: one row moves a correlation by less than a times 3^2 and its own decay
    assert quiet.max() <= 10.0 * a
    assert moves[swaps[0] - first - 1] > np.quantile(quiet, 0.99)


@pytest.mark.parametrize("detector", ["conformal", "none"])
def test_what_a_watch_needs_is_asked_for_where_there_is_one(detector: str) -> None:
    def answer(_: FitRequest) -> None:
        return None

    run = Regimes(regime_settings(N, detector=detector), answer).feed(market()[:610])
    ((_, request),) = run.requests
    assert request.settings["watched"] is (detector == "conformal")


def test_what_the_loop_remembers_is_kept_to_the_last_bit() -> None:
    returns = market()
    whole = Regimes(regime_settings(N)).feed(returns)
    cut = Regimes(regime_settings(N))
    for start in range(0, len(returns), 97):
        cut.feed(returns[start : start + 97])
        cut.restore()
    # to the order of what they say, which is that of the bytes to be published
    one, other = (orjson.dumps([list(turn) for _, turn in run.turns]) for run in (cut, whole))
    assert one == other
    assert bits_of(cut.layer.state()) == bits_of(whole.layer.state())


GROWING = {**DCC, "first_fit_bars": 200, "refit_bars": 100}


def growing(n: int = 6) -> Regimes:
    """A universe whose scheduled fits rest on more and more bars."""
    return Regimes(settings(names(n), universe__dcc=GROWING, universe__drift={}))


def test_a_reference_that_rests_on_twice_as_much_takes_over_once_it_can_see() -> None:
    run = growing().feed(0.01 * truth("average_15", 6, 900, 3))
    watched = run.of("drift_watched")
    # fits of 200, 300, 400, ... bars: of 400 the next one is twice the first
    assert [told["fitted_bars"] for _, told in watched] == [200.0, 400.0]
    assert len(run.of("drift_blind")) == 1  # the old one sees until the new one does
    begun = [bar for bar, _ in run.of("refit_installed")][2]
    assert begun + 250 <= watched[1][0] < begun + 350  # 250 to compare with, after a transient
    assert not run.of("drift_alarm")


def test_an_alarm_ends_what_was_to_take_over() -> None:
    calm = 0.01 * truth("average_15", 6, 450, 3)
    crash = 0.01 * np.repeat(truth("average_15", 6, 150, 4)[:, :1], 6, axis=1)
    crash += 0.001 * truth("average_15", 6, 150, 5)
    run = growing().feed(calm)
    assert any(name.startswith("cycle.watch.successor") for name in run.layer.state())
    run.feed(crash[:60])
    assert run.of("drift_alarm")
    assert not any(name.startswith("cycle.watch.successor") for name in run.layer.state())


def test_what_is_to_take_over_is_kept_to_the_last_bit() -> None:
    returns = 0.01 * truth("average_15", 6, 800, 3)
    whole, cut = growing().feed(returns), growing()
    for start in range(0, len(returns), 97):
        cut.feed(returns[start : start + 97])
        cut.restore()
    assert cut.turns == whole.turns
    assert bits_of(cut.layer.state()) == bits_of(whole.layer.state())


def test_the_order_of_the_symbols_does_not_show(shifted: Regimes) -> None:
    order = np.random.default_rng(SEED).permutation(N)
    symbols = [shifted.config.universe[0].symbols[i] for i in order]
    config = settings(symbols, universe__dcc=DCC, universe__drift={})
    turned = Regimes(config).feed(market()[:, order])
    for (_, one), (_, other) in zip(turned.requests, shifted.requests, strict=True):
        assert dict(one.settings) == dict(other.settings)
        assert bits_of(one.arrays) == bits_of(other.arrays)
    assert [(bar, turn[:2]) for bar, turn in turned.turns] == [
        (bar, turn[:2]) for bar, turn in shifted.turns
    ]
    assert turned.forecasts[-1].tobytes() == shifted.forecasts[-1][np.ix_(order, order)].tobytes()


def test_a_model_that_was_installed_for_nothing_is_rolled_back(shifted: Regimes) -> None:
    # the shift lasts just long enough for its model to be installed
    swap = shifted.of("refit_installed")[1][0]
    returns = market()
    run = Regimes(regime_settings(N)).feed(np.vstack([returns[: swap + 1], returns[700:760]]))
    ((back, details),) = run.of("refit_rolled_back")
    assert back <= swap + run.config.universe[0].drift.cool_down_bars
    assert (details["reason"], details["cause"]) == ("first", "drift")
    assert details["lead"] >= run.config.universe[0].drift.lead_back
    assert run.layer.shift_ns is None
    # nothing has come of the alarm by then, and targets go on to be fitted
    assert not run.of("drift_refuted")
    assert [bar for bar, r in run.requests if r.reason == "drift" and bar > back]


def refusing(request: FitRequest) -> Fit | FitFailure:
    if request.reason == "drift":
        return FitFailure(request.model, request.number, "timeout", "it took more than 60 s")
    return calibrate(request)


def test_an_alarm_that_nothing_confirms_is_refuted() -> None:
    run = Regimes(regime_settings(N, give_up_bars=150), refusing).feed(market())
    ((bar, _), *_), ((end, refuted), *_) = run.of("drift_alarm"), run.of("drift_refuted")
    assert end == bar + 150
    assert refuted == {"number": 1, "alternative": "fusing"}
    status = run.layer.drift()
    assert status is not None
    assert status.refuted >= 1
    assert status.bars_per_alarm == status.watched_bars / sum(status.alarms.values())
    assert run.layer.shift_ns is None
    assert [turn.details["reason"] for _, turn in run.turns if turn.report] == ["first"]


def test_a_target_that_comes_after_its_alarm_is_over_is_refused() -> None:
    late: list[FitRequest] = []

    def keep(request: FitRequest) -> Fit | FitFailure | None:
        if request.reason == "drift":
            late.append(request)
            return None
        return calibrate(request)

    run = Regimes(regime_settings(N, give_up_bars=150), keep).feed(market())
    assert run.of("drift_refuted")
    fit = calibrate(late[0])
    assert isinstance(fit, Fit)
    before = run.layer.correlation()
    run.layer.install(fit)
    (turn,) = run.layer.take_turns()
    assert turn == Turn(
        "refit_rejected", {"model": "dcc", "reason": "the change that it was for is over"}
    )
    after = run.layer.correlation()
    assert before is not None
    assert after is not None
    assert after.corr.tobytes() == before.corr.tobytes()


def test_a_scheduled_fit_that_comes_after_an_alarm_is_refused() -> None:
    late: list[FitRequest] = []

    def keep(request: FitRequest) -> Fit | FitFailure | None:
        if request.reason == "schedule":
            late.append(request)
            return None
        return calibrate(request)

    tree = {**DCC, "refit_bars": BEFORE - 600}  # one is asked for in the bar before the break
    config = settings(regime_settings(N).universe[0].symbols, universe__dcc=tree)
    run = Regimes(config, keep).feed(market()[: BEFORE + 60])
    assert run.of("drift_alarm")
    fit = calibrate(late[0])
    assert isinstance(fit, Fit)
    run.layer.install(fit)
    (turn,) = run.layer.take_turns()
    assert turn.type == "refit_rejected"
    assert turn.details["reason"] == "an alarm has been raised since it was asked for"
    # and what comes of the alarm goes on
    run.feed(market()[BEFORE + 60 :])
    assert [bar for bar, details in run.of("refit_installed") if details["reason"] == "drift"]


def test_no_alarm_is_raised_in_the_bar_of_a_swap() -> None:
    returns = 0.01 * broken("average_80", 20, BEFORE, 150, "loosening", 0.5, "jump", 3)
    run = Regimes(regime_settings(20)).feed(returns)
    swaps = {bar for bar, turn in run.turns if turn.report is not None}
    assert len(swaps) > 1
    assert not swaps & {bar for bar, _ in run.of("drift_alarm")}


def test_without_a_detector_nothing_is_watched() -> None:
    run = Regimes(regime_settings(N, detector="none")).feed(market())
    assert {turn.type for _, turn in run.turns} == {"refit_installed"}
    assert run.layer.drift() is None
    assert run.layer.drift_level is None


def test_an_own_cycle_makes_a_break_good_as_the_rows_alone_do() -> None:
    # a jump that is noticed after 22 bars, and installed after 26
    found = cycle_recovery(20, 3, "fusing", 0.3, MARKS)
    assert found.share(80, 120) >= 0.6
    assert [one.what for one in found.happened][:3] == ["alarm", "fitted", "installed"]


@pytest.mark.full
@pytest.mark.parametrize(("change", "g"), BREAKS)
def test_the_criterion_of_recovery_by_the_engine_s_own_cycle(change: Change, g: float) -> None:
    # .70, .92 and .75: a first fit of 2000 bars, volatilities fitted too, and the alarms of before
    # the break among them
    found = [cycle_recovery(20, seed, change, g, MARKS) for seed in range(16)]
    assert share(found) >= 0.6
