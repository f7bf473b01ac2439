"""Recorded ticks as an input log, and a file of lines as an output log.

One record is one line. ``.jsonl`` (and whatever is not listed next): the line is the record's
value. ``.csv`` with a header: each row becomes a JSON object, or each cell where there is one
column per symbol. ``.tsv``: topic, tab, value, as recorded from Kafka. Each may be compressed,
``.gz`` or ``.zst``. ``.zip``: trades or quotes of a day as Lean keeps them. More in ``lines``.
"""

from stream_calib.adapters.files.lines import CHUNK_BYTES, LINE_BYTES
from stream_calib.adapters.files.sink import FileSink
from stream_calib.adapters.files.source import FileSource

__all__ = ["CHUNK_BYTES", "LINE_BYTES", "FileSink", "FileSource"]
