"""Clones and snapshots on the page: made from the selected guest, dragged, downloaded, and dropped as files."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.e2e.conftest import Console
from tests.e2e.test_frame import GUESTS, box_of, drag_to_canvas, pause, ready
from tests.e2e.test_panels import open_panel

#: Of what the demo guest has printed, how much the console still shows depends on how fast it is.
PRINTED = re.compile("ringos: 16 MiB of RAM|demo: round")
#: Playwright has no way to drop a file, so the page is handed the event that a browser would give it.
_DROP = """([content, name, x, y]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name));
  const event = new DragEvent('drop', { dataTransfer, clientX: x, clientY: y, bubbles: true, cancelable: true });
  document.querySelector('#canvas').dispatchEvent(event);
}"""


def test_a_guest_is_cloned_kept_and_started_again(page: Page, console: Console, tmp_path: Path) -> None:
    console.allow("status of 422")  # the damaged snapshot
    ready(page)
    page.get_by_role("group", name="Speed").get_by_text("max", exact=True).click()
    screen = open_panel(page, "console").locator(".console-screen:visible .xterm-rows")
    expect(screen).to_contain_text(PRINTED)
    pause(page)

    page.locator(GUESTS, has_text="vm-1").focus()
    page.locator("#canvas").focus()
    page.keyboard.press("Control+d")
    expect(page.locator(GUESTS)).to_have_count(2)
    expect(page.locator("#announcer")).to_contain_text("vm-1 was cloned.")
    expect(page.locator("#inspector h2").first).to_have_text("vm-2")
    expect(screen).to_contain_text(PRINTED)
    page.keyboard.press("Control+z")
    expect(page.locator(GUESTS)).to_have_count(1)

    page.locator(GUESTS, has_text="vm-1").focus()
    page.locator("#inspector [data-action=snapshot]").click()
    entry = page.locator('[data-item="image"]', has_text="vm-1 snapshot")
    expect(entry).to_contain_text("snapshot · Trap-and-emulate")
    drag_to_canvas(page, entry, 0.5, 0.3)
    expect(page.locator(".ghost")).to_have_attribute("data-fits", "true")
    page.mouse.up()
    expect(page.locator(GUESTS)).to_have_count(2)
    expect(screen).to_contain_text(PRINTED)

    with page.expect_download() as download:
        page.get_by_role("link", name="Download the snapshot vm-1 snapshot").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name == "vm-1-snapshot.ringside"
    canvas = box_of(page.locator("#canvas"))
    where = [canvas["x"] + canvas["width"] * 0.5, canvas["y"] + canvas["height"] * 0.3]
    page.evaluate(_DROP, [base64.b64encode(file.read_bytes()).decode(), file.name, *where])
    expect(page.locator(GUESTS)).to_have_count(3)

    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    page.evaluate(_DROP, [base64.b64encode(content).decode(), "bad.ringside", *where])
    expect(page.locator("#palette .refusal")).to_contain_text("bad.ringside: The snapshot is damaged in its page 0x80")
    expect(page.locator(GUESTS)).to_have_count(3)
    page.locator("#canvas").focus()
    page.keyboard.press("r")
    traps = page.locator("#inspector .figure", has_text="Instructions").locator("dd")
    before = traps.text_content() or ""
    expect(traps).not_to_have_text(before)
