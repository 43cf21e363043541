"""The page's frame on the demo lab of a real server: canvas, drag and drop, keyboard, time, history."""

from __future__ import annotations

import re
from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import FloatRect, Locator, Page, expect

from tests.e2e.conftest import Console
from tests.support.saved import as_older, rewrite
from tests.support.server import Server

HOSTS = '#objects tr[aria-level="1"]'
GUESTS = '#objects tr[aria-level="2"]'


def ready(page: Page) -> None:
    expect(page.locator("body[data-ready]")).to_be_attached()


def box_of(locator: Locator) -> FloatRect:
    box = locator.bounding_box()
    assert box is not None
    return box


def drag_to_canvas(page: Page, item: Locator, across: float, down: float) -> None:
    """Drag a palette item to a place on the canvas, given as shares of its size, without letting go."""
    item.scroll_into_view_if_needed()
    start, canvas = box_of(item), box_of(page.locator("#canvas"))
    page.mouse.move(start["x"] + 20, start["y"] + 12)
    page.mouse.down()
    page.mouse.move(start["x"] + 60, start["y"] + 12, steps=3)
    page.mouse.move(canvas["x"] + canvas["width"] * across, canvas["y"] + canvas["height"] * down, steps=6)


def pause(page: Page) -> None:
    page.locator("#canvas").focus()
    page.keyboard.press("r")
    expect(page.get_by_role("button", name=re.compile("^Run"))).to_be_visible()


def settled(locator: Locator) -> str:
    """The text once it stands still: what ran before a pause may still be on its way in a last tick."""
    text = locator.text_content() or ""
    for _ in range(50):
        locator.page.wait_for_timeout(500)
        before, text = text, locator.text_content() or ""
        if text == before:
            return text
    raise AssertionError(f"{locator} goes on changing: {text}")


def test_the_demo_lab_is_running_when_the_page_opens(page: Page) -> None:
    ready(page)
    expect(page.locator(HOSTS)).to_have_count(1)
    expect(page.locator(GUESTS)).to_have_count(1)
    expect(page.get_by_role("button", name=re.compile("^Pause"))).to_be_visible()
    traps = page.locator("#inspector .figure", has_text=re.compile(r"^Traps\d")).locator("dd")
    before = traps.text_content() or ""
    expect(traps).not_to_have_text(before)


def test_a_guest_is_dragged_onto_a_host(page: Page) -> None:
    ready(page)
    drag_to_canvas(page, page.locator('[data-item="image"]', has_text="hello"), 0.5, 0.3)
    expect(page.locator(".ghost")).to_have_attribute("data-fits", "true")
    expect(page.locator(".ghost")).to_contain_text("fits:")
    page.mouse.up()
    expect(page.locator(GUESTS)).to_have_count(2)
    expect(page.locator("#announcer")).to_contain_text("hello was created on host-1.")
    expect(page.locator("#inspector .line")).to_contain_text("hello on host-1")


def test_escape_cancels_a_drag(page: Page) -> None:
    ready(page)
    drag_to_canvas(page, page.locator('[data-item="image"]', has_text="hello"), 0.5, 0.3)
    expect(page.locator(".ghost")).to_be_visible()
    page.keyboard.press("Escape")
    page.mouse.up()
    expect(page.locator(".ghost")).to_be_hidden()
    expect(page.locator("#announcer")).to_contain_text("Cancelled")
    expect(page.locator(GUESTS)).to_have_count(1)


def test_a_stack_is_refused_before_the_drop_by_a_host_that_has_it(page: Page) -> None:
    ready(page)
    drag_to_canvas(page, page.locator('[data-item="stack"][data-id="kvm"]'), 0.5, 0.3)
    expect(page.locator(".ghost")).to_have_attribute("data-fits", "false")
    expect(page.locator(".ghost")).to_contain_text("host-1 has this stack already")
    page.mouse.up()
    expect(page.locator(".toast")).to_contain_text("host-1 has this stack already")


def test_the_same_by_keyboard(page: Page) -> None:
    ready(page)
    page.locator('[data-item="host"]').focus()
    page.keyboard.press("Space")
    expect(page.locator(".hint")).to_contain_text("Space adds the host")
    page.keyboard.press("Space")
    expect(page.locator(HOSTS)).to_have_count(2)

    page.locator('[data-item="image"]', has_text="hello").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#announcer")).to_contain_text("host-1:")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#announcer")).to_contain_text("host-2: fits:")
    page.keyboard.press("Space")
    expect(page.locator(GUESTS)).to_have_count(2)
    expect(page.locator("#inspector .line")).to_contain_text("hello on host-2")

    page.locator("#canvas").focus()
    page.keyboard.press("Delete")
    expect(page.locator(GUESTS)).to_have_count(1)
    page.locator(".toast button", has_text="Undo").click()
    expect(page.locator(GUESTS)).to_have_count(2)
    page.keyboard.press("Control+Shift+Z")
    expect(page.locator(GUESTS)).to_have_count(1)


def test_pause_step_and_step_back(page: Page) -> None:
    ready(page)
    pause(page)
    traps = page.locator("#inspector .figure", has_text=re.compile(r"^Traps\d")).locator("dd")
    before = int(settled(traps).replace(",", ""))
    page.keyboard.press("s")
    expect(traps).to_have_text(f"{before + 1:,}")
    expect(page.locator(GUESTS).locator(".exits")).to_have_text(f"{before + 1:,}")
    page.keyboard.press("b")
    expect(traps).to_have_text(f"{before:,}")
    for key, steps in (("s", 8), ("b", 0)):  # faster than the server answers: none is lost, and none cancels another
        for _ in range(8):
            page.keyboard.press(key)
        expect(traps).to_have_text(f"{before + steps:,}")
    expect(page.locator(".toast")).to_have_count(0)


def test_names_layout_and_work_are_there_after_a_reload(page: Page) -> None:
    ready(page)
    pause(page)
    page.locator(".lab-name").click()
    page.keyboard.type("Ring lab")
    page.keyboard.press("Enter")
    expect(page).to_have_title("Ring lab · Ringside")
    page.locator("#objects tr[aria-level='2']").first.focus()
    page.keyboard.press("F2")
    page.keyboard.type("web-1")
    page.keyboard.press("Enter")
    expect(page.locator("#inspector h2").first).to_have_text("web-1")
    page.locator("#dock-splitter").focus()
    page.keyboard.press("ArrowUp")
    height = page.locator("#dock-splitter").get_attribute("aria-valuenow")
    page.reload()
    ready(page)
    expect(page).to_have_title("Ring lab · Ringside")
    expect(page.locator(GUESTS)).to_contain_text("web-1")
    expect(page.locator("#dock-splitter")).to_have_attribute("aria-valuenow", height or "")
    expect(page.get_by_role("button", name=re.compile("^Run"))).to_be_visible()


def test_two_browsers_see_the_same_lab(open_page: Callable[..., Page]) -> None:
    here, there = open_page(), open_page()
    ready(here)
    ready(there)
    expect(here.locator(".clients")).to_have_text("2 here")
    pause(here)
    expect(there.get_by_role("button", name=re.compile("^Run"))).to_be_visible()
    here.locator('[data-item="host"]').focus()
    here.keyboard.press("Space")
    here.keyboard.press("Space")
    expect(there.locator(HOSTS)).to_have_count(2)


def test_commands_are_found_by_their_letters(page: Page) -> None:
    ready(page)
    page.keyboard.press("Control+k")
    page.keyboard.type("light th")
    expect(page.locator('.commands li[aria-selected="true"]')).to_have_text("Light theme")
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.locator("#canvas").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Step back one instruction")


def test_a_file_that_is_no_kernel_is_refused_where_it_was_given(page: Page, console: Console) -> None:
    console.allow(r"status of 4\d\d")
    ready(page)
    page.locator("#palette input[type=file]").set_input_files(
        files=[{"name": "kernel.gz", "mimeType": "application/gzip", "buffer": b"\x1f\x8b" + bytes(64)}]
    )
    expect(page.locator("#palette .refusal")).to_contain_text("kernel.gz: The file is packed with")


def test_a_lab_that_is_not_there_says_so(open_page: Callable[..., Page], console: Console) -> None:
    console.allow("404")
    page = open_page("/labs/no-such-lab", locale="ko-KR")
    expect(page.get_by_role("heading", level=1)).to_have_text("이 서버에 no-such-lab 실험실이 없습니다.")
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("There is no lab no-such-lab on this server.")
    expect(page.get_by_role("link", name="All labs")).to_be_visible()


def test_a_lab_of_an_older_version_can_be_begun_again(open_page: Callable[..., Page], server: Server) -> None:
    page = open_page()
    ready(page)
    page.locator('[data-item="host"]').focus()
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    expect(page.locator(HOSTS)).to_have_count(2)
    page.close()
    server.stop()
    rewrite(server.data, "demo", as_older)
    server.start()
    page = open_page(locale="ko-KR", viewport={"width": 1024, "height": 700})
    expect(page.locator(".middle")).to_contain_text("이전 Ringside가 저장한 실험실입니다")
    page.locator("[data-action=language-en]").click()
    expect(page.locator(".middle")).to_contain_text("This lab was saved by an older Ringside")
    expect(page.locator(".middle").get_by_role("link", name="Open the demo lab")).to_have_count(0)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.locator(".middle").get_by_role("button", name="Start its guests again").click()
    ready(page)
    expect(page.locator(HOSTS)).to_have_count(2)
    expect(page.get_by_role("button", name=re.compile("^Run"))).to_be_visible()
    page.locator(GUESTS).focus()
    page.keyboard.press("s")
    expect(page.locator("#inspector .figure", has_text=re.compile(r"^Traps\d")).locator("dd")).to_have_text("1")


def test_a_new_lab_is_empty_and_says_what_to_do(open_page: Callable[..., Page]) -> None:
    page = open_page("/labs")
    page.get_by_label("Name of a new lab").fill("Mine")
    page.get_by_role("button", name="Create").click()
    ready(page)
    expect(page.locator(".middle")).to_contain_text("An empty lab")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.locator(".middle").get_by_role("button", name="Add a host").click()
    expect(page.locator(HOSTS)).to_have_count(1)
    expect(page.locator(".middle")).to_be_hidden()


def test_nothing_stands_in_the_way_of_anyone(open_page: Callable[..., Page]) -> None:
    for theme in ("dark", "light"):
        page = open_page(color_scheme=theme)
        ready(page)
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        for language in ("en", "ko"):
            page.locator(f"[data-action=language-{language}]").click()
            expect(page.locator("html")).to_have_attribute("lang", language)
            page.locator(GUESTS).first.focus()
            for _ in ("guest", "lab"):
                found = Axe().run(page)
                assert found.violations_count == 0, f"{theme}, {language}: {found.generate_report()}"
                page.locator("#canvas").focus()
                page.keyboard.press("Escape")
        page.close()
