"""The step to the top of a quadratic, by trying every set of rules that could hold."""

from itertools import combinations

import numpy as np

from stream_calib.values import F64


def find_step(gradient: F64, curvature: F64, rules: F64, n_fixed: int) -> F64:
    """Maximise g'd - d'B d / 2 where a'd = 0 for the first rules and a'd <= 0 for the others."""
    best, most = np.zeros(len(gradient)), -np.inf
    others = range(n_fixed, len(rules))
    for size in range(len(rules) - n_fixed + 1):
        for chosen in combinations(others, size):
            held = rules[[*range(n_fixed), *chosen]]
            _, sizes, basis = np.linalg.svd(np.vstack([held, np.zeros(len(gradient))]))
            free = basis[(sizes > 1e-12).sum() :].T  # columns: directions in which nothing is held
            step = free @ np.linalg.solve(free.T @ curvature @ free, free.T @ gradient)
            value = gradient @ step - step @ curvature @ step / 2
            if (rules[n_fixed:] @ step <= 1e-9).all() and value > most:
                best, most = step, value
    return best
