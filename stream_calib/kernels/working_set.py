"""Steps of a climb under linear rules."""

import math

import numpy as np

from stream_calib.kernels._jit import kernel


@kernel("b1(f8[:,::1], f8[:,::1])")
def _solve(matrix: np.ndarray, right: np.ndarray) -> bool:
    # matrix x = right in place, by elimination with row pivots; False where singular
    n = matrix.shape[0]
    for c in range(n):
        pivot = c
        for i in range(c + 1, n):
            if abs(matrix[i, c]) > abs(matrix[pivot, c]):
                pivot = i
        if not abs(matrix[pivot, c]) > 0.0:
            return False
        for j in range(n):
            matrix[c, j], matrix[pivot, j] = matrix[pivot, j], matrix[c, j]
        for j in range(right.shape[1]):
            right[c, j], right[pivot, j] = right[pivot, j], right[c, j]
        for i in range(c + 1, n):
            factor = matrix[i, c] / matrix[c, c]
            for j in range(c, n):
                matrix[i, j] -= factor * matrix[c, j]
            for j in range(right.shape[1]):
                right[i, j] -= factor * right[c, j]
    for c in range(n - 1, -1, -1):
        for j in range(right.shape[1]):
            for k in range(c + 1, n):
                right[c, j] -= matrix[c, k] * right[k, j]
            right[c, j] /= matrix[c, c]
    return True


@kernel("b1(f8[:,::1], f8[:,::1], b1[::1])")
def _is_positive(curvature: np.ndarray, rules: np.ndarray, held: np.ndarray) -> bool:
    # positive definite where the held rules leave freedom: by a Cholesky decomposition
    n = curvature.shape[0]
    work = curvature.copy()
    largest = 0.0
    for i in range(n):
        largest = max(largest, abs(work[i, i]))
    for k in range(rules.shape[0]):
        if held[k]:
            for i in range(n):
                for j in range(n):
                    work[i, j] += 1e4 * largest * rules[k, i] * rules[k, j]
    for c in range(n):
        for k in range(c):
            work[c, c] -= work[c, k] * work[c, k]
        if not work[c, c] > 0.0:
            return False
        work[c, c] = math.sqrt(work[c, c])
        for i in range(c + 1, n):
            for k in range(c):
                work[i, c] -= work[i, k] * work[c, k]
            work[i, c] /= work[c, c]
    return True


@kernel("b1(f8[::1], f8[:,::1], f8[:,::1], b1[::1], i8, f8[::1])")
def find_step(
    gradient: np.ndarray,
    curvature: np.ndarray,
    rules: np.ndarray,
    held: np.ndarray,
    n_fixed: int,
    out_step: np.ndarray,
) -> bool:
    """Find the step to the maximum of a concave quadratic along the rules that are held.

        d = argmax g'd - d'B d / 2 subject to a_k'd = 0 for k in W:
        [B A'; A 0] [d; m] = [g; 0],   and while some m_k < 0 the least of them leaves W

    Parameters
    ----------
    gradient, curvature : (p,), (p, p)
        g and B.
    rules : (k, p)
        a_k of the rules a_k'x <= b_k; the first ``n_fixed`` are equalities and stay held.
    held : (k,), changed in place
        W: rules that hold with equality here.
    out_step : (p,), overwritten
        d.

    Returns
    -------
    bool
        False, with no meaning of d, where B is not positive definite along W (before or after
        rules were let go) or the equations are singular.

    References
    ----------
    Nocedal and Wright, Numerical Optimization (2006), sec. 16.5.
    """
    n = gradient.size
    while True:
        if not _is_positive(curvature, rules, held):
            return False
        m = held.sum()
        matrix, right = np.zeros((n + m, n + m)), np.zeros((n + m, 1))
        matrix[:n, :n] = curvature
        right[:n, 0] = gradient
        row = n
        for k in range(held.size):
            if held[k]:
                for j in range(n):
                    matrix[row, j] = rules[k, j]
                    matrix[j, row] = rules[k, j]
                row += 1
        if not _solve(matrix, right):
            return False
        out_step[:] = right[:n, 0]
        row, least, worst = n, 0.0, -1
        for k in range(held.size):
            if held[k]:
                if k >= n_fixed and right[row, 0] < least:
                    least, worst = right[row, 0], k
                row += 1
        if worst < 0:
            return True
        held[worst] = False
