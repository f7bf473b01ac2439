"""Bytes to values and back: versioned, golden-tested, pure functions of their input."""
