"""The dock's panels and the editor, on the demo lab of a real server."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, box_of, pause, ready

PANELS = ("traps", "console", "timeline", "cpu", "memory")


def open_panel(page: Page, panel: str) -> Locator:
    page.locator(f"#tab-{panel}").click()
    body = page.locator(f"#panel-{panel}")
    expect(body).to_be_visible()
    return body


def booted(page: Page) -> None:
    """Run the demo at full speed until its kernel has said its name, then stop it for a closer look."""
    page.get_by_role("group", name="Speed").get_by_text("max", exact=True).click()
    expect(open_panel(page, "console").locator(".xterm-rows")).to_contain_text(re.compile("ringos|demo: round"))
    page.locator("#topbar").get_by_text("Pause", exact=True).click()
    expect(page.locator("#topbar").get_by_text("Run", exact=True)).to_be_visible()


def test_a_trap_is_found_opened_and_explained(page: Page) -> None:
    booted(page)
    traps = open_panel(page, "traps")
    rows = traps.locator(".traps-spacer .traps-row:visible:not(.gap)")
    traps.locator(".pills button", has_text="emulated").click()
    expect(rows.first.locator(".pill")).to_have_text("emulated")
    expect(rows.locator(".pill").filter(has_not_text=re.compile("^emulated$"))).to_have_count(0)
    traps.get_by_label("Filter by text").fill("illegal instruction")
    expect(rows.first.locator(".c-cause")).to_have_text("illegal instruction")
    expect(rows.locator(".c-cause").filter(has_not_text=re.compile("^illegal instruction$"))).to_have_count(0)

    grid = traps.get_by_role("grid")
    grid.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    detail = traps.locator(".detail")
    expect(detail.locator("h3")).to_be_focused()
    expect(detail.locator(".detail-instruction")).to_have_text(re.compile(r"^(csr|rdtime|sret|wfi|sfence)"))
    expect(detail.locator(".crossings li").first).to_contain_text("deprivileged kernel → ")
    expect(detail.locator("tr.changed").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()
    expect(grid).to_be_focused()


def test_the_feed_follows_until_the_reader_goes_up(page: Page) -> None:
    ready(page)
    page.get_by_role("group", name="Speed").get_by_text("25", exact=True).click()
    traps = open_panel(page, "traps")
    fresh = traps.locator(".traps-new")
    count = page.locator("#inspector .figure", has_text=re.compile(r"^Traps\d")).locator("dd")

    def go_on() -> None:
        for _ in range(4):
            before = count.text_content() or ""
            expect(count).not_to_have_text(before)

    go_on()
    for key in ("ArrowDown", "ArrowUp", "ArrowUp"):
        open_panel(page, "console")
        go_on()
        open_panel(page, "traps")
        go_on()
        page.locator("#dock-splitter").focus()
        page.keyboard.press(key)
        go_on()
        expect(fresh).to_be_hidden()
    traps.locator(".traps-row:visible").nth(2).hover()
    page.mouse.wheel(0, -400)
    expect(fresh).to_be_visible()
    go_on()
    rows = traps.locator(".traps-spacer .traps-row:visible:not(.gap)")
    read = page.locator(f"#{rows.nth(rows.count() // 2).get_attribute('id')}")
    place = box_of(read)["y"]
    go_on()
    assert abs(box_of(read)["y"] - place) < 2, "what is read stays where it is"
    fresh.click()
    expect(fresh).to_be_hidden()
    go_on()
    expect(fresh).to_be_hidden()


def test_older_traps_are_loaded_without_gaps(page: Page) -> None:
    booted(page)
    traps = open_panel(page, "traps")
    grid = traps.get_by_role("grid")
    grid.focus()
    for _ in range(12):
        page.keyboard.press("PageUp")
    expect(traps.locator(".traps-row.gap:visible")).to_have_count(0)
    numbers = [
        int(identifier.rsplit("-", 1)[1])
        for identifier in traps.locator(".traps-spacer .traps-row:visible").evaluate_all(
            "rows => rows.sort((a, b) => a.dataset.index - b.dataset.index).map((row) => row.id)"
        )
    ]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_the_console_shows_the_guest_and_says_when_it_is_off(page: Page) -> None:
    booted(page)
    console = open_panel(page, "console")
    console.locator(".console-screen:visible").click()
    page.keyboard.press("Control+Shift+F6")
    expect(console.get_by_role("combobox", name="Guest")).to_be_focused()
    page.locator("#inspector").get_by_role("button", name="Power off").click()
    expect(console.locator(".console-status")).to_contain_text("is switched off")
    console.get_by_role("button", name="Power on").click()
    expect(console.locator(".console-status")).to_contain_text("paused")


def test_the_timeline_goes_back_across_a_trap(page: Page) -> None:
    booted(page)
    timeline = open_panel(page, "timeline")
    slider = timeline.get_by_role("slider")
    slider.focus()
    before = int(slider.get_attribute("aria-valuenow") or 0)
    page.keyboard.press(",")
    expect(slider).not_to_have_attribute("aria-valuenow", str(before))
    assert int(slider.get_attribute("aria-valuenow") or 0) < before


def test_the_timeline_is_at_the_present_when_the_lab_went_on_without_it(page: Page) -> None:
    booted(page)
    slider = open_panel(page, "timeline").get_by_role("slider")
    before = int(slider.get_attribute("aria-valuenow") or 0)
    open_panel(page, "console")
    page.locator("#canvas").focus()
    page.keyboard.press("r")
    instructions = page.locator("#inspector .figure", has_text="Instructions").locator("dd")
    while int((instructions.text_content() or "").replace(",", "")) < before + 500_000:
        page.wait_for_timeout(100)
    pause(page)
    export = open_panel(page, "timeline").get_by_role("link", name="Export")
    expect(slider).not_to_have_attribute("aria-valuenow", str(before))
    for _ in range(100):
        present = int(slider.get_attribute("aria-valuenow") or 0)
        begin, end = map(int, re.findall(r"(?:from|to)=(\d+)", export.get_attribute("href") or ""))
        if begin <= present <= end:
            break
        page.wait_for_timeout(100)
    assert begin <= present <= end
    assert begin > before


def test_registers_code_and_memory_agree(page: Page) -> None:
    booted(page)
    cpu = open_panel(page, "cpu")
    expect(cpu.locator(".register")).to_have_count(32)
    expect(cpu.locator(".register .abi").nth(2)).to_contain_text("sp")
    current = cpu.locator(".code-row.current")
    expect(current).to_have_count(1)
    expect(current.locator(".code-text")).to_have_text(cpu.locator(".cpu-instruction").inner_text())
    pc = cpu.locator(".cpu-pc").inner_text().removeprefix("pc ").replace(" ", "")
    sp = cpu.locator(".register .value-link").nth(2).inner_text().replace(" ", "")

    memory = open_panel(page, "memory")
    address = memory.get_by_label("Address")
    address.fill("sp")
    address.press("Enter")
    expect(address).to_have_value(hex(int(sp, 16)))
    address.fill("no such symbol")
    address.press("Enter")
    expect(memory.locator("#memory-problem")).to_contain_text("neither an address")
    address.fill(pc)
    address.press("Enter")
    encoding = current.locator(".code-encoding").text_content() or ""
    expect(memory.locator(".memory-bytes mark")).to_have_text(encoding[-2:])
    expect(memory.locator(".walk-steps li").first).to_be_visible()
    after = memory.locator(".memory-bytes > *").evaluate_all(
        "cells => cells.slice(cells.findIndex(({ tagName }) => tagName === 'MARK')).map(({ textContent }) => textContent)"
    )
    assert "".join(reversed(after[: len(encoding) // 2])) == encoding


def test_a_guest_is_written_corrected_and_run(page: Page) -> None:
    ready(page)
    page.get_by_role("button", name="Write assembly").click()
    editor = page.get_by_role("dialog", name="Write a guest in assembly")
    text = editor.get_by_role("textbox", name=re.compile("^Assembly source"))
    expect(text).to_be_focused()
    expect(text).to_contain_text("_start")
    page.keyboard.press("Control+Home")
    page.keyboard.type("    bogus a0\n")
    page.keyboard.press("Control+Enter")
    expect(editor.locator(".editor-message")).to_contain_text("Line 1, column 5")
    expect(editor.locator(".cm-lint-marker-error")).to_have_count(1)
    page.keyboard.press("Control+Home")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Delete")
    page.keyboard.press("Control+Enter")
    expect(editor).to_be_hidden()
    console = page.locator("#panel-console")
    chosen = console.get_by_role("combobox", name="Guest").locator("option:checked")
    expect(chosen).to_have_text(re.compile("my-guest|vm-"))
    expect(console.locator(".console-screen:visible .xterm-rows")).to_contain_text(
        re.compile("hello", re.IGNORECASE)
    )


@pytest.mark.parametrize("locale", ["en-US", "ko-KR"])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_panels_are_accessible(open_page: Callable[..., Page], locale: str, theme: str) -> None:
    page = open_page(locale=locale, color_scheme=theme, bypass_csp=True)
    expect(page.locator(".traps-spacer .traps-row:visible").first).to_be_visible()
    for panel in PANELS:
        open_panel(page, panel)
        page.wait_for_timeout(500)
        found = Axe().run(page, context="#dock").response["violations"]
        assert not found, [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]


def run_on_second_host(page: Page, technique: str) -> None:
    """By keyboard: another host, with a technique, and ringos on it, selected and at full speed."""
    ready(page)
    pause(page)
    page.locator('[data-item="host"]').focus()
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    expect(page.locator(HOSTS)).to_have_count(2)
    for item in (page.locator("[data-item]", has_text=technique),
                 page.locator('[data-item="image"][data-id="ringos"]')):  # fmt: skip
        item.focus()
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#announcer")).to_contain_text("host-2")
        page.keyboard.press("Space")
    expect(page.locator("#inspector .line")).to_contain_text("ringos on host-2")
    page.locator(GUESTS, has_text="vm-2").focus()
    page.get_by_role("group", name="Speed").get_by_text("max", exact=True).click()
    page.keyboard.press("r")


def test_a_walk_in_two_stages_shows_every_reference(page: Page) -> None:
    """A host gets hardware assist, a guest runs on it, and its traps stay inside; the walk of its pc has two stages."""
    run_on_second_host(page, "Hardware assist")
    screen = open_panel(page, "console").locator(".console-screen:visible")
    expect(screen.locator(".xterm-rows")).to_contain_text("ringos$")
    screen.click()
    page.keyboard.type("work syscall 1000000000\n")
    expect(screen.locator(".xterm-rows")).to_contain_text("work syscall 1000000000")
    page.keyboard.press("Control+Shift+F6")
    pause(page)
    traps = open_panel(page, "traps")
    traps.locator("select").first.select_option(label="vm-2")
    call = traps.locator(".traps-spacer .traps-row:visible", has_text="environment call from U-mode").first
    expect(call).to_contain_text("hardware")
    memory = open_panel(page, "memory")
    address = memory.get_by_label("Address")
    address.fill("pc")
    address.press("Enter")
    walk = memory.locator(".memory-walk")
    expect(walk).to_contain_text("Second stage (by the hart)")
    expect(walk).to_contain_text("to the page itself")
    expect(walk.locator(".walk-tlb")).to_contain_text("fetch: hit")
    numbers = [int(text) for text in walk.locator(".walk-number").all_inner_texts()]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert len(numbers) == 15
    assert Axe().run(page).violations_count == 0


def test_guest_code_is_shown_beside_its_translation(open_page: Callable[..., Page]) -> None:
    """A host gets binary translation, a guest runs on it and stands still: what its kernel is, and what runs instead."""
    page = open_page(bypass_csp=True)
    run_on_second_host(page, "Binary translation")
    expect(open_panel(page, "console").locator(".console-screen:visible .xterm-rows")).to_contain_text("ringos$")
    pause(page)
    cpu = open_panel(page, "cpu")
    cpu.get_by_role("button", name="Translation").click()
    table = cpu.get_by_role("table", name="Translation")
    expect(table.get_by_role("columnheader", name="runs in its place")).to_be_visible()
    expect(table.locator(".how:not([role=columnheader])").first).to_have_text(re.compile("copied|rewritten|inline|call-out"))
    expect(table.locator(".host-line").first).to_be_visible()
    expect(cpu.locator(".translation-counts dt").first).to_have_text("blocks translated")
    assert int(cpu.locator(".translation-counts dd").first.inner_text().replace(",", "")) > 50
    assert Axe().run(page, context="#panel-cpu").response["violations"] == []
    page.locator(GUESTS, has_text="vm-1").focus()  # trap-and-emulate: nothing is translated
    expect(cpu.get_by_role("button", name="Translation")).to_be_hidden()
    expect(cpu.get_by_role("table", name="Disassembly")).to_be_visible()
