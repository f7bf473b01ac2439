"""Java and the jars of Kafka: found on this machine, or fetched through Maven."""

import fcntl
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_JAVA = 17
MAVEN_DEADLINE_S = 600.0

POM = Path(__file__).resolve().with_name("pom.xml")
CACHE = POM.parents[2] / ".kafka"


class BrokerError(Exception):
    """The broker cannot be started or stopped; the message is one sentence for a person."""


class UnavailableError(BrokerError):
    """Java, or a way to get Kafka's jars, is missing on this machine."""


def resolve_libs() -> Path:
    """Return the folder with Kafka's jars, fetching them through Maven on first use.

    Raises
    ------
    UnavailableError
        Neither an unpacked release nor Maven is there, or Maven fails.
    BrokerError
        The release that was named is none.
    """
    find_java()
    home = os.environ.get("STREAM_CALIB_KAFKA_HOME")
    if home:
        libs = Path(home).resolve() / "libs"
        if not any(libs.glob("kafka_*.jar")):
            raise BrokerError(f"STREAM_CALIB_KAFKA_HOME is set, but {libs} holds no Kafka.")
        return libs
    libs = CACHE / "libs"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process fetches, those that come meanwhile wait
        if not _holds_current_jars(libs):
            _fetch_jars(libs)
    return libs


@functools.cache
def find_java() -> str:
    """Return the command of a Java that is new enough for Kafka 4: JAVA_HOME first, then PATH.

    Raises
    ------
    UnavailableError
        There is none.
    """
    in_home = Path(os.environ.get("JAVA_HOME", "")) / "bin" / "java"
    java = str(in_home) if in_home.is_file() else shutil.which("java")
    if java is None:
        raise UnavailableError(f"Kafka needs Java {OLDEST_JAVA} or newer, and none is installed.")
    report = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', report.stderr)
    if found is None or int(found[1]) < OLDEST_JAVA:
        raise UnavailableError(f"Kafka needs Java {OLDEST_JAVA} or newer, and {java} is older.")
    return java


def _holds_current_jars(libs: Path) -> bool:
    # The coordinates that were fetched lie beside the jars, so a changed version is noticed.
    fetched = libs / POM.name
    return fetched.exists() and fetched.read_bytes() == POM.read_bytes()


def _fetch_jars(libs: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise UnavailableError(
            "Kafka's jars are missing: install Maven, or set STREAM_CALIB_KAFKA_HOME to an "
            "unpacked Kafka 4 release."
        )
    print("Fetching Kafka's jars through Maven (once)", file=sys.stderr, flush=True)
    fresh = libs.with_name(f"libs.{os.getpid()}")
    command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=MAVEN_DEADLINE_S)
        shutil.copy(POM, fresh)
        # Renamed when complete: whoever sees the folder sees all of it.
        shutil.rmtree(libs, ignore_errors=True)
        fresh.rename(libs)
    except subprocess.SubprocessError as error:
        raise UnavailableError("Maven could not fetch Kafka's jars; is the network up?") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def java_command(libs: Path, *words: str) -> list[str]:
    """Return the command that runs a class of Kafka: options of Java, the class, its arguments."""
    options = [word for word in words if word.startswith("-X")]
    return [find_java(), *options, "-cp", f"{libs}/*", *words[len(options) :]]
