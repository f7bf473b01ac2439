"""Follows the Dockerfile line by line on a machine that has no Docker.

    sudo python3 deploy/rehearse.py

Each stage gets a root of its own: this machine's, seen through an overlay that keeps what is
written apart, in a mount namespace that ends with this program. What the image would have from
``FROM`` is the Python that runs this, which should be of the same version. COPY, RUN, ENV, ARG,
WORKDIR and USER do what they say. Then the image is used as ``docker run --read-only --user
--cap-drop=ALL --security-opt=no-new-privileges`` would: root read-only, its volumes and /tmp alone
writable. Exit code 0 if everything did what it should. Needs Linux, root, and a package index.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSIDE = "STREAM_CALIB_REHEARSAL"
READY_S = 300.0
CONTINUED = re.compile(r"\\\n")
VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass
class Stage:
    """What has been said of one stage so far."""

    name: str
    root: Path
    args: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    volumes: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    check: list[str] = field(default_factory=list)

    def fill(self, text: str) -> str:
        """Put variables in."""
        known = self.args | self.env | {"PATH": self.env.get("PATH", os.environ["PATH"])}
        return VARIABLE.sub(lambda m: known.get(m[1] or m[2], ""), text)

    def at(self, path: str) -> Path:
        """Return where a path of the stage lies, seen from outside."""
        return self.root / os.path.join(self.workdir, path).lstrip("/")  # noqa: PTH118


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction of a Dockerfile as its word and the rest of it."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in CONTINUED.sub("", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


def main() -> int:
    """Build and use the image; return the exit code."""
    if os.environ.get(INSIDE) != "1":
        own = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__]
        return subprocess.call(own, env=os.environ | {INSIDE: "1"})
    with tempfile.TemporaryDirectory(prefix="rehearsal") as folder:
        stages: dict[str, Stage] = {}
        try:
            build(Path(folder), stages)
            use(stages["runtime"])
        finally:
            for stage in reversed(stages.values()):
                subprocess.run(["umount", "--recursive", "--lazy", str(stage.root)], check=False)
    print("as it should be")
    return 0


def build(folder: Path, stages: dict[str, Stage]) -> None:
    """Follow every instruction."""
    stage: Stage | None = None
    for word, rest in instructions((ROOT / "deploy" / "Dockerfile").read_text()):
        if word == "FROM":
            name = rest.split(" AS ")[1]
            stage = stages[name] = Stage(name, overlay(folder / name))
            stage.env["PATH"] = (
                f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
            )
        elif stage is not None:  # before the first stage there is the version of Python alone
            print(f"[{stage.name}] {word} {rest[:100]}", flush=True)
            follow(stage, word, rest, stages)


def overlay(place: Path) -> Path:
    """Mount this machine's root once more; what is written there goes to ``place``."""
    for name in ("written", "work", "root"):
        (place / name).mkdir(parents=True)
    layers = f"lowerdir=/,upperdir={place / 'written'},workdir={place / 'work'}"
    root = place / "root"
    run("mount", "-t", "overlay", "overlay", "-o", layers, root)
    run("mount", "--rbind", "/proc", root / "proc")
    run("mount", "--rbind", "/dev", root / "dev")
    # the Python of this machine may lie where only its owner comes by; there it does not matter
    for parent in Path(sys.base_prefix).parents:
        inside = root / str(parent).lstrip("/")
        inside.chmod(inside.stat().st_mode | 0o011)
    return root


def follow(stage: Stage, word: str, rest: str, stages: Mapping[str, Stage]) -> None:
    """Do what one instruction says."""
    match word:
        case "ARG":
            name, _, default = rest.partition("=")
            stage.args[name] = default.strip('"')
        case "ENV":
            pairs = [pair.partition("=") for pair in shlex.split(stage.fill(rest))]
            stage.env |= {name: value for name, _, value in pairs}
        case "WORKDIR":
            stage.workdir = rest
            stage.at(".").mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = rest
        case "COPY":
            copy(stage, rest.split(), stages)
        case "RUN":
            started_s = time.monotonic()
            inside(stage, ["/bin/sh", "-c", rest], stage.args)
            print(f"    {time.monotonic() - started_s:.1f} s", flush=True)
        case "VOLUME":
            stage.volumes = words_of(rest)
        case "ENTRYPOINT":
            stage.entrypoint = words_of(rest)
        case "HEALTHCHECK":
            stage.check = words_of(rest.partition(" CMD ")[2])


def words_of(text: str) -> list[str]:
    """Read the exec form of an instruction."""
    return re.findall(r'"([^"]*)"', text)


def copy(stage: Stage, words: list[str], stages: Mapping[str, Stage]) -> None:
    """Copy as a layer does: with times in whole seconds."""
    options = dict(word[2:].split("=") for word in words if word.startswith("--"))
    *sources, target = [word for word in words if not word.startswith("--")]
    for source in sources:
        origin = stages[options["from"]].at(source) if "from" in options else ROOT / source
        place = stage.at(target)
        if origin.is_dir():
            shutil.copytree(origin, place, symlinks=True, copy_function=copy_file)
        else:
            copy_file(origin, place / origin.name if target.endswith("/") else place)
        if "chown" in options:
            run("chown", "--recursive", options["chown"], place)


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy one file, or the link that it is."""
    shutil.copy2(source, target, follow_symlinks=False)
    if not Path(target).is_symlink():
        os.utime(target, (int(Path(source).stat().st_mtime),) * 2)


def use(image: Stage) -> None:
    """Do with the image what will be done with it."""
    for volume in image.volumes:
        place = image.at(volume)
        filled = image.root.parent / volume.replace("/", "-")
        shutil.copytree(place, filled, copy_function=copy_file)  # as a new volume is
        run("chown", "--recursive", image.user, filled)
        run("mount", "--bind", filled, place)
    run("mount", "-t", "tmpfs", "tmpfs", image.root / "tmp")
    run("mount", "-o", "remount,bind,ro", image.root)
    container(image, ["sh", "-c", "! touch /opt/stream-calib/x /etc/x /var/x 2>/dev/null"])
    container(image, ["sh", "-c", "touch /tmp/x $STREAM_CALIB__SNAPSHOTS__FOLDER.x && id"])
    container(image, [*image.entrypoint, "--version"])
    kernels = image.at("/var/cache/stream-calib")
    before = contents(kernels)
    container(image, [*image.entrypoint, "warmup"])
    after = contents(kernels)
    print(f"    {len(before)} files of kernels from the image, {len(after ^ before)} written since")
    assert before
    assert before == after, "the kernels of the image were not taken"
    look_on(image)


def look_on(image: Stage) -> None:
    """Run the demo until the image's own health check is content, look at the page, end it."""
    demo = [*image.entrypoint, "demo", "--stay", "--seconds", "8"]
    started_s = time.monotonic()
    with subprocess.Popen(command(image, demo), stdout=subprocess.PIPE, text=True) as process:
        try:
            while container(image, image.check, quiet=True) != 0:
                assert process.poll() is None, "the demo has ended"
                assert time.monotonic() - started_s < READY_S, "not ready"
                time.sleep(0.5)
            print(f"    healthy {time.monotonic() - started_s:.1f} s after its start")
            for page in ("/", "/app.js", "/uplot/uPlot.iife.min.js", "/metrics", "/api/universes"):
                with (
                    contextlib.suppress(urllib.error.HTTPError),
                    urllib.request.urlopen(f"http://127.0.0.1:9464{page}", timeout=30) as answer,
                ):
                    print(f"    {page}: {len(answer.read())} bytes")
                    continue
                print(f"    {page}: none")
        finally:
            process.terminate()
            told_s = time.monotonic()
            process.communicate(timeout=60)
            print(
                f"    ended {time.monotonic() - told_s:.1f} s after SIGTERM: {process.returncode}"
            )


def contents(folder: Path) -> set[tuple[str, bytes]]:
    """Return the names and bytes of the files in a folder."""
    return {(str(p), p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def container(image: Stage, words: list[str], *, quiet: bool = False) -> int:
    """Run a command as in a container; where it is not quiet it has to succeed."""
    if not quiet:
        print(f"[container] {shlex.join(words)}", flush=True)
    out = subprocess.DEVNULL if quiet else None
    return subprocess.run(
        command(image, words), stdout=out, check=not quiet, timeout=900
    ).returncode


def command(image: Stage, words: list[str]) -> list[str]:
    """Return the words that run others in the image, with its user and no power of any kind."""
    user, _, group = image.user.partition(":")
    drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
    drop += ["--inh-caps=-all", "--bounding-set=-all"]
    env = ["env", "-i", *(f"{name}={value}" for name, value in image.env.items())]
    go = ["sh", "-c", 'cd "$0" && exec "$@"', image.workdir]
    return ["chroot", str(image.root), *drop, *env, *go, *words]


def inside(stage: Stage, words: list[str], more: Mapping[str, str]) -> None:
    """Run a command while the image is built: as root, with the network of this machine."""
    outer = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL", "NUMBA"))
    }
    go = ["chroot", str(stage.root), "sh", "-c", 'cd "$0" && exec "$@"', stage.workdir, *words]
    subprocess.run(go, env=outer | stage.env | dict(more), check=True)


def run(*words: str | Path) -> None:
    """Run a command of this machine, which has to succeed."""
    subprocess.run(list(map(str, words)), check=True)


if __name__ == "__main__":
    sys.exit(main())
