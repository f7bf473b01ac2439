"""A headless Chromium, driven through its DevTools protocol."""

import asyncio
import base64
import contextlib
import itertools
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

STARTS_S = 60
TRIES = 3
ANSWERS_S = 60


class ProtocolError(AssertionError):
    """The browser refused, as it does where a page is left while a script is run in it."""


class Page:
    """One tab: what it shows, what was done to it, and what it complained of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def open(self, url: str) -> None:
        """Load a page and wait for it."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), ANSWERS_S)

    async def leave(self) -> None:
        """Show nothing, before a server ends: a page asks again for what is not there any more."""
        await self.open("about:blank")

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        return await asyncio.wait_for(answer, ANSWERS_S)

    async def run(self, script: str) -> Any:
        """Return what an expression of JavaScript is."""
        done = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise AssertionError(f"{script}: {done['exceptionDetails']}")
        return done["result"].get("value")

    async def until(self, script: str, seconds: float = 60.0) -> Any:
        """Wait until an expression is true, and return it."""
        end_s, found = time.monotonic() + seconds, None
        while True:
            with contextlib.suppress(ProtocolError):  # between two pages
                found = await self.run(script)
            if found:
                return found
            if time.monotonic() > end_s:
                text = await self.run("document.body.innerText")
                raise AssertionError(f"never true: {script}; {self.complaints}; page: {text!r}")
            await asyncio.sleep(0.03)

    async def press(self, key: str, **more: Any) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    async def click(self, x: float, y: float) -> None:
        """Click somewhere."""
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def hover(self, x: float, y: float) -> None:
        """Move the pointer."""
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def resize(self, width: int, height: int, scale: float = 1.0) -> None:
        """Give the window a size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 700,
        )

    async def prefer(self, **features: str) -> None:
        """Set media features, as prefers_color_scheme="dark"."""
        named = [{"name": n.replace("_", "-"), "value": value} for n, value in features.items()]
        await self.call("Emulation.setEmulatedMedia", features=named)

    async def picture(self) -> bytes:
        """Return the window as PNG."""
        done = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(done["data"])

    async def close(self) -> None:
        """Stop listening."""
        await self._socket.close()
        await self._reading

    async def _read(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                answer = self._answers.pop(said["id"])
                if answer.cancelled():
                    continue
                if "error" in said:
                    answer.set_exception(ProtocolError(said["error"]))
                else:
                    answer.set_result(said["result"])
            else:
                self._note(said["method"], said["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                self.complaints.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                entry = params["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(params["url"])


class Browser:
    """A running Chromium."""

    def __init__(self, port: int, client: aiohttp.ClientSession) -> None:
        self._url = f"http://127.0.0.1:{port}/json"
        self._client = client

    @contextlib.asynccontextmanager
    async def tab(self) -> AsyncIterator[Page]:
        """Yield a new tab."""
        async with self._client.put(f"{self._url}/new?about:blank") as answer:
            about = await answer.json()
        socket = await self._client.ws_connect(about["webSocketDebuggerUrl"], max_msg_size=0)
        page = Page(socket)
        try:
            yield page
        finally:
            await page.close()
            async with self._client.get(f"{self._url}/close/{about['id']}"):
                pass


@contextlib.asynccontextmanager
async def chromium(binary: Path, folder: Path) -> AsyncIterator[Browser]:
    """Start a browser with a profile of its own in ``folder``; one that fails to is tried again."""
    for tries_left in reversed(range(TRIES)):
        process = await _start(binary, folder)
        try:
            port = await _port(process, folder / "DevToolsActivePort")
            if port is None:
                said = (folder / "said").read_text(errors="replace")
                assert tries_left, f"Chromium did not start: {said[-2000:]}"
                continue
            async with aiohttp.ClientSession() as client:
                yield Browser(port, client)
            return
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()
            shutil.rmtree(folder, ignore_errors=True)


async def _start(binary: Path, folder: Path) -> asyncio.subprocess.Process:
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 (one call)
    with (folder / "said").open("wb") as said:
        return await asyncio.create_subprocess_exec(
            str(binary),
            "--headless=new",
            "--no-sandbox",  # root has none
            "--disable-gpu",
            "--disable-gpu-watchdog",  # nor a tab is ended because the machine is busy
            "--disable-hang-monitor",
            "--disable-background-timer-throttling",
            "--disable-renderer-backgrounding",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=said,
        )


async def _port(process: asyncio.subprocess.Process, file: Path) -> int | None:
    # None where it has ended, or takes too long
    end_s = time.monotonic() + STARTS_S
    while process.returncode is None and time.monotonic() < end_s:
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(file.read_text().splitlines()[0])  # noqa: ASYNC240 (two lines)
        await asyncio.sleep(0.05)
    return None
