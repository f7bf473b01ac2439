"""What the input and the journal of a service give without it, and whether records are whole."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from unittest import mock

from stream_calib.adapters.kafka import KafkaSource
from stream_calib.config import load_config
from stream_calib.estimation.calibration.model import calibrate
from stream_calib.service.replay import repeat_journal
from stream_calib.service.runner import Ask, Runner, unobserved
from stream_calib.service.wiring import VERSION
from stream_calib.values import Effects, Output
from stream_calib.wire.matrices import join
from tests.kafka.killing import ROLES, Published, Record, Victim, by_role

FITTED_ROLES = (*ROLES, "calibrations")


class Truth(NamedTuple):
    """What has to be in the topics, and what becomes of how many ticks."""

    published: Published
    outcomes: Counter[str]


def of_the_input(victim: Victim, roles: Sequence[str], *, flush: bool) -> Truth:
    """Return what comes of the input when nothing ever happens to it; blocks.

    Fits are made on the way, as by a service that waits for them.

    Parameters
    ----------
    victim
        Whose settings and input these are.
    roles
        Topics to return; nothing may come for another one.
    flush
        Whether the open bar is closed at the end of the input.
    """
    return asyncio.run(through_an_engine(victim, roles, flush=flush, ask=calibrate))


async def through_an_engine(
    victim: Victim, roles: Sequence[str], *, flush: bool, ask: Ask | None = None
) -> Truth:
    """Run the input through an engine, all there is; ``ask`` makes the fits, None makes none."""
    config = load_config(victim.config_file)
    universe = config.universe[0]
    runner = Runner(config, universe, VERSION, unobserved(), ask=ask)
    source = KafkaSource(config.kafka, config.topics_of(universe))
    outputs, outcomes = list[Output](), Counter[str]()
    try:
        await source.start()
        discovered, done = await source.discover(), False
        ends = dict(source.ends())
        while not done:
            source.pause(runner.paused(ends))
            batches = await source.poll(5000, 0.2)
            taken = runner.turn(batches, discovered, ends, 0.0)
            discovered = ()
            done = all(runner.engine.intake.position(s) >= end for s, end in ends.items())
            if done and flush:
                taken += runner.turn((), (), ends, 0.0, exhausted=True)
            outputs += [output for effects in taken for output in runner.outputs(effects)]
            for effects in taken:
                _count(effects, outcomes)
    finally:
        await source.close()
    return Truth(by_role(config.output.prefix, outputs, roles), outcomes)


async def of_the_journal(victim: Victim, roles: Sequence[str]) -> Truth:
    """Return what the journal says was published, its input read once more."""
    config = load_config(victim.config_file)
    outcomes: Counter[str] = Counter()
    encode = Runner.outputs

    def counted(runner: Runner, effects: Effects) -> list[Output]:
        _count(effects, outcomes)
        return encode(runner, effects)

    with mock.patch.object(Runner, "outputs", counted):
        steps = repeat_journal(config, config.universe[0])
        outputs = [output async for _, found in steps for output in found]
    return Truth(by_role(config.output.prefix, outputs, roles), outcomes)


def _count(effects: Effects, outcomes: Counter[str]) -> None:
    for (_, outcome), n in effects.counts.items():
        outcomes[outcome] += n


def numbered(records: Sequence[Record]) -> dict[str, list[list[Record]]]:
    """Return the records of matrices or events by what numbers them, all of one number together.

    Raises
    ------
    AssertionError
        A number is missing, or comes again later.
    """
    found: dict[str, list[list[Record]]] = {}
    for record in records:
        heads = dict(record[2])
        name, _, number = heads["ce_id"].decode().rpartition("|")
        of_name = found.setdefault(name, [])
        if int(number) == len(of_name) + 1:
            of_name.append([])
        assert int(number) == len(of_name), (name, number, len(of_name))
        of_name[-1].append(record)
    return found


def chunks(records: Sequence[Record]) -> Counter[int]:
    """Return how many matrices came in how many chunks; raises where one is torn."""
    found: Counter[int] = Counter()
    for of_name in numbered(records).values():
        for parts in of_name:
            join([(value or b"", dict(heads)) for _, value, heads in parts])
            found[len(parts)] += 1
    return found
