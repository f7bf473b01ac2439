"""What is fetched is pinned, and nothing fetched is run that is not a package."""

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FETCHES = re.compile(
    r"\b(curl|wget|git clone|npx?|npm|go install|cargo install)\b|https?://\S+\.sh\b"
)
# SPDX names, and what older packages say in words
PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|Zlib|CC0|Unlicense|0BSD",
    re.IGNORECASE,
)


def scripts() -> list[Path]:
    found = [ROOT / "Makefile", *(ROOT / ".ci").glob("*"), *ROOT.glob(".github/workflows/*")]
    found += [path for path in (ROOT / "deploy").rglob("*") if "Dockerfile" in path.name]
    return [path for path in found if path.is_file()]


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_scripts_fetch_nothing_by_themselves(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [
        line for line in lines if FETCHES.search(line) and not line.lstrip().startswith("#")
    ]
    installs = [line for line in lines if re.search(r"pip3? .*install", line)]
    for line in installs:
        assert "-c constraints.txt" in line, line


def test_images_are_pinned_by_version() -> None:
    texts = [
        path.read_text(encoding="utf-8")
        for path in (ROOT / "deploy").rglob("*")
        if path.suffix in {".yaml", ".yml"} or "Dockerfile" in path.name
    ]
    images = [
        image for text in texts for image in re.findall(r"^\s*image:\s*(\S+)", text, re.MULTILINE)
    ]
    images += [
        image for text in texts for image in re.findall(r"^ARG PYTHON=(\S+)", text, re.MULTILINE)
    ]
    assert images
    for image in images:
        tag = image.rpartition(":")[2]
        assert re.match(r"v?\d+\.\d+", tag), image


def test_constraints_pin_every_package_by_version_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert pinned
    for line in pinned:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+(\s*;.*)?(\s*#.*)?", line), line
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    for text in wanted:
        assert Requirement(text).url is None


def test_jars_are_pinned() -> None:
    tree = ElementTree.parse(ROOT / "deploy" / "kafka" / "pom.xml")
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    versions = [version.text or "" for version in tree.findall(".//m:dependency/m:version", space)]
    assert versions
    assert all(re.match(r"\d+\.\d+\.\d+|\$\{", version) for version in versions)


def runtime_packages() -> list[metadata.Distribution]:
    found: dict[str, metadata.Distribution] = {}
    waiting = ["stream-calib"]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if name in found:
            continue
        found[name] = package
        for text in package.requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                waiting.append(wanted.name)
    return [package for name, package in sorted(found.items()) if name != "stream-calib"]


def license_of(package: metadata.Distribution) -> str:
    """Return what a package says of its licence, in whichever place."""
    said: Any = package.metadata
    classifiers = [
        c.rpartition(" :: ")[2] for c in said.get_all("Classifier") or () if c.startswith("License")
    ]
    return str(
        said.get("License-Expression")
        or " ".join(classifiers)
        or (said.get("License") or "").partition("\n")[0]
    )


def test_every_package_that_the_service_needs_has_a_licence_that_lets_it() -> None:
    packages = runtime_packages()
    assert len(packages) > 10
    for package in packages:
        said = license_of(package)
        print(f"{package.metadata['Name']:24} {package.version:16} {said}")
        assert PERMISSIVE.search(said), (package.metadata["Name"], said)
        assert package.read_text("direct_url.json") is None, package.metadata["Name"]
