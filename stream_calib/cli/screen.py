"""What a terminal shows: a matrix as a heat map, a line about it, and running totals."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress

    from stream_calib.values import Effects, Matrix

# blue over white to red, told apart by every kind of colour vision
NEGATIVE, ZERO, POSITIVE = (33, 102, 172), (247, 247, 247), (178, 24, 43)
CELL = 5
NAME_MAX = 12


@dataclass
class Tally:
    """Running totals of what was read and what became of it."""

    records: int = 0
    matrices: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def read(self, n: int) -> None:
        """Add records."""
        self.records += n

    def add(self, effects: "Effects") -> None:
        """Add what a step brought about."""
        self.matrices += len(effects.matrices)
        for (_, outcome), n in effects.counts.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + n


class Screen(Console):
    """A console whose reader may leave: that is an error like any other, not an exit."""

    def on_broken_pipe(self) -> None:
        """Let the BrokenPipeError through that is being handled."""
        raise  # noqa: PLE0704


def progress_bar() -> "Progress":
    """Return a display of records so far on standard error; silent where that is no terminal."""
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    console = Screen(stderr=True)
    columns = (
        TextColumn("{task.completed:,.0f} records"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def heat_map(matrix: "Matrix", width: int) -> Text:
    """Draw the correlations as coloured cells, with figures where ``width`` allows."""
    names = [symbol.split(":")[-1][: NAME_MAX - 1] for symbol in matrix.symbols]
    margin = max(map(len, names)) + 1
    n = len(names)
    figures = margin + n * CELL <= width
    cell = CELL if figures else 2 if margin + 2 * n <= width else 1
    shown = min(n, max(2, (width - margin) // cell))
    text = Text(no_wrap=True)
    for i in range(shown):
        text.append(f"{names[i]:<{margin}}")
        for j in range(shown):
            value = float(matrix.corr[i, j])
            label = f"{value:+.2f}".replace("0.", ".") if figures and i != j else ""
            text.append(f"{label:>{cell}}", _style(value))
        text.append("\n")
    if shown < n:
        text.append(f"{n - shown} more symbols do not fit\n", "dim")
    text.append(" " * margin)
    for label in ("-1", "-.5", "0", "+.5", "+1"):
        text.append(f"{label:^6}", _style(float(label)))
    return text


def matrix_line(matrix: "Matrix") -> str:
    """Describe a matrix on one line."""
    from stream_calib.wire.cloudevents import rfc3339

    regime, quality = matrix.regime, matrix.quality
    return (
        f"{rfc3339(matrix.as_of_ns)[:23]}Z  {matrix.universe}|{matrix.estimator} "
        f"#{matrix.sequence}  {len(matrix.symbols)} symbols"
        f"{f' (+{len(matrix.pending)} pending)' if matrix.pending else ''}  "
        f"average {regime.average_correlation:+.3f}  top share {regime.top_eigenvalue_share:.3f}  "
        f"min eigenvalue {quality.min_eigenvalue:.2g}"
        f"{f'  repair {quality.repair:.2g}' if quality.repair else ''}"
    )


def pairs_line(matrix: "Matrix", pairs: "Sequence[tuple[str, str]]") -> str:
    """Describe some pairs of a matrix on one line: correlation and its 95 % bounds."""
    from stream_calib.wire.cloudevents import rfc3339

    parts = []
    for a, b in pairs:
        if a in matrix.symbols and b in matrix.symbols:
            found = matrix.pair(a, b)
            bounds = f"[{found.lower:+.2f} {found.upper:+.2f}]"
            parts.append(f"{a}~{b} {found.corr:+.3f} {bounds}")
    when, name = rfc3339(matrix.as_of_ns)[:23], f"{matrix.universe}|{matrix.estimator}"
    return f"{when}Z  {name} #{matrix.sequence}  {'  '.join(parts)}"


def _style(value: float) -> Style:
    end, weight = (POSITIVE if value > 0 else NEGATIVE), min(1.0, abs(value))
    red, green, blue = (round(a + (b - a) * weight) for a, b in zip(ZERO, end, strict=True))
    ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 130 else "white"
    return Style(color=ink, bgcolor=f"rgb({red},{green},{blue})")
