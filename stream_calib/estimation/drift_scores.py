"""How a row of returns looks under a correlation matrix, whatever its size and its tails."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from stream_calib.estimation.cleaning import Root, decompose, repair_correlation
from stream_calib.kernels.drift import unpack_rows
from stream_calib.values import F64, I64, Alarm

REPAIRED_MIN = 0.01  # least eigenvalue of an R that holes made indefinite, as it is published
FLOOR = 1e-8
LIKELY = math.log(20.0)  # of the interval of a change, as logarithm of a likelihood ratio
WEAK = 0.5  # part of an even share in what moves all that tells a sign


class Draws(NamedTuple):
    """What the scores of a row are held against.

    ``normals`` (n, m): shocks, other ones for each row. ``target`` (n, n): long-run correlation.
    ``direction`` (n,): signs of its leading eigenvector.
    """

    normals: F64
    target: F64
    direction: F64

    def of(self, observed: I64) -> "Draws":
        """Keep some symbols."""
        normals = np.asfortranarray(self.normals[observed])
        cut = np.ascontiguousarray(self.target[np.ix_(observed, observed)])
        return Draws(normals, cut, np.ascontiguousarray(self.direction[observed]))


def counted(seed: int, stream: int, counter: int = 0) -> np.random.Philox:
    """Return a source of random numbers that depends on these three alone."""
    return np.random.Philox(key=np.array([seed, stream], np.uint64), counter=counter)


def draw_normals(n: int, m: int, seed: int, stream: int = 0, row: int = 0) -> F64:
    """Draw m columns of n shocks; the same for the same arguments."""
    rng = np.random.Generator(counted(seed, stream, row << 64))  # far apart for two rows
    return np.asfortranarray(rng.standard_normal((m, n)).T)


def crisis_direction(target: F64) -> F64:
    """Return the signs (n,) in which symbols move together in a crisis.

        a local maximum of v'Sv, one sign turned at a time, the better of those from all ones and
        from v_i = -1 where u_i < -WEAK / sqrt(n), else 1;   u the leading eigenvector, sum u >= 0

    Signs are turned only where that clearly gains. A symbol that hardly goes with the others nor
    against them is taken to join them: its sign is an accident of the sample, and each wrong one
    costs power. The leading eigenvector alone has wrong ones where other factors are nearly as
    strong.
    """
    leading = decompose(target).vectors[:, -1]
    leading = -leading if math.fsum(leading) < 0.0 else leading
    against = leading * math.sqrt(len(leading)) < -WEAK
    starts: tuple[F64, F64] = np.ones(len(target)), np.where(against, -1.0, 1.0)
    found = [_settled(target, signs) for signs in starts]
    together, apart = (math.fsum(signs * _pulls(target, signs)) for signs in found)
    return found[0] if together >= apart else found[1]


def _pulls(target: F64, signs: F64) -> F64:
    # of the others on each symbol; no BLAS, whose last bits vary
    pulls: F64 = (target * signs).sum(axis=1) - target.diagonal() * signs
    return pulls


def _settled(target: F64, signs: F64) -> F64:
    """Turn the sign that goes against the others most, until none clearly does; v'Sv rises."""
    signs, pulls = signs.copy(), _pulls(target, signs)
    for _ in range(4 * len(signs)):
        along = signs * pulls
        worst = int(np.argmin(along))
        if along[worst] >= -WEAK * max(0.0, math.fsum(along) / len(along)):
            break
        signs[worst] = -signs[worst]
        change = 2.0 * signs[worst] * target[worst]
        change[worst] = 0.0
        pulls += change
    return signs


def tilt_towards(target: F64, direction: F64, g: float) -> F64:
    """Return (1 - g) S + g D v v' D, D = diag(S)^1/2: fused by g along v."""
    scaled = direction * np.sqrt(np.diagonal(target))
    tilted: F64 = (1.0 - g) * target + g * np.multiply.outer(scaled, scaled)
    np.fill_diagonal(tilted, np.diagonal(target))
    return tilted


def root_of(triangle: F64, observed: I64 | None, out_square: F64) -> Root:
    """Factorise R, given as a triangle, for the symbols that are observed.

    Where R is not positive definite it is shrunk towards the identity first, until it is.

    Parameters
    ----------
    triangle : (n (n + 1) / 2,)
        R.
    observed : (k,), optional
        By default all.
    out_square : (n, n), overwritten
        Where to work.
    """
    unpack_rows(triangle, out_square)
    square = out_square
    if observed is not None:
        square = np.ascontiguousarray(_whole(out_square)[np.ix_(observed, observed)])
    try:
        return Root(square)
    except np.linalg.LinAlgError:
        unpack_rows(triangle, out_square)
        square = _whole(out_square)
        if observed is not None:
            square = np.ascontiguousarray(square[np.ix_(observed, observed)])
        return repaired_root(square)


def repaired_root(corr: F64) -> Root:
    """Factorise R after it was shrunk towards the identity until it is positive definite."""
    return Root(np.array(repair_correlation(corr, FLOOR, lifted=REPAIRED_MIN).corr))


def _whole(upper: F64) -> F64:
    square = np.triu(upper)
    square += np.triu(upper, 1).T
    return square


def score_columns(root: Root, fused: Root | None, columns: F64, shocks: F64, draws: Draws) -> F64:
    """Score rows against alternatives to their own correlation, by their directions alone.

        q = z' R^-1 z,   y = R^-1 z
        fusing        n / 2 ln(q / z' F^-1 z)        F: R of the model with a tilted target
                      ((v'y)^2 - y' S y) / q         without F: derivative towards R + k (v v' - S)
        loosening     n / 2 ln(q / z'z)
        rotation      (y'y - y' S y) / q             derivative towards R + k (I - S)

    Parameters
    ----------
    root, fused
        Of R and F.
    columns, shocks : (n, k)
        z and L^-1 z, one row of returns in each column.
    draws
        S and v.

    Returns
    -------
    (3, k)
        Larger where the alternative is likelier. Under any elliptical law of z the logarithms
        are, up to a constant of the row, those of a likelihood ratio.

    References
    ----------
    Tyler (1987), Biometrika 74: the angular law of an elliptical vector.
    """
    half = 0.5 * len(columns)
    q = np.einsum("ij,ij->j", shocks, shocks)
    size = np.einsum("ij,ij->j", columns, columns)
    y = root.divide_transposed(shocks)
    inside = np.einsum("ij,ij->j", y, draws.target @ y)
    out = np.empty((3, columns.shape[1]))
    if fused is not None:
        apart = fused.divide(columns)
        out[0] = half * np.log(q / np.einsum("ij,ij->j", apart, apart))
    else:
        along = draws.direction @ y
        out[0] = (along * along - inside) / q
    out[1] = half * np.log(q / size)
    out[2] = (np.einsum("ij,ij->j", y, y) - inside) / q
    return out


def score_row(z: F64, root: Root, fused: Root | None, draws: Draws) -> F64:
    """Return where the scores of a row stand among those that its own R lets expect, (3,).

        (s - mean) / sd   over the scores of z = L e, e drawn

    0 where they cannot differ, and where z is zero.

    Parameters
    ----------
    z : (n,)
        Observed returns.
    root, fused
        As ``score_columns``.
    draws
        Of the symbols that are observed.
    """
    if not z.any():
        return np.zeros(3)
    places = place_columns(z[:, None], root, fused, draws)
    return np.ascontiguousarray(places[:, 0])


def place_columns(rows: F64, root: Root, fused: Root | None, draws: Draws) -> F64:
    """Do as ``score_row`` for every column (n, k); (3, k)."""
    n, m = draws.normals.shape
    k = rows.shape[1]
    shocks, columns = np.empty((2, m + k, n)).transpose(0, 2, 1)  # columns in memory
    shocks[:, :m], shocks[:, m:] = draws.normals, root.divide(rows)
    columns[:, :m], columns[:, m:] = root.times(draws.normals), rows
    scores = score_columns(root, fused, columns, shocks, draws)
    mean, sd = scores[:, :m].mean(axis=1)[:, None], scores[:, :m].std(axis=1)[:, None]
    known = sd > 1e-9 * (1.0 + np.abs(mean))
    return np.where(known, (scores[:, m:] - mean) / np.where(known, sd, 1.0), 0.0)


def checked_order(order: I64 | None, n: int) -> I64:
    """Return a canonical order of n symbols, theirs by default.

    Raises
    ------
    ValueError
        If it is not a permutation.
    """
    known = np.arange(n) if order is None else np.asarray(order, np.int64)
    if known.shape != (n,) or (np.sort(known) != np.arange(n)).any():
        message = f"order must be a permutation of {n} symbols, not {order!r}"
        raise ValueError(message)
    return known.astype(np.int64)


def dated_alarm(alternative: str, bets: F64, ago: I64, level: float) -> Alarm:
    """Return an alarm with when its change began: where the sum of log bets was least.

    Parameters
    ----------
    alternative, level
        What it is called, and its statistic over the threshold.
    bets : (t,)
        Log bets of the chain that is ahead, in the order of time, up to the alarm.
    ago : (t,)
        The row of each, the last one that of the alarm.
    """
    total = np.concatenate([[0.0], np.cumsum(bets[:-1])])  # before each of these rows
    likely = np.flatnonzero(total <= total.min() + LIKELY)
    row = int(ago[-1])
    since = row + 1 - ago
    return Alarm(
        alternative=alternative,
        row=row,
        since=int(since[np.argmin(total)]),
        since_min=int(since[likely[-1]]),
        since_max=int(since[likely[0]]),
        level=level,
    )


def nested(state: Mapping[str, F64], part: str) -> dict[str, F64]:
    """Return what a state has of a part."""
    start = f"{part}."
    return {name.removeprefix(start): a for name, a in state.items() if name.startswith(start)}


def seen_enough(count: int, n: int) -> bool:
    """Tell whether so many observed symbols of n tell anything of correlations."""
    return count >= max(2, math.ceil(n / 2))
