"""Fixtures of the end-to-end tests: a real server, a real browser, and nothing left unsaid by either.

A test asks for `server`, `page` and, for several browsers on one lab, `open_page`. It fails when the server's
log holds a traceback or when a page's console holds an error that `console.allow(pattern)` did not announce.
A failing test leaves a screenshot and the server's log in test-results/.

The content security policy forbids eval, and `page.wait_for_function` is eval: wait with `expect(locator)` on
what the page shows and on its data- attributes instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect, sync_playwright

from tests.support.checks import ROOT
from tests.support.provide import require
from tests.support.server import TRACEBACK, Server

RESULTS = ROOT / "test-results"
VIEWPORT = {"width": 1440, "height": 900}
PATIENCE_MS = 30_000
"""How long an expectation may take to come true: generous, because a slow machine is no failure."""

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


def _result_path(item: pytest.Item, suffix: str) -> Path:
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"{re.sub(r'[^A-Za-z0-9]+', '-', item.name).strip('-')}{suffix}"


@dataclass
class Console:
    """What the pages of one test complained about."""

    errors: list[str] = field(default_factory=list)
    allowed: list[re.Pattern[str]] = field(default_factory=list)

    def allow(self, pattern: str) -> None:
        """Announce an error that this test provokes on purpose (a regular expression)."""
        self.allowed.append(re.compile(pattern))

    def watch(self, page: Page) -> None:
        """Collect console errors and uncaught exceptions of a page."""
        page.on("console", self._on_message)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))

    def _on_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def unexpected(self) -> list[str]:
        """The errors that nobody announced."""
        return [error for error in self.errors if not any(known.search(error) for known in self.allowed)]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One headless Chromium for the package; every page gets a context of its own."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=require("chromium"),
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
            ],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with an empty data folder, so with the demo lab of a first start."""
    running = Server(tmp_path / "data")
    with running:
        yield running
    log = running.log()
    if request.node.stash.get(_FAILED, False):
        _result_path(request.node, ".log").write_text(log)
    assert TRACEBACK not in log, f"the server's log holds a traceback:\n{log}"


@pytest.fixture
def console() -> Iterator[Console]:
    """The errors of all pages of the test, which fails when one was not announced."""
    collected = Console()
    yield collected
    assert not collected.unexpected(), "the browser's console holds errors"


@pytest.fixture
def open_page(
    browser: Browser, server: Server, console: Console, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Page]]:
    """Opens the server's front page in a browser of its own: `open_page(path="/", locale="en-US", **context
    options)`."""
    contexts: list[BrowserContext] = []

    def open_in_new_context(path: str = "/", locale: str = "en-US", **options: object) -> Page:
        context = browser.new_context(**{"viewport": VIEWPORT, "locale": locale, **options})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        console.watch(page)
        page.goto(server.url + path)
        return page

    yield open_in_new_context
    for number, context in enumerate(contexts):
        if request.node.stash.get(_FAILED, False) and context.pages:
            try:
                context.pages[0].screenshot(path=_result_path(request.node, f"-{number}.png"))
            except Error as error:
                print(f"no screenshot: {error}")
        context.close()


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """The server's front page in English at 1440 x 900."""
    return open_page()
