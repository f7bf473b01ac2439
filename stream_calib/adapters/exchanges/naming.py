"""Symbols of exchanges, in the names that the decoders give them."""

from collections.abc import Mapping
from typing import Any

VENUES = {
    "binanceusdm": "BINANCE_FUTURES",
    "binancecoinm": "BINANCE_DELIVERY",
    "binanceus": "BINANCE_US",
    "coinbaseadvanced": "COINBASE",
    "coinbaseexchange": "COINBASE",
    "krakenfutures": "KRAKEN_FUTURES",
    "myokx": "OKX",
    "okxus": "OKX",
}


def symbol_name(exchange: str, market: Mapping[str, Any]) -> str:
    """Return the symbol that the decoders make of this exchange's own messages.

    Contracts of ``binance`` are those of BINANCE_FUTURES or BINANCE_DELIVERY, whose own names
    are those of the spot market too.

    Parameters
    ----------
    exchange
        The id that ccxt has for it.
    market
        As ccxt describes it.
    """
    venue = VENUES.get(exchange, exchange.upper())
    if exchange == "binance" and market.get("contract"):
        venue = "BINANCE_DELIVERY" if market.get("inverse") else "BINANCE_FUTURES"
    # the messages of version 2 of Kraken's socket have the names of ccxt
    name = market["symbol"] if exchange == "kraken" else market["id"]
    return f"{venue}:{name}"
