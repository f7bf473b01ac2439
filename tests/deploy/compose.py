"""The compose file as an engine reads it, and its commands as processes of this machine."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.real_parts import ROOT

PATH = ROOT / "deploy" / "compose.yaml"
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+):\?([^}]*)\}")

Service = dict[str, Any]


def services(variables: Mapping[str, str]) -> dict[str, Service]:
    """Return the services with ``variables`` put in.

    Raises
    ------
    KeyError
        The file asks for a variable that is not among them.
    """
    text = VARIABLE.sub(lambda match: variables[match[1]], PATH.read_text())
    document: dict[str, dict[str, Service]] = yaml.safe_load(text)
    return document["services"]


def mounts(service: Service) -> dict[str, str]:
    """Return what is mounted, by the place where the container sees it."""
    pairs = [entry.split(":")[:2] for entry in service.get("volumes", ())]
    return {target: source for source, target in pairs}


def files(service: Service) -> dict[str, Path]:
    """Return files and folders of the repository that a container sees, by their places there."""
    return {
        target: (PATH.parent / source).resolve()
        for target, source in mounts(service).items()
        if source.startswith(".")
    }


def words(service: Service, places: Mapping[str, str]) -> list[str]:
    """Return the command of a service with paths and addresses of the container replaced."""
    found = [*service.get("entrypoint", ()), *service["command"]]
    told = []
    for word in map(str, found):
        text = word.replace("$$", "$")
        for inside, here in sorted(places.items(), key=lambda place: -len(place[0])):
            text = text.replace(inside, here)
        told.append(text)
    return told


def program(service: Service, places: Mapping[str, str]) -> list[str]:
    """Return the words that start a service of ours as the image's entry point does."""
    return [sys.executable, "-m", "stream_calib", *words(service, places)]


def variables_of(service: Service) -> dict[str, str]:
    """Return its environment, under that of this process without settings of the service."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith("STREAM_CALIB_")}
    own = {name: str(value) for name, value in service.get("environment", {}).items()}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)} | own
