"""A lesson done with the mouse alone, in both languages: everything that can be compared is dragged from the palette.

What the student asks for, the gesture that does it (by keyboard: Space, arrows, Space), and who tries it:

    a technique                   its tile onto a host                here; test_paravirtual (both languages), test_stacks
    a generation, a switch        its chip onto a host                here; test_generations by the inspector
    another stack, with guests    its tile onto a host, then asked    here (switched off), test_stacks (brought along)
    what a crossing costs         a table: the Costs panel            test_stacks (both languages)
    a scheduler, shared pages     their chips onto a host             here; test_shares, test_memory by the inspector
    overcommitted memory          its chip onto a host                here; test_memory by the inspector
    a guest's share, its balloon  numbers: its inspector              test_shares, test_memory
    live migration                the VM onto another host            here; test_migration (keyboard, modes, cancelled)
    a workload                    its chip onto a host                here
    a comparison                  a workload onto Compare, and Run    here; test_compare by the screen, from a link
    the walk, the translation     panels of the dock                  test_generations, test_panels
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_frame import GUESTS, HOSTS, box_of, drag_to_canvas, ready
from tests.e2e.test_panels import open_panel

#: Where the two hosts are when everything is shown, in shares of the canvas.
LEFT, RIGHT = (0.25, 0.4), (0.75, 0.4)
WORDS = {
    "en-US": {
        "hardware-assist": "KVM-like · Hardware assist",
        "refused": "host-2 has another stack",
        "arrived": "Arrived on host-2",
        "generation": "KVM-like · Hardware assist · 3 switches",
        "already": "host-2 has it already.",
        "off": "Drop to take it away: Silent sensitive instructions",
        "vmware": "VMware-like · Binary translation",
        "sharing": "host-2: Share equal pages.",
        "compared": "KVM-like · Trap-and-emulate, VMware-like · Binary translation",
    },
    "ko-KR": {
        "hardware-assist": "KVM 방식 · 하드웨어 지원",
        "refused": "host-2는 스택이 다릅니다",
        "arrived": "host-2에 도착",
        "generation": "KVM 방식 · 하드웨어 지원 · 스위치 3개",
        "already": "host-2에 이미 적용되어 있습니다.",
        "off": "놓으면 해제: 트랩 없는 민감한 명령어",
        "vmware": "VMware 방식 · 바이너리 변환",
        "sharing": "host-2: 같은 페이지 공유 적용.",
        "compared": "KVM 방식 · 트랩 앤 에뮬레이트, VMware 방식 · 바이너리 변환",
    },
}
SIZES = {"en-US": {"width": 1440, "height": 900}, "ko-KR": {"width": 1024, "height": 700}}


def item(page: Page, kind: str, name: str) -> Locator:
    return page.locator(f'[data-item="{kind}"][data-id="{name}"]')


def over(page: Page, carried: Locator, place: tuple[float, float], *, fits: bool = True) -> Locator:
    """Carry it there without letting go. Returns what the page says of it."""
    page.locator("#canvas").focus()
    page.keyboard.press("0")
    drag_to_canvas(page, carried, *place)
    ghost = page.locator(".ghost")
    expect(ghost).to_have_attribute("data-fits", str(fits).lower())
    return ghost


def drop(page: Page, carried: Locator, place: tuple[float, float]) -> None:
    over(page, carried, place)
    page.mouse.up()


def carry_guest(page: Page, place: tuple[float, float], *, fits: bool = True) -> Locator:
    """The same with vm-1, the first of the host at the left."""
    page.locator("#canvas").focus()
    page.keyboard.press("0")
    canvas = box_of(page.locator("#canvas"))
    page.mouse.move(canvas["x"] + canvas["width"] * 0.17, canvas["y"] + canvas["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(canvas["x"] + canvas["width"] * 0.4, canvas["y"] + canvas["height"] * 0.4, steps=6)
    page.mouse.move(canvas["x"] + canvas["width"] * place[0], canvas["y"] + canvas["height"] * place[1], steps=6)
    ghost = page.locator(".ghost")
    expect(ghost).to_have_attribute("data-fits", str(fits).lower())
    return ghost


@pytest.mark.parametrize("locale", WORDS)
def test_everything_is_done_by_dragging(open_page: Callable[..., Page], locale: str) -> None:
    words = WORDS[locale]
    page = open_page(locale=locale, viewport=SIZES[locale], color_scheme="dark" if locale == "en-US" else "light")
    ready(page)
    page.locator("[data-action=speed-max]").click()
    first, second = page.locator(HOSTS, has_text="host-1"), page.locator(HOSTS, has_text="host-2")
    dialog = page.get_by_role("dialog")

    # A second host: as a bare machine it takes no running VM; with other hardware under a hypervisor it does.
    drag_to_canvas(page, item(page, "host", ""), 0.93, 0.2)
    page.mouse.up()
    expect(second).to_have_count(1)
    drop(page, item(page, "stack", "bare-metal"), RIGHT)
    expect(page.locator("#inspector [data-action=host-stack]")).to_have_value("bare-metal")
    expect(carry_guest(page, RIGHT, fits=False)).to_contain_text(words["refused"])
    page.keyboard.press("Escape")
    page.mouse.up()
    drop(page, item(page, "technique", "hardware-assist"), RIGHT)
    expect(second).to_contain_text(words["hardware-assist"])
    carry_guest(page, RIGHT)
    page.mouse.up()
    page.locator(GUESTS).focus()
    expect(page.locator("#inspector [data-migration=status]")).to_have_text(words["arrived"])

    # The hardware of 2005 under it, with it along; what it has already is refused.
    drop(page, item(page, "generation", "0"), RIGHT)
    dialog.locator("[data-guests=carry]").click()
    expect(second).to_contain_text(words["generation"])
    expect(over(page, item(page, "generation", "0"), RIGHT, fits=False)).to_contain_text(words["already"])
    page.keyboard.press("Escape")
    page.mouse.up()

    # A machine that cannot be virtualized classically, and back.
    drop(page, item(page, "switch", "silent-sensitive"), LEFT)
    box = page.locator("#inspector [data-action=host-switch-silent-sensitive]")
    expect(box).to_be_checked()
    expect(over(page, item(page, "switch", "silent-sensitive"), LEFT)).to_contain_text(words["off"])
    page.mouse.up()
    expect(box).not_to_be_checked()

    # Another stack, whose guest is switched off; another scheduler, shared pages and overcommitted memory.
    drop(page, item(page, "stack", "vmware"), RIGHT)
    dialog.locator("[data-guests=stop]").click()
    expect(second).to_contain_text(words["vmware"])
    drop(page, item(page, "scheduler", "credit"), RIGHT)
    expect(page.locator("#section-host-shares select")).to_have_value("credit")
    drop(page, item(page, "sharing", "pages"), RIGHT)
    expect(page.locator("#announcer p").last).to_have_text(words["sharing"])
    expect(page.locator("#inspector [data-action=host-sharing]")).to_be_checked()
    drop(page, item(page, "overcommit", "memory"), RIGHT)
    expect(page.locator("#inspector [data-action=host-overcommit]")).to_be_checked()

    # A workload in a guest of its own.
    drop(page, item(page, "workload", "syscall"), LEFT)
    expect(page.locator(GUESTS)).to_have_count(2)
    expect(first).to_be_visible()
    console = open_panel(page, "console").locator(".console-screen:visible .xterm-rows")
    expect(console).to_contain_text("work syscall 1000: 1000 system calls, checksum")

    # The same workload, measured as these two hosts would run it.
    carried = item(page, "workload", "syscall")
    over(page, carried, LEFT)
    button = box_of(page.locator("[data-action=compare]"))
    page.mouse.move(button["x"] + 12, button["y"] + 12, steps=4)
    expect(page.locator(".ghost")).to_contain_text(words["compared"])
    page.mouse.up()
    expect(dialog.locator(".compare-chosen button")).to_have_count(2)
    dialog.locator("#compare-run").click()
    rows = dialog.locator(".compare-table").first.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text(re.compile("7.*14,861"))

    # By keyboard it is the same: what is carried says what would become of it.
    page.keyboard.press("Escape")
    carried.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".hint")).to_contain_text(words["compared"])
    page.keyboard.press("Enter")
    expect(dialog.locator(".compare-chosen button")).to_have_count(2)
