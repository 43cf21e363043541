"""Moving a running VM on the page: by dragging and by keyboard, live and otherwise, cancelled and undone, in both languages."""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, box_of, pause, ready
from tests.e2e.test_panels import open_panel
from tests.e2e.test_stacks import speed


def second_host(page: Page) -> None:
    ready(page)
    page.locator('[data-item="host"]').focus()
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    expect(page.locator(HOSTS)).to_have_count(2)
    page.locator(GUESTS).first.focus()
    expect(page.locator("#inspector h2").first).to_have_text("vm-1")


def move_by_keyboard(page: Page) -> None:
    """Move vm-1 to the other host."""
    page.locator("#inspector [data-action=move]").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")


def status(page: Page) -> Locator:
    return page.locator("#inspector [data-migration=status]")


def test_a_running_guest_is_dragged_to_another_host_and_back_again(page: Page) -> None:
    second_host(page)
    speed(page, "max")
    console = open_panel(page, "console").locator(".xterm-rows")
    expect(console).to_contain_text("demo: round")
    page.locator("#canvas").focus()
    page.keyboard.press("0")
    canvas = box_of(page.locator("#canvas"))
    page.mouse.move(canvas["x"] + canvas["width"] * 0.17, canvas["y"] + canvas["height"] * 0.36)
    page.mouse.down()
    page.mouse.move(canvas["x"] + canvas["width"] * 0.4, canvas["y"] + canvas["height"] * 0.4, steps=6)
    page.mouse.move(canvas["x"] + canvas["width"] * 0.75, canvas["y"] + canvas["height"] * 0.4, steps=6)
    expect(page.locator(".ghost")).to_have_attribute("data-fits", "true")
    page.mouse.up()
    expect(page.locator(".toast")).to_contain_text(re.compile(r"vm-1 runs on host-2: it stood still for [\d.]+ µs of"))
    expect(page.locator("#inspector .line")).to_contain_text("ringos on host-2")
    expect(status(page)).to_have_text("Arrived on host-2")
    expect(page.locator("#inspector .rounds")).to_have_attribute("aria-label", re.compile(r"round: \d+/\d+, \d+/0$"))
    page.locator("#canvas").focus()
    page.keyboard.press("Control+z")
    expect(page.locator("#inspector .line")).to_contain_text("ringos on host-1")
    page.keyboard.press("Control+Shift+z")
    expect(page.locator("#inspector .line")).to_contain_text("ringos on host-2")


def test_it_waits_while_the_lab_is_paused_and_can_be_cancelled(page: Page) -> None:
    second_host(page)
    pause(page)
    page.locator(GUESTS).first.focus()
    page.locator("#inspector [data-action=migrate-mode]").select_option("stop-and-copy")
    move_by_keyboard(page)
    expect(page.locator("#announcer")).to_contain_text("vm-1 is being migrated to host-2.")
    expect(status(page)).to_have_text("To host-2; it goes on when the lab runs")
    move_by_keyboard(page)
    expect(page.locator(".toast")).to_contain_text("vm-1 is being migrated to host-2 already.")
    for language in ("ko", "en"):
        page.locator(f"[data-action=language-{language}]").click()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    page.locator("#inspector [data-action=migrate-cancel]").click()
    expect(status(page)).to_have_text("Cancelled: it never left for host-2")
    expect(page.locator("#inspector [data-action=migrate-cancel]")).to_have_attribute("aria-disabled", "true")
    expect(page.locator("#inspector .line")).to_contain_text("ringos on host-1")

    # Neither a reload in the middle nor the target's end lose the guest.
    move_by_keyboard(page)
    page.reload()
    ready(page)
    page.locator(GUESTS).first.focus()
    expect(status(page)).to_have_text("To host-2; it goes on when the lab runs")
    page.locator(HOSTS, has_text="host-2").focus()
    page.locator("#canvas").focus()
    page.keyboard.press("Delete")
    expect(page.locator(".toast", has_text="a host was changed or removed")).to_contain_text("one copy of it goes on")
    page.locator(GUESTS).first.focus()
    expect(page.locator("#inspector .line")).to_contain_text("ringos on host-1")


def test_afterwards_copied_in_korean(page: Page) -> None:
    second_host(page)
    page.locator("[data-action=language-ko]").click()
    page.locator("#inspector [data-action=migrate-mode]").select_option("post-copy")
    move_by_keyboard(page)
    expect(page.locator("#announcer")).to_contain_text("vm-1을 host-2로 마이그레이션합니다.")
    expect(page.locator("#inspector .line")).to_contain_text("host-2")
    page.locator("[data-action=speed-max]").click()
    expect(status(page)).to_have_text("host-2에 도착")
    fetched = page.locator("#inspector .figure", has_text="필요해서 가져온 페이지").locator("dd")
    expect(fetched).to_have_text(re.compile(r"^\d+$"))


def test_the_link_is_a_setting_of_the_lab(page: Page) -> None:
    second_host(page)
    page.keyboard.press("Escape")
    page.locator("#canvas").click(position={"x": 40, "y": 14})
    link = page.locator("#inspector [data-action=lab-link]")
    expect(link).to_have_value("10")
    link.select_option("1")
    page.reload()
    ready(page)
    page.locator("#canvas").click(position={"x": 40, "y": 14})
    expect(page.locator("#inspector [data-action=lab-link]")).to_have_value("1")
