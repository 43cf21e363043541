"""What a host's memory is used for: equal pages are shared when asked to, seen in the bar, and taken back; and a host that
promises more than it has swaps, as its inspector, its canvas and its records say."""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, ready
from tests.e2e.test_panels import open_panel
from tests.e2e.test_paravirtual import look
from tests.e2e.test_stacks import drop_on_host, speed


def test_equal_pages_are_shared_when_asked_to(page: Page) -> None:
    ready(page)
    drop_on_host(page, page.locator('[data-item="image"][data-id="ringos"]'))
    expect(page.locator(GUESTS)).to_have_count(2)
    speed(page, "max")
    page.locator(HOSTS).focus()
    memory = page.locator("#section-host-memory")
    box = page.get_by_label("Share equal pages")
    expect(box).not_to_be_checked()
    box.focus()
    page.keyboard.press("Space")
    expect(box).to_be_checked()
    bar = memory.get_by_role("img")
    expect(bar).to_have_attribute("aria-label", re.compile(r"in use; without sharing it would be [1-9][\d,]* KiB more"))
    expect(page.locator("#inspector :focus")).to_have_count(1)  # the figures moved, and took nothing away
    assert Axe().run(page, context="#inspector").response["violations"] == []
    page.locator(HOSTS).focus()
    page.keyboard.press("Control+z")
    expect(box).not_to_be_checked()


def small_host(page: Page) -> None:
    """A host of 32 MiB, by keyboard; selected."""
    page.locator('[data-item="small-host"]').focus()
    page.keyboard.press("Space")
    expect(page.locator(".hint")).to_contain_text("Space adds the host")
    page.keyboard.press("Space")
    expect(page.locator(HOSTS)).to_have_count(2)


def carry(page: Page) -> None:
    """Take ringos to the second host, by keyboard, and let go there."""
    page.locator('[data-item="image"][data-id="ringos"]').focus()
    page.keyboard.press("Space")
    expect(page.locator("#announcer")).to_contain_text("host-1:")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#announcer")).to_contain_text("host-2:")
    page.keyboard.press("Space")


def test_a_host_that_promises_more_than_it_has_swaps(page: Page) -> None:
    ready(page)
    small_host(page)
    speed(page, "max")
    carry(page)
    expect(page.locator(GUESTS)).to_have_count(2)
    carry(page)
    expect(page.locator(".toast", has_text="It needs 16 MiB and the host has 12 MiB free.")).to_be_visible()
    expect(page.locator(GUESTS)).to_have_count(2)
    page.locator(HOSTS).nth(1).focus()
    memory = page.locator("#section-host-memory")
    box = page.get_by_label("Overcommit memory")
    expect(box).not_to_be_checked()
    box.focus()
    page.keyboard.press("Space")
    expect(page.get_by_title("Undo: change memory overcommitment")).to_be_enabled()
    expect(box).to_be_checked()
    for count in (3, 4):
        carry(page)
        expect(page.locator(GUESTS)).to_have_count(count)
    console = open_panel(page, "console")
    screen = console.locator(".console-screen:visible .xterm-rows")
    for guest in range(2, 5):
        page.locator(GUESTS, has_text=f"vm-{guest}").focus()
        expect(screen).to_contain_text("ringos$")
        console.locator(".console-screen:visible").click()
        page.keyboard.type("fill 13 0\n")
        expect(screen).to_contain_text("fill 13 0")
    page.locator(HOSTS).nth(1).focus()
    swapped = memory.locator(".figure", has_text="Swapped out").locator("dd")
    expect(swapped).to_have_text(re.compile(r"^[1-9]"))
    expect(memory.get_by_role("img")).to_have_attribute("aria-label", re.compile("are on the swap device"))
    assert Axe().run(page, context="#inspector").response["violations"] == []
    box.focus()
    page.keyboard.press("Space")
    expect(page.locator(".toast", has_text="MiB more than the host has")).to_be_visible()
    expect(box).to_be_checked()
    page.locator(GUESTS, has_text="vm-2").focus()
    traps = open_panel(page, "traps")
    traps.locator("select").first.select_option(label="vm-2")
    expect(traps).to_contain_text("swap device")
    look(page, "overcommitted")


def test_a_guest_gives_memory_back_through_its_balloon(page: Page) -> None:
    ready(page)
    speed(page, "max")
    drop_on_host(page, page.locator('[data-item="image"][data-id="ringos"]'))
    console = open_panel(page, "console")
    screen = console.locator(".console-screen:visible .xterm-rows")
    page.locator(GUESTS, has_text="vm-2").focus()
    expect(screen).to_contain_text("ringos$")
    console.locator(".console-screen:visible").click()
    page.keyboard.type("fill 8\n")
    expect(screen).to_contain_text("8 MiB held")
    memory = page.locator("#section-guest-memory")
    slider = page.get_by_label("Balloon")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_title("Undo: change a guest’s balloon")).to_be_enabled()
    inside = memory.locator(".figure", has_text="In its balloon").locator("dd")
    expect(inside).to_have_text("3 MiB")
    assert Axe().run(page, context="#inspector").response["violations"] == []
    traps = open_panel(page, "traps")
    traps.locator("select").first.select_option(label="vm-2")
    expect(traps).to_contain_text("into the guest’s balloon")
    look(page, "balloon")
    page.locator(GUESTS, has_text="vm-2").focus()
    for _ in range(3):
        page.keyboard.press("Control+z")
    expect(inside).to_have_text("0 KiB")
