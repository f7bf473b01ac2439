"""Write down how the loop of alarms and refits does on markets and simulated breaks: regimes.md.

Needs the real market data that the tests use (STREAM_CALIB_MARKET_DATA names its folder), and
about twenty minutes.

STREAM_CALIB_MARKET_DATA=../shared/market_data .venv/bin/python -m replay_data.draw_regimes
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from stream_calib.values import F64, DccParams
from tests.estimation.loops import begun
from tests.estimation.model_markets import Market, crypto, currencies, dow, us_stocks
from tests.estimation.regime_study import Compared, compare, interval, simulated
from tests.estimation.truths import Change

FOLDER = Path(__file__).parent


def crash_week(folder: Path) -> Market:
    """Read the pairs of coins from five days before the crash of 19 May 2021 to the day after."""
    return crypto(folder, "2021-05-14", "2021-05-21")


MINUTES = {"never": 0, "daily": 1440, "weekly": 10_080}
DAYS = {"never": 0, "weekly": 5, "yearly": 250}
BARS = {"never": 0, "every 50 bars": 50, "every 250 bars": 250}
MARKETS: dict[str, tuple[Callable[[Path], Market], float, dict[str, int], int]] = {
    # how it is read, ARL0 in bars, schedules of refits, bars of a block of the bootstrap
    "dow": (dow, 1000.0, DAYS, 20),
    "us_stocks": (us_stocks, 1000.0, DAYS, 20),
    "currencies": (currencies, 1000.0, DAYS, 20),
    "crypto": (crash_week, 5000.0, MINUTES, 240),
}
PATHS = 50
HOUR_NS = 3_600_000_000_000
BREAKS: tuple[tuple[Change, float], ...] = (("fusing", 0.35), ("loosening", 0.4), ("rotation", 0.0))


def main() -> None:
    """Walk through what is named, or everything, and write the tables down."""
    folder = Path(os.environ["STREAM_CALIB_MARKET_DATA"])
    chosen = sys.argv[1:] or [*MARKETS, "simulated"]
    lines = [INTRODUCTION, ""]
    for name in chosen:
        lines += [*(simulations() if name == "simulated" else of_market(folder, name)), ""]
    (FOLDER / "regimes.md").write_text("\n".join(lines) + READING)


def of_market(folder: Path, name: str) -> Iterator[str]:
    """Tell of one market."""
    read, arl0, schedule, block = MARKETS[name]
    market = read(folder)
    found = compare(market, arl0, schedule)
    counts = Counter(event.what for event in found.happened)
    days = found.time_ns[[0, -1]].astype("datetime64[ns]").astype("datetime64[D]")
    yield f"## {market.name}"
    yield ""
    yield (
        f"{len(found.bars)} bars of {found.symbols} symbols, {days[0]} to {days[1]}; one false "
        f"alarm in {arl0:g} bars asked for. {len(found.named)} alarms of the detector, "
        f"{counts['alarm']} of which opened an episode; {counts['fitted']} targets fitted, "
        f"{counts['installed']} installed, {counts['rejected']} rejected, "
        f"{counts['rolled_back']} rolled back."
    )
    yield ""
    yield from happened(found)
    yield ""
    yield from differences(found, block)


def happened(found: Compared) -> Iterator[str]:
    """List the alarms that opened an episode and what came of each."""
    yield "| alarm | named | change estimated at | installed | rejected | rolled back |"
    yield "|---|---|---|---|---|---|"
    named = dict(found.named)
    events = list(found.happened)
    starts = [k for k, event in enumerate(events) if event.what == "alarm"]
    for k, stop in zip(starts, [*starts[1:], len(events)], strict=True):
        alarm = events[k]
        told = {
            what: ", ".join(
                f"{_date(found, event.row)} (n {event.n_post})"
                for event in events[k:stop]
                if event.what == what
            )
            for what in ("installed", "rejected", "rolled_back")
        }
        since = _date(found, alarm.row - alarm.n_post + 1)
        cells = (_date(found, alarm.row), named.get(alarm.row, ""), since, *told.values())
        yield "| " + " | ".join(cells) + " |"


def differences(found: Compared, block: int) -> Iterator[str]:
    """Compare the loop with every other model."""
    yield "| loop against | log score a bar | 95 % | median | minimum-variance risk, % | 95 % |"
    yield "|---|---|---|---|---|---|"
    risk = found.portfolio**2
    for k, name in enumerate(found.models):
        if k == 0:
            continue
        ahead = found.log_score[:, 0] - found.log_score[:, k]
        gain, median = interval(ahead, block), float(np.median(ahead))
        scale = 100.0 / float(risk[:, k].mean())
        less = interval(scale * (risk[:, 0] - risk[:, k]), block)
        yield f"| {name} | {_cells(gain, 1.0)} | {median:+.3f} | {_cells(less, -1.0)} |"


def simulations() -> Iterator[str]:
    """Tell of breaks, and of nothing, simulated."""
    yield "## Simulated, 20 symbols"
    yield ""
    yield "| loop against | 50 breaks: log score a bar | 95 % | 50 paths without | 95 % |"
    yield "|---|---|---|---|---|"
    (names, broken), (_, calm) = (simulated(_draw(jump), PATHS, BARS) for jump in (True, False))
    for k, name in enumerate(names):
        if k:
            cells = [
                _cells(interval(found[:, 0] - found[:, k], 1), 1.0) for found in (broken, calm)
            ]
            yield f"| {name} | {cells[0]} | {cells[1]} |"


def _draw(jump: bool) -> Callable[[int], tuple[DccParams, F64, F64]]:  # noqa: FBT001
    def draw(path: int) -> tuple[DccParams, F64, F64]:
        change, g = BREAKS[path % 3]
        rows = (1000, 1300, 300)
        params, market = begun(20, 1000 + path, change if jump else None, g, rows)
        return params, market.z[:1000], market.z[1000:]

    return draw


def _cells(found: tuple[float, float, float], sign: float) -> str:
    mean, low, high = found
    better = min(sign * low, sign * high) > 0.0
    worse = max(sign * low, sign * high) < 0.0
    verdict = " **wins**" if better else " **loses**" if worse else ""
    return f"{mean:+.3f}{verdict} | {low:+.3f} to {high:+.3f}"


def _date(found: Compared, row: int) -> str:
    at = found.time_ns[max(0, min(row, len(found.time_ns)) - 1)].astype("datetime64[ns]")
    minutes = int(np.median(np.diff(found.time_ns))) < HOUR_NS
    return str(at.astype("datetime64[m]" if minutes else "datetime64[D]"))


INTRODUCTION = """# Alarms, refits and what they are worth

Made by `python -m replay_data.draw_regimes` from the study in `tests/estimation/regime_study.py`; the loop is that of
`tests/estimation/loops.py`: alarms of `DriftDetector`; targets moved (`calibration/staged`) at 30, 50, 75, 100, 150, 200, 300, 400, 600 and 800 rows since
the change; a challenger is installed at a lead of ln 5 on rows that it was not made from; the model before the alarm goes on in shadow for 250 rows and
comes back at a lead of ln 20. All of this was settled on simulated markets (`ARCHITECTURE.md`, decisions) before these were
looked at. ARL0, the mean number of bars to a false alarm that is asked for, is 5000 minutes or 1000 days.

One full fit (`calibrate`) is made from the first window; its volatilities, a and b are kept by all, so that z and the bars are the same and the
models differ in their targets alone. **never** keeps the first target; **daily**, **weekly**, **yearly** estimate it anew from the last window
(2000 rows, QIS), as scheduled refits do; **EWMA 160** is one of z with that half-life.

- **log score**: mean difference, loop less the other, in nats a bar; higher is better. Matrices are repaired as published.
- **minimum-variance risk**: difference of the mean squared return of the minimum-variance portfolio, in % of that of the other; lower is better.
- **95 %**: bootstrap of moving blocks of 20 days or 240 minutes, over the paths where simulated. **wins** and **loses**: the interval is on one side of 0.
"""  # noqa: E501
READING = """
What these say:

- **2008**: the Dow stocks' alarm is of 7 September 2007, `fusing`, with the change put at 27 February 2007; targets follow it until May 2008, and there is none in October 2008, of which the
  model, two steps on by then and following the news, was no longer surprised enough. The 20 US stocks fuse on 16 January 2008 and 12 March 2020 and loosen on 23 May 2012.
  There are 4 alarms in 18 years and 9 in 29: about one in four years of days, as rare as one false one was asked for.
- **19 May 2021**: 40 pairs of coins break at 11:35 (`rotation`), with the change put at 11:29, an hour and a half before the low of the crash, and a target is in force at 12:17. Seven alarms
  in five and a half days, where one in three and a half is asked for: coins change their correlations every day, or the rate is not kept on them.
- **Against never** the loop gains 1.3 and .4 nats a day on stocks, .4 on currencies, 1.6 a minute on coins, and 18, 13 and 10 % of the minimum-variance risk on the first three.
- **Where it loses**: to targets estimated anew each week, .16 nats a day on the Dow stocks, and each week or year, .12 and .10 nats and 3 % of the minimum-variance risk, on the 20 US stocks. After its last stage,
  800 rows, a target stays as it is until the next alarm, and slow change does not raise one. So the loop is no substitute for a schedule; it is what comes before the next scheduled
  fit. On currencies it is ahead of both schedules.
- **Simulated**, where volatilities are right and breaks sudden: ahead of never and of both schedules with a break, and level with them without one.
"""  # noqa: E501


if __name__ == "__main__":
    main()
