"""What came of a look at output topics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream_calib.service.verification.findings import KINDS, Book, Finding, Journal, Stretch
from stream_calib.wire.cloudevents import rfc3339


@dataclass(frozen=True)
class Report:
    """All that was looked at, and all that is wrong; of one kind at most 1000 are named.

    ``repeats_allowed`` are matrices and events that came once more with the same bytes where the
    journal is written ahead, which at_least_once does after a crash.
    """

    stretches: Sequence[Stretch]
    journals: Sequence[Journal]
    findings: Sequence[Finding]
    counts: Mapping[str, int]
    records: int
    repeats_allowed: int
    notes: Sequence[str]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.counts.values())


def concluded(book: Book, notes: Sequence[str]) -> Report:
    """Return the report of what was taken down."""
    allowed = {journal.universe for journal in book.journals if journal.write_ahead}
    repeats = 0
    for stretch in book.stretches.values():
        if stretch.universe in allowed:
            repeats += stretch.findings.pop("repeated", 0)
    findings = [f for f in book.findings if f.kind != "repeated" or f.universe not in allowed]
    counts = {kind: n for kind in KINDS if (n := book.counts[kind])}
    if repeats:
        counts["repeated"] -= repeats
    return Report(
        stretches=[*book.stretches.values()],
        journals=book.journals,
        findings=findings,
        counts={kind: n for kind, n in counts.items() if n},
        records=sum(s.records for s in book.stretches.values())
        + sum(j.entries for j in book.journals),
        repeats_allowed=repeats,
        notes=notes,
    )


def as_document(report: Report) -> dict[str, Any]:
    """Return a report as what JSON can hold."""
    return {
        "ok": report.is_well,
        "records": report.records,
        "found": dict(report.counts),
        "repeats_allowed": report.repeats_allowed,
        "topics": [_stretch(stretch) for stretch in report.stretches],
        "journals": [_journal(journal) for journal in report.journals],
        "findings": [_finding(finding) for finding in report.findings],
        "notes": list(report.notes),
    }


def _stretch(s: Stretch) -> dict[str, Any]:
    return {
        "topic": s.topic,
        "partition": s.partition,
        "universe": s.universe,
        "name": s.name,
        "records": s.records,
        "count": s.count,
        "first": s.first,
        "last": s.last,
        "as_of": None if s.as_of_ns is None else rfc3339(s.as_of_ns),
        "not_kept": s.not_kept,
        "found": {kind: n for kind, n in s.findings.items() if n},
    }


def _journal(j: Journal) -> dict[str, Any]:
    names = ("topic", "partition", "universe", "first", "last", "entries", "equal", "not_kept")
    more = ("told", "pending", "before", "write_ahead")
    found = {kind: n for kind, n in j.findings.items() if n}
    return {name: getattr(j, name) for name in (*names, *more)} | {"found": found}


def _finding(f: Finding) -> dict[str, Any]:
    return {
        "kind": f.kind,
        "universe": f.universe,
        "name": f.name,
        "first": f.first,
        "last": f.last,
        "topic": f.where.topic,
        "partition": f.where.partition,
        "offset": f.where.offset,
        "words": f.words,
    }
