"""Numba on bare arrays: no classes, no allocation in loops, results into arguments."""
