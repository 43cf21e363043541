"""Debian's own kernel, the strictest reader of a board: QEMU boots our initial RAM disk with our device tree."""

from __future__ import annotations

from pathlib import Path

from engine.machine import fdt
from engine.machine.loader import RAM_BASE
from tests.support import debian
from tests.support.board import Devices
from tests.support.qemu import run_qemu

SCRIPT = [(debian.PROMPT, "echo $((6 * 7)) $(nproc) $(ls /bin | wc -l); lsmod\n"), (debian.PROMPT, "poweroff\n")]
QEMU_SECONDS = 300


def test_qemu_boots_our_initial_ram_disk_with_our_device_tree(tmp_path: Path) -> None:
    image, arguments = debian.image()
    kernel, disk, tree = tmp_path / "Image", tmp_path / "initrd", tmp_path / "board.dtb"
    kernel.write_bytes(image.segments[0].data)
    disk.write_bytes(image.initrd)
    tree.write_bytes(
        fdt.board_tree(
            1, RAM_BASE, debian.MEMORY_MIB << 20, arguments, "rv64imafdc_zicsr_zifencei_sstc", Devices().all
        )
    )
    result = run_qemu(
        kernel,
        SCRIPT,
        memory=f"{debian.MEMORY_MIB}M",
        arguments=arguments,
        options=["-initrd", str(disk), "-dtb", str(tree)],
        seconds=QEMU_SECONDS,
    )
    shell = result.after("with BusyBox")
    assert "\n42 1 2" in shell
    assert "virtio_mmio" in shell
    assert "Machine model: riscv-virtio,ringside" in result.output
    assert "reboot: Power down" in shell
    assert result.status == 0
