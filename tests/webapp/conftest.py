"""Servers for these tests: one that a whole module shares, and one that a test may kill.

Both are started as users start them, in a process of their own; a traceback in a log fails the test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.checks import ROOT
from tests.support.server import TRACEBACK, Server
from tests.webapp.browser import Browser
from tests.webapp.client import Page

COMMAND = (sys.executable, "-m", "webapp.cli")


def make_server(data: Path) -> Server:
    return Server(data, COMMAND, ROOT)


def workers_of(server: Server) -> list[int]:
    """The process ids of a server's engine workers."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"engine.worker" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    ]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the tests of a module share."""
    server = make_server(tmp_path_factory.mktemp("shared") / "data")
    with server:
        yield server
    assert TRACEBACK not in server.log(), server.log()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, which it may kill and start again."""
    server = make_server(tmp_path / "data")
    with server:
        yield server
    assert TRACEBACK not in server.log(), server.log()


@pytest.fixture
def page(shared: Server) -> Iterator[Callable[[], Page]]:
    """Opens pages on the shared server, and closes them."""
    pages: list[Page] = []

    def opened(**options: object) -> Page:
        pages.append(Page(shared.port, **options))  # type: ignore[arg-type]
        return pages[-1]

    yield opened
    for one in pages:
        one.close()


@pytest.fixture
def lab(shared: Server) -> str:
    """A fresh, empty lab on the shared server."""
    return create_lab(shared)


def create_lab(server: Server, name: str = "test") -> str:
    """Make a lab as a person does, with the form on /labs; its id."""
    browser = Browser(server)
    browser.get("/labs")
    answer = browser.request("POST", "/labs", f"csrf={browser.csrf}&name={name}".encode(), _FORM)
    assert answer.status == 302, answer.body
    return answer.headers["Location"].rsplit("/", 1)[-1]


_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="session")
def hello_elf() -> bytes:
    """The built image of the guest `hello`."""
    return (ROOT / "engine" / "guests" / "images" / "hello.elf").read_bytes()
