"""virtio devices inside guests of both kinds: what is fitted, what survives a reboot, and that whatever caches memory
sees DMA."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from engine.devices.virtio.net import mac_address
from engine.hypervisor.guest import Guest
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.isa.assembler import assemble
from engine.machine.loader import inspect
from engine.trace.rings import Trace
from tests.support.virtio_driver import RAM, Driver

STACKS = ("bare-metal", "trap-and-emulate")
BLOCK, NET, RNG, CONSOLE = (0x10001000 + 0x1000 * slot for slot in range(4))
UART = 0x10000000
MIB = 1 << 20
#: Where the test's driver keeps its queues, above anything that the guests use.
QUEUES = RAM + 3 * MIB

IDLE = "_start: wfi\n j _start\n"

#: Prints what a routine gives, for ever.
CALLER = """
_start:
    li s0, 0x10000000
again:
    call routine
    sb a0, 0(s0)
    fence.i
    j again
.align 12
routine:
    li a0, 'a'
    ret
"""

#: Prints the first byte of the page at virtual address 0x1000, for ever.
READER = """
_start:
    la t0, root
    la t1, middle
    la t2, leaves
    srli t3, t1, 2
    ori t3, t3, 1
    sd t3, 0(t0)
    srli t3, t2, 2
    ori t3, t3, 1
    sd t3, 0(t1)
    la t3, first
    srli t3, t3, 2
    ori t3, t3, 0xc7
    sd t3, 8(t2)
    li t3, 0x200000cf               # a gigapage at 0x80000000, onto itself
    sd t3, 16(t0)
    li t3, 0x40000c7
    sd t3, 0(t2)                    # the UART at virtual address 0
    srli t0, t0, 12
    li t1, 8
    slli t1, t1, 60
    or t0, t0, t1
    csrw satp, t0
    sfence.vma
    li s1, 0x1000
again:
    lbu a0, 0(s1)
    sb a0, 0(zero)
    sfence.vma
    j again
.data
.align 12
root: .zero 4096
middle: .zero 4096
leaves: .zero 4096
first: .byte 'a'
.align 12
second: .byte 'b'
"""


class Machine:
    """A guest alone on a host, and the test as its driver: registers and RAM of its board."""

    def __init__(self, stack: str, source: str, disk: bytes | None = None) -> None:
        self.shown = bytearray()
        self.sent: list[bytes] = []
        configuration = Configuration.parse(stack)
        self.host = Host(1, 1, 64, configuration, Trace(), self._print, lambda _guest, frame: self.sent.append(frame))
        self.program = assemble(source)
        image = dataclasses.replace(inspect(self.program.elf(), "guest"), disk=disk)
        self.host.add_guest(7, image, 1, 4, "")
        self.host.run(2000)

    def _print(self, _guest: int, data: bytes) -> None:
        self.shown.extend(data)

    @property
    def guest(self) -> Guest:
        return self.host.guests[7]

    def read(self, address: int, size: int) -> int:
        return self.guest.board.devices.read(address, size)

    def write(self, address: int, size: int, value: int) -> None:
        self.guest.board.devices.write(address, size, value)

    def load(self, address: int, length: int) -> bytes:
        return self.guest.board.ram.read(address, length)

    def store(self, address: int, data: bytes) -> None:
        self.guest.board.ram.write(address, data)

    def run(self, steps: int) -> str:
        """What it prints meanwhile."""
        before = len(self.shown)
        self.host.run(steps)
        return self.shown[before:].decode()

    def driver(self, base: int, queues: int) -> Driver:
        driver = Driver(self, base, QUEUES)
        driver.start(0, [8] * queues)
        return driver

    def block(self, kind: int, sector: int, address: int, length: int) -> int:
        """A disk request whose data are at `address`; its status."""
        driver = self.driver(BLOCK, 1)
        header, status = driver.room(16), driver.room(1)
        self.store(header, struct.pack("<IIQ", kind, 0, sector))
        driver.queues[0].offer([(header, 16, False), (address, length, kind == 0), (status, 1, True)])
        driver.kick()
        assert len(driver.queues[0].collect()) == 1
        return self.load(status, 1)[0]


def _code(text: str) -> bytes:
    program = assemble(f"_start:\n{text}\n")
    return inspect(program.elf(), "code").segments[0].data[:8]


@pytest.mark.parametrize("stack", STACKS)
def test_every_board_has_a_card_random_numbers_and_a_console_and_some_a_disk(stack: str) -> None:
    machine = Machine(stack, IDLE)
    balloon = 0 if stack == "bare-metal" else 5  # whose memory is nobody else's has nobody to give it to
    assert [machine.read(0x10001008 + 0x1000 * slot, 4) for slot in range(8)] == [0, 1, 4, 3, balloon, 0, 0, 0]
    assert bytes(machine.read(NET + 0x100 + at, 1) for at in range(6)) == mac_address(7)
    machine = Machine(stack, IDLE, disk=bytes(1024))
    assert machine.read(BLOCK + 8, 4) == 2
    assert machine.read(BLOCK + 0x100, 8) == 2


@pytest.mark.parametrize("stack", STACKS)
def test_code_that_a_disk_puts_into_memory_is_executed(stack: str) -> None:
    machine = Machine(stack, CALLER, disk=_code("li a0, 'b'\nret").ljust(512, b"\0") * 8)
    assert set(machine.run(2000)) == {"a"}
    assert machine.block(0, 0, machine.program.symbols["routine"], 4096) == 0
    assert set(machine.run(2000)[2:]) == {"b"}


@pytest.mark.parametrize("stack", STACKS)
def test_page_tables_that_a_disk_puts_into_memory_are_walked(stack: str) -> None:
    machine = Machine(stack, READER, disk=bytes(4096))
    symbols = machine.program.symbols
    assert set(machine.run(2000)) == {"a"}
    entry = struct.pack("<QQ", 0x40000C7, symbols["second"] >> 2 | 0xC7)
    scratch = RAM + 2 * MIB + 0x80000
    machine.store(scratch, entry.ljust(512, b"\0"))
    assert machine.block(1, 3, scratch, 512) == 0
    assert machine.block(0, 3, symbols["leaves"], 512) == 0
    assert set(machine.run(2000)[2:]) == {"b"}


@pytest.mark.parametrize("stack", STACKS)
def test_a_disk_keeps_what_was_written_over_reboots(stack: str) -> None:
    image = b"i" * 8192
    machine = Machine(stack, IDLE, disk=image)
    scratch = RAM + 2 * MIB + 0x80000
    machine.store(scratch, b"w" * 512)
    assert machine.block(1, 9, scratch, 512) == 0
    for action in ("reset", "off", "on"):
        machine.host.power(7, action)
    machine.host.run(100)
    assert machine.read(BLOCK + 0x70, 4) == 0, "its driver starts anew"
    assert machine.block(0, 8, scratch, 1024) == 0
    assert machine.load(scratch, 1024) == b"i" * 512 + b"w" * 512
    state = machine.host.save()
    other = Machine(stack, IDLE, disk=image)
    other.host.load(state)
    assert other.block(0, 9, scratch, 512) == 0
    assert other.load(scratch, 512) == b"w" * 512
    moved = Machine(stack, IDLE, disk=image)
    moved.host.remove_guest(7)
    moved.host.import_guest(7, machine.guest.image, machine.host.export_guest(7))
    assert moved.block(0, 9, scratch, 512) == 0
    assert moved.load(scratch, 512) == b"w" * 512


@pytest.mark.parametrize("stack", STACKS)
def test_typing_goes_to_the_console_that_spoke_last(stack: str) -> None:
    machine = Machine(stack, IDLE)
    board = machine.guest.board
    driver = machine.driver(CONSOLE, 2)
    typed, printed = driver.room(16), driver.room(16)
    driver.queues[0].offer([(typed, 16, True)])
    driver.kick(0)
    machine.guest.receive(b"login")
    assert board.uart.take(16) == b"login", "a driver that has said nothing is not listened to"
    machine.store(printed, b"hvc0 # ")
    driver.queues[1].offer([(printed, 7, False)])
    driver.kick(1)
    state = machine.host.save()
    machine.guest.receive(b"ls")
    assert machine.load(typed, 3) == b"ls\0"
    machine.write(UART, 1, ord("$"))
    machine.guest.receive(b"pwd")
    assert board.uart.take(16) == b"pwd"
    assert machine.shown == b"hvc0 # $"
    machine.host.load(state)
    machine.guest.receive(b"id")
    assert machine.load(typed, 3) == b"id\0"
    machine.host.power(7, "reset")
    machine.guest.receive(b"again")
    assert machine.guest.board.uart.take(16) == b"again"


@pytest.mark.parametrize("stack", STACKS)
def test_frames_leave_the_host(stack: str) -> None:
    machine = Machine(stack, IDLE)
    driver = machine.driver(NET, 2)
    at = driver.room(12 + 20)
    machine.store(at, bytes(12) + b"f" * 20)
    driver.queues[1].offer([(at, 32, False)])
    driver.kick(1)
    assert machine.sent == [b"f" * 20]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("address", [0, 0x10001000, RAM - 8, RAM + 4 * MIB - 8, (1 << 64) - 8])
def test_no_device_reaches_beyond_its_guest_s_ram(stack: str, address: int) -> None:
    machine = Machine(stack, IDLE)
    before = machine.host.memory.save()
    driver = machine.driver(RNG, 1)
    middle = machine.host.memory.save()
    queue = driver.queues[0]
    queue.offer([(address, 16, True)])
    driver.kick()
    assert driver.status & 0x40
    after = machine.host.memory.save()
    rings = {page for page in after if after[page] != middle.get(page)}
    assert len(rings) <= 1, "only the page of the queue itself, which the test wrote"
    assert before.keys() <= after.keys()
