"""What ``feed --exchange`` is told: whose symbols are whose, and settings of ccxt."""

from pathlib import Path

import pytest

from stream_calib.cli.feed_live import _line, _of_ccxt, _wanted
from stream_calib.errors import InputError
from stream_calib.values import FeedCounts


def test_symbols_are_of_all_exchanges_but_those_that_name_theirs() -> None:
    wanted = _wanted(["binance", "kraken"], "BTC/USDT, kraken:BTC/USD,ETH/USDT:USDT,")
    assert wanted == {
        "binance": ["BTC/USDT", "ETH/USDT:USDT"],
        "kraken": ["BTC/USDT", "BTC/USD", "ETH/USDT:USDT"],
    }


def test_an_exchange_without_symbols_is_named() -> None:
    with pytest.raises(InputError, match="--symbols names none for kraken"):
        _wanted(["binance", "kraken"], "binance:BTC/USDT")


def test_settings_of_ccxt_are_by_exchange(tmp_path: Path) -> None:
    path = tmp_path / "ccxt.toml"
    path.write_text('[binance]\nhttpsProxy = "http://p:1"\noptions.defaultType = "spot"\n')
    given = {"httpsProxy": "http://p:1", "options": {"defaultType": "spot"}}
    assert _of_ccxt(path, ["binance"]) == {"binance": given}
    with pytest.raises(InputError, match=r"ccxt\.toml: binance is not a table of one of the"):
        _of_ccxt(path, ["kraken"])
    path.write_text("binance = {")
    with pytest.raises(InputError, match=r"ccxt\.toml: "):
        _of_ccxt(path, ["binance"])


def test_a_line_says_what_is_not_zero() -> None:
    counts = FeedCounts(messages=9, written=1234, repeated=2)
    counts.reconnects["lost"] += 1
    assert _line("binance", counts) == "binance: 1,234 written, 2 repeated, 1 reconnects"
    assert _line("kraken", FeedCounts()) == "kraken: 0 written"
