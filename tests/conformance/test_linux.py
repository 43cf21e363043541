"""Debian's own kernel, the strictest reader of a board: it says the same on QEMU and here.

Both sides start the same OpenSBI, kernel and initial RAM disk, with a device tree that we made. What the kernel then
writes may differ only where `DIFFERENCES` says why.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from engine.machine import fdt
from engine.machine.loader import RAM_BASE
from tests.support import debian
from tests.support.board import Devices
from tests.support.checks import ROOT
from tests.support.qemu import Result, run_qemu

COMMANDS = ("echo $((6 * 7)) $(nproc) $(uname -m)", "ls /bin | wc -l", "modprobe -l | wc -l", "poweroff")
QEMU_SECONDS = 300
#: What both sides have: QEMU 7.2 lacks Svpbmt as it is started, and would be told of it.
ISA = "rv64imafdch_zicsr_zifencei_sstc"
DIFFERENCES = {
    "Boot HART": "OpenSBI finds PMP entries and performance counters on QEMU's hart only",
    "OF: reserved mem|node +0: |NODE_DATA|^Memory: ": "without PMP, OpenSBI's memory is taken out of the map",
    "audit: type=|byte access (?:time|speed)|deferred pages": "times",
    "hardware counters": "QEMU has 16 more",
}
#: QEMU puts the initial RAM disk into the middle of memory, where Linux 7 then finds no room for contiguous memory.
NO_CMA = " cma=0"
DIFFERS = re.compile("|".join(DIFFERENCES))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("linux")
    image, arguments = debian.image()
    arguments += NO_CMA
    kernel, disk, tree = folder / "Image", folder / "initrd", folder / "board.dtb"
    kernel.write_bytes(image.segments[0].data)
    disk.write_bytes(image.initrd)
    tree.write_bytes(fdt.board_tree(1, RAM_BASE, debian.MEMORY_MIB << 20, arguments, ISA, Devices().all))
    result = run_qemu(
        kernel,
        [(debian.PROMPT, f"{command}\n") for command in COMMANDS],
        memory=f"{debian.MEMORY_MIB}M",
        arguments=arguments,
        options=["-initrd", str(disk), "-dtb", str(tree)],
        seconds=QEMU_SECONDS,
    )
    assert not result.timed_out, result.output
    return result


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The console of `ringside run` with the same commands."""
    script = tmp_path_factory.mktemp("ours") / "script"
    script.write_text("".join(f"{command}\n" for command in COMMANDS))
    done = subprocess.run(
        [
            sys.executable, "-m", "webapp.cli", "run", debian.NAME, "--on", "bare-metal", "--firmware", "opensbi",
            "--append", debian.image()[1] + NO_CMA, "--input", str(script),
        ],
        capture_output=True, cwd=ROOT, env={**os.environ, "RINGSIDE_DATA": str(debian.data_folder())}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(errors="replace").replace("\r\n", "\n")


def _kernel_lines(console: str) -> Counter[str]:
    """What firmware and kernel said before they started /init, without times. Two of the kernel's threads write at
    once, so the order is not part of it."""
    before = console[: console.index("Run /init")]
    lines = (re.sub(r"^\[ *[\d.]+\] ", "", line) for line in before.splitlines())
    return Counter(line for line in lines if not DIFFERS.search(line))


def _answers(console: str) -> list[str]:
    """The lines of the shell that are answers to `COMMANDS`."""
    shell = console[console.index("with BusyBox") :]
    return re.findall(r"^(\d+(?: \d+ \w+)?)$", shell, re.MULTILINE)


def test_qemu_boots_our_initial_ram_disk_with_our_device_tree(theirs: Result) -> None:
    assert "Machine model: riscv-virtio,ringside" in theirs.output
    assert "reboot: Power down" in theirs.after("with BusyBox")
    assert theirs.status == 0
    assert _answers(theirs.output)[0] == "42 1 riscv64"


def test_the_kernel_says_here_what_it_says_on_qemu(theirs: Result, ours: str) -> None:
    expected = _kernel_lines(theirs.output)
    assert sum(expected.values()) > 150
    found = _kernel_lines(ours)
    assert (found - expected, expected - found) == (Counter(), Counter())
    assert _answers(ours) == _answers(theirs.output)
    assert "reboot: Power down" in ours
