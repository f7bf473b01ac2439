"""What a topic or a file holds, and the settings that would suit it: a pure computation."""

from stream_calib.service.examination.findings import Findings, examine
from stream_calib.service.examination.report import as_document
from stream_calib.service.examination.settings_text import settings_text

__all__ = ["Findings", "as_document", "examine", "settings_text"]
