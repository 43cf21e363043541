"""virtio-balloon, driven from guest memory as section 5.5 of the specification has it."""

from __future__ import annotations

import struct

from engine.devices.virtio.balloon import DEFLATE, INFLATE, MOST_PAGES, Balloon
from tests.support.virtio_driver import NEEDS_RESET, RAM, Bench, Driver

BASE = 0x10001000
CONFIG_CHANGED = 2


class Inflatable:
    def __init__(self) -> None:
        self.given: list[int] = []
        self.back: list[int] = []
        self.bench = Bench(lambda ram, line: Balloon(0, ram, line, self.given.extend, self.back.extend))
        self.driver = Driver(self.bench, BASE)

    def start(self) -> None:
        self.driver.start(0, [None, None])

    @property
    def device(self) -> Balloon:
        assert isinstance(self.bench.device, Balloon)
        return self.bench.device

    def tell(self, queue: int, content: bytes) -> None:
        at = self.driver.room(len(content))
        self.bench.store(at, content)
        self.driver.queues[queue].offer([(at, len(content), False)])
        self.driver.kick(queue)


def test_the_driver_hears_how_much_and_says_which() -> None:
    it = Inflatable()
    it.start()
    assert it.driver.get(0x8) == 5
    assert it.driver.config(0, 4) == it.driver.config(4, 4) == 0
    generation = it.driver.get(0xFC)
    it.device.ask(300, 0)
    assert it.bench.line
    assert it.driver.acknowledge() == CONFIG_CHANGED
    assert it.driver.get(0xFC) != generation
    assert it.driver.config(0, 4) == 300
    pages = [RAM >> 12, 0, 0xFFFFFFFF]
    it.tell(INFLATE, struct.pack("<3I", *pages))
    assert it.given == pages
    assert len(it.driver.queues[INFLATE].collect()) == 1
    it.driver.set(0x104, 3)
    assert (it.device.actual, it.driver.config(4, 4)) == (3, 3)
    it.tell(DEFLATE, struct.pack("<I", pages[0]))
    assert it.back == pages[:1]


def test_the_larger_wish_counts_and_what_does_not_change_it_is_no_interrupt() -> None:
    it = Inflatable()
    it.device.ask(5, 9)
    assert not it.bench.line  # nobody listens yet
    it.start()
    assert it.driver.config(0, 4) == 9
    it.device.ask(7, 9)
    assert not it.bench.line
    it.device.ask(7, 0)
    assert it.bench.line
    assert it.driver.config(0, 4) == 7
    it.driver.acknowledge()
    it.device.remind()
    assert it.bench.line


def test_what_the_driver_may_not_write_stays() -> None:
    it = Inflatable()
    it.start()
    it.device.ask(7, 0)
    it.driver.set(0x100, 1000)
    it.bench.write(BASE + 0x104, 2, 9)
    it.bench.write(BASE + 0x100, 8, 9 << 32)
    assert (it.driver.config(0, 4), it.driver.config(4, 4)) == (7, 0)


def test_too_many_pages_at_once_stop_the_device() -> None:
    it = Inflatable()
    it.start()
    it.tell(INFLATE, bytes(4 * MOST_PAGES + 4))
    assert it.driver.status & NEEDS_RESET
    assert it.given == []
    it.driver.queues.clear()
    it.start()
    it.tell(INFLATE, b"\1\0\0\0\2\0")  # a page and a half
    assert it.given == [1]


def test_a_snapshot_and_a_reset() -> None:
    it, other = Inflatable(), Inflatable()
    it.start()
    it.device.ask(40, 50)
    it.driver.set(0x104, 20)
    other.device.load(it.device.save())
    assert other.device.save() == it.device.save()
    assert (other.device.target, other.device.config) == (50, it.device.config)
    it.driver.set(0x70, 0)
    assert (it.device.target, it.device.actual) == (50, 0)
