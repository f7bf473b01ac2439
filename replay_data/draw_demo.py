"""Draw the demo's matrices before and after the break: heat_map.svg, for the README.

.venv/bin/python replay_data/draw_demo.py
"""

import io
import re
from pathlib import Path

import orjson
from rich.columns import Columns
from rich.console import Console, Group
from rich.text import Text

import stream_calib as sc
from stream_calib.cli.screen import heat_map
from stream_calib.config import parse_config

FOLDER = Path(__file__).parent
WIDTH = 72


def main() -> None:
    """Replay the demo ticks and draw two of the matrices side by side."""
    truth = orjson.loads((FOLDER / "demo_metadata.json").read_bytes())
    universe = {
        "name": "demo",
        "symbols": truth["symbols"],
        "bar": "5s",
        "every": 4,
        "ewma": {"half_life": "12m", "window": "20s"},
    }
    matrices = list(sc.replay(FOLDER / truth["file"], parse_config({"universe": [universe]})))
    before = [m for m in matrices if m.as_of_ns <= truth["break_time_ns"]][-1]
    console = Console(record=True, width=2 * WIDTH + 2, file=io.StringIO(), force_terminal=True)
    parts = [
        Group(Text(f"{title}\n", "bold"), heat_map(matrix, WIDTH))
        for title, matrix in (("before the break", before), ("an hour after", matrices[-1]))
    ]
    console.print(Columns(parts))
    svg = console.export_svg(title="stream-calib demo")
    # no fonts and no links: the picture is the same offline
    plain = re.sub(r"@font-face\s*\{[^}]*\}|<!--.*?-->", "", svg, flags=re.DOTALL)
    (FOLDER / "heat_map.svg").write_text(plain)


if __name__ == "__main__":
    main()
