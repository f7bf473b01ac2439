"""What the pictures of this folder are drawn with."""

INK, GREY = "#222222", "#8a8a8a"


def text(
    x: float,
    y: float,
    words: str,
    anchor: str = "start",
    size: int = 12,
    weight: str = "normal",
    fill: str = INK,
) -> str:
    """Return words of a picture, at a place in pixels."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
        f' font-weight="{weight}" fill="{fill}">{words}</text>'
    )


def rule(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    """Return a straight line of a picture, between two places in pixels."""
    wide = f' stroke-width="{width}"' if width != 1 else ""
    return f'<path d="M{x1:.1f} {y1:.1f} L{x2:.1f} {y2:.1f}" stroke="{colour}"{wide}/>'
