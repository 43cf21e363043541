"""Who has a host's harts: weight, cap and scheduler set by keyboard, seen in the bars, and taken back."""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, ready
from tests.e2e.test_panels import open_panel
from tests.e2e.test_stacks import speed


def test_a_guest_with_a_cap_gets_no_more_and_undo_takes_it_back(page: Page) -> None:
    ready(page)
    speed(page, "max")
    page.locator(GUESTS).focus()
    cap = page.get_by_label("Cap", exact=False).and_(page.locator('[data-action="guest-cap"]'))
    cap.fill("30")
    cap.press("Enter")
    weight = page.locator('[data-action="guest-weight"]')
    weight.fill("512")
    weight.press("Enter")
    expect(open_panel(page, "traps")).to_contain_text("its cap is used up")
    page.locator(HOSTS).focus()
    shares = page.locator("#section-host-shares")
    expect(shares).to_contain_text("weight 512, cap 30 %")
    bar = shares.get_by_role("img")
    expect(bar).to_have_attribute("aria-label", re.compile(r"had a hart (2[5-9]|30)(\.\d)? %, waited for one [1-9]"), timeout=20_000)
    assert Axe().run(page, context="#inspector").response["violations"] == []
    weight = page.locator(GUESTS)
    weight.focus()
    field = page.locator('[data-action="guest-weight"]')
    field.fill("0")
    field.press("Enter")
    expect(page.get_by_text("A whole number from 1 to 65535, please.").first).to_be_visible()
    expect(field).to_have_value("512")
    page.locator(GUESTS).focus()
    page.keyboard.press("Control+z")
    expect(field).to_have_value("256")
    page.keyboard.press("Control+z")
    expect(page.locator('[data-action="guest-cap"]')).to_have_value("0")


def test_another_scheduler_is_chosen(page: Page) -> None:
    ready(page)
    page.locator(HOSTS).focus()
    picker = page.get_by_label("Scheduler", exact=True)
    expect(picker).to_have_value("")
    expect(page.locator("#section-host-shares")).to_contain_text("Fair share (the stack’s own)")
    picker.select_option("credit")
    expect(page.locator("#section-host-shares")).to_contain_text("each guest gets credits by its weight")
    page.locator(HOSTS).focus()
    page.keyboard.press("Control+z")
    expect(picker).to_have_value("")
