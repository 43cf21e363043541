"""QEMU's devices as an oracle: register accesses from a script instead of from a guest.

Why: the same script then runs against our device objects, and every value read is compared. QEMU's `virt`
board is started with its harts stopped and its virtual clock at 0, and is driven through its qtest protocol
on standard input and output (docs/devel/qtest.rst). An access that a hart would fault on reads 0 here: faults
are compared with `probe.py`.
"""

from __future__ import annotations

import shutil
import subprocess
from types import TracebackType
from typing import Self

from tests.support.qemu import INSTALL, QEMU

_LETTERS = {1: "b", 2: "w", 4: "l", 8: "q"}


class Qtest:
    """`with Qtest() as board: board.read(0x10000005, 1)`."""

    def __init__(self, harts: int = 1, options: tuple[str, ...] = ()) -> None:
        if shutil.which(QEMU) is None:
            raise RuntimeError(INSTALL)
        self._process = subprocess.Popen(
            [
                QEMU, "-machine", "virt", "-smp", str(harts), "-S", "-bios", "none", "-display", "none",
                "-serial", "null", "-monitor", "none", "-qtest", "stdio", "-qtest-log", "/dev/null", *options,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, *words: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("OK"):
                return line[2:].strip()
            assert line.startswith("IRQ"), f"{words}: {line}"
        raise AssertionError(f"QEMU ended at {words}")

    def read(self, address: int, size: int) -> int:
        return int(self._ask(f"read{_LETTERS[size]}", f"{address:#x}"), 16)

    def write(self, address: int, size: int, value: int) -> None:
        self._ask(f"write{_LETTERS[size]}", f"{address:#x}", f"{value:#x}")

    def load(self, address: int, length: int) -> bytes:
        """Guest memory."""
        return bytes.fromhex(self._ask("read", f"{address:#x}", f"{length:#x}").removeprefix("0x"))

    def store(self, address: int, data: bytes) -> None:
        self._ask("write", f"{address:#x}", f"{len(data):#x}", f"0x{data.hex()}")

    def set_line(self, device: str, line: int, level: bool) -> None:
        """Drive an input of a device, given by its QOM path."""
        self._ask("set_irq_in", device, "unnamed-gpio-in", str(line), str(int(level)))
