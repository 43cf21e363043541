"""Another stack by dragging and by the inspector's controls, what becomes of guests, and the table of costs."""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, box_of, drag_to_canvas, pause, ready
from tests.e2e.test_panels import open_panel


def stack(page: Page, name: str) -> Locator:
    return page.locator(f'[data-item="stack"][data-id="{name}"]')


def drop_on_host(page: Page, item: Locator) -> None:
    item.scroll_into_view_if_needed()
    drag_to_canvas(page, item, 0.5, 0.3)
    expect(page.locator(".ghost")).to_have_attribute("data-fits", "true")
    page.mouse.up()


def speed(page: Page, name: str) -> None:
    page.get_by_role("group", name="Speed").get_by_text(name, exact=True).click()


def test_a_stack_dropped_on_a_host_takes_its_guests_along(page: Page) -> None:
    ready(page)
    speed(page, "max")
    console = open_panel(page, "console").locator(".xterm-rows")
    expect(console).to_contain_text("demo: round")
    drop_on_host(page, stack(page, "vmware"))
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("What becomes of its guests (1)?")
    assert Axe().run(page, context="dialog").response["violations"] == []
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator(HOSTS)).to_contain_text("KVM-like")
    drop_on_host(page, stack(page, "vmware"))
    dialog.get_by_role("button", name="Bring them along").click()
    expect(page.locator(HOSTS)).to_contain_text("VMware-like · Binary translation")
    expect(page.locator("#announcer")).to_contain_text("host-1 now has VMware-like")
    page.locator(GUESTS).focus()
    traps = open_panel(page, "traps")
    expect(traps).to_contain_text(re.compile("hyp.*host.*dev.*host.*hyp"))
    page.keyboard.press("Control+z")
    expect(page.locator(HOSTS)).to_contain_text("KVM-like · Trap-and-emulate")


def test_guests_are_switched_off_on_bare_metal(page: Page) -> None:
    ready(page)
    drop_on_host(page, stack(page, "bare-metal"))
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Bring them along")).to_have_count(0)
    dialog.get_by_role("button", name="Switch them off").click()
    expect(page.locator(HOSTS)).to_contain_text("Bare metal")
    expect(page.locator(GUESTS)).to_contain_text("off")


def test_a_technique_that_a_stack_cannot_use_is_refused_before_the_drop(page: Page) -> None:
    ready(page)
    page.locator("#canvas").focus()
    page.locator(HOSTS).focus()
    page.get_by_label("Stack", exact=True).select_option("cloud")
    page.get_by_role("dialog").get_by_role("button", name="Bring them along").click()
    expect(page.locator(HOSTS)).to_contain_text("Cloud-like · Hardware assist")
    technique = page.locator('[data-item="technique"][data-id="trap-and-emulate"]')
    technique.scroll_into_view_if_needed()
    drag_to_canvas(page, technique, 0.5, 0.3)
    expect(page.locator(".ghost")).to_have_attribute("data-fits", "false")
    expect(page.locator(".ghost")).to_contain_text("does not virtualize by")
    page.keyboard.press("Escape")


def test_a_host_s_own_processes_and_switches(page: Page) -> None:
    ready(page)
    pause(page)
    page.locator(HOSTS).focus()
    switch = page.get_by_label("Devices in the host kernel")
    switch.check()
    page.get_by_role("dialog").get_by_role("button", name="Bring them along").click()
    expect(page.get_by_label("Devices in the host kernel")).to_be_checked()
    page.get_by_label("Stack", exact=True).select_option("parallels")
    page.get_by_role("dialog").get_by_role("button", name="Bring them along").click()
    expect(page.locator(HOSTS)).to_contain_text("Parallels-like")
    load = page.get_by_label("Host’s own processes", exact=True)
    load.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        expect(load).to_be_focused()
    expect(page.locator("#inspector output")).to_have_text("30 %")
    page.locator("#canvas").focus()
    page.keyboard.press("Control+z")
    expect(page.locator("#inspector output")).to_have_text("20 %")


def test_costs_are_chosen_changed_and_taken_back(page: Page) -> None:
    ready(page)
    pause(page)
    costs = open_panel(page, "costs")
    expect(costs).to_contain_text("Adams")
    row = costs.locator('[data-crossing="exit"]')
    expect(row).to_contain_text("1,186")
    costs.locator("select").select_option("dall-arm-2016")
    expect(row).to_contain_text("3,250")
    expect(row).to_contain_text("188")
    own = row.locator("input")
    own.fill("-1.5")
    own.press("Enter")
    expect(own).to_have_value("")
    expect(page.locator(".toast")).to_contain_text("10,000,000")
    own.fill("42")
    own.press("Enter")
    expect(row.locator("[data-replaced]")).to_have_count(2)
    for language in ("ko", "en"):
        page.locator(f"[data-action=language-{language}]").click()
        assert Axe().run(page, context="#panel-costs").response["violations"] == []
    page.locator("#canvas").focus()
    page.keyboard.press("Control+z")
    expect(row.locator("[data-replaced]")).to_have_count(0)
    assert box_of(costs)["width"] > 0
