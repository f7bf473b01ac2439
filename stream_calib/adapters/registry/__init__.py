"""A schema registry over HTTP, and a record source whose records come with its schemas."""

from stream_calib.adapters.registry.client import MISSING, SchemaRegistry
from stream_calib.adapters.registry.source import FramedSource, complete

__all__ = ["MISSING", "FramedSource", "SchemaRegistry", "complete"]
