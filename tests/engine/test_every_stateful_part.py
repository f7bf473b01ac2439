"""What every part that keeps state promises; a new one enters ``PARTS``.

Saved and restored anywhere, fed in any cut and any interleaving, it has the same bytes; with its
symbols in another order, the bytes in that order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from random import Random
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream_calib.config import Config
from stream_calib.engine.arrays import under, within
from stream_calib.engine.dcc_layer import LAYOUTS as DCC_LAYOUTS
from stream_calib.engine.engine import Engine
from stream_calib.engine.intake import Intake
from stream_calib.engine.membership import Membership
from stream_calib.engine.tick_layer import LAYOUTS
from stream_calib.estimation.dcc import Dcc
from stream_calib.estimation.diurnal import Diurnal
from stream_calib.estimation.drift import DriftDetector
from stream_calib.estimation.eigenvalues import EigenvalueCleaner
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.estimation.miscalibration import Miscalibration
from stream_calib.estimation.protocol import Layout
from stream_calib.estimation.sampling import Sampler, Ticks
from stream_calib.estimation.shrinkage import FourthMoment
from stream_calib.values import (
    F64,
    I64,
    Correlation,
    DccParams,
    GarchParams,
    Move,
    ReturnBlock,
    Step,
    TickBatch,
)
from tests.engine.driver import SECOND, settings
from tests.engine.fits import named
from tests.engine.schedule import SYMBOLS, VERSION, Bits, Run, bits_of, stormy_log
from tests.engine.schedule import stormy_settings as stormy

Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
Order = Sequence[int]


class Stateful(Protocol):
    def state(self) -> Arrays: ...


class Part(NamedTuple):
    """How a part is made, fed and restored.

    ``scenes`` draws what is fed, for symbols in the order of the universe; ``feed`` takes one
    scene in some cut; ``turned`` puts the symbols of a scene in another order.
    """

    make: Callable[[Config], Any]
    restore: Callable[[Config, Arrays], Any]
    scenes: Callable[[Config, Random], Sequence[Any]]
    feed: Callable[[Any, Any, Random], None]
    turned: Callable[[Any, Order], Any]
    by_symbol: Callable[[Arrays, Order], Arrays]


# how states of n symbols look in another order


def one_axis(*names: str) -> Callable[[Arrays, Order], Arrays]:
    """Arrays whose last axis is by symbol."""

    def turn(arrays: Arrays, order: Order) -> Arrays:
        return {**arrays, **{name: arrays[name][..., order] for name in names if name in arrays}}

    return turn


def by_layout(layout: Layout) -> Callable[[Arrays, Order], Arrays]:
    """As the layout says; packed triangles are read out of the square, turned, and packed again."""
    mirror = dict(layout.exchanged) | {b: a for a, b in layout.exchanged}

    def turn(arrays: Arrays, order: Order) -> Arrays:
        n = len(order)
        out = dict(arrays)
        if layout.nested is not None:
            prefix, inner = layout.nested
            out |= under(prefix, by_layout(inner)(within(prefix, arrays), order))
        for name in layout.by_symbol.keys() & arrays.keys():
            out[name] = arrays[name][..., order]
        for name in layout.by_row.keys() & arrays.keys():
            out[name] = arrays[name][..., order, :]
        for name in layout.by_square.keys() & arrays.keys():
            out[name] = arrays[name][..., order, :][..., order]
        for diagonal, names in ((0, layout.by_triangle), (1, layout.by_pair)):
            rows, columns = np.triu_indices(n, diagonal)
            for name in names.keys() & arrays.keys():
                upper, lower = arrays[name], arrays[mirror.get(name, name)]
                if not upper.size:
                    continue
                square = np.empty((*upper.shape[:-1], n, n))
                square[..., columns, rows] = lower
                square[..., rows, columns] = upper
                out[name] = square[..., order, :][..., order][..., rows, columns]
        return {name: np.ascontiguousarray(array) for name, array in out.items()}

    return turn


def assets(arrays: Arrays, order: Order) -> Arrays:
    """Symbols that are named by their place."""
    place = np.append(np.argsort(order), -1)  # the last, for -1: unknown
    names = {"ticks.asset", "held.asset"} & arrays.keys()
    return {**arrays, **{name: place[arrays[name]] for name in names}}


def whole_engine(arrays: Arrays, order: Order) -> Arrays:
    out: dict[str, np.ndarray[Any, Any]] = {}
    for part, turn in (
        ("intake", assets),
        ("membership", one_axis("ready")),
        ("layer.screen", assets),
        *((f"layer.{name}", by_layout(layout)) for name, layout in LAYOUTS.items()),
        *((f"dcc.{name}", by_layout(layout)) for name, layout in DCC_LAYOUTS.items()),
        ("dcc.request", one_axis("returns", "exposure")),
    ):
        own = {k[len(part) + 1 :]: a for k, a in arrays.items() if k.startswith(part + ".")}
        own = {k: a for k, a in own.items() if f"{part}.{k}" not in out or part != "layer.screen"}
        out |= {f"{part}.{name}": array for name, array in turn(own, order).items()}
    rest = {k: a for k, a in arrays.items() if k not in out}
    facts = rest["engine.facts"].tobytes()
    symbols = b",".join(b'"%s"' % s.encode() for s in SYMBOLS)
    turned = b",".join(b'"%s"' % SYMBOLS[i].encode() for i in order)
    assert facts.count(symbols) == 1
    rest["engine.facts"] = np.frombuffer(facts.replace(symbols, turned), np.uint8)
    return {**out, **rest}


# what each part is fed


def tick_scenes(_: Config, random: Random) -> list[tuple[int, Ticks]]:
    """Bars, each with its ticks in order."""
    scenes = []
    bar = 1000
    for _bar in range(random.randint(1, 40)):
        bar += random.choice((1, 1, 1, 2, 70))
        n = random.randint(1, 8)
        times = sorted(bar * SECOND + random.randrange(10) * SECOND // 10 for _ in range(n))
        scenes.append(
            (
                bar,
                Ticks(
                    np.array(times, np.int64),
                    np.array([random.randrange(4) for _ in range(n)], np.int64),
                    np.array([random.choice((99.0, 100.0, 101.5)) for _ in range(n)]),
                    np.array([random.randrange(3) for _ in range(n)], np.int64),
                ),
            )
        )
    return scenes


def sample(sampler: Sampler, scene: tuple[int, Ticks], _: Random) -> None:
    sampler.sample(scene[1], np.array([scene[0]]), np.ones(1))


def blocks(_: Config, random: Random) -> list[ReturnBlock]:
    rng = np.random.default_rng(random.randrange(2**32))
    k = random.randint(1, 80)
    returns = 0.01 * (rng.standard_t(5, (k, 1)) + rng.standard_t(5, (k, 4)))
    returns[rng.random((k, 4)) < 0.2] = np.nan
    exposure = np.where(np.isnan(returns), 0.0, rng.choice([1.0, 1.0, 2.0], (k, 4)))
    whole = ReturnBlock(np.arange(k), returns, exposure, rng.choice([1.0, 1.0, 3.0], k))
    return [whole.rows(t, t + 1) for t in range(k)]


def turned_block(block: ReturnBlock, order: Order) -> ReturnBlock:
    returns, exposure = (np.ascontiguousarray(a[:, order]) for a in (block.returns, block.exposure))
    return ReturnBlock(block.time_ns, returns, exposure, block.elapsed_bars)


def volatilities(_: Config, random: Random) -> list[ReturnBlock | GarchParams]:
    """Bars, and parameters that come in between, some without a fit."""
    scenes: list[ReturnBlock | GarchParams] = [*blocks(_, random), *blocks(_, random)]
    rng = np.random.default_rng(random.randrange(2**32))
    for _fit in range(random.randrange(4)):
        omega = np.where(rng.random(4) < 0.3, np.nan, 1e-5)
        columns = (rng.uniform(low, high, 4) + 0.0 * omega for low, high in
                   ((-1e-3, 1e-3), (0.02, 0.1), (0.7, 0.85), (-0.02, 0.1)))  # fmt: skip
        mu, alpha, beta, gamma = columns
        params = GarchParams(mu, omega, alpha, beta, gamma, np.full(4, np.nan))
        scenes.insert(random.randrange(len(scenes)), params)
    return scenes


def feed_volatility(own: GarchVolatility, scene: ReturnBlock | GarchParams) -> None:
    if isinstance(scene, GarchParams):
        own.install(scene)
    else:
        own.standardise(scene)


def turned_volatility(scene: ReturnBlock | GarchParams, order: Order) -> ReturnBlock | GarchParams:
    if isinstance(scene, ReturnBlock):
        return turned_block(scene, order)
    return GarchParams(*(getattr(scene, f.name)[list(order)] for f in fields(scene)))


def one_factor(config: Config) -> DccParams:
    """Each symbol has a target of its own."""
    loading = np.array([0.3 + 0.1 * SYMBOLS.index(name) for name in config.universe[0].symbols])
    target = np.multiply.outer(loading, loading)
    np.fill_diagonal(target, 1.0)
    return DccParams(0.05, 0.9, target, "adcc", 0.02, 0.4 * target)


def asymmetric(config: Config) -> Dcc:
    """Make a DCC with every array that there is."""
    return Dcc(one_factor(config), 4, 500.0, "time")


def rows_and_estimates(_: Config, random: Random) -> list[tuple[F64, F64]]:
    """Each bar with the estimate before it."""
    estimate = Ewma(4, 5.0)
    scenes = []
    for block in blocks(_, random):
        scenes.append((block.returns, estimate.correlation().corr))
        estimate.update(block)
    return scenes


def known_estimates(config: Config, random: Random) -> list[tuple[F64, F64]]:
    """The same, with 0 where nothing is known."""
    scenes = []
    for rows, estimate in rows_and_estimates(config, random):
        corr = np.where(np.isnan(estimate), 0.0, estimate)
        np.fill_diagonal(corr, 1.0)
        scenes.append((rows, corr))
    return scenes


def turned_estimate(scene: tuple[F64, F64], order: Order) -> tuple[F64, F64]:
    row, corr = scene
    return np.ascontiguousarray(row[:, order]), np.ascontiguousarray(corr[np.ix_(order, order)])


def canonical(config: Config) -> I64:
    return np.argsort(np.array(config.universe[0].symbols))


def days(_: Config, random: Random) -> list[ReturnBlock]:
    """Bars of four hours over a fortnight, some left out."""
    bars = blocks(_, random) + blocks(_, random)
    every_ns = 4 * 3600 * SECOND
    return [replace(bar, time_ns=np.array([every_ns * (t + 1)])) for t, bar in enumerate(bars)]


def knowledge(_: Config, random: Random) -> list[Correlation]:
    rng = np.random.default_rng(random.randrange(2**32))
    scenes = []
    for _scene in range(random.randint(1, 10)):
        n_eff = rng.choice([0.0, 2.0, 4.0, 6.0, 9.0], (4, 4))
        n_eff = np.minimum(n_eff, n_eff.T)
        np.fill_diagonal(n_eff, rng.choice([3.0, 6.0, 9.0], 4))
        corr = np.where(n_eff > 0.0, 0.5, np.nan)
        scenes.append(Correlation(corr, np.ones(4), n_eff, 0.0, 0))
    return scenes


def turned_knowledge(known: Correlation, order: Order) -> Correlation:
    cut = np.ix_(order, order)
    return Correlation(known.corr[cut], known.vol[order], known.n_eff[cut], 0.0, 0)


class Scene(NamedTuple):
    """The choices of a move, and the symbols that its ticks are decoded for."""

    move: Move
    run: Run


def schedule(config: Config, random: Random) -> list[Scene]:
    run = Run(config, stormy_log(random, n=random.choice((30, 120)))).live(random)
    return [Scene(move, run) for move in run.recorder.cut()]


def turned_scene(scene: Scene, order: Order) -> Scene:
    config = with_symbols(scene.run.config, order)
    return Scene(scene.move, Run(config, scene.run.log))


def batches(scene: Scene, random: Random) -> list[TickBatch]:
    return list(scene.run._cut(scene.move, random, random.choice((1, 5, 100))))


def admit(intake: Intake, scene: Scene, random: Random) -> None:
    for source in scene.move.discovered:
        intake.discover(source)
    for batch in batches(scene, random):
        intake.admit(batch)
    for mark in scene.move.watermarks:
        intake.decide(mark)
    before_ns = intake.watermark_ns()
    intake.take(before_ns)
    intake.take_rejects(before_ns)


def advance(engine: Engine, scene: Scene, random: Random) -> None:
    move = scene.move
    installs = tuple(named(name, engine.universe.symbols) for name in move.installs)
    steps = [
        Step((), (), move.discovered, installs, move.failures, move.refit),
        *(Step(batches=(batch,)) for batch in batches(scene, random)),
        Step(watermarks=move.watermarks),
    ]
    for step in steps:
        effects = engine.advance(step)
        while effects.bars_waiting:
            effects = engine.advance(Step())


PARTS: dict[str, Part] = {
    "sampler": Part(
        lambda _: Sampler(4, SECOND, 60, "log"),
        lambda _, state: Sampler.from_state(state),
        tick_scenes,
        sample,
        lambda scene, order: (scene[0], scene[1]._replace(asset=np.argsort(order)[scene[1].asset])),
        by_layout(Sampler.LAYOUT),
    ),
    "membership": Part(
        lambda config: Membership(config.universe[0].symbols, 5.0),
        lambda config, state: Membership.from_state(config.universe[0].symbols, 5.0, state),
        knowledge,
        lambda membership, known, _: membership.update(known),
        turned_knowledge,
        one_axis("ready"),
    ),
    "ewma": Part(
        lambda _: Ewma(4, 20.0, clock="time"),
        lambda _, state: Ewma.from_state(state),
        blocks,
        lambda ewma, block, _: ewma.update(block),
        turned_block,
        by_layout(Ewma.LAYOUT),
    ),
    "garch volatility": Part(
        lambda _: GarchVolatility(4, 20.0, cap=2.5),
        lambda _, state: GarchVolatility.from_state(state),
        volatilities,
        lambda own, scene, _: feed_volatility(own, scene),
        turned_volatility,
        by_layout(GarchVolatility.LAYOUT),
    ),
    "dcc": Part(
        asymmetric,
        lambda _, state: Dcc.from_state(state),
        blocks,
        lambda dcc, block, _: dcc.update(block),
        turned_block,
        by_layout(Dcc.LAYOUT),
    ),
    "eigenvalues": Part(
        lambda config: EigenvalueCleaner(4, 7, 30.0, order=canonical(config)),
        lambda _, state: EigenvalueCleaner.from_state(state),
        rows_and_estimates,
        lambda cleaner, scene, _: cleaner.update(*scene),
        turned_estimate,
        by_layout(EigenvalueCleaner.LAYOUT),
    ),
    "drift": Part(
        lambda config: DriftDetector(
            one_factor(config), 4, arl0=20.0, clock="time", seed=5, order=canonical(config)
        ),
        lambda _, state: DriftDetector.from_state(state),
        blocks,
        lambda detector, block, _: detector.update(block),
        turned_block,
        by_layout(DriftDetector.LAYOUT),
    ),
    "miscalibration": Part(
        lambda config: Miscalibration(one_factor(config), 4, arl0=20.0, order=canonical(config)),
        lambda _, state: Miscalibration.from_state(state),
        known_estimates,
        lambda watch, scene, _: watch.update(*scene),
        turned_estimate,
        by_layout(Miscalibration.LAYOUT),
    ),
    "fourth moment": Part(
        lambda _: FourthMoment(0.95),
        lambda _, state: FourthMoment.from_state(state),
        blocks,
        lambda moment, block, _: moment.update(block.returns),
        turned_block,
        by_layout(FourthMoment.LAYOUT),
    ),
    "diurnal": Part(
        lambda _: Diurnal(4, 4 * 3600 * SECOND, 4 * 3600 * SECOND, smooth_bins=5),
        lambda _, state: Diurnal.from_state(state),
        days,
        lambda diurnal, block, _: diurnal.update(block),
        turned_block,
        by_layout(Diurnal.LAYOUT),
    ),
    "intake": Part(
        lambda config: Intake(config, config.universe[0]),
        lambda config, state: Intake.from_state(config, config.universe[0], state),
        schedule,
        admit,
        turned_scene,
        assets,
    ),
    "engine": Part(
        lambda config: Engine(config, config.universe[0], VERSION),
        lambda config, state: Engine.from_state(config, config.universe[0], VERSION, state),
        schedule,
        advance,
        turned_scene,
        whole_engine,
    ),
}
every_part = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
seeds = st.integers(0, 2**32 - 1)
some = hypothesis_settings(max_examples=20, deadline=None)


def with_symbols(config: Config, order: Order) -> Config:
    symbols = tuple(SYMBOLS[i] for i in order)
    universe = config.universe[0].model_copy(update={"symbols": symbols})
    return config.model_copy(update={"universe": (universe,)})


def fed(part: Part, config: Config, scenes: Sequence[Any], seed: int) -> Any:
    own, random = part.make(config), Random(seed)
    for scene in scenes:
        part.feed(own, scene, random)
    return own


def bits(own: Stateful) -> Bits:
    return bits_of(own.state())


@every_part
@given(seed=seeds)
@some
def test_saving_and_restoring_anywhere_changes_nothing(part: Part, seed: int) -> None:
    random = Random(seed)
    config = stormy(random)
    scenes = part.scenes(config, random)
    own, saved = part.make(config), part.make(config)
    for scene in scenes:
        cut = random.randrange(2**32)
        part.feed(own, scene, Random(cut))
        if random.random() < 0.5:
            state = saved.state()
            for array in state.values():
                array.flags.writeable = False
            saved = part.restore(config, state)
            assert bits(saved) == bits_of(state)
        part.feed(saved, scene, Random(cut))
        assert bits(saved) == bits(own)


@every_part
@given(seed=seeds)
@some
def test_how_the_input_was_cut_or_interleaved_cannot_be_seen(part: Part, seed: int) -> None:
    random = Random(seed)
    config = stormy(random)
    scenes = part.scenes(config, random)
    assert bits(fed(part, config, scenes, seed)) == bits(fed(part, config, scenes, seed + 1))


@every_part
@given(seed=seeds)
@some
def test_permuted_symbols_give_the_permuted_bits(part: Part, seed: int) -> None:
    random = Random(seed)
    config = stormy(random)
    scenes = part.scenes(config, random)
    order = random.sample(range(4), 4)
    turned = fed(part, with_symbols(config, order), [part.turned(s, order) for s in scenes], seed)
    expected = part.by_symbol(fed(part, config, scenes, seed).state(), order)
    assert bits(turned) == bits_of(expected)


@every_part
def test_a_saved_state_is_a_copy(part: Part) -> None:
    random = Random(7)
    config = settings(SYMBOLS)
    scenes = part.scenes(config, random)
    own = fed(part, config, scenes, 7)
    before = bits(own)
    for array in own.state().values():
        array[...] = 7
    restored = part.restore(config, own.state())
    for scene in scenes[-1:]:
        if part.scenes is not schedule:  # which cannot be read twice
            part.feed(restored, scene, Random(8))
    assert bits(own) == before


@every_part
def test_a_state_is_made_of_numbers_alone(part: Part) -> None:
    own = fed(part, settings(SYMBOLS), part.scenes(settings(SYMBOLS), Random(5)), 5)
    state = own.state()
    assert {array.dtype.kind for array in state.values()} <= set("biuf")
    assert all(array.flags.c_contiguous for array in state.values())
