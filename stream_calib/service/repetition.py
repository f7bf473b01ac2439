"""The journal repeated: settings, input and decisions as they were, the same bits again."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import structlog

from stream_calib import ports
from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.engine import Engine
from stream_calib.engine.journal import repeat
from stream_calib.engine.state import migrate, reset
from stream_calib.errors import LostInputError, RecoveryError
from stream_calib.service.numerics import Build
from stream_calib.service.runner import Runner, unobserved
from stream_calib.values import (
    Change,
    Effects,
    Fit,
    JournalEntry,
    Move,
    Output,
    Range,
    RecordBatch,
    Snapshot,
    Source,
    Step,
    TickBatch,
)
from stream_calib.wire.journal import OutputDigest, RecordDigest
from stream_calib.wire.snapshots import digest_state

T = TypeVar("T")
InThread = Callable[[Callable[[], T]], "asyncio.Future[T]"]


class Allowed(NamedTuple):
    """What the user has accepted on the command line, for this start alone."""

    genesis: bool = False
    reset_state: bool = False
    gap: bool = False
    divergence: bool = False


class Repetition:
    """One universe on its way through its journal.

    Parameters
    ----------
    config, universe
        Settings as they are now: where the universe publishes, and to which partition.
    source
        Where the input is read again.
    build
        What computes now.
    allowed
        What the user has accepted.
    in_thread
        Runs a function in the thread that computes.

    Attributes
    ----------
    runner
        In the state after entry ``number``, whose chain is ``chain``; None before the first.
    settings
        What the state was made under.
    lost, diverged
        Input that was passed over, and why the state is not what it was; empty when it is.
    states_compared
        Entries so far that said what the state was after them.
    """

    def __init__(
        self,
        config: Config,
        universe: UniverseConfig,
        source: ports.RecordSource,
        build: Build,
        allowed: Allowed,
        in_thread: InThread[Any],
    ) -> None:
        self.runner: Runner | None = None
        self.settings: Mapping[str, Any] = {}
        self.number = -1
        self.chain = ""
        self.lost: list[Range] = []
        self.diverged = ""
        self.states_compared = 0
        self._config = config
        self._universe = universe
        self._source = source
        self._build = build
        self._numerics = build.numerics
        self._software_version = build.software_version
        self._allowed = allowed
        self._in_thread = in_thread
        self._log = structlog.get_logger().bind(universe=universe.name)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot."""
        self.settings = snapshot.settings
        self.number, self.chain = snapshot.number, snapshot.chain
        self._numerics = snapshot.numerics
        self._software_version = snapshot.software_version
        config = self._config.under(snapshot.settings)
        self.runner = self._runner(
            Engine.from_state(
                config, config.universe[0], snapshot.software_version, snapshot.arrays
            )
        )

    def apply(self, change: Change) -> None:
        """Change what the journal says was changed."""
        details: Any = change.details
        match change.kind:
            case "owner":
                self._numerics = details["numerics"]
                self._software_version = details["software_version"]
                if self.runner is not None:
                    self.runner.engine.software_version = self._software_version
            case "genesis":
                self.settings = details["settings"]
                config = self._config.under(self.settings)
                engine = Engine(config, config.universe[0], self._software_version)
                engine.resume_sequences(details["sequences"])
                self.runner = self._runner(engine)
            case "migrate" | "reset":
                self._change_settings(change.kind, details["settings"])
            case "retire":
                assert self.runner is not None
                self.runner.engine.retire(Source(*source) for source in details["sources"])
            case "gap" if not details["repeated"]:
                self._announce("gap_accepted", details)
            case "gap" | "divergence":
                self._announce(f"{change.kind}_accepted", details)
                if not (self._allowed.gap or self._allowed.divergence):
                    raise RecoveryError(
                        f"The journal of universe {self._universe.name!r} went on after entry "
                        f"{self.number} though its state could not be built again, and no "
                        "snapshot was taken after that; --accept-divergence does so once more"
                    )
                self.diverged = self.diverged or str(details.get("reason", change.kind))

    async def repeat(self, entry: JournalEntry, fits: Mapping[str, Fit]) -> list[Output]:
        """Repeat one entry and compare; return what it published.

        Raises
        ------
        LostInputError
            Its input is not what it was.
        RecoveryError
            It does not give the same bits.
        """
        for change in entry.changes:
            self.apply(change)
        runner = self.runner
        assert runner is not None
        taken = runner.apply([Step()]) if entry.changes else []
        for move in entry.moves:
            records = {wanted: await self._read(wanted) for wanted in move.ranges}
            taken += await self._in_thread(partial(_apply, runner, move, records, fits))
        outputs = [output for effects in taken for output in runner.outputs(effects)]
        digest = OutputDigest()
        digest.update(outputs)
        if digest.value() != entry.outputs_digest or not await self._same_state(entry):
            self._diverge(entry)
        if self.lost or self.diverged:
            last = {name: pair[1] for name, pair in entry.sequences.items()}
            runner.engine.resume_sequences(last)
        self.number, self.chain = entry.number, entry.chain
        return outputs

    def lose(self, wanted: Range, what: str) -> None:
        """Pass over input that has to be repeated and is gone, when that is allowed."""
        self.refuse_gap(wanted, what)
        self.lost.append(wanted)

    def refuse_gap(self, wanted: Range, what: str) -> None:
        """Raise unless input may be passed over."""
        topic, partition = wanted.source
        sentence = (
            f"Input of topic {topic!r} partition {partition} from position "
            f"{wanted.position_before} to {wanted.position_after} {what}"
        )
        if not self._allowed.gap:
            raise LostInputError(f"{sentence}; --accept-gap goes on without it")
        self._log.warning("gap accepted", reason=sentence)

    def _announce(self, type_: str, details: Mapping[str, object]) -> None:
        assert self.runner is not None
        self.runner.engine.announce(type_, details)

    def _runner(self, engine: Engine) -> Runner:
        config = self._config.under(self.settings)
        version, partition = engine.software_version, self._config.universe.index(self._universe)
        return Runner(
            config, config.universe[0], version, unobserved(), engine, partition=partition
        )

    def _change_settings(self, kind: str, settings: Mapping[str, Any]) -> None:
        assert self.runner is not None
        before, after = self._config.under(self.settings), self._config.under(settings)
        state = self.runner.engine.state()
        if kind == "migrate":
            state = migrate(state, before.universe[0], after, after.universe[0])
        else:
            state = reset(state, after, after.universe[0])
        self.settings = settings
        self.runner = self._runner(
            Engine.from_state(after, after.universe[0], self._software_version, state)
        )

    async def read_again(self, wanted: Range) -> list[RecordBatch]:
        """Return the records of a range; none when they are not those that were read."""
        source, position, stop, n_records, digest = wanted
        batches, found = [], RecordDigest()
        while position < stop:
            batch = await self._source.read(source, position, stop, self._config.input.max_records)
            position = batch.position_after
            batches.append(batch)
            found.update(batch)
        same = (sum(len(b.values) for b in batches), found.value()) == (n_records, digest)
        return batches if same else []

    async def _read(self, wanted: Range) -> list[RecordBatch]:
        if wanted not in self.lost and wanted.n_records:
            if batches := await self.read_again(wanted):
                return batches
            self.lose(wanted, "does not hold the records any more that were read")
        return [
            RecordBatch(wanted.source, wanted.position_before, wanted.position_after, (), (), ())
        ]

    async def _same_state(self, entry: JournalEntry) -> bool:
        runner = self.runner
        if not entry.state_digest or runner is None:
            return True
        self.states_compared += 1
        found = await self._in_thread(lambda: digest_state(runner.engine.state()))
        return bool(found == entry.state_digest)

    def _diverge(self, entry: JournalEntry) -> None:
        if self.lost or self.diverged:
            return  # it is known by now
        sentence = (
            f"Entry {entry.number} of the journal of universe {self._universe.name!r}, repeated, "
            "does not give the same bits"
        )
        now, then = self._build.numerics, self._numerics
        changed = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
        if changed:
            sentence += (
                f", and {', '.join(changed)} changed since: stop the old version cleanly before "
                "an upgrade"
            )
        if not self._allowed.divergence:
            raise RecoveryError(f"{sentence}; --accept-divergence goes on all the same")
        self._log.warning("divergence accepted", reason=sentence)
        self.diverged = sentence


def _apply(
    runner: Runner,
    move: Move,
    records: Mapping[Range, list[RecordBatch]],
    fits: Mapping[str, Fit],
) -> list[Effects]:
    def read(wanted: Range) -> Iterator[TickBatch]:
        return map(runner.decode, records[wanted])

    return runner.apply(repeat(move, read, fits))
