"""Returns, and what is known of their correlation."""

from dataclasses import dataclass

from stream_calib.values.units import F64, I64


@dataclass(frozen=True, slots=True)
class ReturnBlock:
    """Sampled returns of k bars.

    ``time_ns`` (k,) is the end of each bar; ``returns`` (k, n) is NaN where the symbol had no
    tick; ``exposure`` (k, n) is the number of bars that a return spans, 0 where NaN;
    ``elapsed_bars`` (k,) is the trading time since the row before, in bars, gaps capped; where
    markets differ it is (k, G, G), the joint trading time of each two groups of symbols.
    """

    time_ns: I64
    returns: F64
    exposure: F64
    elapsed_bars: F64

    def rows(self, start: int, stop: int) -> "ReturnBlock":
        """Cut the rows [start, stop) out."""
        return ReturnBlock(
            self.time_ns[start:stop],
            self.returns[start:stop],
            self.exposure[start:stop],
            self.elapsed_bars[start:stop],
        )


@dataclass(frozen=True, slots=True)
class Correlation:
    """What an estimator knows: correlations and how far they can be trusted.

    ``corr`` (n, n), ``vol`` (n,) per bar, ``n_eff`` (n, n) effective observations, ``kappa``
    excess kurtosis / 3, ``capped`` the number of pairs held inside (-1, 1). Pairs never
    observed are NaN with ``n_eff`` 0.
    """

    corr: F64
    vol: F64
    n_eff: F64
    kappa: float
    capped: int
