"""The dashboards as code.

    python -m deploy.grafana.build

writes ``dashboards/*.json``; a test holds these files equal to what this makes.
"""

import json
from pathlib import Path

from deploy.grafana.blocks import Dashboard
from deploy.grafana.classic import classic
from deploy.grafana.kafka import KAFKA
from deploy.grafana.market_regime import MARKET_REGIME
from deploy.grafana.model_calibration import MODEL_CALIBRATION
from deploy.grafana.overview import OVERVIEW
from deploy.grafana.pipeline import PIPELINE

FOLDER = Path(__file__).with_name("dashboards")
DASHBOARDS = (OVERVIEW, MARKET_REGIME, MODEL_CALIBRATION, PIPELINE, KAFKA)


def text(board: Dashboard) -> str:
    """Return the content of a dashboard's file."""
    return json.dumps(classic(board), indent=2) + "\n"


if __name__ == "__main__":
    for board in DASHBOARDS:
        (FOLDER / board.file).write_text(text(board), encoding="utf-8")
