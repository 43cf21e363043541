"""gdb from the page: the port is opened there, the real gdb comes, and the page says who has the time."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

from playwright.sync_api import Page, expect

from engine import guests
from tests.e2e.test_frame import GUESTS, ready
from tests.support.provide import require

PATIENCE_SECONDS = 120


def test_gdb_holds_a_guest_of_the_page_and_gives_it_back(open_page: Callable[..., Page]) -> None:
    page = open_page()
    ready(page)
    page.get_by_role("group", name="Speed").get_by_text("max", exact=True).click()
    page.locator(GUESTS, has_text="vm-1").focus()
    page.locator("#inspector [data-action=gdb]").click()
    dialog = page.get_by_role("dialog", name="Debug vm-1 with gdb")
    expect(dialog).to_contain_text("127.0.0.1 of the server’s machine only")
    command = dialog.locator("code").inner_text()
    port = re.fullmatch(
        r"gdb-multiarch -ex 'set architecture riscv:rv64' -ex 'target remote 127\.0\.0\.1:(\d+)'", command
    )
    assert port is not None, command
    page.keyboard.press("Escape")
    state = page.locator("#inspector .failure[role=status]")
    expect(state).to_contain_text("Waits for gdb")

    words = [require("gdb"), "-nx", "-q", "-ex", "set architecture riscv:rv64", "-ex", "set pagination off"]
    debugger = subprocess.Popen(
        [*words, "-ex", f"target remote :{port[1]}", str(guests.image_path("ringos"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert debugger.stdin is not None
    try:
        expect(state).to_contain_text("Held by gdb")
        expect(page.get_by_role("button", name=re.compile("^Run"))).to_be_visible()
        witness = open_page()
        ready(witness)
        witness.locator(GUESTS, has_text="vm-1").focus()
        expect(witness.locator("#inspector .failure[role=status]")).to_contain_text("Held by gdb")
        page.locator("#canvas").focus()
        page.keyboard.press("r")
        expect(page.locator(".toast")).to_contain_text("gdb holds vm-1")
        print("break syscall", "continue", 'printf "at %#lx\\n", $pc', sep="\n", file=debugger.stdin, flush=True)
        instructions = page.locator("#inspector .figure", has_text="Instructions").locator("dd")
        before = instructions.text_content() or ""
        expect(instructions).not_to_have_text(before)
        print("detach", "quit", sep="\n", file=debugger.stdin, flush=True)
        said, _ = debugger.communicate(timeout=PATIENCE_SECONDS)
    finally:
        debugger.kill()
        debugger.wait()
    assert "Breakpoint 1," in said, said
    assert re.search(r"at 0x\w+", said)
    expect(state).to_contain_text("Waits for gdb")
    expect(page.get_by_role("button", name=re.compile("^Pause"))).to_be_visible()
    page.locator("#inspector [data-action=gdb-close]").click()
    expect(state).to_be_hidden()
