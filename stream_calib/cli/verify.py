"""``verify``: whether output topics hold what was published, all of it, once, whole."""

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_calib.cli.options import Bootstrap, ClientConfig, client_settings
from stream_calib.cli.selection import time_of

if TYPE_CHECKING:
    from stream_calib.config import Config
    from stream_calib.service.verification import Report, Wanted

NOT_WELL = 11
NAMED = 20  # findings in words; all that were kept are in --json
STEP_S = 0.5


def verify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Output files of replay --out; default: Kafka."),
    ] = None,
    config: ClientConfig = None,
    bootstrap: Bootstrap = None,
    prefix: Annotated[
        str | None, typer.Option(help="Of the output topics; wins over output.prefix.")
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(help="A topic of matrices alone, without its journal."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only records that were written then or later."),
    ] = None,
    matrices: Annotated[
        bool, typer.Option("--matrices", help="Look at the numbers too: positive definite, finite.")
    ] = False,
    hanging_after: Annotated[
        str, typer.Option(metavar="DURATION", help="A transaction open for longer hangs.")
    ] = "1m",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Read output topics as a reader of committed records and say what is wrong with them.

    Gaps, repeats, torn matrices, damaged records, a journal that does not hold together, records
    other than those whose digest the journal has, transactions that hang open. A service may go
    on running. Exit 11 when something is wrong. What the broker has dropped by its own settings
    is counted, and is no error. (`snapshot verify` checks saved states.)
    """
    from stream_calib.errors import InputError
    from stream_calib.service.verification import verify_files

    if files:
        if config or bootstrap or prefix or topic or since:
            raise InputError("Files are verified by themselves: leave out the options of Kafka")
        report = verify_files(files, matrices=matrices)
    else:
        settings = client_settings(config, bootstrap)
        wanted = _wanted(settings, prefix, topic, since, hanging_after, matrices=matrices)
        wanted = wanted if config is not None and not topic else _unnamed(wanted)
        report = asyncio.run(_verify(settings, wanted))
    if as_json:
        import orjson

        from stream_calib.service.verification import as_document

        print(orjson.dumps(as_document(report), option=orjson.OPT_INDENT_2).decode())
    else:
        _show(report)
    if not report.is_well:
        raise typer.Exit(NOT_WELL)


def _wanted(
    settings: "Config",
    prefix: str | None,
    topic: str | None,
    since: str | None,
    hanging_after: str,
    *,
    matrices: bool,
) -> "Wanted":
    from stream_calib.config import parse_duration
    from stream_calib.errors import InputError
    from stream_calib.service.topics import ROLES
    from stream_calib.service.verification import Wanted

    try:
        hanging_ms = parse_duration(hanging_after) // 1_000_000
    except ValueError as error:
        raise InputError(f"--hanging-after: {error}") from None
    prefix = prefix or settings.output.prefix
    topics = {role: f"{prefix}.{role}" for role in ROLES}
    return Wanted(
        topics={"correlations": topic} if topic else topics,
        universes=[universe.name for universe in settings.universe],
        now_ms=time.time_ns() // 1_000_000,
        since_ms=None if since is None else int(time_of(since).timestamp() * 1000),
        hanging_ms=hanging_ms,
        matrices=matrices,
    )


def _unnamed(wanted: "Wanted") -> "Wanted":
    from dataclasses import replace

    return replace(wanted, universes=())


async def _verify(settings: "Config", wanted: "Wanted") -> "Report":
    from stream_calib.service.verification import verify_topics

    told_s = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal told_s
        if time.monotonic() - told_s > STEP_S:
            told_s = time.monotonic()
            typer.echo(f"\r{done:,} of {of:,} offsets", err=True, nl=False)

    is_seen = sys.stderr.isatty()
    report = await (
        verify_topics(settings.kafka, wanted, tell)
        if is_seen
        else verify_topics(settings.kafka, wanted)
    )
    if is_seen:
        typer.echo("\r\x1b[K", err=True, nl=False)
    return report


def _show(report: "Report") -> None:
    rows: list[tuple[object, ...]] = [
        ("universe", "what", "first", "last", "whole", "records", "not kept", "found")
    ]
    for s in report.stretches:
        ends = _or_dash(s.first), _or_dash(s.last)
        found = sum(s.findings.values())
        rows.append((s.universe, s.name, *ends, s.count, s.records, s.not_kept, found))
    for j in report.journals:
        found = sum(j.findings.values())
        ends = _or_dash(j.first), _or_dash(j.last)
        rows.append((j.universe, "journal", *ends, j.equal, j.entries, j.not_kept, found))
    words = [tuple(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*words, strict=True)]
    for row in words:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    for journal in report.journals:
        print(_journal_words(journal))
    if report.repeats_allowed:
        print(f"{report.repeats_allowed} came once more, as at_least_once does after a crash")
    for note in report.notes:
        print(note)
    _show_findings(report)


def _journal_words(journal: "object") -> str:
    from stream_calib.service.verification.findings import Journal

    assert isinstance(journal, Journal)
    parts = [f"{journal.equal:,} of {journal.entries:,} entries have the digest of their records"]
    for n, words in (
        (journal.not_kept, "have records that are not kept any more"),
        (journal.told, "have records with findings of their own"),
        (journal.pending, "were written ahead of their records"),
    ):
        if n:
            parts.append(f"{n:,} {words}")
    if journal.before:
        parts.append(f"{journal.before:,} records are of before the journal that is kept")
    return f"{journal.universe}: {', '.join(parts)}"


def _show_findings(report: "Report") -> None:
    from stream_calib.service.verification.findings import KINDS

    if report.is_well:
        print("nothing is wrong")
        return
    for kind, n in report.counts.items():
        print(f"\n{kind}: {n:,} ({KINDS[kind]})")
        named = [finding for finding in report.findings if finding.kind == kind]
        for f in named[:NAMED]:
            of = "" if f.first is None else f" {f.first}"
            of += f" to {f.last}" if f.last != f.first else ""
            place = f"{f.where.topic}-{f.where.partition} offset {f.where.offset}"
            place = f"{f.where.topic} line {f.where.offset}" if f.where.partition < 0 else place
            print(f"  {f.universe} {f.name}{of}: {f.words} ({place})")
        if n > NAMED:
            print(f"  and {n - min(n, NAMED):,} more, see --json")
    if "open_transaction" in report.counts:
        print(
            "\nA service that starts under the same prefix ends what an earlier one left open; of "
            "other\nproducers the broker does when their transaction.timeout.ms has passed, or\n"
            "`kafka-transactions.sh abort --topic T --partition P --start-offset O`."
        )


def _or_dash(number: int | None) -> object:
    return "-" if number is None else number
