"""What a student is told when a guest of their own does something bad: where it is, and the others go on."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.e2e.test_frame import GUESTS, ready
from tests.e2e.test_panels import open_panel

NOWHERE = "_start:\n    li t0, 0x7000\n    jr t0\n"
SPINS = "_start:\n    j _start\n"


def write_and_run(page: Page, name: str, source: str) -> None:
    page.get_by_role("button", name="Write assembly").click()
    editor = page.get_by_role("dialog", name="Write a guest in assembly")
    expect(editor.get_by_role("textbox", name=re.compile("^Assembly source"))).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(source)
    editor.get_by_label("Name", exact=True).fill(name)
    editor.get_by_role("button", name="Assemble & run").click()
    expect(editor).to_be_hidden()


def test_a_guest_that_fails_or_spins_is_told_at_the_guest_and_the_others_go_on(page: Page) -> None:
    ready(page)
    page.get_by_role("group", name="Speed").get_by_text("max", exact=True).click()
    message = page.locator("#inspector .failure:visible")

    write_and_run(page, "nowhere", NOWHERE)
    page.locator(GUESTS, has_text="nowhere").focus()
    expect(message).to_contain_text("It jumped to an address where there is no memory.")
    expect(page.locator(GUESTS, has_text="nowhere").locator("td.state")).to_have_text("failed")
    expect(page.locator(".toast[data-level=error]")).to_contain_text(
        "It jumped to an address where there is no memory."
    )
    expect(open_panel(page, "console").locator(".console-status")).to_contain_text("no memory")

    write_and_run(page, "spins", SPINS)
    page.locator(GUESTS, has_text="spins").focus()
    expect(message).to_contain_text(re.compile(r"^no trap for [\d.]+ [MG] instructions"))
    expect(page.locator(GUESTS, has_text="spins").locator("td.state")).to_have_text("running")

    page.locator('[data-item="image"]', has_text="hello").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    expect(page.locator(GUESTS, has_text="hello").locator("td.state")).to_have_text("stopped")
    expect(page.locator(GUESTS, has_text="spins").locator("td.state")).to_have_text("running")


def test_a_name_that_is_none_is_refused_in_words(page: Page) -> None:
    ready(page)
    page.locator(GUESTS).first.focus()
    page.keyboard.press("F2")
    page.keyboard.type("<b>")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".refusal")).to_contain_text("A name has 1 to 40 letters")
    expect(page.locator(GUESTS).first).not_to_contain_text("<b>")
