"""An operating system that nobody here wrote, on the page: Debian is fetched from its registry with the dialog, dropped
onto a host of each kind, and answers a command at its shell on all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, ready
from tests.e2e.test_panels import open_panel

FETCH_MS = 300_000
BOOT_MS = 600_000
#: The stacks of host-1, host-2, host-3, and a trap that only this way of running a kernel makes.
WAYS = {
    "Trap-and-emulate": "illegal instruction",
    "Bare metal": "supervisor timer interrupt",
    "Hardware assist": "guest-page fault",
}


def put(page: Page, item: Locator, host: int) -> None:
    """Drop a palette item on a host, by keyboard."""
    item.focus()
    page.keyboard.press("Space")
    for _ in range(host - 1):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#announcer")).to_contain_text(f"host-{host}:")
    page.keyboard.press("Space")


def fetch_debian(page: Page) -> None:
    page.get_by_role("button", name="Add a system…").click()
    dialog = page.get_by_role("dialog", name="Add an operating system")
    dialog.get_by_role("button", name="Add Debian Linux").click()
    refusal = dialog.locator(".refusal").first
    over = dialog.locator(".stage", has_text="in the palette").or_(refusal)
    expect(over.first).to_be_visible(timeout=FETCH_MS)
    assert not refusal.is_visible(), refusal.inner_text()
    assert Axe().run(page, context="dialog").response["violations"] == []
    page.keyboard.press("Escape")


def test_debian_boots_to_a_shell_in_every_way(open_page: Callable[..., Page]) -> None:
    page = open_page("/labs")
    page.get_by_label("Name of a new lab").fill("linux")
    page.get_by_role("button", name="Create").click()
    ready(page)
    fetch_debian(page)
    debian = page.locator('[data-item="image"]', has_text="debian")
    expect(debian).to_contain_text(re.compile(r"Debian 1\d, Linux \d"))
    page.get_by_role("button", name="Add a host").click()
    for number, way in enumerate(WAYS, 1):
        if number > 1:
            page.locator('[data-item="host"]').focus()
            page.keyboard.press("Space")
            expect(page.locator("#announcer")).to_contain_text("Grabbed a host")
            page.keyboard.press("Space")
        expect(page.locator(HOSTS)).to_have_count(number)
        if number > 1:  # the first has it: a new host's stack is trap-and-emulate
            put(page, page.locator("[data-item]", has_text=way), number)
            expect(page.locator("#announcer")).to_contain_text(f"host-{number} now has")
        put(page, debian, number)
        expect(page.locator(GUESTS)).to_have_count(number)
        expect(page.locator("#inspector .line")).to_contain_text(f"debian on host-{number}")
    page.get_by_role("group", name="Speed").get_by_text("real", exact=True).click()
    page.locator("#canvas").focus()
    page.keyboard.press("r")

    console = open_panel(page, "console")
    screen = console.locator(".console-screen:visible .xterm-rows")
    for number, way in enumerate(WAYS, 1):
        page.locator(GUESTS, has_text=f"vm-{number}").focus()
        expect(page.locator("#inspector .line")).to_contain_text(f"debian on host-{number}")
        expect(screen).to_contain_text(re.compile(r"with BusyBox.*~ #", re.DOTALL), timeout=BOOT_MS)
        console.locator(".console-screen:visible").click()
        page.keyboard.type(f"echo $((6 * 7)) on host-{number}, $(uname -m)\n")
        expect(screen).to_contain_text(f"42 on host-{number}, riscv64", timeout=BOOT_MS)
        page.keyboard.press("Control+Shift+F6")
        expect(page.locator("#inspector")).to_contain_text(WAYS[way])
