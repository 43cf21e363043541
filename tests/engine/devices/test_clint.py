"""The CLINT: registers against QEMU's, interrupts against the manual."""

from __future__ import annotations

import random

import pytest

from engine.devices.clint import Clint
from tests.support.board import Devices
from tests.support.qtest import Qtest

BASE = 0x2000000
MSIP, MTIMECMP, MTIME = BASE, BASE + 0x4000, BASE + 0xBFF8
NEVER = (1 << 64) - 1


def test_registers_read_back_as_on_qemu() -> None:
    random_values = random.Random(1)
    devices = Devices(harts=2)
    offsets = (0x0, 0x4, 0x8, 0x3FFC, 0x4000, 0x4004, 0x4008, 0x400C, 0x4010, 0xBFF8, 0xBFFC)
    with Qtest(harts=2) as qemu:
        for board in (qemu, devices):
            for hart in range(2):
                board.write(MTIMECMP + 8 * hart, 8, NEVER)
        for _ in range(500):
            offset = random_values.choice(offsets)
            size = random_values.choice((4, 8)) if offset >= 0x4000 and offset % 8 == 0 else 4
            if random_values.random() < 0.5:
                value = random_values.getrandbits(8 * size)
                qemu.write(BASE + offset, size, value)
                devices.write(BASE + offset, size, value)
            for each in offsets:
                assert devices.read(BASE + each, 4) == qemu.read(BASE + each, 4), f"offset {each:#x}"


def test_software_interrupt_is_bit_0() -> None:
    devices = Devices(harts=2)
    devices.write(MSIP + 4, 4, 0xFFFFFFFF)
    assert devices.read(MSIP + 4, 4) == 1
    assert [devices.clint.software(hart) for hart in (0, 1)] == [False, True]
    assert devices.events == [("clint", 1)]
    devices.write(MSIP + 4, 4, 2)
    assert not devices.clint.software(1)


def test_timer_is_pending_while_mtime_has_reached_mtimecmp() -> None:
    devices = Devices(harts=2)
    assert devices.clint.deadline(0) is None
    assert not devices.clint.timer(0)
    devices.write(MTIMECMP, 8, 100)
    assert devices.events == [("clint", 0)]
    assert devices.clint.deadline(0) == 100
    devices.now = 99
    assert not devices.clint.timer(0)
    devices.now = 100
    assert devices.clint.timer(0)
    assert not devices.clint.timer(1)
    devices.clint.set_timer(0, 101)
    assert not devices.clint.timer(0)


def test_mtimecmp_by_halves_as_the_manual_shows() -> None:
    """Privileged architecture 3.2.1: the low half is set to all ones first, so that no interrupt comes too
    early.
    """
    devices = Devices()
    devices.now = (5 << 32) + 6
    for offset, value in ((0, 0xFFFFFFFF), (4, 5), (0, 7)):
        devices.write(MTIMECMP + offset, 4, value)
        assert not devices.clint.timer(0)
    assert devices.clint.deadline(0) == (5 << 32) + 7


def test_writing_mtime_moves_every_deadline() -> None:
    devices = Devices(harts=2)
    devices.now = 1000
    devices.write(MTIMECMP, 8, 5000)
    devices.events.clear()
    devices.write(MTIME, 8, 4990)
    assert devices.events == [("clint", 0), ("clint", 1)]
    assert devices.clint.time() == 4990
    assert devices.clint.deadline(0) == 1010
    devices.now = 1010
    assert devices.clint.timer(0)


def test_harts_beyond_the_last_read_zero_and_ignore_writes() -> None:
    devices = Devices(harts=1)
    devices.write(MSIP + 4, 4, 1)
    devices.write(MTIMECMP + 8, 8, 1)
    assert devices.read(MSIP + 4, 4) == devices.read(MTIMECMP + 8, 8) == 0
    assert devices.events == []


def test_number_of_harts_is_checked() -> None:
    with pytest.raises(ValueError, match="1 to 4095"):
        Clint(0, lambda: 0, lambda _hart: None)
