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
