"""What a host's memory is used for: equal pages are shared when asked to, seen in the bar, and taken back."""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, ready
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
