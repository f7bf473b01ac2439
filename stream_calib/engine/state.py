"""A saved state under other settings: what can be carried over, and what cannot."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.arrays import Arrays, pieces, read_text, text_array
from stream_calib.engine.engine import Engine
from stream_calib.values import I64, NO_TIME

State = Mapping[str, npt.NDArray[Any]]
_TRIANGLES = ("products", "squares_i", "squares_j", "exposures", "exposures2")
_DECIDED = 2  # column of intake.marks


def migrate(state: State, before: UniverseConfig, config: Config, after: UniverseConfig) -> Arrays:
    """Carry a state over to another list of symbols, all other settings alike.

    Symbols in both lists keep everything, among themselves too; a new one begins as if it had
    never ticked. Ticks of one that is gone are dropped. Fits belong to the old list and are
    dropped as well; numbers of outputs and of the model go on. The next step emits the event
    ``universe_changed``.

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
    apart = {"symbols", "topics"}
    if before.model_dump(exclude=apart) != after.model_dump(exclude=apart):
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
    facts |= {"symbols": after.symbols, "fits": {}}
    out = {name: array for name, array in state.items() if not name.startswith("fit.")}
    out["engine.facts"] = text_array(facts)
    for name, nothing in (("price", np.nan), ("bar", -1), ("time_ns", NO_TIME), ("ident", 0)):
        out[f"sampler.last_{name}"] = _chosen(state[f"sampler.last_{name}"], origin, nothing)
    out["membership.ready"] = _chosen(state["membership.ready"], origin, nothing=False)
    out |= _migrated_ewma(state, origin)
    out |= _migrated_ticks(state, _origin(after.symbols, before.symbols))
    return _copied(out)


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
    if after.return_type != "diff":
        usable &= state["intake.ticks.price"] > 0.0
    out |= carried | _migrated_ticks(state, _origin(after.symbols, facts["symbols"]), usable)
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
    for path in [*new, *(path for path in old if path not in new)]:
        if path != "universe.symbols" and old.get(path) != new.get(path):
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


def _chosen(array: npt.NDArray[Any], origin: I64, nothing: float) -> npt.NDArray[Any]:
    out = array[..., origin]
    out[..., origin < 0] = nothing
    return out


def _migrated_ewma(state: State, origin: I64) -> Arrays:
    sums = {name: state[f"ewma.{name}"] for name in _TRIANGLES}
    n_before, n = len(state["membership.ready"]), len(origin)
    i, j = np.triu_indices(n)
    first, second = np.minimum(origin[i], origin[j]), np.maximum(origin[i], origin[j])
    # packed row by row, see kernels/ewma; a pair in the other order has its squares exchanged
    place = np.where(first < 0, -1, first * n_before - first * (first - 1) // 2 + second - first)
    turned = origin[i] > origin[j]
    out = {f"ewma.{name}": _chosen(array, place, 0.0) for name, array in sums.items()}
    squares_i, squares_j = out["ewma.squares_i"], out["ewma.squares_j"]
    out["ewma.squares_i"] = np.where(turned, squares_j, squares_i)
    out["ewma.squares_j"] = np.where(turned, squares_i, squares_j)
    out["ewma.fourth"] = _chosen(state["ewma.fourth"], origin, 0.0)
    out["ewma.settings"] = state["ewma.settings"].copy()
    out["ewma.settings"][0] = n
    return out


def _migrated_ticks(
    state: State, place: I64, usable: npt.NDArray[np.bool_] | None = None
) -> Arrays:
    """Give ticks the new places of their symbols; ``place`` is -1 for a symbol that is gone."""
    asset, held = state["intake.ticks.asset"], state["intake.held.asset"]
    kept = place[asset] >= 0
    if usable is not None:
        kept &= usable
    counts = [int(kept[piece].sum()) for piece in pieces(state["intake.ticks.count"])]
    out = {
        f"intake.ticks.{name}": state[f"intake.ticks.{name}"][kept]
        for name in ("time_ns", "price", "ident")
    }
    out["intake.ticks.asset"] = place[asset[kept]]
    out["intake.ticks.count"] = np.array(counts, np.int64)
    # the last place of all, for index -1, is that of a symbol that was unknown before
    out["intake.held.asset"] = np.append(place, -1)[held]
    return out


def _copied(out: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {name: out[name].copy() for name in sorted(out)}
