"""Returns, what is known of their correlation, and the matrix that is published."""

from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class Quality:
    """How the published matrix came to be positive definite, and whether it is degraded.

    Of the variances of all symbols by two scales, ``raw_variances`` keep their noise, because
    too little would be left without it, and ``floored_variances`` are held at their floor; None
    with one scale.
    """

    min_eigenvalue: float
    repair: float
    capped_pairs: int
    cleaned: bool = False
    degraded: tuple[str, ...] = ()
    raw_variances: int | None = None
    floored_variances: int | None = None


@dataclass(frozen=True, slots=True)
class Regime:
    """One-number summaries of the matrix.

    ``top_eigenvalue_share`` is the absorption ratio of one factor; ``effective_bets`` how many
    uncorrelated positions its spectrum is worth, 1 to n; ``crisis_distance`` the root mean square
    distance of its pairs from v v', where all move as one: 0 there, about 1 where nothing is
    correlated. ``since_shift_ns`` is the time since the last shift that a model was fitted to,
    None before the first. All but the first two are None where a writer did not know them.
    """

    average_correlation: float
    top_eigenvalue_share: float
    effective_bets: float | None = None
    crisis_distance: float | None = None
    since_shift_ns: int | None = None


@dataclass(frozen=True, eq=False)
class Matrix:
    """One published correlation matrix over the n symbols that are ready.

    ``corr``, ``n_eff`` and ``band`` (n, n); ``vol`` and ``staleness_ns`` (n,). ``vol`` is the
    standard deviation of the return over ``horizon_ns``; times ``annualisation`` it is per
    year. ``band`` is the standard error of sampling; ``band_total`` adds the tracking error
    when it is known. ``audit`` says how another estimate of the same correlations compares.
    Fields that a later estimator fills are None. ``base_currency`` is the one that returns were
    converted to; None: as prices are quoted.
    """

    universe: str
    universe_id: str
    estimator: str
    sequence: int
    as_of_ns: int
    data_from_ns: int
    horizon_ns: int
    bar_ns: int
    symbols: tuple[str, ...]
    pending: tuple[str, ...]
    corr: F64
    vol: F64
    n_eff: F64
    band: F64
    staleness_ns: I64
    quality: Quality
    regime: Regime
    annualisation: float
    return_type: str
    price_policy: str
    config_fingerprint: str
    software_version: str
    kind: str = "filtered"
    vol_unit: str = "per_horizon"
    band_total: F64 | None = None
    drift_level: float | None = None
    audit: Mapping[str, object] | None = None
    model_version: int = 1
    schema_version: int = 1
    base_currency: str | None = None
