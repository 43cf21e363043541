"""Comparing in a real browser: choose, run, read, sort, step together, keep, repeat from a link, cancel, delete."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.e2e.conftest import Console
from tests.e2e.test_frame import ready

TRAP_AND_EMULATE, HARDWARE_ASSIST = "KVM-like · Trap-and-emulate", "KVM-like · Hardware assist"


def opened(page: Page) -> Locator:
    screen = page.locator("dialog.compare-dialog")
    expect(screen.locator(".compare-main button").first).to_be_visible()
    return screen


def cells(screen: Locator, configuration: str) -> dict[str, str]:
    """A row of the first table by its columns' names."""
    table = screen.locator(".compare-table").first
    row = table.locator("tbody tr", has=screen.page.get_by_role("rowheader", name=configuration, exact=True))
    expect(row).to_be_visible()
    heads = [text.strip(" ▾▴") for text in table.locator("thead th").all_inner_texts()]
    return dict(zip(heads, row.locator("th, td").all_inner_texts(), strict=True))


def order(screen: Locator) -> list[str]:
    names = screen.locator(".compare-table").first.locator("tbody th")
    expect(names.first).to_be_visible()
    return names.all_inner_texts()


def axe_clean(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_student_compares_two_techniques(
    open_page: Callable[..., Page], console: Console, tmp_path: Path
) -> None:
    page = open_page()
    ready(page)

    # Choose by keyboard: two workloads of the five, one of them less often, three configurations.
    page.locator("#canvas").focus()
    page.keyboard.press("c")
    screen = opened(page)
    expect(screen).to_contain_text("None yet. What you compare is kept here.")
    axe_clean(page)
    for name in ("Page fault", "Context switch", "Disk block"):
        chip = screen.get_by_role("button", name=name, exact=True)
        chip.focus()
        page.keyboard.press("Space")
        expect(chip).to_have_attribute("aria-pressed", "false")
    times = screen.get_by_label("How often: System call")
    times.fill("50")
    times.press("Tab")
    screen.get_by_label("How often: Console byte").fill("40")
    screen.get_by_label("How often: Console byte").press("Tab")
    for _ in screen.locator(".compare-chosen button").all():
        screen.locator(".compare-chosen button").first.press("Enter")
    expect(screen.locator("#compare-run")).to_be_disabled()
    expect(screen).to_contain_text("No configuration is chosen.")
    for text in ("bare-metal", "kvm/trap-and-emulate", "kvm/hardware-assist"):
        screen.locator(f'[data-configuration="{text}"]').press("Enter")
        expect(screen.locator(f'[data-configuration="{text}"]')).to_be_focused()
    expect(screen.locator("#compare-run")).to_have_text("Run 6 machines")
    screen.locator("#compare-run").click()

    # Read: seven exits a system call, or none; the same output; picture and table agree.
    expect(screen.locator("[data-do=again]")).to_be_visible()
    trapped, assisted = cells(screen, TRAP_AND_EMULATE), cells(screen, HARDWARE_ASSIST)
    assert (trapped["exits"], assisted["exits"]) == ("7", "0")
    assert (trapped["modelled cycles"], trapped["switches"]) == ("14,861", "14")
    expect(screen.locator(".compare-said").first).to_contain_text("Every guest printed the same: work syscall 50")
    picture = screen.locator('[data-picture="exits"]')
    expect(picture.locator(".bar-row").nth(1).locator(".bar-part")).to_have_count(2)
    expect(picture.locator(".bar-row").nth(1).locator(".bar-part").first).to_have_attribute("title", "VM exit: 6")
    expect(picture.locator("tbody tr").nth(1)).to_have_text(re.compile(r"Trap-and-emulate\s*6\s*1\s*7"))
    costs = screen.locator('[data-picture="costs"]')
    expect(costs.locator(".bar-row").nth(1).locator(".bar")).to_have_count(2)
    screen.locator("[data-per=all]").click()
    assert cells(screen, TRAP_AND_EMULATE)["exits"] == "350"
    screen.locator("[data-per=unit]").click()

    # Sort, and look at the other workload.
    screen.locator('[data-sort="exits"]').click()
    assert order(screen)[0] == TRAP_AND_EMULATE
    screen.locator('[data-sort="exits"]').click()
    assert order(screen)[-1] == TRAP_AND_EMULATE
    expect(screen.locator("th", has=page.locator('[data-sort="exits"]'))).to_have_attribute("aria-sort", "ascending")
    screen.locator('[data-tab="io"]').click()
    expect(picture.locator(".bar-legend")).to_contain_text("MMIO")
    screen.locator("summary", has_text="Switches by level").click()
    expect(screen.locator("details[open]")).to_contain_text("hypervisor → device model")
    axe_clean(page)

    # Step two of them together to the first trap where they differ, and on to the next.
    screen.locator('[data-tab="syscall"]').click()
    screen.get_by_label("Left", exact=True).select_option(label=TRAP_AND_EMULATE)
    screen.get_by_label("Right", exact=True).select_option(label=HARDWARE_ASSIST)
    screen.locator("[data-do=lock-step]").click()
    step = screen.locator(".lockstep")
    expect(step).to_contain_text("Both guests saw the same")
    first = step.locator('tr[data-differs="true"]')
    expect(first.locator(".pill")).to_have_text(["injected", "hardware"])
    expect(first).to_contain_text("system call · environment call from U-mode")
    expect(step).to_contain_text("Trap 1 of the program")
    step.locator("[data-do=next-difference]").click()
    expect(step).to_contain_text("Trap 2 of the program")
    axe_clean(page)

    # The files have the same figures.
    with page.expect_download() as download:
        screen.get_by_role("link", name="Download as CSV").click()
    download.value.save_as(tmp_path / "figures.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "figures.csv").read_text())))
    assert [int(row["exits"]) for row in rows if row["workload"] == "syscall"] == [0, 350, 0]
    with page.expect_download() as download:
        screen.get_by_role("link", name="Download as JSON").click()
    download.value.save_as(tmp_path / "figures.json")
    assert len(json.loads((tmp_path / "figures.json").read_text())["runs"]) == 6

    # It is kept: after a reload it is there. A link repeats it, in another browser and language.
    page.reload()
    ready(page)
    page.get_by_role("button", name="Compare…").click()
    screen = opened(page)
    screen.locator("[data-comparison]").click()
    assert cells(screen, TRAP_AND_EMULATE)["exits"] == "7"
    query = "workload=syscall:50&configs=kvm/trap-and-emulate,kvm/hardware-assist"
    other = open_page(f"/compare?{query}", locale="ko-KR")
    theirs = opened(other)
    expect(theirs.locator("[data-do=again]")).to_be_visible()
    expect(theirs.locator(".compare-table").first).to_contain_text("14,861")
    expect(other).to_have_url(re.compile(r"/$"))
    axe_clean(other)
    expect(screen.locator("[data-comparison]")).to_have_count(2)

    # A long one is cancelled, a finished one deleted; both pages hear of it.
    theirs.locator("[data-do=new]").click()
    theirs.locator('[data-workload="switch"]').click()
    theirs.locator(".compare-workload", has=other.locator('[data-workload="switch"]')).locator("input").fill("90000")
    theirs.locator("#compare-run").click()
    expect(screen.locator("[data-comparison]")).to_have_count(3)
    theirs.locator("[data-do=cancel]").click()
    expect(screen.locator("[data-comparison]")).to_have_count(2)
    screen.locator("[data-do=delete]").click()
    expect(theirs.locator("[data-comparison]")).to_have_count(1)
    expect(theirs.locator("#compare-run")).to_be_visible()

    # A link to what is not there says so, and leaves the choice open.
    console.allow("status of 422")
    wrong = open_page("/compare?workload=juggle&configs=kvm")
    expect(opened(wrong).locator(".refusal").first).to_contain_text("There is no workload juggle. There are: compute, syscall")
    expect(wrong.locator("#compare-run")).to_be_visible()
