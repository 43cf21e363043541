"""The transport's registers, against QEMU's, and the life of a device from reset to DEVICE_NEEDS_RESET."""

from __future__ import annotations

import struct

import msgpack
import pytest

from engine.devices import AccessFault
from engine.devices.virtio.mmio import Slot
from engine.devices.virtio.rng import Rng
from tests.support.qtest import Qtest
from tests.support.virtio_driver import (
    ACKNOWLEDGE,
    DRIVER,
    DRIVER_OK,
    F_EVENT_IDX,
    F_INDIRECT,
    F_VERSION_1,
    FEATURES_OK,
    INDIRECT,
    NEEDS_RESET,
    NEXT,
    RAM,
    WRITE,
    Bench,
    Driver,
)

BASE = 0x10001000
USED, CONFIG = 1, 2
#: QEMU offers it and we do not; bit 40, seen in the upper half.
RING_RESET = 1 << 40 - 32


def _bench() -> Bench:
    return Bench(lambda ram, line: Rng(0, ram, line, b"key"))


def _started(features: int = 0, size: int | None = None) -> tuple[Bench, Driver]:
    bench = _bench()
    driver = Driver(bench, BASE)
    driver.start(features, [size])
    return bench, driver


QEMU_RNG = (
    "-global", "virtio-mmio.force-legacy=false",
    "-object", "rng-builtin,id=rng", "-device", "virtio-rng-device,rng=rng,bus=virtio-mmio-bus.0",
)  # fmt: skip

#: (offset, value to write or None to read): what both devices must answer alike.
SCRIPT: list[tuple[int, int | None]] = [
    *((offset, None) for offset in (0x0, 0x4, 0x8, 0xC, 0x34, 0x44, 0x50, 0x60, 0x70, 0xB0, 0xB4, 0xFC)),
    (0x30, 1), (0x34, None), (0x44, None), (0x30, 7000), (0x34, None), (0x44, None), (0x30, 0),
    (0x14, 1), (0x10, None),
    (0x70, 1), (0x70, None), (0x70, 3), (0x70, None),
    (0x24, 1), (0x20, 1), (0x70, 11), (0x70, None),
    (0x30, 0), (0x44, None), (0x38, 8), (0x80, 0x80001000), (0x90, 0x80002000), (0xA0, 0x80003000),
    (0x84, 0), (0x94, 0), (0xA4, 0), (0x44, 1), (0x44, None), (0x34, None), (0x70, 15), (0x70, None),
    (0x50, 0), (0x60, None), (0x70, None), (0x44, 0), (0x44, None),
    (0x70, 0), (0x70, None), (0x44, None), (0x60, None), (0x38, None), (0x24, None),
]  # fmt: skip


def test_registers_answer_as_qemu_s() -> None:
    ours = Driver(_bench(), BASE)
    with Qtest(options=QEMU_RNG) as qemu:
        for number, (offset, value) in enumerate(SCRIPT):
            if value is None:
                mine, their = ours.get(offset), qemu.read(BASE + offset, 4)
                if offset == 0x34:  # how long a queue may be is each device's own affair
                    mine, their = bool(mine), bool(their)
                elif offset == 0x10:
                    their &= ~RING_RESET
                assert mine == their, f"step {number}: {offset:#x}"
            else:
                ours.set(offset, value)
                qemu.write(BASE + offset, 4, value)


@pytest.mark.parametrize(
    ("features", "agreed"),
    [
        (1 << F_VERSION_1, True),
        (1 << F_VERSION_1 | 1 << F_INDIRECT | 1 << F_EVENT_IDX, True),
        (0, False),
        (1 << F_INDIRECT, False),
        (1 << F_VERSION_1 | 1, False),
        (1 << F_VERSION_1 | 1 << 34, False),
    ],
)
def test_features_are_agreed_on(features: int, agreed: bool) -> None:
    driver = Driver(_bench(), BASE)
    assert driver.features() == 1 << F_VERSION_1 | 1 << F_INDIRECT | 1 << F_EVENT_IDX
    assert driver.negotiate(features) == agreed


def test_features_cannot_change_once_agreed_on() -> None:
    bench, driver = _started()
    driver.set(0x24, 0)
    driver.set(0x20, 1 << F_EVENT_IDX)
    queue = driver.queues[0]
    bench.store(queue.driver + 4 + 2 * queue.size, struct.pack("<H", 100))
    queue.offer([(driver.room(8), 8, True)])
    driver.kick()
    assert bench.line, "the driver did not ask for event indices"


def test_a_narrow_access_to_a_control_register_does_nothing() -> None:
    bench = _bench()
    for size in (1, 2):
        bench.write(BASE + 0x70, size, 1)
        assert bench.read(BASE, size) == 0
    assert bench.read(BASE + 0x70, 4) == 0
    assert bench.read(BASE, 8) == 2 << 32 | 0x74726976
    for offset, size in ((2, 4), (0x71, 2), (0x200, 4), (0x1FC, 8), (0, 16)):
        with pytest.raises(AccessFault):
            bench.device.read(offset, size)
        with pytest.raises(AccessFault):
            bench.device.write(offset, size, 0)


def test_a_buffer_comes_back_with_an_interrupt() -> None:
    bench, driver = _started()
    queue, at = driver.queues[0], driver.room(40)
    head = queue.offer([(at, 40, True)])
    assert not bench.line
    driver.kick()
    assert queue.collect() == [(head, 40)]
    assert bench.load(at, 40) != bytes(40)
    assert bench.line
    assert driver.acknowledge() == USED
    assert not bench.line


def test_indices_wrap_around() -> None:
    _, driver = _started(size=2)
    queue, at = driver.queues[0], driver.room(1)
    for _ in range(0x10000 + 3):
        head = queue.offer([(at, 1, True)])
        driver.kick()
        assert queue.collect() == [(head, 1)]
        queue.recycle(head, 1)
    assert driver.status & NEEDS_RESET == 0


def test_many_buffers_are_served_by_one_notification() -> None:
    bench, driver = _started()
    queue, at = driver.queues[0], driver.room(512)
    heads = [queue.offer([(at + 64 * number, 64, True)]) for number in range(queue.size)]
    driver.kick()
    assert queue.collect() == [(head, 64) for head in heads]
    assert bench.edges == 1


@pytest.mark.parametrize("indirect", [False, True])
def test_the_parts_of_a_buffer_are_filled_in_order(indirect: bool) -> None:
    contents = []
    for cuts in ([40], [1, 0, 7, 32]):
        bench, driver = _started(1 << F_INDIRECT if indirect else 0)
        queue, at = driver.queues[0], driver.room(64)
        parts, place = [], at
        for length in cuts:
            parts.append((place, length, True))
            place += length
        queue.offer(parts, driver.room(256) if indirect else None)
        driver.kick()
        assert [written for _, written in queue.collect()] == [40]
        contents.append(bench.load(at, 40))
    assert contents[0] == contents[1]


def test_a_driver_that_wants_no_interrupt_gets_none() -> None:
    bench, driver = _started()
    queue = driver.queues[0]
    bench.store(queue.driver, struct.pack("<H", 1))
    queue.offer([(driver.room(8), 8, True)])
    driver.kick()
    assert len(queue.collect()) == 1
    assert not bench.line


@pytest.mark.parametrize("begin", [0, 0xFFFE])
def test_event_indices_say_when_to_interrupt(begin: int) -> None:
    bench, driver = _started(1 << F_EVENT_IDX, size=4)
    queue, at = driver.queues[0], driver.room(8)
    for _ in range(begin):
        queue.recycle(queue.offer([(at, 8, True)]), 1)
        driver.kick()
    queue.collect()
    driver.acknowledge()
    bench.store(queue.driver + 4 + 2 * queue.size, struct.pack("<H", begin + 2 & 0xFFFF))
    seen = []
    for _ in range(5):
        queue.recycle(queue.offer([(at, 8, True)]), 1)
        driver.kick()
        seen.append(driver.acknowledge())
        (event,) = struct.unpack("<H", bench.load(queue.device + 4 + 8 * queue.size, 2))
        assert event == queue.available, "the device wants to hear of the very next buffer"
    assert seen == [0, 0, USED, 0, 0]


def test_nothing_is_served_before_driver_ok_or_without_a_queue() -> None:
    bench = _bench()
    driver = Driver(bench, BASE)
    assert driver.negotiate(1 << F_VERSION_1)
    queue = driver.add_queue(0)
    queue.offer([(driver.room(8), 8, True)])
    driver.kick()
    assert queue.collect() == []
    driver.set(0x44, 0)
    driver.set(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    driver.kick()
    assert queue.collect() == []
    for queue_number in (1, 2, 0xFFFF, 0xFFFFFFFF):
        driver.kick(queue_number)
    assert driver.status & NEEDS_RESET == 0
    driver.set(0x44, 1)
    driver.kick()
    assert len(queue.collect()) == 1


def test_driver_ok_without_agreed_features_starts_nothing() -> None:
    bench = _bench()
    driver = Driver(bench, BASE)
    driver.set(0x70, ACKNOWLEDGE | DRIVER)
    queue = driver.add_queue(0)
    driver.set(0x70, ACKNOWLEDGE | DRIVER | DRIVER_OK)
    queue.offer([(driver.room(8), 8, True)])
    driver.kick()
    assert queue.collect() == []


@pytest.mark.parametrize("size", [0, 3, 12, 1 << 15, 0x10000, 0xFFFFFFFF])
def test_an_impossible_queue_size_is_not_taken(size: int) -> None:
    bench = _bench()
    driver = Driver(bench, BASE)
    assert driver.negotiate(1 << F_VERSION_1)
    driver.set(0x30, 0)
    largest = driver.get(0x34)
    driver.set(0x38, 2)
    driver.set(0x38, size)
    for offset, area in ((0x80, RAM), (0x90, RAM + 0x1000), (0xA0, RAM + 0x2000)):
        driver.set(offset, area)
    driver.set(0x44, 1)
    driver.set(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    bench.store(RAM + 0x1000, struct.pack("<HH", 0, 3))
    driver.kick()
    assert driver.status & NEEDS_RESET, "three buffers in a queue of two"
    assert driver.get(0x34) == largest


def _put(bench: Bench, driver: Driver, entries: list[tuple[int, int, int, int]]) -> None:
    """Descriptors 0, 1, ... as they are, the first one available."""
    queue = driver.queues[0]
    for number, entry in enumerate(entries):
        queue.describe(queue.descriptors + 16 * number, *entry)
    queue.publish(0)


TABLE = RAM + 0x8000
FAR = RAM + (1 << 20)
BROKEN = {
    "loop": [(RAM, 1, WRITE | NEXT, 1), (RAM, 1, WRITE | NEXT, 0)],
    "self": [(RAM, 1, WRITE | NEXT, 0)],
    "next outside the table": [(RAM, 1, WRITE | NEXT, 8)],
    "readable after writable": [(RAM, 1, WRITE | NEXT, 1), (RAM, 1, 0, 0)],
    "below RAM": [(RAM - 1, 2, WRITE, 0)],
    "above RAM": [(FAR - 1, 2, WRITE, 0)],
    "the end of the address space": [((1 << 64) - 8, 16, WRITE, 0)],
    "a device register": [(BASE, 4, WRITE, 0)],
    "an indirect table outside RAM": [(FAR, 16, INDIRECT, 0)],
    "half an indirect entry": [(TABLE, 24, INDIRECT, 0)],
    "an empty indirect table": [(TABLE, 0, INDIRECT, 0)],
    "an indirect table and more": [(TABLE, 16, INDIRECT | NEXT, 1), (RAM, 1, WRITE, 0)],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_chain_needs_a_reset_and_then_all_is_well(name: str) -> None:
    bench, driver = _started(1 << F_INDIRECT, size=8)
    bench.store(TABLE, struct.pack("<QIHH", RAM + 0x9000, 4, WRITE, 0) * 2)
    _put(bench, driver, BROKEN[name])
    driver.kick()
    assert driver.status & NEEDS_RESET
    assert bench.line
    assert driver.acknowledge() == CONFIG
    before = bytes(bench.ram.content)
    driver.kick()
    driver.set(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    assert driver.status & NEEDS_RESET, "only a reset helps"
    assert bytes(bench.ram.content) == before
    again = Driver(bench, BASE)
    again.start(0, [None])
    head = again.queues[0].offer([(again.room(8), 8, True)])
    again.kick()
    assert again.queues[0].collect() == [(head, 8)]


def test_indirect_tables_hold_no_indirect_tables_and_must_be_agreed_on() -> None:
    for features, flags in ((1 << F_INDIRECT, INDIRECT), (0, WRITE)):
        bench, driver = _started(features)
        bench.store(TABLE, struct.pack("<QIHH", TABLE, 16, flags, 0))
        _put(bench, driver, [(TABLE, 16, INDIRECT, 0)])
        driver.kick()
        assert driver.status & NEEDS_RESET


def test_an_indirect_chain_is_no_longer_than_the_longest_queue() -> None:
    for entries, broken in ((8, False), (9, True)):
        _, driver = _started(1 << F_INDIRECT)
        assert driver.queues[0].size == 8
        driver.queues[0].offer([(RAM + 0x9000 + number, 1, True) for number in range(entries)], TABLE)
        driver.kick()
        assert bool(driver.status & NEEDS_RESET) == broken


@pytest.mark.parametrize("jump", [9, 0x8000, 0xFFFF])
def test_an_available_index_that_jumps_needs_a_reset(jump: int) -> None:
    bench, driver = _started()
    bench.store(driver.queues[0].driver + 2, struct.pack("<H", jump))
    bench.ram.accesses = 0
    driver.kick()
    assert driver.status & NEEDS_RESET
    assert bench.ram.accesses < 10


def test_a_head_outside_the_table_needs_a_reset() -> None:
    _, driver = _started()
    driver.queues[0].publish(8)
    driver.kick()
    assert driver.status & NEEDS_RESET


@pytest.mark.parametrize("area", [0x80, 0x90, 0xA0])
@pytest.mark.parametrize("address", [0, RAM - 16, FAR, (1 << 64) - 16])
def test_rings_outside_ram_need_a_reset(area: int, address: int) -> None:
    bench = _bench()
    driver = Driver(bench, BASE)
    assert driver.negotiate(1 << F_VERSION_1)
    queue = driver.add_queue(0)
    driver.set(0x44, 0)
    driver.set(area, address & 0xFFFFFFFF)
    driver.set(area + 4, address >> 32)
    driver.set(0x44, 1)
    driver.set(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    queue.offer([(driver.room(8), 8, True)])
    driver.kick()
    assert driver.status & NEEDS_RESET


def test_a_buffer_over_the_available_ring_makes_no_endless_work() -> None:
    bench, driver = _started()
    queue = driver.queues[0]
    for _ in range(4):
        queue.offer([(queue.driver, 4, True)])
    bench.ram.accesses = 0
    driver.kick()
    assert bench.ram.accesses < 100


def test_a_reset_lowers_the_line_and_forgets_everything() -> None:
    bench, driver = _started()
    driver.queues[0].offer([(driver.room(8), 8, True)])
    driver.kick()
    assert bench.line
    driver.set(0x70, 0)
    assert not bench.line
    assert [driver.get(offset) for offset in (0x44, 0x60, 0x70)] == [0, 0, 0]
    before = bytes(bench.ram.content)
    driver.kick()
    assert bytes(bench.ram.content) == before


def test_a_queue_in_use_cannot_be_moved() -> None:
    _, driver = _started()
    queue = driver.queues[0]
    for offset in (0x38, 0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4):
        driver.set(offset, 4)
    head = queue.offer([(driver.room(8), 8, True)])
    driver.kick()
    assert queue.collect() == [(head, 8)]


def test_a_snapshot_in_the_middle_changes_nothing() -> None:
    bench, driver = _started(1 << F_EVENT_IDX | 1 << F_INDIRECT)
    other = _bench()
    for turn in range(20):
        queue, at = driver.queues[0], RAM + 0x4000
        head = queue.offer([(at, 33, True)], RAM + 0x3000 if turn % 2 else None)
        driver.kick()
        queue.recycle(head, 1, bool(turn % 2))
        other.device.load(msgpack.unpackb(msgpack.packb(bench.device.save())))  # type: ignore[attr-defined]
        other.ram.content[:] = bench.ram.content
        bench, other = other, bench
        bench.line = other.line
        driver.machine = queue.machine = bench
    fresh, straight = _started(1 << F_EVENT_IDX | 1 << F_INDIRECT)
    for turn in range(20):
        queue = straight.queues[0]
        head = queue.offer([(RAM + 0x4000, 33, True)], RAM + 0x3000 if turn % 2 else None)
        straight.kick()
        queue.recycle(head, 1, bool(turn % 2))
    assert bench.ram.content == fresh.ram.content
    assert bench.device.save() == fresh.device.save()  # type: ignore[attr-defined]


def test_a_snapshot_that_cannot_be_is_refused() -> None:
    bench, _ = _started()
    state = bench.device.save()  # type: ignore[attr-defined]
    for size in (0, 3, 16, -8):
        queues = [{**state["queues"][0], "size": size}]
        with pytest.raises(ValueError, match="virtqueue"):
            bench.device.load({**state, "queues": queues})  # type: ignore[attr-defined]


def test_there_are_eight_slots() -> None:
    with pytest.raises(ValueError, match="0 to 7, not 8"):
        Slot("virtio8", 8)
