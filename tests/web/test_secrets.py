"""A service with a secret in every setting that takes one tells none of them anywhere."""

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import structlog
from pydantic import BaseModel, SecretStr

from stream_calib.adapters.embedded import EmbeddedLog
from stream_calib.cli.demo import UNIVERSE
from stream_calib.config import ENV_SECRETS, Config, parse_config
from stream_calib.service.topics import output_topics
from stream_calib.service.wiring import embedded_service
from stream_calib.simulation import simulate
from tests.real_parts import ROOT

FRAMED = b"\x00\x00\x00\x00\x07" + b"x" * 8  # of a registry, which nobody is
PATHS = (
    *("/", "/app.js", "/login", "/metrics", "/healthz", "/readyz", "/version", "/ws", "/nothing"),
    *("/api/universes", "/api/state", "/api/matrix/demo/ewma", "/api/matrix/demo/ewma.csv"),
    *("/api/summary/demo/ewma", "/api/events/demo", "/api/moved/demo/ewma", "/refit/demo"),
)


Setting = tuple[str, ...]


def secret_settings(model: type[BaseModel], path: Setting = ()) -> Iterator[Setting]:
    """Yield the path of every setting that is a secret."""
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            if kind is SecretStr:
                yield (*path, name)
            elif isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from secret_settings(kind, (*path, name))


def test_all_settings_that_hold_secrets_are_found() -> None:
    assert {
        ("http", "token"),
        ("kafka", "sasl_password"),
        ("kafka", "ssl_password"),
        ("input", "schema_registry_password"),
    } <= set(secret_settings(Config))


def test_the_readme_names_the_variable_of_every_secret() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {".".join(path) for path in secret_settings(Config)} == set(ENV_SECRETS)
    for path in (*secret_settings(Config), ("snapshots", "url")):
        assert f"`STREAM_CALIB__{'__'.join(path).upper()}`" in readme


async def test_no_secret_comes_out_anywhere(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secrets = {}
    for number, path in enumerate(secret_settings(Config)):
        secrets[path] = f"sEcReT-{number}-c0ffee-c0ffee"
        monkeypatch.setenv("STREAM_CALIB__" + "__".join(path).upper(), secrets[path])
    truth = simulate(seed=3, rate_hz=2.0)
    config = parse_config(settings(list(truth.symbols)))
    log = EmbeddedLog()
    for name in ("ticks", *(spec.name for spec in output_topics(config))):
        log.create_topic(name)
    for record in truth.records():
        log.append("ticks", 0, None, json.dumps(record).encode())
    caplog.set_level(logging.DEBUG)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(),
    )
    told = [repr(config), config.model_dump_json()]
    try:
        told += await asked(config, log, secrets["http", "token"])
    finally:
        structlog.reset_defaults()
    for spec in output_topics(config):
        told += [repr((r.key, r.value, r.headers)) for r in log.read(spec.name, 0, 0)]
    told += [caplog.text, *capfd.readouterr()]
    everything = "\n".join(told)
    assert "schema" in everything  # the registry was asked in vain, and that was said
    for secret in secrets.values():
        assert secret not in everything
        assert base64.b64encode(secret.encode()).decode().rstrip("=") not in everything
        assert repr(secret.encode()).strip("b'") not in everything


def settings(symbols: list[str]) -> dict[str, Any]:
    return {
        "universe": [UNIVERSE | {"symbols": symbols}],
        "input": {
            "topics": ["ticks"],
            "schema_registry": "http://127.0.0.1:1",
            "schema_registry_username": "reader",
        },
        "http": {"port": 0},
        "kafka": {"sasl_username": "writer"},
    }


async def asked(config: Config, log: EmbeddedLog, token: str) -> list[str]:
    """Run the service, ask it for everything in several ways, and return what it answered."""
    service, stop = embedded_service(config, log, lambda: False), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    told = [""]
    try:
        while not (service.http.url or running.done()):  # noqa: ASYNC110 (it has no event for it)
            await asyncio.sleep(0.01)
        jar = aiohttp.CookieJar(unsafe=True)  # of an address, not of a name
        async with aiohttp.ClientSession(cookie_jar=jar) as client:
            url = service.http.url
            bearer = {"Authorization": f"Bearer {token}"}
            async with asyncio.timeout(120):
                while True:
                    async with client.get(f"{url}/api/universes", headers=bearer) as answer:
                        if "ewma" in (await answer.json())[0]["estimators"]:
                            break
                    async with client.get(f"{url}/readyz", headers=bearer) as answer:
                        told.append(await answer.text())
                    await asyncio.sleep(0.1)
            log.append("ticks", 0, None, FRAMED)
            async with asyncio.timeout(120):
                while "schema" not in told[-1]:
                    async with client.get(f"{url}/readyz", headers=bearer) as answer:
                        told.append(await answer.text())
                    await asyncio.sleep(0.1)
            ways: list[dict[str, str]] = [{}, bearer, {"Authorization": f"Basic {token}x"}]
            for path in PATHS:
                for headers in ways:
                    for method in ("GET", "POST"):
                        async with client.request(method, url + path, headers=headers) as answer:
                            told += [await answer.text(errors="replace"), str(answer.headers)]
            for given in (token, f"{token}x"):
                async with client.post(f"{url}/login", data={"token": given}) as answer:
                    told += [await answer.text(), str(answer.headers)]
            told.append(str([*jar]))
    finally:
        stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    return told
