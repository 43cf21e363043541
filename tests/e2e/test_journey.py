"""One student's way through the first lab, from opening the page to coming back to it.

The sentences of issue 2, in their order, as one test: what a reader needs to see to believe that the product
works. The details of frame and panels have tests of their own beside this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, drag_to_canvas, pause, ready
from tests.e2e.test_panels import open_panel


def figure(page: Page, name: str) -> Locator:
    """The inspector's figure of this name, for the selected guest."""
    return page.locator("#inspector .figure", has_text=re.compile(rf"^{name}[\d.]")).locator("dd")


def registers(page: Page) -> list[str]:
    """pc and the 32 registers, when the CPU panel has settled on the paused guest's."""
    cpu = page.locator("#panel-cpu")
    expect(cpu.locator(".register .value-link")).to_have_count(32)
    return [cpu.locator(".cpu-pc").inner_text(), *cpu.locator(".register .value-link").all_inner_texts()]


def axe_clean(page: Page) -> None:
    for language in ("ko", "en"):
        page.locator(f"[data-action=language-{language}]").click()
        expect(page.locator("html")).to_have_attribute("lang", language)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_a_student_watches_builds_steps_and_comes_back(open_page: Callable[..., Page]) -> None:
    page = open_page()

    # The demo lab is there; traps of a real guest are moving, and it says what they are.
    ready(page)
    expect(page.locator("#canvas")).to_have_attribute("data-moving", "true")
    welcome = page.get_by_role("region", name="Each dot is a real trap")
    expect(welcome).to_contain_text("the hypervisor did the work")
    welcome.get_by_role("button").click()
    expect(welcome).to_be_hidden()

    # A second host, and a guest on each: one by mouse, one by keyboard.
    pause(page)
    page.locator('[data-item="host"]').focus()
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    expect(page.locator(HOSTS)).to_have_count(2)
    drag_to_canvas(page, page.locator('[data-item="image"][data-id="ringos"]'), 0.35, 0.3)
    expect(page.locator(".ghost")).to_have_attribute("data-fits", "true")
    page.mouse.up()
    expect(page.locator("#announcer")).to_contain_text("ringos was created on host-1.")
    page.locator('[data-item="image"]', has_text="hello").focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#announcer")).to_contain_text("host-2: fits:")
    page.keyboard.press("Space")
    expect(page.locator(GUESTS)).to_have_count(3)
    expect(page.locator("#inspector .line")).to_contain_text("hello on host-2")

    # One step, and the new guest's first trap is in the feed: its first fetch finds no shadow page.
    page.locator(GUESTS, has_text="vm-2").focus()
    expect(page.locator("#inspector h2").first).to_have_text("vm-2")
    traps = open_panel(page, "traps")
    traps.locator("select").first.select_option(label="vm-2")
    page.locator("#canvas").focus()
    page.keyboard.press("s")
    rows = traps.locator(".traps-spacer .traps-row:visible")
    expect(rows).to_have_count(1)
    expect(rows.locator(".c-cause")).to_have_text("instruction page fault")
    expect(rows.locator(".c-what")).to_contain_text("shadow page: guest 0x80200000")

    # Its console: the prompt, a command, its output; then a workload that keeps it busy.
    page.get_by_role("group", name="Speed").get_by_text("max", exact=True).click()
    page.keyboard.press("r")
    console = open_panel(page, "console")
    screen = console.locator(".console-screen:visible .xterm-rows")
    expect(screen).to_contain_text("ringos$")
    expect(console.locator(".console-status")).to_contain_text("type help")
    console.locator(".console-screen:visible").click()
    page.keyboard.type("echo hi there\n")
    expect(screen.locator("> div").get_by_text(re.compile(r"^hi there\s*$"))).to_have_count(1)
    page.keyboard.type("work syscall 1000000000\n")
    expect(screen).to_contain_text("work syscall 1000000000")
    page.keyboard.press("Control+Shift+F6")
    pause(page)

    # A reload shows the paused lab as it stands. Steps back and forth across one trap give the very same
    # machines again.
    page.reload()
    ready(page)
    page.locator(GUESTS, has_text="vm-2").focus()
    open_panel(page, "cpu")
    pc, count = page.locator("#panel-cpu .cpu-pc"), figure(page, "Traps")
    expect(pc).to_have_text(re.compile("0x"))
    stood, traps_after = pc.inner_text(), int(count.inner_text().replace(",", "")) + 1
    page.locator("#canvas").focus()
    page.keyboard.press("s")
    expect(count).to_have_text(f"{traps_after:,}")
    expect(pc).not_to_have_text(stood)
    after = registers(page)
    page.keyboard.press("b")
    expect(count).to_have_text(f"{traps_after - 1:,}")
    expect(pc).not_to_have_text(after[0])
    before = registers(page)
    page.keyboard.press("s")
    expect(count).to_have_text(f"{traps_after:,}")
    expect(pc).to_have_text(after[0])
    assert registers(page) == after
    page.keyboard.press("b")
    expect(count).to_have_text(f"{traps_after - 1:,}")
    expect(pc).to_have_text(before[0])
    assert registers(page) == before

    # Undo takes the last guest away, redo brings it back.
    page.keyboard.press("Control+z")
    expect(page.locator(GUESTS)).to_have_count(2)
    expect(page.locator(GUESTS, has_text="vm-3")).to_have_count(0)
    page.keyboard.press("Control+Shift+z")
    expect(page.locator(GUESTS, has_text="vm-3")).to_have_count(1)

    # After a reload all of it is there, and a second browser on the same lab sees the same.
    page.reload()
    for witness in (page, open_page()):
        ready(witness)
        expect(witness.locator(HOSTS)).to_have_count(2)
        expect(witness.locator(GUESTS)).to_have_count(3)
        expect(witness.get_by_role("button", name=re.compile("^Run"))).to_be_visible()
        witness.locator(GUESTS, has_text="vm-2").focus()
        expect(figure(witness, "Traps")).to_have_text(f"{traps_after - 1:,}")
        expect(open_panel(witness, "console").locator(".console-screen:visible .xterm-rows")).to_contain_text(
            "hi there"
        )
        open_panel(witness, "cpu")
        expect(witness.locator(".cpu-pc")).to_have_text(before[0])
        assert registers(witness) == before
    expect(page.get_by_role("region", name="Each dot is a real trap")).to_be_hidden()
    axe_clean(page)
