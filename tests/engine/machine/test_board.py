"""Where a board puts a kernel, its initial RAM disk and the device tree, and what it tells firmware."""

from __future__ import annotations

import struct

import pytest

from engine.commands import LabError
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.machine import fdt
from engine.machine.loader import LoadedImage, inspect, with_firmware, with_initrd
from engine.machine.privileged import MACHINE, SUPERVISOR
from engine.trace.rings import Trace

MIB = 1 << 20
RAM = 0x80000000
KERNEL_END = 0x80200000 + 3 * MIB


def _kernel() -> LoadedImage:
    header = struct.pack("<IIQQQIIQQII", 0x6F, 0, 2 * MIB, 3 * MIB, 0, 2, 0, 0, 0x5643534952, 0x05435352, 0)
    return inspect(header + b"kernel", "Image")


def _started(image: LoadedImage, memory_mib: int, stack: str = "bare-metal") -> Host:
    host = Host(1, 1, 2 * memory_mib + 8, Configuration.parse(stack), Trace(), lambda _guest, _data: None)
    host.add_guest(1, image, 1, memory_mib, "console=ttyS0")
    return host


def _chosen(host: Host) -> tuple[int, fdt.Node]:
    """The device tree's address, as the hart is told, and its node /chosen."""
    guest = host.guest(1)
    at = guest.hart(0).x[11]
    size = struct.unpack(">I", guest.board.ram.read(at + 4, 4))[0]
    node = fdt.find(fdt.read(guest.board.ram.read(at, size)), "/chosen")
    assert node is not None
    return at, node


@pytest.mark.parametrize("stack", ["bare-metal", "trap-and-emulate", "binary-translation", "hardware-assist"])
@pytest.mark.parametrize("size", [1, 4096, MIB + 1])
def test_the_initial_ram_disk_lies_between_kernel_and_device_tree(stack: str, size: int) -> None:
    content = bytes(index & 0xFF for index in range(size))
    host = _started(with_initrd(_kernel(), content), 16, stack)
    tree, chosen = _chosen(host)
    (_, begin), (_, end) = (fdt.cells(chosen.properties[f"linux,initrd-{name}"]) for name in ("start", "end"))
    assert KERNEL_END <= begin <= end <= tree < RAM + 16 * MIB
    assert begin % 4096 == 0
    assert tree % (2 * MIB) == 0
    assert host.guest(1).board.ram.read(begin, end - begin) == content


def test_without_one_the_tree_names_none() -> None:
    _, chosen = _chosen(_started(_kernel(), 16))
    assert not [name for name in chosen.properties if name.startswith("linux,initrd")]


def test_it_must_fit() -> None:
    with pytest.raises(LabError, match="needs 12 MiB of memory; the machine has 8 MiB"):
        _started(with_initrd(_kernel(), bytes(4 * MIB)), 8)
    _started(with_initrd(_kernel(), bytes(4 * MIB)), 12)


def test_firmware_is_told_where_the_kernel_is() -> None:
    host = _started(with_firmware(_kernel(), inspect(bytes(64), "fw.bin")), 16)
    hart = host.guest(1).hart(0)
    assert (hart.pc, hart.privilege) == (RAM, MACHINE)
    information = host.guest(1).board.ram.read(hart.x[12], 48)
    assert struct.unpack("<4s4xQQQQQ", information) == (b"OSBI", 2, 0x80200000, 1, 0, 0)
    assert host.guest(1).board.firmware is None


def test_without_firmware_the_kernel_starts() -> None:
    hart = _started(_kernel(), 16).guest(1).hart(0)
    assert (hart.pc, hart.privilege) == (0x80200000, SUPERVISOR)
