"""Records of every topic, made by the program itself: what the document in deploy/ has to fit."""

import dataclasses
import json
import logging
from collections.abc import Iterator
from functools import cache
from random import Random

import numpy as np
import structlog

from stream_calib.config import Config
from stream_calib.engine.arrays import Arrays
from stream_calib.engine.engine import Engine
from stream_calib.engine.publisher import Publisher
from stream_calib.engine.state import migrate, reset
from stream_calib.values import FitFailure, Output, Step
from stream_calib.wire import events, journal, matrices
from stream_calib.wire.fits import encode_fit
from tests.engine.driver import settings, tick
from tests.engine.fits import made_up
from tests.engine.regimes import Regimes, regime_settings
from tests.engine.schedule import VERSION, P, Q, Run, control, dense_log, dense_run, read_dense
from tests.golden import regenerate, values
from tests.simulation import clock
from tests.simulation.broker import Faults
from tests.simulation.world import World, make_input

SEEDS = range(4)
DRIFT = {"alternative": "rotation", "number": 3}


@cache
def published() -> dict[str, list[Output]]:
    """Return the records of each topic by the last part of its name."""
    found: dict[str, list[Output]] = {}
    for record in [*_golden(), *_services(), *_operators(), *_regimes(), *_wide(), *_converted()]:
        found.setdefault(record.topic.rpartition(".")[2], []).append(record)
    return found


def tick_values(name: str) -> list[object]:
    """Return the golden messages of a format that ticks come of."""
    lines = (regenerate.FOLDER / "ticks" / f"{name}.jsonl").read_text().splitlines()
    return [line["message"] for line in map(json.loads, lines) if "ticks" in line]


def _golden() -> Iterator[Output]:
    topics = {"matrix": "correlations", "journal": "journal"}
    for name in regenerate.golden_files():
        role = name.partition("_")[0]
        if role == "snapshot":  # goes to no topic
            continue
        if role == "journal":
            yield journal.encode_entry(values.ENTRY, "calib.journal", 0)
            continue
        head, _, value = regenerate.read(name).partition(b"\n\n")
        key, *rest = [tuple(line.split(": ", 1)) for line in head.decode().splitlines()]
        headers = tuple((name, text.encode()) for name, text in rest)
        yield Output(f"calib.{topics.get(role, role + 's')}", 0, key[1].encode(), value, headers)


def _services() -> Iterator[Output]:
    """Whole services on garbage and ticks, with fits that come, fail, and are refused."""
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet)
    for seed in SEEDS:
        random = Random(seed)
        world = World(random, Faults(), make_input(random, 2), 2, refits=True)
        clock.run(world.run())
        yield from world.broker.committed


def _operators() -> Iterator[Output]:
    """Control records, gaps, jumps, and what is said when symbols, settings or sources change."""
    dcc = {"bar": "1s", "window_bars": 40, "first_fit_bars": 20, "refit_bars": 20}
    config = settings("ABCDE", time__lateness="0s", universe__dcc=dcc)
    ticks = dense_log("ABCDE", 400)[P]
    more = [
        control("A", 401.0, factor=0.5),
        control("B", 401.0, offset=-1.5),
        control("C", 401.0, reset=True),
        *[tick(symbol, second, price) for second in (402.1, 403.1) for symbol, price in PRICES],
        *[tick(symbol, 3000.1 + k, 100.0 + k) for k in range(70) for symbol in "ABCDE"],
    ]
    run = Run(config, {P: [*ticks, *more]})
    run.take(Step(discovered=(P,)))
    read_dense(run, 0, 100)
    run.take(Step(failures=(FitFailure("dcc", 1, "timeout", "it took more than 60 s"),)))
    for bar in (200, 300, 399):
        read_dense(run, 0, bar, width=5)
        request = run.engine.pending_fit()
        assert request is not None
        run.take(Step(installs=(made_up(request.number, "ABCDE"),)))
    for number in (1, 2):
        yield from encode_fit(made_up(number, "ABCDE"), "calib.fits", 0, "u")[1]
    end = len(run.log[P])
    run.take(Step(batches=(run.ticks(P, run.engine.intake.positions()[P], end),)))
    run.flush()
    for after, change in [("ABCDX", migrate), ("ABCDX", reset)]:
        config = settings(after, time__lateness="0s", universe__dcc=dcc)
        before, state = run.universe, run.engine.state()
        state = (
            migrate(state, before, config, config.universe[0])
            if change is migrate
            else reset(state, config, config.universe[0])
        )
        run.config, run.engine = config, _continued(config, state)
        run.take(Step())
    run.take(Step(discovered=(Q,)))
    run.engine.retire([Q])
    run.engine.announce("gap_accepted", {"ranges": [["q", 0, 5, 9]], "repeated": False})
    run.engine.announce("divergence_accepted", {"reason": "numpy changed"})
    run.take(Step())
    yield from (record for records in run.outputs.values() for record in records)


PRICES = [("A", 50.0), ("B", 100.0), ("C", 100.0), ("D", 50.0), ("E", 100.0)]


def _continued(config: Config, state: Arrays) -> Engine:
    return Engine.from_state(config, config.universe[0], VERSION, state)


def _regimes() -> Iterator[Output]:
    """A shift that is noticed, followed and undone, and one that nothing confirms."""
    from tests.engine.test_refit_cycle import N, market, refusing

    shifted = Regimes(regime_settings(N)).feed(market())
    swap = shifted.of("refit_installed")[1][0]
    for run, returns in [
        (Regimes(regime_settings(N)), np.vstack([market()[: swap + 1], market()[700:760]])),
        (Regimes(regime_settings(N, give_up_bars=60), refusing), market()[:1150]),
    ]:
        run.feed(returns)
        yield from _said(run)


def _said(run: Regimes) -> Iterator[Output]:
    universe = run.config.universe[0]
    publisher = Publisher(run.config, universe, VERSION)
    for bar, turn in run.turns:
        details = dict(turn.details)
        if turn.report is not None:
            publisher.model_version += 1
            details["model_version"] = publisher.model_version
        yield events.encode_event(publisher.event(turn.type, bar, details), "calib.events", 0)
    # an alarm that ends with a full fit takes a thousand bars: the same words from the same place
    yield events.encode_event(publisher.event("drift_dropped", 1, DRIFT), "calib.events", 0)


def _wide() -> Iterator[Output]:
    """Packed matrices, in one record and in chunks."""
    for n in (300, 700):
        wide = dataclasses.replace(values.matrix(n), estimator="dcc", kind="forecast")
        yield from matrices.encode(wide, "calib.correlations", 0)


def _converted() -> Iterator[Output]:
    """Matrices in another currency than prices are quoted in."""
    currency = {"base": "USD", "symbols": {"A": "EUR"}, "rates": {"EUR": "C"}}
    yield from dense_run("ABC", 40, universe__currency=currency).outputs["correlations"]
