"""Which offsets and widths fault: every device against QEMU's, seen by a real hart that loads from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.devices import AccessFault
from tests.support.board import Devices
from tests.support.probe import loads_on_qemu

LOAD_ACCESS_FAULT = 5
OFFSETS = {
    0x2000000: (0x0, 0x4, 0x8, 0x3FF8, 0x4000, 0x4008, 0x8000, 0xBFF0, 0xBFF8, 0xC000, 0xFFF8),
    0xC000000: (0x0, 0x4, 0x1000, 0x1008, 0x2000, 0x2080, 0x1FFFF8, 0x200000, 0x200008, 0x201000, 0x202000),
    0x10000000: (0x0, 0x5, 0x8, 0x10, 0xF8),
    0x10001000: (0x0, 0x8, 0x10, 0x100, 0x1F8, 0x200, 0xFF8),
    0x10008000: (0x0, 0x1F8, 0x200),
    0x100000: (0x0, 0x4, 0x100, 0xFF8),
}


def test_the_same_loads_fault_as_on_qemu(tmp_path: Path) -> None:
    accesses = [
        (base + offset, size)
        for base, offsets in OFFSETS.items()
        for offset in offsets
        for size in (1, 2, 4, 8)
        if offset % size == 0
    ]
    devices = Devices()
    ours = []
    for address, size in accesses:
        try:
            devices.read(address, size)
            ours.append(0)
        except AccessFault:
            ours.append(LOAD_ACCESS_FAULT)
    theirs = [cause for cause, _ in loads_on_qemu(accesses, tmp_path)]
    different = [
        (f"{address:#x}", size, mine, their)
        for (address, size), mine, their in zip(accesses, ours, theirs, strict=True)
        if mine != their
    ]
    assert different == []
    assert LOAD_ACCESS_FAULT in theirs


@pytest.mark.parametrize("device", Devices().all, ids=lambda device: device.name)
def test_no_access_does_anything_but_fault(device: object) -> None:
    devices = Devices()
    mine = next(one for one in devices.all if one.name == device.name)  # type: ignore[attr-defined]
    edges = (0xFF, 0x1FC, 0x200, 0x3FFC, 0xBFF8, 0xC000, mine.size - 8, mine.size - 1, mine.size, -4)
    for offset in (*range(0x20), *edges):
        for size in (1, 2, 4, 8, 16):
            for value in (0, (1 << (8 * size)) - 1):
                try:
                    assert 0 <= mine.read(offset, size) < 1 << (8 * size)
                    mine.write(offset, size, value)
                except AccessFault:
                    continue


def test_a_fault_says_where() -> None:
    with pytest.raises(AccessFault, match=r"plic: no 8-byte access at offset 0x2000"):
        Devices().read(0xC002000, 8)
