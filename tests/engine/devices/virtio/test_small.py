"""virtio-console, virtio-rng and virtio-net, each driven from guest memory."""

from __future__ import annotations

import hashlib

import msgpack
import pytest

from engine.devices.virtio.console import INPUT_BYTES, OUTPUT_BYTES, Console
from engine.devices.virtio.net import FRAME_BYTES, Net, mac_address
from engine.devices.virtio.rng import MOST_BYTES, Rng
from tests.support.virtio_driver import NEEDS_RESET, Bench, Driver

BASE = 0x10001000
MAC = mac_address(0x1234)


class Terminal:
    def __init__(self) -> None:
        self.shown = bytearray()
        self.bench = Bench(lambda ram, line: Console(0, ram, line, self.shown.extend))
        self.driver = Driver(self.bench, BASE)
        self.driver.start(0, [None, None])
        self.receive, self.transmit = self.driver.queues

    @property
    def device(self) -> Console:
        assert isinstance(self.bench.device, Console)
        return self.bench.device

    def offer(self, size: int) -> int:
        at = self.driver.room(size)
        self.receive.offer([(at, size, True)])
        self.driver.kick(0)
        return at


def test_a_console_prints() -> None:
    terminal = Terminal()
    at = terminal.driver.room(12)
    terminal.bench.store(at, b"hello, world")
    head = terminal.transmit.offer([(at, 5, False), (at + 5, 7, False)])
    terminal.driver.kick(1)
    assert terminal.shown == b"hello, world"
    assert terminal.transmit.collect() == [(head, 0)]
    assert terminal.bench.line


def test_what_is_typed_waits_for_buffers() -> None:
    terminal = Terminal()
    assert terminal.device.receive(b"abcdef") == 6
    assert not terminal.bench.line
    first = terminal.offer(4)
    assert terminal.bench.load(first, 4) == b"abcd"
    second = terminal.offer(4)
    assert [written for _, written in terminal.receive.collect()] == [4, 2]
    assert terminal.bench.load(second, 2) == b"ef"
    third = terminal.offer(4)
    assert terminal.receive.collect() == []
    terminal.driver.acknowledge()
    terminal.device.receive(b"g")
    assert terminal.bench.line
    assert [written for _, written in terminal.receive.collect()] == [1]
    assert terminal.bench.load(third, 1) == b"g"


def test_typing_is_bounded_and_survives_a_snapshot() -> None:
    terminal, other = Terminal(), Terminal()
    assert terminal.device.receive(b"x" * 5000) == INPUT_BYTES
    assert terminal.device.receive(b"x") == 0
    other.device.load(msgpack.unpackb(msgpack.packb(terminal.device.save())))
    at = other.offer(INPUT_BYTES + 10)
    assert other.bench.load(at, INPUT_BYTES + 1) == b"x" * INPUT_BYTES + b"\0"
    terminal.driver.set(0x70, 0)
    terminal.driver.start(0, [None, None])
    terminal.receive = terminal.driver.queues[2]
    terminal.offer(8)
    assert terminal.receive.collect() == [], "a reset forgets what was typed"


def test_a_console_takes_no_endless_text() -> None:
    terminal = Terminal()
    at = terminal.driver.room(OUTPUT_BYTES)
    terminal.transmit.offer([(at, OUTPUT_BYTES, False)])
    terminal.driver.kick(1)
    assert len(terminal.shown) == OUTPUT_BYTES
    terminal.transmit.offer([(at, OUTPUT_BYTES, False), (at, 1, False)])
    terminal.driver.kick(1)
    assert len(terminal.shown) == OUTPUT_BYTES
    assert terminal.driver.status & NEEDS_RESET


def _random(key: bytes, sizes: list[int], snapshot: bool = False) -> list[bytes]:
    bench = Bench(lambda ram, line: Rng(0, ram, line, key))
    driver = Driver(bench, BASE)
    driver.start(0, [None])
    at, got = driver.room(8192), []
    for size in sizes:
        if snapshot:
            assert isinstance(bench.device, Rng)
            state = bench.device.save()
            bench.device = Rng(0, bench.ram, bench._set_line, b"another key")
            bench.device.load(msgpack.unpackb(msgpack.packb(state)))
        driver.queues[0].recycle(driver.queues[0].offer([(at, size, True)]), 1)
        driver.kick()
        got += [bench.load(at, written) for _, written in driver.queues[0].collect()]
    return got


def test_random_bytes_are_those_that_the_docstring_says() -> None:
    first, second, third = _random(b"key", [32, 5, 33])

    def block(number: int) -> bytes:
        return hashlib.sha256(b"key" + number.to_bytes(8, "little")).digest()

    assert (first, second, third) == (block(0), block(1)[:5], block(2) + block(3)[:1])


def test_random_bytes_depend_on_the_key_and_on_nothing_else() -> None:
    sizes = [8, 64, 1, 100, 8192]
    drawn = _random(b"key", sizes)
    assert drawn == _random(b"key", sizes) == _random(b"key", sizes, snapshot=True)
    assert drawn != _random(b"yek", sizes)
    assert list(map(len, drawn)) == [8, 64, 1, 100, MOST_BYTES]


class Card:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.bench = Bench(lambda ram, line: Net(0, ram, line, MAC, self.sent.append))
        self.driver = Driver(self.bench, BASE)
        self.driver.start(0, [8, 8])
        self.receive, self.transmit = self.driver.queues

    @property
    def device(self) -> Net:
        assert isinstance(self.bench.device, Net)
        return self.bench.device

    def offer(self, *sizes: int) -> int:
        at = self.driver.room(sum(sizes))
        parts, place = [], at
        for size in sizes:
            parts.append((place, size, True))
            place += size
        self.receive.offer(parts)
        self.driver.kick(0)
        return at

    def send(self, packet: bytes) -> None:
        at = self.driver.room(len(packet))
        self.bench.store(at, packet)
        self.transmit.offer([(at, 12, False), (at + 12, len(packet) - 12, False)])
        self.driver.kick(1)


def test_a_card_has_an_address_and_a_link() -> None:
    card = Card()
    assert bytes(card.driver.config(offset, 1) for offset in range(6)) == MAC == b"\x02RS\0\x12\x34"
    assert MAC[0] & 3 == 2, "locally administered, not a group"
    assert card.driver.config(6, 2) == 1
    assert card.driver.config(10, 2) == 1500
    features = card.driver.features()
    assert [features >> bit & 1 for bit in (3, 5, 16, 17)] == [1, 1, 1, 0]


def test_frames_leave_without_their_header() -> None:
    card = Card()
    frame = bytes(range(14)) + b"payload"
    card.send(bytes(12) + frame)
    card.send(bytes(12) + b"y" * FRAME_BYTES)
    assert card.sent == [frame, b"y" * FRAME_BYTES]
    assert [written for _, written in card.transmit.collect()] == [0, 0]
    assert card.bench.line


@pytest.mark.parametrize("length", [12, 25, 12 + FRAME_BYTES + 1])
def test_what_is_no_frame_needs_a_reset(length: int) -> None:
    card = Card()
    card.send(bytes(length))
    assert card.sent == []
    assert card.driver.status & NEEDS_RESET


def test_frames_arrive_behind_a_header_with_one_interrupt() -> None:
    card = Card()
    first, second = card.offer(1526), card.offer(12, 3, 1511)
    card.device.receive([b"a" * 60, b"b" * 1514, b"lost" * 20])
    assert card.bench.edges == 1
    header = bytes(10) + b"\1\0"
    assert card.bench.load(first, 72) == header + b"a" * 60
    assert card.bench.load(second, 1526) == header + b"b" * 1514
    assert [written for _, written in card.receive.collect()] == [72, 1526]
    card.offer(1526)
    assert card.receive.collect() == [], "a lost frame is lost"


def test_a_frame_for_which_the_buffer_is_too_small_is_lost_and_the_buffer_is_not() -> None:
    card = Card()
    at = card.offer(100)
    card.device.receive([b"large" * 40, b"small" * 4])
    assert [written for _, written in card.receive.collect()] == [32]
    assert card.bench.load(at + 12, 20) == b"small" * 4


def test_frames_for_a_card_without_a_driver_are_lost() -> None:
    card = Card()
    card.offer(1526)
    card.driver.set(0x70, 0)
    card.device.receive([b"x" * 60])
    assert not card.bench.line
    assert card.receive.collect() == []


def test_a_card_keeps_its_address_in_a_snapshot() -> None:
    card = Card()
    moved = Net(0, card.bench.ram, lambda _level: None, mac_address(9), card.sent.append)
    moved.load(msgpack.unpackb(msgpack.packb(card.device.save())))
    assert bytes(moved.read(0x100 + offset, 1) for offset in range(6)) == MAC
    with pytest.raises(ValueError, match="configuration of 2 bytes"):
        moved.load({**card.device.save(), "config": b"no"})
