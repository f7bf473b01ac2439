"""A saved state under other settings: what can be carried over, and what cannot."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.arrays import (
    Arrays,
    original_arrays,
    pieces,
    read_originals,
    read_text,
    text_array,
    under,
    within,
)
from stream_calib.engine.dcc_layer import LAYOUTS as DCC_LAYOUTS
from stream_calib.engine.dcc_layer import REQUEST, REQUEST_LAYOUTS
from stream_calib.engine.engine import Engine
from stream_calib.engine.refit_cycle import calmed
from stream_calib.engine.reordering import chosen, turned
from stream_calib.engine.tick_layer import COMPARED, LAYOUTS, SETTINGS, WINDOWS
from stream_calib.estimation.calibrated import BY_NAME
from stream_calib.values import I64, TICK

State = Mapping[str, npt.NDArray[Any]]
_DECIDED = 2  # column of intake.marks
OF_ONE_LIST = ("challenger", "fallback", "prior", "watch")  # parts of the regime loop
# of a symbol in one list, its own affair
_BY_SYMBOL = ("universe.returns.", "universe.calendars.", "universe.currency.symbols.")


def migrate(state: State, before: UniverseConfig, config: Config, after: UniverseConfig) -> Arrays:
    """Carry a state over to another list of symbols, all other settings alike.

    Symbols in both lists keep everything, among themselves too; a new one begins as if it had
    never ticked. Ticks of one that is gone are dropped. A model goes on among those that stay,
    a new symbol at their average, and a fit is asked for. Numbers of outputs and of the model
    go on. The next step emits the event ``universe_changed``.

    Parameters
    ----------
    state
        What ``Engine.state`` returned under ``before``.
    config, after
        Settings from now on; ``after`` is one of ``config.universe``.

    Raises
    ------
    ValueError
        If more than the symbols differs, or the state is of other symbols than ``before``.
    """
    if difference({"universe": before.settings()}, {"universe": after.settings()}) is not None:
        message = "only symbols can be migrated, other settings differ too"
        raise ValueError(message)
    facts = read_text(state["engine.facts"])
    if facts["symbols"] != list(before.symbols) or after not in config.universe:
        message = "the state is of another universe"
        raise ValueError(message)
    origin = _origin(before.symbols, after.symbols)
    changes = {
        "added": [s for s in after.symbols if s not in before.symbols],
        "removed": [s for s in before.symbols if s not in after.symbols],
    }
    facts["announcements"].append(["universe_changed", _closed_ns(facts), changes])
    facts |= {"symbols": after.symbols, "described": False}
    out = dict(state)
    out["engine.facts"] = text_array(facts)
    out["membership.ready"] = chosen(state["membership.ready"], origin, nothing=False)
    for part, layout in LAYOUTS.items():
        own = within(f"layer.{part}", state)
        out = {name: a for name, a in out.items() if not name.startswith(f"layer.{part}.")}
        out |= under(f"layer.{part}", turned(own, layout, origin, len(before.symbols)))
    fresh = Engine(config, after, "").state()
    out |= {name: fresh[name] for name in SETTINGS if name in fresh}
    if fresh["layer.session"].shape != out["layer.session"].shape:
        out["layer.session"] = fresh["layer.session"]
    position, then = WINDOWS[-1], COMPARED
    if position in fresh and fresh[position].shape != out[position].shape:
        # other calendars: windows begin anew, and so does what they are compared with
        out |= {name: fresh[name] for name in WINDOWS}
        out = {name: array for name, array in out.items() if not name.startswith(then)}
    elif f"{then}.settings" in out:
        for name in ("settings", "group"):
            if f"layer.ewma.{name}" in fresh:
                out[f"{then}.{name}"] = fresh[f"layer.ewma.{name}"]
    if "dcc.facts" in state:
        out = _migrated_dcc(out, origin, len(before.symbols))
    out |= _migrated_ticks(state, _origin(after.symbols, before.symbols), after.price)
    out |= _migrated_screen(state, _origin(after.symbols, before.symbols))
    for name in (n for n in fresh if n.startswith(("layer.diurnal.", "layer.screen."))):
        # parts that come into being with the new symbols, or are of other calendars
        alike = name.startswith("layer.screen.held.") or (
            name in out and out[name].shape == fresh[name].shape
        )
        if not alike or name.endswith(".settings"):
            out[name] = fresh[name]
    known = (*fresh, *(name for name in out if name.startswith((then, "dcc."))))
    return _copied({name: out[name] for name in known})


def reset(state: State, config: Config, after: UniverseConfig) -> Arrays:
    """Begin afresh under other settings, where the input has got to.

    Sources keep their positions, event times, held ticks and rejects; ticks that wait for
    their bar keep waiting, unless they were priced under another policy. A bar that was closed
    stays closed: the first one is the first that the old bars did not cover to its end. Numbers
    of outputs and of the model go on. The next step emits the event ``state_reset``.

    Parameters
    ----------
    state
        What ``Engine.state`` returned under any settings.
    config, after
        Settings from now on; ``after`` is one of ``config.universe``.
    """
    facts = read_text(state["engine.facts"])
    out = Engine(config, after, "").state()
    closed_ns = _closed_ns(facts)
    details = {"config_fingerprint": config.fingerprint(after)}
    fresh = read_text(out["engine.facts"]) | {
        "due": closed_ns // after.bar,
        "sequences": facts["sequences"],
        "model_version": facts["model_version"],
        "announcements": [*facts["announcements"], ["state_reset", closed_ns, details]],
    }
    out["engine.facts"] = text_array(fresh)
    carried = {name: array for name, array in state.items() if name.startswith("intake.")}
    usable = np.full(len(state["intake.ticks.time_ns"]), fill_value=facts["price"] == after.price)
    above = np.array([after.return_of(symbol) != "diff" for symbol in facts["symbols"]])
    usable &= ~(above[state["intake.ticks.asset"]] & (state["intake.ticks.price"] <= 0.0))
    usable |= state["intake.ticks.kind"] != TICK  # what adjusts prices does so under any policy
    place = _origin(after.symbols, facts["symbols"])
    out |= carried | _migrated_ticks(state, place, after.price, usable)
    if facts["due"]:
        # with more lateness than before, ticks of closed bars would be in time again
        marks = state["intake.marks"].copy()
        np.maximum(marks[:, _DECIDED], closed_ns, out=marks[:, _DECIDED])
        out["intake.marks"] = marks
    return _copied(out)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Name the first setting that differs, the list of symbols aside, and both its values.

    Parameters
    ----------
    before, after
        What ``Config.settings`` returned.

    Returns
    -------
    str or None
        Such as "universe.ewma.half_life was 20s and is 30s".
    """
    old, new = dict(_leaves(before)), dict(_leaves(after))
    both = set(old.get("universe.symbols") or ()) & set(new.get("universe.symbols") or ())
    for path in [*new, *(path for path in old if path not in new)]:
        symbol = next((path[len(p) :] for p in _BY_SYMBOL if path.startswith(p)), None)
        if path == "universe.symbols" or (symbol is not None and symbol not in both):
            continue
        if old.get(path) != new.get(path):
            return f"{path} was {_worded(old.get(path))} and is {_worded(new.get(path))}"
    return None


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", list(value) if isinstance(value, tuple) else value


def _worded(value: object) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value)


def _closed_ns(facts: Mapping[str, Any]) -> int:
    closed_ns: int = facts["due"] * facts["bar_ns"]
    return closed_ns


def _origin(before: Sequence[str], after: Sequence[str]) -> I64:
    """Return where each symbol of ``after`` stands in ``before``, -1 for nowhere."""
    places = {symbol: i for i, symbol in enumerate(before)}
    return np.array([places.get(symbol, -1) for symbol in after], np.int64)


def _migrated_dcc(state: State, origin: I64, n_before: int) -> Arrays:
    """Keep the model among the symbols that stay, and all that goes on where none has changed.

    Of other symbols, what is in shadow and what drift is measured from has had its time, and
    what was asked for is asked for anew.
    """
    out, layouts = dict(state), dict(DCC_LAYOUTS)
    facts = read_text(state["dcc.facts"])
    if sorted(origin) == list(range(n_before)):
        if not facts.get("pending", [{}])[-1].get(BY_NAME):
            layouts |= REQUEST_LAYOUTS  # asked for by a version that left the symbols as they were
    else:
        asked = facts.pop("pending", None)
        if asked is not None or "dcc.cycle.model.volatility.settings" in state:
            facts |= {"due": facts["n_closed"] + 1, "reason": "universe"}
        gone = [REQUEST, *(f"cycle.{which}" for which in OF_ONE_LIST)]
        prefixes = tuple(f"dcc.{part}." for part in gone)
        out = {name: array for name, array in out.items() if not name.startswith(prefixes)}
        out["dcc.facts"] = text_array(facts)
        out["dcc.cycle.facts"] = calmed(state["dcc.cycle.facts"])
    for part, layout in layouts.items():
        own = within(f"dcc.{part}", out)
        out |= under(f"dcc.{part}", turned(own, layout, origin, n_before))
    return out


def _migrated_ticks(
    state: State, place: I64, prices: str, usable: npt.NDArray[np.bool_] | None = None
) -> Arrays:
    """Give ticks the new places of their symbols; ``place`` is -1 for a symbol that is gone."""
    asset, held = state["intake.ticks.asset"], state["intake.held.asset"]
    kept = place[asset] >= 0
    if usable is not None:
        kept &= usable
    counts = [int(kept[piece].sum()) for piece in pieces(state["intake.ticks.count"])]
    out = {
        f"intake.ticks.{name}": state[f"intake.ticks.{name}"][kept]
        for name in ("time_ns", "price", "ident", "kind", "quote", "offset")
    }
    columns = 0 if prices == "last" else 4
    if out["intake.ticks.quote"].shape[1] != columns:
        out["intake.ticks.quote"] = np.full((int(kept.sum()), columns), np.nan)
    out |= under("intake.ticks", _kept_originals(within("intake.ticks", state), kept))
    out["intake.ticks.asset"] = place[asset[kept]]
    out["intake.ticks.count"] = np.array(counts, np.int64)
    # the last place of all, for index -1, is that of a symbol that was unknown before
    out["intake.held.asset"] = np.append(place, -1)[held]
    return out


def _migrated_screen(state: State, place: I64) -> Arrays:
    """Give held ticks the new places of their symbols; those of one that is gone are dropped."""
    held = within("layer.screen.held", state)
    kept = place[held["asset"]] >= 0
    sources = [source for source, keep in zip(read_text(held["source"]), kept, strict=True) if keep]
    out: Arrays = {name: held[name][kept] for name in ("time_ns", "price", "offset")}
    out |= {"asset": place[held["asset"][kept]], "source": text_array(sources)}
    return under("layer.screen.held", out | _kept_originals(held, kept))


def _kept_originals(arrays: State, kept: npt.NDArray[np.bool_]) -> Arrays:
    originals = read_originals(within("original", arrays))
    chosen = [original for original, keep in zip(originals, kept, strict=True) if keep]
    return under("original", original_arrays(chosen))


def _copied(out: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {name: out[name].copy() for name in sorted(out)}
