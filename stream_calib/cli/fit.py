"""``fit``: volatilities and correlations of recorded ticks, with their standard errors."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_calib.cli.options import ConfigFile
from stream_calib.cli.screen import progress_bar

if TYPE_CHECKING:
    from rich.table import Table

GARCH_COLUMNS = ("omega", "alpha", "beta", "gamma")


def fit(
    config: ConfigFile,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Recorded ticks, in order; each file is a topic."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the fits as JSON.")] = False,
) -> None:
    """Fit DCC-GARCH to recorded ticks, no Kafka.

    The ticks go through the tick layer of each universe; its last dcc.window_bars bars are what
    is fitted to, as the running service does it.
    """
    import orjson
    from rich.console import Console

    from stream_calib.config import load_config
    from stream_calib.errors import InputError
    from stream_calib.estimation.calibrated import dcc_report
    from stream_calib.service.replay import fit_files
    from stream_calib.values import FitFailure

    settings = load_config(config)
    reports: dict[str, Mapping[str, Any]] = {}
    failures: list[str] = []
    bar = progress_bar()
    task = bar.add_task("read")
    with bar:
        for universe, request, found in fit_files(files, settings, lambda n: bar.advance(task, n)):
            if isinstance(found, FitFailure):
                failures.append(f"universe {universe.name!r} cannot be fitted: {found.reason}")
                continue
            reports[universe.name] = dcc_report(found, request, sorted(universe.symbols))
    if as_json:
        typer.echo(orjson.dumps(reports).decode())
    else:
        console = Console()
        for name, report in reports.items():
            console.print(f"{name}: {_sentence(report)}")
            console.print(_table(report))
    if failures or not reports:
        raise InputError("; ".join(failures) or "no universe has dcc.enabled")


def _sentence(report: Mapping[str, Any]) -> str:
    own = report["correlation"]
    numbers = [
        f"{name} {own[name]['value']:.5f}{_plus_minus(own[name]['se'])}"
        for name in ("a", "b", "g")
        if name in own
    ]
    bars = report["window"]["bars"]
    whole = own["loglik"] is not None
    loglik = own["loglik"] if whole else own["composite_loglik"]
    kind = "log-likelihood" if whole else "composite log-likelihood"
    return (
        f"{own['model']} {', '.join(numbers)}; {kind} {loglik:.3f} over {bars:,} "
        f"bars; average correlation of the target {own['target_average']:.3f}"
    )


def _table(report: Mapping[str, Any]) -> "Table":
    from rich.table import Table

    table = Table("symbol", *GARCH_COLUMNS, box=None)
    for symbol, own in report["garch"].items():
        cells = [
            f"{own[name]['value']:.4g}{_plus_minus(own[name]['se'])}" if name in own else "-"
            for name in GARCH_COLUMNS
        ]
        table.add_row(symbol, *cells)
    return table


def _plus_minus(error: float | None) -> str:
    return "" if error is None else f" ± {error:.2g}"
