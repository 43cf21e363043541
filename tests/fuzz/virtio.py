"""Hostile drivers against the virtio devices: `python -m tests.fuzz.virtio --count 1000 --seed 0`.

A case is a device on a bench with a small RAM, and a driver that knows the specification and breaks it: registers
written at random, rings with loops, jumps, wild lengths and addresses, buffers over the rings, resets in the middle.
The same goes to a twin that is replaced by its own snapshot again and again. Prints what broke and the seed of it.
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable, Generator, Iterator

import msgpack

from engine.devices import AccessFault
from engine.devices.virtio.block import MAX_BYTES, Block, Disk
from engine.devices.virtio.console import INPUT_BYTES, OUTPUT_BYTES, Console
from engine.devices.virtio.mmio import VirtioDevice
from engine.devices.virtio.net import FRAME_BYTES, Net, mac_address
from engine.devices.virtio.rng import MOST_BYTES, Rng
from tests.fuzz import asked
from tests.support.virtio_driver import DRIVER_OK, NEEDS_RESET, RAM, Bench, Driver, Ram

RAM_BYTES = 1 << 16
ACTIONS = 120
DISK = bytes(range(256)) * 200
SetLine = Callable[[bool], None]

#: name -> (the device, the most bytes that it may move for one buffer, the most bytes of its snapshot)
DEVICES: dict[str, tuple[Callable[[Ram, SetLine], VirtioDevice], int, int]] = {
    "block": (lambda ram, line: Block(0, ram, line, Disk(DISK)), MAX_BYTES + 64, 2 * len(DISK)),
    "read-only block": (lambda ram, line: Block(0, ram, line, Disk(DISK, read_only=True)), MAX_BYTES + 64, 4096),
    "console": (lambda ram, line: Console(0, ram, line, _swallow), OUTPUT_BYTES, INPUT_BYTES + 4096),
    "rng": (lambda ram, line: Rng(0, ram, line, b"key"), MOST_BYTES, 4096),
    "net": (lambda ram, line: Net(0, ram, line, mac_address(1), _swallow), FRAME_BYTES + 64, 4096),
}
_NUMBERS = (0, 1, 2, 3, 7, 8, 11, 15, 16, 64, 255, 0x7FFF, 0xFFFF, 0x10000, 1 << 31, (1 << 32) - 1)
_OFFSETS = (*range(0, 0x110, 4), 0x1FC, 0x200, 0xFFC)
#: (length, flags) of the parts of well-formed buffers: two disk requests, for what arrives, for what is sent.
_BUFFERS = [[(16, 0), (512, 0), (1, 2)], [(16, 0), (512, 2), (1, 2)], [(64, 2)], [(1600, 2)], [(90, 0)]]

#: What a driver does: a name and its numbers.
Action = tuple[str, tuple[int, ...]]


class BrokenError(AssertionError):
    """An invariant does not hold."""


def _swallow(_data: bytes) -> None:
    """Where prints and frames go."""


class _Side:
    """A device, its RAM and a driver that carries out actions."""

    def __init__(self, name: str) -> None:
        self.make, self.most_bytes, self.snapshot_bytes = DEVICES[name]
        self.bench = Bench(self.make, RAM_BYTES)
        self.driver = Driver(self.bench, self.bench.device.base)

    @property
    def device(self) -> VirtioDevice:
        assert isinstance(self.bench.device, VirtioDevice)
        return self.bench.device

    def replace(self) -> None:
        """Go on with a new device that has the old one's snapshot."""
        content = msgpack.packb(self.device.save())
        self.check(len(content) <= self.snapshot_bytes, f"a snapshot of {len(content)} bytes")
        fresh = self.make(self.bench.ram, self.bench._set_line)
        fresh.load(msgpack.unpackb(content, strict_map_key=False))
        self.bench.device = fresh

    def do(self, action: Action) -> object:
        """What could be seen of it."""
        ram, device = self.bench.ram, self.device
        ram.accesses = ram.moved = 0
        silent = not device.live
        before = bytes(ram.content) if silent else b""
        answer = self._act(action)
        if silent and not device.live and action[0] in ("read", "write", "type", "arrive"):
            self.check(ram.content == before, "a device without DRIVER_OK wrote to RAM")
        longest = max(queue.maximum for queue in device.queues)
        self.check(ram.accesses <= longest * (2 * longest + 8) + 8, f"{ram.accesses} accesses to RAM")
        self.check(ram.moved <= longest * (self.most_bytes + 16 * longest + 32), f"{ram.moved} bytes moved")
        self.check(self.bench.line == (self.driver.get(0x60) != 0), "the line is not the interrupt status")
        self.check(not self.driver.status & 0x30, "a reserved status bit is set")
        return answer

    def _act(self, action: Action) -> object:
        kind, numbers = action
        match kind:
            case "read" | "write":
                return self._register(kind, *numbers)
            case "start":
                return self._start(*numbers)
            case "store":
                address, seed, length = numbers
                self.bench.store(address, random.Random(seed).randbytes(length)[: RAM + RAM_BYTES - address])
            case "word":
                address, value = numbers
                self.bench.store(address, struct.pack("<H", value)[: RAM + RAM_BYTES - address])
            case "type":
                if isinstance(self.device, Console):
                    return self.device.receive(b"k" * numbers[0])
            case "arrive":
                if isinstance(self.device, Net):
                    self.device.receive([bytes(14 + length % FRAME_BYTES) for length in numbers])
        return None

    def _register(self, kind: str, offset: int, size: int, value: int) -> object:
        try:
            if kind == "read":
                return self.device.read(offset, size)
            self.device.write(offset, size, value & (1 << 8 * size) - 1)
        except AccessFault:
            return "fault"
        return None

    def _start(self, features: int, size: int) -> bool:
        """As a driver does it, if the device agrees."""
        driver = self.driver
        driver.memory = RAM
        if not driver.negotiate(features):
            return False
        for index in range(len(self.device.queues)):
            driver.add_queue(index, size)
        driver.set(0x70, 11 | DRIVER_OK)
        return True

    @staticmethod
    def check(holds: bool, what: str) -> None:
        if not holds:
            raise BrokenError(what)


def _actions(dice: random.Random, deaf: Callable[[], bool]) -> Iterator[Action]:
    """Mostly what a driver may do, now and then what it may not. `deaf`: does the device wait for a reset?"""
    size = dice.choice((1, 2, 4, 8))
    features = 1 << 32 | dice.choice((0, 1 << 28, 1 << 29, 3 << 28))
    layout = _layout(size)
    available = [0, 0]
    yield "start", (features, size)
    for _ in range(ACTIONS):
        if deaf() and dice.random() < 0.5:
            available = [0, 0]
            yield "start", (features, size)
        queue = dice.randrange(2)
        descriptors, ring, _ = layout[queue]
        match dice.randrange(15):
            case 0 | 1 | 2 | 3 | 4 | 5:
                head = yield from _offer(dice, descriptors, size, features)
                yield "word", (ring + 4 + 2 * (available[queue] % size), head)
                available[queue] = (available[queue] + 1) & 0xFFFF
                yield "word", (ring + 2, available[queue])
                yield "write", (0x50, 4, queue)
            case 6:
                yield "write", (0x50, 4, dice.choice((0, 1, 2)))
                yield "write", (0x64, 4, dice.choice((1, 2, 3)))
            case 7:
                yield "word", (ring + 2, dice.choice(_NUMBERS) & 0xFFFF)
            case 8:
                yield "word", (ring + 4 + 2 * dice.randrange(size), dice.choice(_NUMBERS) & 0xFFFF)
            case 9:
                yield "store", (RAM + dice.randrange(layout[1][2]), dice.getrandbits(32), dice.randrange(1, 64))
            case 10:
                yield "write", (dice.choice(_OFFSETS), dice.choice((1, 2, 4, 4, 4, 8)), dice.choice(_NUMBERS))
            case 11:
                yield "read", (dice.randrange(0x220), dice.choice((1, 2, 4, 8)), 0)
            case 12:
                yield "type", (dice.choice((1, 40, 5000)),)
                yield "arrive", tuple(dice.randrange(2000) for _ in range(dice.randrange(4)))
            case 13:
                area = dice.choice((0x80, 0x90, 0xA0)) + dice.choice((0, 4))
                for offset, value in ((0x30, queue), (0x44, 0), (area, dice.choice((RAM, *_NUMBERS))), (0x44, 1)):
                    yield "write", (offset, 4, value)
            case 14:
                yield "write", (0x70, 4, dice.choice((0, 1, 3, 11, 15, 128, NEEDS_RESET)))


def _layout(size: int) -> list[tuple[int, int, int]]:
    """(descriptor table, available ring, end) of two queues as `Driver.add_queue` lays them out."""
    queues, base = [], RAM
    for _ in range(2):
        ring = base + 16 * size
        used = (ring + 6 + 2 * size + 3) & ~3
        end = (used + 6 + 8 * size + 15) & ~15
        queues.append((base, ring, end - RAM))
        base = end
    return queues


def _offer(dice: random.Random, descriptors: int, size: int, features: int) -> Generator[Action, None, int]:
    """A buffer in the table: a request's header, descriptors good and bad; returns the chain's head."""
    header = RAM + 0x8000 + 16 * dice.randrange(8)
    kind = dice.choice((0, 1, 4, 8, 11, 13, 99))
    yield "word", (header, kind)
    yield "word", (header + 2, 0)
    yield "word", (header + 8, dice.choice((0, 1, 50, 98, 99, 0xFFFF)))
    yield "word", (header + 10, 0)
    yield "word", (header + 12, dice.choice((0, 0, 0xFFFF)))
    table, count = descriptors, size
    if dice.random() < 0.8:
        parts = dice.choice(_BUFFERS)[-size:]
        for number, (length, flags) in enumerate(parts):
            address = header if flags == 0 and length == 16 else RAM + 0x6000 + 512 * dice.randrange(8)
            more = number < len(parts) - 1
            yield from _describe(table + 16 * number, address, length, flags | more, number + 1)
        return 0
    if features >> 28 & 1 and dice.random() < 0.3:
        head, table, count = dice.randrange(size), RAM + 0x4000, dice.choice((1, 3, 20, 70, 300))
        length = 16 * count + dice.choice((0, 0, 0, 8))
        yield from _describe(descriptors + 16 * head, table, length, 4 | dice.choice((0, 0, 0, 1, 2)), 0)
    for number in range(min(count, 12)):
        address = dice.choice((header, header, RAM + dice.randrange(RAM_BYTES), RAM - 4, RAM + RAM_BYTES - 8, 1 << 63))
        length = dice.choice((0, 1, 16, 16, 17, 512, 512, 4096, RAM_BYTES, (1 << 32) - 1))
        flags = dice.choice((0, 1, 1, 1, 2, 2, 3, 3, dice.randrange(8)))
        following = dice.choice((number + 1, number + 1, number + 1, dice.randrange(count + 1), 0xFFFF))
        yield from _describe(table + 16 * number, address, length, flags, following)
    return dice.randrange(size)


def _describe(at: int, address: int, length: int, flags: int, following: int) -> Iterator[Action]:
    words = struct.unpack("<8H", struct.pack("<QIHH", address & (1 << 64) - 1, length, flags, following))
    for number, word in enumerate(words):
        yield "word", (at + 2 * number, word)


def run(seed: int) -> int:
    """One case; raises BrokenError. Returns how many buffers came back."""
    dice = random.Random(seed)
    name = dice.choice(sorted(DEVICES))
    one, twin = _Side(name), _Side(name)
    returned = 0
    for step, action in enumerate(_actions(dice, lambda: not one.device.live)):
        try:
            given = [queue.given for queue in one.device.queues]
            seen = one.do(action)
            returned += sum(old != queue.given for old, queue in zip(given, one.device.queues, strict=True))
            one.check(twin.do(action) == seen and twin.bench.line == one.bench.line, "the twin answered otherwise")
            if dice.random() < 0.05:
                twin.replace()
        except Exception as error:
            raise BrokenError(f"seed {seed}, {name}, step {step}, {action}: {type(error).__name__}: {error}") from error
    if one.bench.ram.content != twin.bench.ram.content or one.device.save() != twin.device.save():
        raise BrokenError(f"seed {seed}, {name}: the twin is in another state at the end")
    return returned


def main() -> int:
    """The exit status is 1 when something broke."""
    count, first = asked("virtio", __doc__, 1000, 0)
    broken = returned = 0
    for seed in range(first, first + count):
        try:
            returned += run(seed)
        except BrokenError as error:
            broken += 1
            sys.stdout.write(f"{error}\n")
    sys.stdout.write(f"{count} cases, {returned} notifications gave buffers back, {broken} broke\n")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
