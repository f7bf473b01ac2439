"""Prometheus and Alertmanager as installed, on the loopback address, for as long as asked."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from deploy.kafka.broker import free_port
from tests.real_parts import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
CONFIG = FOLDER / "prometheus.yml"
ALERTMANAGER = FOLDER / "alertmanager.yml"
START_S = 60.0
COMMENTED = re.compile(
    r"^( *)# (authorization:|  type:|  credentials_file:"  # of the token
    r"|- job_name:|  static_configs:|    - targets:"  # the feed's
    r"|alerting:|  alertmanagers:|    - static_configs:|        - targets:)",
    re.MULTILINE,
)


def whole_config() -> dict[str, Any]:
    """Return the shipped configuration of Prometheus with all that is commented out put to use."""
    config: dict[str, Any] = yaml.safe_load(COMMENTED.sub(r"\1\2", CONFIG.read_text()))
    config["rule_files"] = [str(FOLDER / pattern) for pattern in config["rule_files"]]
    return config


@contextlib.asynccontextmanager
async def running(log: Path, *command: str | Path) -> AsyncIterator[None]:
    """Run a program until the context ends, its output in a file."""
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *map(str, command), stdout=file, stderr=file, cwd=log.parent
        )
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()


@contextlib.asynccontextmanager
async def prometheus(binary: Path, config: Path, folder: Path) -> AsyncIterator[str]:
    """Run a Prometheus until the context ends."""
    port = free_port()
    command = (
        binary,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    async with running(folder / "prometheus.log", *command):
        yield f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def alertmanager(binary: Path, config: Path, folder: Path) -> AsyncIterator[str]:
    """Run an Alertmanager until the context ends."""
    port = free_port()
    command = (
        binary,
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",  # alone
    )
    async with running(folder / "alertmanager.log", *command):
        yield f"http://127.0.0.1:{port}"


async def answers(client: aiohttp.ClientSession, url: str) -> bool:
    """Wait until a program says that it is ready; False when the time is up."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with client.get(f"{url}/-/ready") as response:
                if response.status == 200:
                    return True
        await asyncio.sleep(0.1)
    return False
