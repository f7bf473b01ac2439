"""Whether output topics hold what was published: all of it, once, whole, as the journal says."""

from stream_calib.service.verification.findings import Finding
from stream_calib.service.verification.report import Report, as_document
from stream_calib.service.verification.topics import Wanted, verify_files, verify_topics

__all__ = ["Finding", "Report", "Wanted", "as_document", "verify_files", "verify_topics"]
