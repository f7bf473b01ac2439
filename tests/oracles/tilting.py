"""Twin of ``estimation/calibration/tilting``: conditional moments and scores one row at a time."""

import math

import numpy as np

from stream_calib.values import F64


def tilt_score(target: F64, rows: F64) -> float:
    """Log likelihood of the directions of the rows under a target, up to a constant."""
    inverse, log_det = np.linalg.inv(target), math.log(np.linalg.det(target))
    n = len(target)
    return sum(-0.5 * log_det - 0.5 * n * math.log(row @ inverse @ row) for row in rows)


def fill_hole(target: F64, row: F64) -> tuple[F64, F64]:
    """Mean and covariance of a row given what is observed of it."""
    gone, there = np.flatnonzero(np.isnan(row)), np.flatnonzero(~np.isnan(row))
    slope = target[np.ix_(gone, there)] @ np.linalg.inv(target[np.ix_(there, there)])
    mean, spread = row.copy(), np.zeros(target.shape)
    mean[gone] = slope @ row[there]
    left = target[np.ix_(gone, gone)] - slope @ target[np.ix_(there, gone)]
    spread[np.ix_(gone, gone)] = left
    return mean, spread
