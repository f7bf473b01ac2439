"""One browser per file, a tab and a server per test."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from stream_calib.adapters.http import HttpServer, LiveView
from tests.web.browser import Browser, Page, chromium
from tests.web.showing import serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(
    require_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Browser]:
    binary = require_binary("chromium")
    async with chromium(binary, tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A tab of 1280 x 1000 that is well again at the end: no complaint, nothing from outside."""
    async with browser.tab() as tab:
        await tab.resize(1280, 1000)
        yield tab
        assert tab.complaints == []
        own = ("blob:", "about:")
        hosts = {urlsplit(url).hostname for url in tab.requests if not url.startswith(own)}
        assert hosts <= {"127.0.0.1"}


@pytest_asyncio.fixture(loop_scope="module")
async def served(page: Page) -> AsyncIterator[tuple[HttpServer, LiveView]]:
    async with serving() as (server, view, _):
        yield server, view
        await page.leave()
