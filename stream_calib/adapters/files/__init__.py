"""Recorded ticks as an input log, and a file of lines as an output log.

What is read: JSON lines, CSV and Parquet in tables of one tick a row or one column a symbol,
records of Kafka as ``topic<TAB>value``, raw captures of cryptofeed, public dumps of Binance, CSV
of Tardis, CSV and DBN of Databento, zips of Lean; ``lines`` says how each is told. ``unpacking``
has their bytes, ``tables`` what all tables share, ``layouts`` which of them it is.
"""

from stream_calib.adapters.files.sink import FileSink
from stream_calib.adapters.files.source import FileSource
from stream_calib.adapters.files.unpacking import CHUNK_BYTES, LINE_BYTES

__all__ = ["CHUNK_BYTES", "LINE_BYTES", "FileSink", "FileSource"]
