"""hello on QEMU: a greeting, and the end of the machine."""

from __future__ import annotations

from engine.guests.build import IMAGES
from tests.support.qemu import run_qemu


def test_hello_greets_and_shuts_down() -> None:
    result = run_qemu(IMAGES / "hello.elf")
    assert result.status == 0
    assert result.output.endswith("\nHello from supervisor mode!\n")
