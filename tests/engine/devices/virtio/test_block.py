"""virtio-blk: every request against QEMU's device on the same disk, then what only ours has: overlays."""

from __future__ import annotations

import random
import struct
from itertools import pairwise
from pathlib import Path

import msgpack
import pytest

from engine.devices.virtio.block import CLUSTER, MAX_BYTES, MAX_ZEROED_SECTORS, Block, Disk
from tests.support.qtest import Qtest
from tests.support.virtio_driver import (
    DRIVER_OK,
    F_EVENT_IDX,
    F_INDIRECT,
    NEEDS_RESET,
    RAM,
    Bench,
    Driver,
    Machine,
)

BASE = 0x10001000
IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
F_RO, F_FLUSH, F_DISCARD, F_WRITE_ZEROES = 5, 9, 13, 14
SECTORS = 300
IMAGE = random.Random(7).randbytes(SECTORS * 512 - 200)
PADDED = IMAGE.ljust(SECTORS * 512, b"\0")


def _bench(disk: Disk, ram: int = 1 << 20) -> Bench:
    return Bench(lambda memory, line: Block(0, memory, line, disk), ram)


class Client:
    """Sends requests and waits for their end."""

    def __init__(self, machine: Machine, features: int = 1 << F_FLUSH | 1 << F_INDIRECT) -> None:
        self.driver = Driver(machine, BASE)
        self.driver.start(features, [None])
        self.machine = machine
        self.queue = self.driver.queues[0]
        self.header = self.driver.room(16)
        self.table = self.driver.room(16 * 16)
        self.data = self.driver.room(0)

    def request(
        self, kind: int, sector: int = 0, data: bytes = b"", room: int = 0, cuts: int = 1
    ) -> tuple[int, bytes, int]:
        """(status, what the device wrote before it, bytes said to be written). `cuts`: in how many parts."""
        machine, queue = self.machine, self.queue
        machine.store(self.header, struct.pack("<IIQ", kind, 0, sector))
        machine.store(self.data, data + b"\xee" * (room + 1))
        moved = len(data) or room
        edges = sorted({0, moved, *(moved * number // cuts for number in range(1, cuts))})
        parts = [(self.data + begin, end - begin, not data) for begin, end in pairwise(edges)]
        status = self.data + len(data) + room
        buffer = [(self.header, 16, False), *parts, (status, 1, True)]
        head = queue.offer(buffer, self.table if cuts > 1 else None)
        self.driver.kick()
        for _ in range(100_000):  # QEMU's disk takes its time
            done = queue.collect()
            if done:
                break
        assert [returned for returned, _ in done] == [head]
        queue.recycle(head, len(buffer), cuts > 1)
        self.driver.acknowledge()
        return machine.load(status, 1)[0], machine.load(self.data, room) if room else b"", done[0][1]


def _range(sector: int, count: int, flags: int = 0) -> bytes:
    return struct.pack("<QII", sector, count, flags)


#: (type, sector, data, room, parts)
SCRIPT: list[tuple[int, int, bytes, int, int]] = [
    (IN, 0, b"", 512, 1), (IN, 1, b"", 4096, 4), (IN, 299, b"", 512, 1), (IN, 7, b"", 8192, 3),
    (IN, 299, b"", 1024, 1), (IN, 300, b"", 512, 1), (IN, 1 << 55, b"", 512, 1), (IN, (1 << 64) - 1, b"", 512, 1),
    (OUT, 3, b"a" * 512, 0, 1), (IN, 0, b"", 4096, 1), (OUT, 15, b"b" * 1024, 0, 2), (IN, 8, b"", 8192, 1),
    (OUT, 299, b"c" * 512, 0, 1), (IN, 299, b"", 512, 1), (OUT, 299, b"d" * 1024, 0, 1), (IN, 298, b"", 1024, 1),
    (OUT, 300, b"d" * 512, 0, 1), (OUT, 8, bytes(8192), 0, 1), (IN, 0, b"", 16384, 1),
    (OUT, 0, b"e" * 100, 0, 1), (IN, 0, b"", 100, 1), (IN, 0, b"", 512, 1),
    (FLUSH, 0, b"", 0, 1), (GET_ID, 0, b"", 9, 1), (6, 0, b"", 0, 1), (99, 0, b"", 512, 1),
    (WRITE_ZEROES, 0, _range(1, 30), 0, 1), (IN, 0, b"", 32768, 1),
    (WRITE_ZEROES, 0, _range(290, 11), 0, 1), (WRITE_ZEROES, 0, _range(0, 1, 2), 0, 1),
    (DISCARD, 0, _range(64, 8, 1), 0, 1), (DISCARD, 0, _range(64, 300), 0, 1),
]  # fmt: skip


def test_every_request_ends_as_on_qemu(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(PADDED)
    options = (
        "-global", "virtio-mmio.force-legacy=false", "-drive", f"file={image},format=raw,if=none,id=disk",
        "-device", "virtio-blk-device,drive=disk,serial=ringside,bus=virtio-mmio-bus.0",
    )  # fmt: skip
    features = 1 << F_FLUSH | 1 << F_INDIRECT | 1 << F_DISCARD | 1 << F_WRITE_ZEROES
    ours = Client(_bench(Disk(IMAGE)), features)
    with Qtest(options=options) as qemu:
        theirs = Client(qemu, features)
        assert ours.driver.config(0, 8) == theirs.driver.config(0, 8) == SECTORS
        assert ours.driver.config(20, 4) == theirs.driver.config(20, 4) == 512
        for step, (kind, sector, data, room, cuts) in enumerate(SCRIPT):
            mine = ours.request(kind, sector, data, room, cuts)
            their = theirs.request(kind, sector, data, room, cuts)
            assert mine[:2] == their[:2], f"step {step}: {kind} at {sector}"


def test_the_configuration_is_as_laid_out() -> None:
    driver = Driver(_bench(Disk(IMAGE)), BASE)
    size_max, seg_max = driver.config(8, 4), driver.config(12, 4)
    assert size_max * seg_max == MAX_BYTES
    assert seg_max + 2 == 64, "a request fits into the queue"
    assert [driver.config(36 + 4 * field, 4) for field in range(5)] == [
        MAX_ZEROED_SECTORS, 1, CLUSTER // 512, MAX_ZEROED_SECTORS, 1,
    ]  # fmt: skip
    assert driver.config(56, 1) == 1


def test_a_read_only_disk_takes_no_writes() -> None:
    client = Client(_bench(Disk(IMAGE, read_only=True)))
    features = client.driver.features()
    assert features >> F_RO & 1
    assert not features >> F_DISCARD & 1
    assert client.request(OUT, 0, bytes(512))[0] == IOERR
    assert client.request(WRITE_ZEROES, 0, _range(0, 1))[0] == IOERR
    assert client.request(IN, 0, room=512) == (OK, IMAGE[:512], 513)
    assert client.request(FLUSH)[0] == OK


def test_lengths_say_what_was_written() -> None:
    client = Client(_bench(Disk(IMAGE)))
    assert client.request(OUT, 0, bytes(512))[2] == 1
    assert client.request(IN, 5000, room=512)[2] == 0
    assert client.request(GET_ID, room=20) == (OK, b"ringside".ljust(20, b"\0"), 21)
    assert client.request(GET_ID, room=8) == (OK, b"ringside", 9)


def test_requests_over_the_limits_are_errors() -> None:
    client = Client(_bench(Disk(bytes(4 << 20)), ram=4 << 20))
    assert client.request(IN, 0, room=MAX_BYTES)[0] == OK
    assert client.request(IN, 0, room=MAX_BYTES + 512)[0] == IOERR
    assert client.request(OUT, 0, b"x" * MAX_BYTES)[0] == OK
    assert client.request(WRITE_ZEROES, 0, _range(0, MAX_ZEROED_SECTORS))[0] == OK
    assert client.request(WRITE_ZEROES, 0, _range(0, MAX_ZEROED_SECTORS + 1))[0] == IOERR
    client.queue.offer([(client.data, 16 + MAX_BYTES + 1, False), (client.data, 1, True)])
    client.driver.kick()
    assert client.driver.status & NEEDS_RESET


@pytest.mark.parametrize("parts", [[(16, True)], [(15, False), (1, True)], [(16, False)]])
def test_a_request_without_header_or_status_needs_a_reset(parts: list[tuple[int, bool]]) -> None:
    client = Client(_bench(Disk(IMAGE)))
    client.queue.offer([(client.data, length, writes) for length, writes in parts])
    client.driver.kick()
    assert client.driver.status & NEEDS_RESET


def test_writes_lie_over_an_image_that_stays_as_it_is() -> None:
    one, other = Disk(IMAGE), Disk(memoryview(IMAGE))
    Client(_bench(one)).request(OUT, 9, b"mine" * 128)
    Client(_bench(other)).request(OUT, 200, b"also" * 128)
    assert sorted(one.overlay) == [1]
    assert sorted(other.overlay) == [25]
    assert one.image is IMAGE
    assert Client(_bench(other)).request(IN, 0, room=512)[1] == IMAGE[:512]
    assert Client(_bench(one)).request(IN, 9, room=512)[1] == b"mine" * 128


@pytest.mark.parametrize("seed", range(8))
def test_a_disk_is_what_was_written_to_it(seed: int) -> None:
    dice = random.Random(seed)
    disk, model = Disk(IMAGE), bytearray(PADDED)
    snapshots = []
    for _ in range(60):
        sector = dice.randrange(SECTORS)
        count = min(dice.choice((1, 2, 8, 9, 40)), SECTORS - sector)
        data = dice.choice((dice.randbytes(count * 512), bytes(count * 512)))
        if dice.random() < 0.3:
            snapshots.append((disk.save(), bytes(model)))
        disk.write(sector, data)
        model[sector * 512 : (sector + count) * 512] = data
        assert disk.read(0, len(model)) == model
    for overlay, content in snapshots:
        disk.load(msgpack.unpackb(msgpack.packb(overlay), strict_map_key=False))
        assert disk.read(0, len(content)) == content


def test_snapshots_share_an_overlay_that_does_not_change() -> None:
    disk = Disk(IMAGE)
    disk.write(0, bytes(512))
    first = disk.save()
    assert disk.save() is first
    disk.write(8, bytes(512))
    second = disk.save()
    assert second is not first
    assert second[0] is first[0]


def test_a_snapshot_of_another_disk_is_refused() -> None:
    disk = Disk(IMAGE)
    for overlay in ({38: bytes(4096)}, {-1: bytes(4096)}, {0: bytes(4095)}, {0: [0] * 4096}):
        with pytest.raises(ValueError, match="on a disk of 38 clusters"):
            disk.load(overlay)  # type: ignore[arg-type]


def test_an_empty_image_is_a_disk_without_sectors() -> None:
    client = Client(_bench(Disk(b"")))
    assert client.driver.config(0, 8) == 0
    assert client.request(IN, 0, room=512)[0] == IOERR


def test_a_request_costs_few_memory_accesses() -> None:
    bench = _bench(Disk(IMAGE))
    client = Client(bench, 1 << F_INDIRECT | 1 << F_EVENT_IDX)
    bench.ram.accesses = bench.ram.moved = 0
    assert client.request(IN, 0, room=65536, cuts=8)[0] == OK
    assert bench.ram.accesses < 40
    assert bench.ram.moved < 65536 + 400


def test_nothing_is_read_without_a_driver() -> None:
    bench = _bench(Disk(IMAGE))
    client = Client(bench)
    client.driver.set(0x70, 0)
    before = bytes(bench.ram.content)
    client.queue.offer([(RAM + 0x9000, 16, False), (RAM + 0x9010, 513, True)])
    after = bytes(bench.ram.content)
    client.driver.kick()
    assert bytes(bench.ram.content) == after != before
    assert not client.driver.status & DRIVER_OK
