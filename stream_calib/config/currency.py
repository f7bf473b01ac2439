"""Settings of currencies."""

from typing import Annotated

from pydantic import Field, model_validator

from stream_calib.config.tick_layer import Section

CurrencyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,20}$")]


class CurrencyConfig(Section):
    """What prices are quoted in, and the currency that correlations are wanted in.

    ``symbols`` are the currencies of symbols that are not quoted in ``base``; ``rates`` says which
    symbol of the universe is the price of a currency in ``base``, with "1/" before it where that
    is quoted the other way round. What is ``hedged`` keeps the return of its own currency.
    """

    base: CurrencyName
    symbols: Annotated[dict[str, CurrencyName], Field(min_length=1)]
    rates: dict[CurrencyName, Annotated[str, Field(min_length=1)]]
    hedged: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _coherent(self) -> "CurrencyConfig":
        for symbol, currency in self.symbols.items():
            if currency == self.base:
                message = f"symbols names {symbol!r}, which is in the base {self.base} already"
                raise ValueError(message)
            if currency not in self.rates:
                message = f"rates has no symbol for {currency}, in which {symbol!r} is quoted"
                raise ValueError(message)
            if self.rate_of(symbol)[0] in self.symbols:
                rate = self.rate_of(symbol)[0]
                message = f"rates names {rate!r} for {currency}, which is not in {self.base} itself"
                raise ValueError(message)
        for symbol in self.hedged:
            if symbol not in self.symbols:
                message = f"hedged names {symbol!r}, which has no currency in symbols"
                raise ValueError(message)
        return self

    def rate_of(self, symbol: str) -> tuple[str, int]:
        """Return the symbol of the rate from this one's currency to the base, and its sign."""
        rate = self.rates[self.symbols[symbol]]
        inverse = rate.startswith("1/")
        return rate.removeprefix("1/"), -1 if inverse else 1
