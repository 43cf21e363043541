"""Run a guest on Debian's QEMU and talk to its console: the machine that we did not write.

Why: QEMU's ``virt`` board is what Ringside's board must look like to a guest, so a guest's behaviour there
is the reference for its behaviour here. Invariants: a run ends, whatever the guest does: at the latest when
``seconds`` of wall clock are over; input is sent only after the console has shown what it answers to, so
nothing depends on speed.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

QEMU = "qemu-system-riscv64"
INSTALL = f"{QEMU} is missing. Install it: apt install qemu-system-misc"


@dataclass(frozen=True)
class Result:
    """What a run left behind.

    ``output``: all that the console showed, firmware included, with plain newlines. ``status``: QEMU's exit
    status, or None if the run was ended from outside, because ``until`` was seen or time was up
    (``timed_out``).
    """

    output: str
    status: int | None
    timed_out: bool

    def after(self, marker: str) -> str:
        """What the console showed from the first occurrence of marker on. Fails the test if it never did."""
        assert marker in self.output, f"the console never showed {marker!r}; it showed:\n{self.output}"
        return self.output[self.output.index(marker) :]


def run_qemu(
    kernel: Path,
    script: Sequence[tuple[str, str]] = (),
    *,
    memory: str = "16M",
    arguments: str = "",
    harts: int = 1,
    until: str | None = None,
    options: Sequence[str] = (),
    seconds: float = 60,
) -> Result:
    """Start kernel in supervisor mode and play the script: pairs of what to wait for and what to type then.

    Each marker is looked for behind the previous one. ``until`` ends the run when it is seen behind the
    last marker. Raises RuntimeError with the command that installs QEMU if it is missing.
    """
    if shutil.which(QEMU) is None:
        raise RuntimeError(INSTALL)
    command = [QEMU, "-machine", "virt", "-display", "none", "-serial", "stdio", "-monitor", "none"]
    command += ["-m", memory, "-smp", str(harts), "-kernel", str(kernel), *options]
    if arguments:
        command += ["-append", arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            return _converse(process, list(script), until, time.monotonic() + seconds)
        finally:
            process.kill()


def _converse(
    process: subprocess.Popen[bytes], script: list[tuple[str, str]], until: str | None, deadline: float
) -> Result:
    assert process.stdin is not None
    assert process.stdout is not None
    stream = process.stdout.fileno()
    shown = b""
    seen = 0
    while True:
        while script and (at := shown.find(script[0][0].encode(), seen)) >= 0:
            seen = at + len(script[0][0].encode())
            os.write(process.stdin.fileno(), script.pop(0)[1].encode())
        text = shown.decode(errors="replace").replace("\r\n", "\n")
        if until is not None and not script and shown.find(until.encode(), seen) >= 0:
            return Result(text, None, timed_out=False)
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            return Result(text, None, timed_out=True)
        data = os.read(stream, 65536)
        if not data:
            return Result(text, process.wait(timeout=10), timed_out=False)
        shown += data
