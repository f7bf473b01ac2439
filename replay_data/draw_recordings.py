"""Write down what becomes of every recording of real markets that the tests use: recordings.md.

Needs that data (STREAM_CALIB_MARKET_DATA names its folder), and some minutes.

STREAM_CALIB_MARKET_DATA=../shared/market_data .venv/bin/python -m replay_data.draw_recordings
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stream_calib.adapters.files import FileSource
from stream_calib.config import parse_config
from stream_calib.service.replay import replay_effects
from stream_calib.wire.ticks import decode
from stream_calib.wire.ticks.labels import Labels

FOLDER = Path(__file__).parent
AT_ONCE = 5000
NO_TICKS = "zerovolume"  # lists bars that had no trade
# what becomes of ticks that were applied, at the close of their bar
AFTERWARDS = ("duplicate", "closed", "outlier", "spread", "crossed_quote", "no_price")

INTRODUCTION = """# What becomes of recordings

Made by `python -m replay_data.draw_recordings`; held by `tests/contract/test_recordings.py`. Every
recording of real markets that the tests use, replayed as it is under `format = "auto"`, each with
a universe of all symbols that it has. Nothing raises. The files are not part of the repository.

- **price**: `mid` where most ticks are quotes, else `last`. Ticks that it has no use for (trades
  where mids are wanted) are `unused`.
- **applied**: those of the ticks that entered the estimate; a tick that repeats the one before it
  is a `duplicate`.
- **without a tick**: records that bring none by their nature, and *in italics* those that are
  refused, by reason.

| recording | records | ticks | price | applied | not applied | without a tick |
|---|---|---|---|---|---|---|
"""
READING = """
`unsupported` are changes of books deeper than one level, which the sockets were recorded with.
Kraken was recorded in version 1 of its protocol, which has no format. PHEMEX begins with its
history, newest first, so that all but the first are late; `phemex_10sym` is the same in order.
FXCM's quotes are crossed where bid and ask are of different moments. The files of `leadlag` name no
symbol. Of DBN's files the daily ones hold no record.
"""


class Account(NamedTuple):
    """What became of the records of a file, and of their ticks."""

    n_records: int
    n_ticks: int
    price: str
    applied: int
    not_applied: Counter[str]
    silent: Counter[str]
    refused: Counter[str]

    def row(self, name: str) -> str:
        """Return this as a row of the table."""
        share = f"{100 * self.applied / self.n_ticks:.1f} %" if self.n_ticks else ""
        without = [_listed(self.silent), *(f"*{text}*" for text in [_listed(self.refused)] if text)]
        cells = (name, f"{self.n_records:,}", f"{self.n_ticks:,}", self.price, share)
        return "| {} | {} | {} |".format(
            " | ".join(cells), _listed(self.not_applied), ", ".join(filter(None, without))
        )


def account(path: Path) -> Account:
    """Replay a file under ``auto``, with a universe of all symbols that it has."""
    labels, symbols = Labels(), set[str]()
    silent, refused = Counter[str](), Counter[str]()
    n_records = n_ticks = n_quotes = 0
    source = FileSource([path])
    source.open()
    while not source.exhausted():
        for batch in source.take(AT_ONCE):
            read = decode(batch, "auto", {})
            symbols |= set(labels.read(batch)[1]) - {""}
            silent.update(read.silent)
            refused.update(why for _, why in read.malformed)
            n_records += len(batch.values)
            n_ticks += len(read.time_ns)
            n_quotes += int(np.isfinite(read.bid + read.ask).sum())
    source.release()
    price = "mid" if 2 * n_quotes > n_ticks else "last"
    outcomes = _outcomes(path, sorted(symbols | {"NOBODY:1", "NOBODY:2"}), price) - refused
    not_applied = Counter({why: n for why, n in outcomes.items() if why != "applied"})
    del not_applied["confirmed_late"]
    applied = outcomes["applied"] - sum(outcomes[why] for why in AFTERWARDS)
    return Account(n_records, n_ticks, price, applied, not_applied, silent, refused)


def _outcomes(path: Path, symbols: list[str], price: str) -> Counter[str]:
    universe = {"name": "u", "symbols": symbols, "bar": "60s", "price": price, "every": 1000}
    tree = {"universe": [universe], "input": {"rejects_per_second": 1_000_000}}
    outcomes: Counter[str] = Counter()
    config = parse_config(tree, {}, origin="recordings")
    for _, effects in replay_effects([path], config, fitted=False):
        for (_, outcome), n in effects.counts.items():
            outcomes[outcome] += n
    return outcomes


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{why} {n:,}" for why, n in sorted(counts.items()) if n)


def recordings(folder: Path) -> Iterable[tuple[str, Path]]:
    """Return the recordings of ticks and bars by the name that the table has them under."""
    for path in sorted(folder.rglob("*.*")):
        name = path.relative_to(folder)
        ticks = name.parts[0] in {"raw", "ticks", "bars"} and NO_TICKS not in name.name
        if ticks and path.suffix in {".gz", ".zst", ".zip"}:
            yield name.as_posix(), path


def main() -> None:
    """Replay everything and write the table down."""
    folder = Path(os.environ["STREAM_CALIB_MARKET_DATA"])
    rows = [account(path).row(name) for name, path in recordings(folder)]
    (FOLDER / "recordings.md").write_text(INTRODUCTION + "\n".join(rows) + "\n" + READING)


if __name__ == "__main__":
    main()
