"""Draw the live view after the demo's ticks: view_light.png and view_dark.png, for the README.

.venv/bin/python -m replay_data.draw_view

It takes Chromium, headless: /usr/bin/chromium, or what is named on the command line.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import orjson

from stream_calib.adapters.embedded import EmbeddedLog
from stream_calib.adapters.files import FileSource
from stream_calib.cli.demo import UNIVERSE
from stream_calib.config import Config, parse_config
from stream_calib.service.topics import output_topics
from stream_calib.service.wiring import Service, embedded_service
from tests.web.browser import Page, chromium
from tests.web.walking import pictures

FOLDER = Path(__file__).parent
WIDTH, HEIGHT = 1280, 1010
LATER = 12 * 60  # s after the break: what the alarm has done is seen, and what came of it


def main() -> None:
    """Run the service on the demo's ticks, look at it, and write the pictures."""
    truth = orjson.loads((FOLDER / "demo_metadata.json").read_bytes())
    universe = UNIVERSE | {"symbols": truth["symbols"]}
    given = {
        "universe": [universe],
        "input": {"topics": ["ticks"]},
        "http": {"port": 0},
        "refit": {"late": "wait"},
    }
    program = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/bin/chromium")
    asyncio.run(_draw(parse_config(given), truth, program))


async def _draw(config: Config, truth: dict[str, str], program: Path) -> None:
    log = EmbeddedLog()
    for name in ("ticks", *(spec.name for spec in output_topics(config))):
        log.create_topic(name)
    until_ns = int(truth["break_time_ns"]) + LATER * 1_000_000_000
    source = FileSource([FOLDER / truth["file"]])
    source.open()
    while not source.exhausted():
        for value in (v for batch in source.take(1000) for v in batch.values if v is not None):
            if orjson.loads(value)["time"] <= until_ns:
                log.append("ticks", 0, None, value)
    service, stop = embedded_service(config, log, lambda: False), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    while not service.http.url:  # noqa: ASYNC110 (it has no event for it)
        await asyncio.sleep(0.01)
    with tempfile.TemporaryDirectory() as folder:
        async with chromium(program, Path(folder) / "profile") as browser, browser.tab() as page:
            await page.resize(WIDTH, HEIGHT)
            await _take(page, service, until_ns)
    stop.set()
    await running


async def _take(page: Page, service: Service, until_ns: int) -> None:
    # the last matrices are those of the end: only then there is a model that has taken the break in
    await page.open(service.http.url)
    known = "(x) => x.status == 200 ? x.json() : { time_ns: [0] }"
    summary = f"fetch('/api/summary/demo/dcc').then({known})"
    await page.until(f"{summary}.then((x) => x.time_ns.at(-1) / 1e9 > {until_ns / 1e9 - 30})", 120)
    await asyncio.sleep(3.0)  # the service says every second where it stands
    await page.open(f"{service.http.url}/")
    for name, picture in (await pictures(page)).items():
        (FOLDER / f"view_{name}.png").write_bytes(picture)


if __name__ == "__main__":
    main()
