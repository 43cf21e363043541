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
    cap, weight = page.get_by_label("Cap", exact=True), page.get_by_label("Weight", exact=True)
    cap.fill("1")  # the demo runs in short bursts, and none of them may be longer than 100 us in 10 ms
    cap.press("Enter")
    weight.fill("512")
    weight.press("Enter")
    expect(open_panel(page, "traps")).to_contain_text("its cap is used up")
    page.locator(HOSTS).focus()
    shares = page.locator("#section-host-shares")
    expect(shares).to_contain_text("weight 512, cap 1 %")
    bar = shares.get_by_role("img")
    expect(bar).to_have_attribute("aria-label", re.compile(r"had a hart (0|1)(\.\d)? %, waited for one [1-9]"))
    assert Axe().run(page, context="#inspector").response["violations"] == []
    page.locator(GUESTS).focus()
    weight.fill("0")
    weight.press("Enter")
    expect(page.get_by_text(re.compile("A whole number from 1 to 65,?535")).first).to_be_visible()
    expect(weight).to_have_value("512")
    page.locator(GUESTS).focus()
    page.keyboard.press("Control+z")
    expect(weight).to_have_value("256")
    page.keyboard.press("Control+z")
    expect(cap).to_have_value("0")


def test_another_scheduler_is_chosen(page: Page) -> None:
    ready(page)
    page.locator(HOSTS).focus()
    picker = page.get_by_label("Scheduler", exact=True)
    expect(picker).to_have_value("")
    expect(page.locator("#section-host-shares")).to_contain_text("Fair share (default)")
    picker.select_option("credit")
    expect(page.locator("#section-host-shares")).to_contain_text("each guest gets credits by its weight")
    page.locator(HOSTS).focus()
    page.keyboard.press("Control+z")
    expect(picker).to_have_value("")
