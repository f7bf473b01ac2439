"""What a URL adds to a store of snapshots: servers that fail or hang, secrets, several writers."""

import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from stream_calib.adapters.objectstore import SnapshotObjects
from stream_calib.errors import ConfigError

SECRET = "s3cr3t%2Fword"  # as it stands in a URL


def name(number: int, chain: str = "00ff") -> str:
    return f"{number:020d}-{chain}.snap"


class Failing(MemoryFileSystem):  # type: ignore[misc]  # it has no types
    """A store that does what a test tells it to before each request."""

    protocol = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    before: ClassVar[Callable[[], object]] = staticmethod(lambda: None)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        bare = path.partition("?")[0].rpartition("@")[2].removeprefix("failing://")
        return str(super()._strip_protocol(bare))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **more: Any) -> None:
        type(self).before()
        super().pipe_file(path, value, mode, **more)

    def ls(self, path: str, detail: bool = True, **more: Any) -> Any:
        type(self).before()
        return super().ls(path, detail, **more)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Failing]]:
    fsspec.register_implementation("failing", Failing, clobber=True)
    monkeypatch.setattr(Failing, "store", {})
    monkeypatch.setattr(Failing, "pseudo_dirs", [""])
    yield Failing
    Failing.before = staticmethod(lambda: None)


def test_error_of_the_store_is_an_oserror_without_the_secrets(failing: type[Failing]) -> None:
    def refuse() -> None:
        raise RuntimeError(f"403 for https://me:{SECRET}@host?sig=abc and s3cr3t/word\n")

    store = SnapshotObjects(f"failing://me:{SECRET}@host/x?sig=abc", "j/u")
    store.open()
    assert not store.unusable
    failing.before = staticmethod(refuse)
    for work in (lambda: store.save(name(1), b""), store.names):
        with pytest.raises(OSError, match="403 for") as caught:
            work()
        said = f"{caught.value} {caught.value.strerror}"
        assert "s3cr3t" not in said
        assert "sig=" not in said
    store.open()
    assert store.unusable is not None
    assert store.unusable.startswith("failing://host/x/j/u cannot be used (403 for")
    assert "s3cr3t" not in store.unusable
    failing.before = staticmethod(lambda: None)
    store.save(name(1), b"again")
    assert store.names() == [name(1)]


def test_store_that_hangs_is_given_up_and_the_next_requests_fail_at_once(
    failing: type[Failing],
) -> None:
    released = threading.Event()
    store = SnapshotObjects("failing://host", "j/u", timeout_s=0.3)
    store.open()
    failing.before = staticmethod(lambda: released.wait(60.0))
    try:
        started_s = time.monotonic()
        with pytest.raises(TimeoutError, match=r"no answer within 0\.3 s while writing"):
            store.save(name(1), b"")
        with pytest.raises(TimeoutError, match="an earlier request still hangs"):
            store.names()
        store.delete(name(1))
        store.close()
        assert time.monotonic() - started_s < 10.0  # half a second, on a machine that is busy
    finally:
        released.set()
    deadline_s = time.monotonic() + 30.0
    while store._hanging is not None and store._hanging.is_alive():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    store.open()
    store.save(name(2), b"well")
    assert name(2) in store.names()


def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = (SnapshotObjects(tmp_path.as_uri(), "j/u", keep=9) for _ in range(2))
    first.open()
    second.open()
    failed: list[BaseException] = []

    def write(store: SnapshotObjects, chain: str) -> None:
        try:
            for number in range(20):
                store.save(name(number, chain), chain.encode() * 10_000)
                store.save(name(7, "same"), b"same" * 10_000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=of) for of in ((first, "aa"), (second, "bb"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert failed == []
    for kept in first.names():
        chain = kept.partition("-")[2].removesuffix(".snap").encode()
        assert second.load(kept) == chain * 10_000
    assert not [path for path in (tmp_path / "j" / "u").iterdir() if path.suffix == ".tmp"]


def test_leftovers_of_a_crash_go_unless_they_may_be_written_now(tmp_path: Path) -> None:
    folder = tmp_path / "j" / "u"
    store = SnapshotObjects(tmp_path.as_uri(), "j/u")
    store.open()
    store.save(name(5), b"")
    old, now = (f".{name(n)}.{uuid.uuid4().hex}.tmp" for n in (4, 6))
    for leftover in (old, now, "strange.tmp"):
        (folder / leftover).touch()
    SnapshotObjects(tmp_path.as_uri(), "j/u").open()
    assert {path.name for path in folder.iterdir()} == {name(5), now, "strange.tmp"}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense://x", "snapshots.url: nonsense:// is nothing that fsspec knows"),
        ("missing://x", "snapshots.url: missing:// needs another package: Install nothing"),
    ],
)
def test_backend_that_is_missing_is_one_sentence(url: str, words: str) -> None:
    fsspec.register_implementation(
        "missing", "nothing_of_the_kind.At", errtxt="Install nothing", clobber=True
    )
    with pytest.raises(ConfigError) as caught:
        SnapshotObjects(url, "j/u")
    assert str(caught.value) == words


@pytest.fixture
def ftp(tmp_path: Path) -> Iterator[str]:
    """Start an FTP server on loopback; return its URL, with the password that it asks for."""
    with warnings.catch_warnings():  # asyncore, which it brings itself where Python has none
        warnings.simplefilter("ignore", DeprecationWarning)
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import FTPServer
    authorizer = DummyAuthorizer()
    authorizer.add_user("me", "s3cr3t", str(tmp_path), perm="elradfmwMT")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    server = FTPServer(("127.0.0.1", 0), handler)
    port = server.socket.getsockname()[1]
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.serve_forever(timeout=0.05, blocking=False)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"ftp://me:s3cr3t@127.0.0.1:{port}/snaps"
    stop.set()
    thread.join(30.0)
    server.close_all()


def test_snapshots_lie_on_a_server_and_its_password_is_never_said(ftp: str, tmp_path: Path) -> None:
    store = SnapshotObjects(ftp, "app.journal/u")
    assert "s3cr3t" not in store.place
    store.open()
    assert store.unusable is None
    for number in range(5):
        store.save(name(number), b"%d" % number * 100_000)
    other = SnapshotObjects(ftp, "app.journal/u")
    assert other.names() == [name(4), name(3), name(2)]
    assert other.load(name(4)) == b"4" * 100_000
    assert {p.name for p in (tmp_path / "snaps" / "app.journal" / "u").iterdir()} == {
        name(4),
        name(3),
        name(2),
    }
    wrong = SnapshotObjects(ftp.replace("s3cr3t", "an0ther"), "app.journal/u")
    wrong.open()
    assert wrong.unusable is not None
    assert "an0ther" not in wrong.unusable


def test_server_that_is_gone_is_told_at_opening() -> None:
    store = SnapshotObjects("ftp://127.0.0.1:1/x", "j/u", timeout_s=10.0)
    store.open()
    assert store.unusable is not None
    assert store.unusable.startswith("ftp://127.0.0.1:1/x/j/u cannot be used (")
    with pytest.raises(OSError, match="while"):
        store.save(name(1), b"")
