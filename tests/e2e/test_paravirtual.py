"""A paravirtual guest by dragging: refused where nobody answers its hypercalls, run where somebody does, and its source."""

from __future__ import annotations

import os
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_frame import GUESTS, drag_to_canvas, ready
from tests.e2e.test_panels import open_panel


def test_a_changed_kernel_runs_and_shows_its_price(page: Page) -> None:
    ready(page)
    kernel = page.locator('[data-item="image"]', has_text="ringos-pv")
    drag(page, kernel)
    ghost = page.locator(".ghost")
    expect(ghost).to_have_attribute("data-fits", "false")
    expect(ghost).to_contain_text("hypercalls, which nobody answers here")
    page.keyboard.press("Escape")
    page.mouse.up()

    page.locator(GUESTS, has_text="vm-1").focus()
    page.locator("#canvas").focus()
    page.keyboard.press("Delete")
    expect(page.locator(GUESTS)).to_have_count(0)
    drag(page, page.locator('[data-item="technique"]', has_text="Paravirtualization"))
    expect(ghost).to_have_attribute("data-fits", "true")
    page.mouse.up()
    drag(page, page.locator('[data-item="image"][data-id="ringos"]').first)
    expect(ghost).to_have_attribute("data-fits", "false")
    expect(ghost).to_contain_text("would execute privileged instructions")
    page.keyboard.press("Escape")
    page.mouse.up()
    drag(page, kernel)
    expect(ghost).to_have_attribute("data-fits", "true")
    page.mouse.up()
    expect(page.locator(GUESTS)).to_have_count(1)

    page.get_by_role("group", name="Speed").get_by_text("max", exact=True).click()
    screen = open_panel(page, "console").locator(".console-screen:visible .xterm-rows")
    expect(screen).to_contain_text("ringos$")
    page.locator(".console-screen:visible").click()
    page.keyboard.type("work pagefault 100\n")
    expect(screen).to_contain_text("100 page faults, checksum 0x74c102405af53d25")
    look(page, "console")
    traps = open_panel(page, "traps")
    expect(traps).to_contain_text("hypercall return → ")
    look(page, "traps")

    page.locator("#inspector").get_by_role("button", name="Compare the sources…").click()
    sources = page.get_by_role("dialog")
    expect(sources.get_by_role("heading", name="ringos-pv beside ringos")).to_be_visible()
    expect(sources).to_contain_text("native/machine.h")
    expect(sources.locator("td.removed", has_text='asm volatile("wfi"')).to_be_visible()
    expect(sources.locator("td.added", has_text="call_now(PV_BLOCK, 0, 0);")).to_be_visible()
    look(page, "sources")
    sources.get_by_role("link", name="trapvec.S").click()
    expect(sources.locator("td.removed", has_text="sscratch points to its frame")).to_be_in_viewport()
    look(page, "trapvec")
    page.keyboard.press("Escape")
    expect(sources).to_have_count(0)


def test_in_korean_and_small(open_page: Callable[..., Page]) -> None:
    page = open_page("/", locale="ko-KR", viewport={"width": 1024, "height": 700}, color_scheme="dark")
    ready(page)
    page.locator(GUESTS, has_text="vm-1").focus()
    page.locator("#canvas").focus()
    page.keyboard.press("Delete")
    expect(page.locator(GUESTS)).to_have_count(0)
    drag(page, page.locator('[data-item="technique"]', has_text="반가상화"))
    expect(page.locator(".ghost")).to_have_attribute("data-fits", "true")
    page.mouse.up()
    expect(page.locator("#objects")).to_contain_text("반가상화")
    kernel = page.locator('[data-item="image"]', has_text="ringos-pv")
    drag(page, kernel)
    expect(page.locator(".ghost")).to_have_attribute("data-fits", "true")
    page.mouse.up()
    expect(page.locator(GUESTS)).to_have_count(1)
    page.locator("#inspector").get_by_role("button", name="소스 비교…").click()
    expect(page.get_by_role("dialog")).to_contain_text("양쪽 모두 그대로 컴파일됩니다")
    look(page, "korean")


def drag(page: Page, item: Locator) -> None:
    """From the palette, which may be longer than the page, to the first host, without letting go."""
    item.scroll_into_view_if_needed()
    drag_to_canvas(page, item, 0.5, 0.3)


def look(page: Page, name: str) -> None:
    """Keep a picture for somebody who wants to see it: `SCREENSHOTS=folder`."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/paravirtual-{name}.png")
