"""Returns held within a multiple of what their variance until then lets expect."""

import numpy as np

from stream_calib.kernels._jit import kernel

WARM_N_EFF = 20.0  # a variance known worse than this caps nothing
CAPS_FREE = 2.0  # caps in short order that widen nothing: a bad tick makes two, there and back
CAPS_PER_RETURN = 0.05  # this share of capped returns is never an accident of heavy tails
CAPS_COUNTED = 1.0  # returns that follow more caps than this in short order do not tell of tails


@kernel("f8(f8[::1], f8[::1], f8[:,::1])")
def read_rescale(pool: np.ndarray, prior: np.ndarray, tails: np.ndarray) -> float:
    """Read off how much larger a variance is than that of the capped returns.

        P_q = (pool_q + prior_q) / (pool_0 + prior_0);   S = 1 / (1 - min(P_2 g(P_2 / P_1), most))

    Parameters
    ----------
    pool : (3,)
        Returns counted, those beyond two thirds of the limit, those beyond the limit.
    prior : (3,)
        What is counted before anything is seen.
    tails : (2, m)
        P_2 / P_1 of laws with ever heavier tails, ascending, and for each
        g = E[max(z^2 - limit^2, 0)] / P_2; the last entry of the first row is ``most``.
    """
    known = pool + prior
    share = known[2] / known[0]
    ratio = known[2] / known[1]
    m = tails.shape[1] - 1
    most = tails[0, m]
    if ratio <= tails[0, 0]:
        g = tails[1, 0]
    elif ratio >= tails[0, m - 1]:
        g = tails[1, m - 1]
    else:
        q = 1
        while tails[0, q] < ratio:
            q += 1
        part = (ratio - tails[0, q - 1]) / (tails[0, q] - tails[0, q - 1])
        g = tails[1, q - 1] + part * (tails[1, q] - tails[1, q - 1])
    rescale: float = 1.0 / (1.0 - min(share * g, most))
    return rescale


@kernel(
    "void(f8[:,::1], f8[:,::1], f8[::1], f8[::1], f8[::1], f8, f8[::1], f8[:,::1],"
    " f8[:,::1], f8[::1], f8[::1], f8[:,::1], i8[::1])"
)
def cap_returns(
    returns: np.ndarray,
    exposure: np.ndarray,
    decay_seen: np.ndarray,
    decay_unseen: np.ndarray,
    decay_pool: np.ndarray,
    limit: float,
    prior: np.ndarray,
    tails: np.ndarray,
    sums: np.ndarray,
    score: np.ndarray,
    pool: np.ndarray,
    out_returns: np.ndarray,
    out_capped: np.ndarray,
) -> None:
    """Cap k rows of returns, each by what was known before it.

        h_i = S A_i / E_i;   cap_i = limit sqrt(h_i w_i) 2^max(0, s_i - CAPS_FREE)
        x_i = sign(r_i) min(|r_i|, cap_i);   c_i = [|r_i| >= cap_i]
        A_i <- d A_i + x_i^2;  E_i <- d E_i + w_i;  E2_i <- d^2 E2_i + w_i^2
        s_i <- max(0, s_i - CAPS_PER_RETURN) + c_i
        pool <- d_pool pool + sum over i with s_i <= CAPS_COUNTED of
                (1, [|x_i| >= 2/3 limit sqrt(h_i w_i)], c_i)

    with S of ``read_rescale``. A return of exactly zero is handed on and changes nothing: a
    price that stands still says nothing about its next move. Nothing is capped while
    E_i^2 / E2_i < WARM_N_EFF or A_i = 0.

    Parameters
    ----------
    returns : (k, n)
        NaN where not observed.
    exposure : (k, n)
        Bars that each return spans; 0 where not observed.
    decay_seen, decay_unseen, decay_pool : (k,)
        Weight on the past for symbols with a return, for the others, and for the pool.
    limit
        Standard deviations that a return may have.
    prior, tails
        Of ``read_rescale``.
    sums : (3, n), changed in place
        A, E and E2.
    score : (n,), changed in place
        s: caps in short order.
    pool : (3,), changed in place
        Sums of whole numbers, so that the order of the symbols cannot show.
    out_returns : (k, n), overwritten
        x, NaN where not observed.
    out_capped : (n,), added to
        Sum of c.
    """
    n = returns.shape[1]
    counts = np.empty(3)
    for t in range(returns.shape[0]):
        rescale = read_rescale(pool, prior, tails)
        counts[:] = 0.0
        for i in range(n):
            r, w = returns[t, i], exposure[t, i]
            observed = r == r and w > 0.0
            out_returns[t, i] = r
            moved = observed and r != 0.0
            x = abs(r)
            if moved and sums[0, i] > 0.0 and sums[1, i] * sums[1, i] >= WARM_N_EFF * sums[2, i]:
                usual = limit * np.sqrt(rescale * sums[0, i] / sums[1, i] * w)
                cap = usual * 2.0 ** max(0.0, score[i] - CAPS_FREE)
                capped = x >= cap
                if score[i] <= CAPS_COUNTED:
                    counts[0] += 1.0
                    counts[1] += 1.0 if x >= usual * (2.0 / 3.0) else 0.0
                    counts[2] += 1.0 if capped else 0.0
                score[i] = max(0.0, score[i] - CAPS_PER_RETURN)
                if capped:
                    x = cap
                    out_returns[t, i] = cap if r > 0.0 else -cap
                    out_capped[i] += 1
                    score[i] += 1.0
            decay = decay_seen[t] if moved else decay_unseen[t]
            sums[0, i] = decay * sums[0, i] + (x * x if moved else 0.0)
            sums[1, i] = decay * sums[1, i] + (w if moved else 0.0)
            sums[2, i] = decay * decay * sums[2, i] + (w * w if moved else 0.0)
        for q in range(3):
            pool[q] = decay_pool[t] * pool[q] + counts[q]
