"""The table of the README from the lines that `make chaos` has left.

    python -m tests.kafka.chaos_table build/chaos.jsonl

Each line of the file is how a test ended, with its figures where it told some. Of a test that was
run more than once the newest run counts, and the last line says what was left out.
"""

import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

HEAD = (
    "| what | kills -9 | other faults | identical | recoveries p50 / p99 | takeovers p50 / p99"
    " | ended by itself | caught up in |",
    "|---|---|---|---|---|---|---|---|",
)
WITHOUT_FIGURES = "tests without figures"
LISTED = 3  # kinds of faults; of more only their number

Run = Mapping[str, Any]


def quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p99."""
    if len(seconds) < 2:
        return (seconds[0], seconds[0]) if seconds else (0.0, 0.0)
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49], cuts[98]


def table(lines: Iterable[str]) -> list[str]:
    """Return the rows; tests of one name that differ by a number only are one row."""
    runs, left_out = newest(orjson.loads(line) for line in lines if line.strip())
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_name(run), []).append(run)
    bare = groups.pop(WITHOUT_FIGURES, None)
    rows = [row for name, own in groups.items() for row in _rows(name, own)]
    if bare is not None:
        rows += _rows(WITHOUT_FIGURES, bare)
    rows.append(_all(runs))
    if left_out:
        failed = sum(_is_bad(run) for run in left_out)
        rows.append(f"\nEarlier runs of these tests, left out: {len(left_out)}, failed: {failed}.")
    return [*HEAD, *rows]


def has_failed(lines: Iterable[str]) -> bool:
    """Tell whether the newest run of any test did not pass."""
    runs, _ = newest(orjson.loads(line) for line in lines if line.strip())
    return any(_is_bad(run) for run in runs)


def newest(lines: Iterable[Run]) -> tuple[list[Run], list[Run]]:
    """Return the lines of the newest run of each test, and one of each earlier run.

    A test that has ended is not "begun" any more.
    """
    by_test: dict[str, dict[str, list[Run]]] = {}
    for line in lines:
        own = by_test.setdefault(line["test"], {}).setdefault(line["run"], [])
        own[:] = [run for run in own if run["outcome"] != "begun"] + [line]
    taken: list[Run] = []
    left_out: list[Run] = []
    for by_run in by_test.values():
        *before, last = by_run.values()
        taken += last
        left_out += [own[0] for own in before]
    return taken, left_out


def _name(run: Run) -> str:
    if "name" in run:
        return re.sub(r" \d+$", "", run["name"])
    return run["test"].rpartition("/")[2] if _is_bad(run) else WITHOUT_FIGURES


def _is_bad(run: Run) -> bool:
    return run["outcome"] in {"failed", "begun"}


def _rows(name: str, runs: Sequence[Run]) -> list[str]:
    takeovers: dict[str, list[float]] = {}
    for run in runs:
        for kind, seconds in run.get("takeover_s", {}).items():
            takeovers.setdefault(kind, []).extend(seconds)
    takeovers = {kind: seconds for kind, seconds in takeovers.items() if seconds}
    own = next(iter(takeovers.values())) if len(takeovers) == 1 else []
    faults = _faults(runs)
    others = str(faults.total()) if len(faults) > LISTED else _listed(faults)
    recovered = _timed([s for run in runs for s in run.get("recovery_s", ())])
    rows = [_row(name, runs, others, recovered, _timed(own))]
    if len(takeovers) > 1:  # what is warm and what is cold are two things
        of_both = ["" for _ in range(3)]
        for kind, seconds in takeovers.items():
            cells = [f"{name}: {kind}", *of_both, "", _timed(seconds), "", ""]
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def _all(runs: Sequence[Run]) -> str:
    # one quantile of different things would be of none of them
    recoveries = sum(len(run.get("recovery_s", ())) for run in runs)
    takeovers = sum(len(s) for run in runs for s in run.get("takeover_s", {}).values())
    return _row("all", runs, str(_faults(runs).total()), str(recoveries), str(takeovers))


def _row(name: str, runs: Sequence[Run], others: str, recovered: str, taken_over: str) -> str:
    kills = sum(run.get("kills", 0) for run in runs)
    caught_up = max((run["caught_up_s"] for run in runs if "caught_up_s" in run), default=None)
    last = "" if caught_up is None else f"{caught_up:.1f} s"
    cells = [name, str(kills), others, _verdict(runs), recovered, taken_over, _ends(runs), last]
    return f"| {' | '.join(cells)} |"


def _verdict(runs: Sequence[Run]) -> str:
    """Say yes only where every run passed; how many did of those where it is not all."""
    outcomes = Counter(run["outcome"] for run in runs)
    words = {"failed": "failed", "begun": "did not end", "skipped": "skipped"}
    others = [f"{outcomes[kind]} {word}" for kind, word in words.items() if outcomes[kind]]
    if not others:
        return "yes"
    said = "**no**" if any(_is_bad(run) for run in runs) else f"{outcomes['passed']} yes"
    return ", ".join([said, *others])


def _faults(runs: Sequence[Run]) -> Counter[str]:
    faults: Counter[str] = Counter()
    for run in runs:
        faults.update(run.get("faults", {}))
    faults.pop("service killed", None)  # these are kills -9
    return faults


def _ends(runs: Sequence[Run]) -> str:
    """Say with which codes processes ended that nobody had killed, and how many began anew."""
    codes: Counter[int] = Counter()
    for run in runs:
        codes.update({int(code): n for code, n in run.get("ends", {}).items() if int(code) >= 0})
    said = [f"{n} with {code}" for code, n in sorted(codes.items()) if n]
    restarts = sum(run.get("restarts", 0) for run in runs)
    if restarts:
        said.append(f"{restarts} started over within")
    return ", ".join(said)


def _timed(seconds: Sequence[float]) -> str:
    p50, p99 = quantiles(seconds)
    return f"{len(seconds)}: {p50:.2f} / {p99:.2f} s" if seconds else ""


def _listed(faults: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in faults.items())


def main() -> int:
    """Print the table; return the exit code, which is not 0 where a test did not pass."""
    path = Path(sys.argv[1])
    if not path.exists():
        sys.stderr.write("chaos: no test left any figures\n")
        return 1
    lines = path.read_text().splitlines()
    sys.stdout.write("\n".join(table(lines)) + "\n")
    return int(has_failed(lines))


if __name__ == "__main__":
    sys.exit(main())
