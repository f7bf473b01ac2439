"""Live exchanges, through ccxt."""

from stream_calib.adapters.exchanges.feed import Channel, ExchangeFeed
from stream_calib.adapters.exchanges.naming import symbol_name

__all__ = ["Channel", "ExchangeFeed", "symbol_name"]
