"""Generations of hardware assist, a machine whose instructions are silent, the walk and the classification, in the page."""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, ready


def choose(page: Page, action: str, value: str) -> None:
    """A control of the selected host; its guest comes along."""
    page.locator(f"#inspector [data-action='{action}']").select_option(value)
    page.locator("dialog[open] [data-guests='carry']").click()
    expect(page.locator("dialog[open]")).to_have_count(0)


def select(page: Page, rows: str) -> None:
    page.locator(rows).first.focus()


def memory(page: Page) -> Locator:
    page.locator("#tab-memory").click()
    walk = page.locator("#panel-memory .memory-walk")
    expect(walk).to_be_visible()
    return walk


def accessible(page: Page) -> None:
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]})
    assert found.response["violations"] == [], found.generate_report()


def test_the_generations_of_hardware_assist_can_be_flipped_through(page: Page) -> None:
    ready(page)
    page.get_by_role("group", name="Speed").get_by_text("max", exact=True).click()
    select(page, HOSTS)
    choose(page, "host-technique", "hardware-assist")
    generation = page.locator("#inspector [data-action='host-generation']")
    expect(generation).to_have_value("2")
    walk = memory(page)
    here = walk.locator(".walk-costs .here")
    expect(here).to_contain_text("two stages")
    expect(walk.locator(".walk-misses")).to_contain_text(re.compile(r"TLB misses of this vCPU: [1-9]"))
    choose(page, "host-generation", "0")
    for switch in ("shadow-paging", "no-vmid", "no-direct-interrupts"):
        expect(page.locator(f"#inspector [data-action='host-switch-{switch}']")).to_be_checked()
    expect(here).to_contain_text("shadow tables")
    page.locator("#inspector [data-action='host-switch-no-vmid']").uncheck()
    page.locator("dialog[open] [data-guests='carry']").click()
    expect(generation).to_have_value("-1")
    choose(page, "host-generation", "1")
    expect(generation).to_have_value("1")
    expect(page.locator("#inspector [data-action='host-switch-no-direct-interrupts']")).to_be_checked()


def test_a_silent_machine_breaks_its_guest_and_says_where(page: Page) -> None:
    ready(page)
    page.get_by_role("group", name="Speed").get_by_text("max", exact=True).click()
    select(page, HOSTS)
    page.locator("#inspector [data-action='host-switch-silent-sensitive']").check()
    page.locator("dialog[open] [data-guests='stop']").click()
    select(page, GUESTS)
    page.locator("#inspector [data-action='power-on']").click()
    page.locator("#tab-console").click()
    expect(page.locator("#panel-console .xterm-rows")).to_contain_text("panic")
    page.locator("#inspector [data-action='find-silent']").click()
    found = page.locator("#inspector .silent-result")
    expect(found.locator(".silent-instruction")).to_contain_text("satp")
    expect(found).to_contain_text("SGDT, SLDT")
    expect(found).to_contain_text(re.compile(r"\.[ch]:\d+"))
    expect(found.locator(".silent-values dt")).to_have_count(1)


def test_every_instruction_classified(page: Page) -> None:
    ready(page)
    page.keyboard.press("Control+k")
    page.keyboard.type("sensitive")
    with page.context.expect_page() as opened:
        page.keyboard.press("Enter")
    popek = opened.value
    expect(popek.locator("#verdict")).to_have_class("holds")
    rows = popek.locator("#instructions tbody tr")
    everything = rows.count()
    assert everything > 350
    accessible(popek)
    popek.locator("#text").fill("sret")
    expect(rows).to_have_count(1)
    expect(rows.locator(".chips span")).to_have_text(["privileged", "control-sensitive", "behaviour-sensitive"])
    expect(rows.locator("td").nth(2)).to_have_text("illegal instruction")
    expect(rows.locator("td").nth(3)).to_contain_text("mode: 0x1 → 0x0")
    popek.locator("#text").fill("")
    popek.locator("#kind").select_option("violates")
    expect(popek.locator("#instructions")).to_contain_text("None fits")
    popek.locator("[data-machine='silent']").click()
    expect(popek.locator("#verdict")).to_have_class("fails")
    expect(rows).to_have_count(5)
    expect(popek.locator("#verdict")).to_contain_text("POPF")
    popek.get_by_role("group", name="Language").get_by_text("한국어").click()
    expect(popek.locator("h1")).to_have_text("이 기계를 가상화할 수 있나?")
    expect(popek.locator("#verdict")).to_contain_text("5개")
    assert not re.search(r"popek\.", popek.locator("body").inner_text())
