"""An operating system that nobody here wrote, on the page: Debian is fetched from its registry with the dialog, dropped
onto hosts of each kind, and answers a command at its shell.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, ready
from tests.e2e.test_panels import open_panel

FETCH_MS = 300_000
BOOT_MS = 300_000
WAYS = ("Bare metal", "Trap-and-emulate")


def empty_lab(open_page: Callable[..., Page]) -> Page:
    page = open_page("/labs")
    page.get_by_label("Name of a new lab").fill("linux")
    page.get_by_role("button", name="Create").click()
    ready(page)
    return page


def put_on_host(page: Page, item: Locator) -> None:
    """Place a palette item on the one host, by keyboard."""
    item.focus()
    page.keyboard.press("Space")
    expect(page.locator("#announcer")).to_contain_text("host-1")
    page.keyboard.press("Space")


def fetch_debian(page: Page) -> None:
    page.get_by_role("button", name="Add a system…").click()
    dialog = page.get_by_role("dialog", name="Add an operating system")
    dialog.get_by_role("button", name="Add Debian Linux").click()
    over = dialog.locator(".stage", has_text="in the palette").or_(dialog.locator(".refusal", has_text=re.compile(".")))
    expect(over.first).to_be_visible(timeout=FETCH_MS)
    assert not dialog.locator(".refusal").first.inner_text(), dialog.locator(".refusal").first.inner_text()
    found = Axe().run(page, context="dialog").response["violations"]
    assert found == [], found
    page.keyboard.press("Escape")


@pytest.mark.parametrize("way", WAYS)
def test_debian_boots_to_a_shell(way: str, open_page: Callable[..., Page]) -> None:
    page = empty_lab(open_page)
    page.get_by_role("button", name="Add a host").click()
    expect(page.locator(HOSTS)).to_have_count(1)
    fetch_debian(page)
    if way != "Trap-and-emulate":  # which a new host has
        put_on_host(page, page.locator('[data-item="stack"]', has_text=way))
        expect(page.locator("#announcer")).to_contain_text("host-1 now has")
    debian = page.locator('[data-item="image"]', has_text="debian")
    expect(debian).to_contain_text("Debian, Linux 6.")
    put_on_host(page, debian)
    expect(page.locator(GUESTS)).to_have_count(1)
    expect(page.locator("#inspector .line")).to_contain_text("debian on host-1")
    page.get_by_role("group", name="Speed").get_by_text("real", exact=True).click()
    page.locator("#canvas").focus()
    page.keyboard.press("r")

    console = open_panel(page, "console")
    screen = console.locator(".console-screen:visible .xterm-rows")
    expect(screen).to_contain_text("with BusyBox", timeout=BOOT_MS)
    expect(screen).to_contain_text("~ #", timeout=BOOT_MS)
    console.locator(".console-screen:visible").click()
    page.keyboard.type("echo $((6 * 7)) on $(uname -m)\n")
    expect(screen).to_contain_text("42 on riscv64", timeout=BOOT_MS)

    # Its traps are those that it made: the kernel's system calls, and its timer.
    page.keyboard.press("Control+Shift+F6")
    causes = page.locator("#inspector")
    expect(causes).to_contain_text("supervisor timer interrupt" if way == "Bare metal" else "illegal instruction")
