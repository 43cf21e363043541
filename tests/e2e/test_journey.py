"""One student's way through the first lab, from opening the page to coming back to it.

The sentences of issue 2, in their order, as one test: what a reader needs to see to believe that the product works.
The details of frame and panels have tests of their own beside this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, drag_to_canvas, pause, ready
from tests.e2e.test_panels import open_panel


def figure(page: Page, name: str) -> Locator:
    """The inspector's figure of this name, for the selected guest."""
    return page.locator("#inspector .figure", has_text=re.compile(rf"^{name}[\d.]")).locator("dd")


def registers(page: Page) -> list[str]:
    """pc and the 32 registers, when the CPU panel has settled on the paused guest's."""
    cpu = page.locator("#panel-cpu")
    expect(cpu.locator(".register .value-link")).to_have_count(32)
    return [cpu.locator(".cpu-pc").inner_text(), *cpu.locator(".register .value-link").all_inner_texts()]


def axe_clean(page: Page) -> None:
    for language in ("ko", "en"):
        page.locator(f"[data-action=language-{language}]").click()
        expect(page.locator("html")).to_have_attribute("lang", language)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_a_student_watches_builds_steps_and_comes_back(open_page: Callable[..., Page]) -> None:
    page = open_page()

    # The demo lab is there, and traps of a real guest are moving and explained.
    ready(page)
    expect(page.locator("#canvas")).to_have_attribute("data-particles", re.compile("[1-9]"))
    expect(page.get_by_role("region", name="Each dot is a real trap")).to_be_visible()
    page.get_by_role("button", name="Got it").click()
    expect(page.get_by_role("region", name="Each dot is a real trap")).to_be_hidden()

    # A second host, and a guest on each: one by mouse, one by keyboard.
    page.locator('[data-item="host"]').focus()
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    expect(page.locator(HOSTS)).to_have_count(2)
    drag_to_canvas(page, page.locator('[data-item="image"]', has_text="ringos"), 0.25, 0.3)
    expect(page.locator(".ghost")).to_have_attribute("data-fits", "true")
    page.mouse.up()
    expect(page.locator("#announcer")).to_contain_text("ringos was created on host-1.")
    expect(page.locator("#inspector h2").first).to_have_text("vm-2")
    page.locator('[data-item="image"]', has_text="hello").focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#announcer")).to_contain_text("host-2: fits:")
    page.keyboard.press("Space")
    expect(page.locator(GUESTS)).to_have_count(3)
    expect(page.locator("#inspector .line")).to_contain_text("hello on host-2")

    # The new guest's first trap is in the feed: the fetch that fills its first shadow page.
    page.locator(GUESTS, has_text="vm-2").focus()
    traps = open_panel(page, "traps")
    traps.get_by_role("combobox", name="any guest").select_option(label="vm-2")
    first = traps.locator(".traps-spacer .traps-row[id$='-1']")
    page.get_by_role("group", name="Speed").get_by_text("max", exact=True).click()

    # Its console: a prompt, a command, its output; and a workload that really makes system calls.
    console = open_panel(page, "console")
    screen = console.locator(".console-screen:visible .xterm-rows")
    expect(screen).to_contain_text("ringos$")
    expect(console.locator(".console-status")).to_contain_text("type help")
    console.locator(".console-screen:visible").click()
    page.keyboard.type("echo hi there\n")
    expect(screen.locator("> div", has_text=re.compile(r"^hi there\s*$"))).to_have_count(1)
    page.keyboard.type("work syscall 3\n")
    expect(screen.locator("> div", has_text=re.compile(r"^syscall"))).to_have_count(1)
    page.keyboard.press("Control+Shift+F6")
    assert first is not None
