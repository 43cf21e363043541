"""The small devices, and what holds for every device: snapshots, and a place of its own on the board."""

from __future__ import annotations

from itertools import pairwise

import msgpack
import pytest

from engine.devices import AccessFault
from engine.devices.virtio.mmio import EmptySlot
from tests.support.board import Devices
from tests.support.qtest import Qtest


@pytest.mark.parametrize(
    ("word", "events"),
    [
        (0x5555, [("finish", 0)]),
        (0x00035555, [("finish", 0)]),
        (0x00073333, [("finish", 7)]),
        (0xFFFF3333, [("finish", 0xFFFF)]),
        (0x3333, [("finish", 1)]),
        (0x7777, [("reset",)]),
        (0x1234, []),
    ],
)
def test_finisher(word: int, events: list[tuple[object, ...]]) -> None:
    devices = Devices()
    devices.write(0x100000, 4, word)
    assert devices.events == events
    assert devices.read(0x100000, 4) == 0


def test_finisher_listens_only_to_its_first_word() -> None:
    devices = Devices()
    devices.write(0x100004, 4, 0x5555)
    assert devices.events == []


def test_empty_virtio_slots_read_as_qemu_s() -> None:
    devices = Devices()
    with Qtest(options=("-global", "virtio-mmio.force-legacy=false")) as qemu:
        for slot in range(8):
            for offset in range(0, 0x200, 4):
                address = 0x10001000 + 0x1000 * slot + offset
                assert devices.read(address, 4) == qemu.read(address, 4), f"{address:#x}"
                devices.write(address, 4, 0xFFFFFFFF)
        for offset, size in ((0, 1), (0, 2), (0, 8), (1, 1), (2, 2), (4, 1), (8, 8), (0x100, 1)):
            assert devices.read(0x10001000 + offset, size) == qemu.read(0x10001000 + offset, size)


def test_there_are_eight_virtio_slots() -> None:
    with pytest.raises(ValueError, match="0 to 7, not 8"):
        EmptySlot(8)


def test_devices_do_not_overlap() -> None:
    places = sorted((device.base, device.base + device.size) for device in Devices().all)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(places))


def _stir(devices: Devices) -> None:
    devices.now = 12345
    devices.write(0x2000000, 4, 1)
    devices.write(0x2004000, 8, 99999)
    devices.write(0x200BFF8, 8, 5)
    devices.write(0xC000000 + 40, 4, 3)
    devices.write(0xC002000, 4, 1 << 10)
    devices.write(0xC200000, 4, 2)
    devices.write(0x10000001, 1, 5)
    devices.write(0x10000002, 1, 0x41)
    devices.write(0x10000003, 1, 3)
    devices.write(0x10000007, 1, 0x77)
    devices.uart.receive(bytes(range(100)))
    devices.read(0xC200004, 4)


def test_snapshots_pass_through_msgpack_and_bring_everything_back() -> None:
    stirred, restored = Devices(harts=2), Devices(harts=2)
    _stir(stirred)
    for one, other in zip(stirred.all, restored.all, strict=True):
        other.load(msgpack.unpackb(msgpack.packb(one.save())))
    assert restored.events == []
    assert [device.save() for device in restored.all] == [device.save() for device in stirred.all]
    restored.now = stirred.now
    stirred.events.clear()
    for address, size in ((0x200BFF8, 8), (0xC001000, 4), (0x10000000, 1), (0x10000002, 1), (0x10000005, 1)):
        assert restored.read(address, size) == stirred.read(address, size)
    for board in (stirred, restored):
        board.write(0xC200004, 4, 10)
    assert restored.events == stirred.events == [("plic", 0, True)]


def test_a_snapshot_of_another_device_is_refused() -> None:
    devices = Devices()
    for device in (devices.finisher, EmptySlot(0)):
        with pytest.raises(ValueError, match="no state"):
            device.load({"msip": [0]})


def test_offsets_outside_the_device_fault() -> None:
    for device in Devices().all:
        for offset in (-8, device.size, device.size + 8):
            with pytest.raises(AccessFault):
                device.read(offset, 4)
