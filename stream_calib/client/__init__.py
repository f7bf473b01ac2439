"""The subscriber's library: matrices off the output topic or out of a file, and their faults."""

from stream_calib.client.blocking import Subscription, subscribe_sync
from stream_calib.client.problem import Problem
from stream_calib.client.recorded import read_matrices
from stream_calib.client.subscription import subscribe

__all__ = ["Problem", "Subscription", "read_matrices", "subscribe", "subscribe_sync"]
