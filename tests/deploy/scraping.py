"""What a real Prometheus says that scrapes ours every second."""

import asyncio
import time
from typing import Any, NamedTuple

import aiohttp
import yaml

from tests.deploy.running import whole_config

TOKEN_FILE = "stream_calib.token"
DATA_S = 60.0


class Watched(NamedTuple):
    """A Prometheus that scrapes a server which is told of ticks all the time."""

    url: str
    client: aiohttp.ClientSession

    async def get(self, path: str, **params: str) -> Any:
        async with self.client.get(f"{self.url}/api/v1/{path}", params=params) as response:
            answer = await response.json()
        assert answer["status"] == "success", (params, answer)
        return answer["data"]

    async def query(self, expression: str) -> list[Any]:
        result: list[Any] = (await self.get("query", query=expression))["result"]
        return result

    async def unanswered(self, expressions: list[str]) -> list[str]:
        """Ask until every expression has a number, or the time is up; return those without."""
        deadline = time.monotonic() + DATA_S
        while expressions and time.monotonic() < deadline:
            answers = {query: await self.query(query) for query in expressions}
            expressions = [
                query
                for query, series in answers.items()
                if all(one["value"][1] == "NaN" for one in series)
            ]
            if expressions:
                await asyncio.sleep(0.5)
        return expressions


def fast_config(*targets: str) -> str:
    """Return the shipped configuration, quick, for a service and a feed, with its token."""
    config = whole_config()
    for name in ("scrape_interval", "evaluation_interval"):
        config["global"][name] = "1s"
    del config["alerting"]
    for scrape, target in zip(config["scrape_configs"], targets, strict=True):
        scrape["static_configs"] = [{"targets": [target]}]
    assert config["scrape_configs"][0]["authorization"]["credentials_file"] == TOKEN_FILE
    return yaml.safe_dump(config)
