"""A paravirtual guest that attacks its hypervisor gets errors, or is ended; nobody else notices.

The attacker is a kernel of two instructions, `ecall` and a jump back to it. Before each `ecall` the test puts into its
registers and its memory what a hostile kernel would, drawn at random from what could hurt: table pages as data and data
as tables, entries that lead to other guests' frames, to the hypervisor's, to themselves and to nothing, batches in the
middle of tables, rings with impossible indices. After each call:

    confinement   the hart's tables lead to the guest's own frames, and let nobody write to a table
    integrity     no byte of host memory outside the attacker's frames and its tables has changed
    bookkeeping   references, reverse maps and taken frames say what the tables say, also after a save and a load
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from engine.bits import MASK64
from engine.devices.paravirtual import block
from engine.devices.paravirtual.console import INPUT, OUTPUT
from engine.devices.paravirtual.ring import GRANTS, READABLE, SLOTS, WRITABLE, Status
from engine.devices.virtio.net import mac_address
from engine.hypervisor import direct_tables
from engine.hypervisor.host import Host
from engine.hypervisor.hypercalls import BATCH_LIMIT, CALL, CALLS, EXTENSION, WORD, Device, Event, Number
from engine.hypervisor.paravirtual import Paravirtual
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.vm_guest import VmGuest
from engine.isa.assembler import assemble
from engine.machine import mmu, sbi
from engine.machine.domain import GRANTS_AT
from engine.machine.loader import RAM_BASE, LoadedImage, inspect
from engine.machine.memory import PAGE
from engine.machine.mmu import A, D, R, U, V, W, X
from engine.trace.record import Kind
from engine.trace.rings import Trace
from tests.support.machine import PARAVIRTUAL

A0, A1, A6, A7 = 10, 11, 16, 17
BASE = RAM_BASE >> 12
CODE = 0x80200000
SHARED = 0x80201000
MIB = 4
LAST = BASE + MIB * 256 - 1
#: Pages that the attacker uses for everything.
POOL = [0x80210 + index for index in range(24)]
HOST_ONLY = 0x5EC2_E75E_C2E7_0BAD.to_bytes(8, "little") * (PAGE // 8)


def image(source: str) -> LoadedImage:
    return replace(inspect(assemble(source).elf(), "attacker"), paravirtual=True)


class Puppet:
    """A paravirtual guest that makes the calls that a test asks for, on a host with another guest."""

    def __init__(self, host_mib: int = 32, disk: bytes | None = None) -> None:
        self.shown = bytearray()
        self.sent: list[bytes] = []
        paravirtual = Configuration.parse(PARAVIRTUAL)
        self.host = Host(
            1, 1, host_mib, paravirtual, Trace(),
            lambda _guest, data: self.shown.extend(data), lambda _guest, frame: self.sent.append(frame),
        )  # fmt: skip
        self.host.add_guest(2, image("_start: j _start"), 1, MIB, "")
        victim = self._guest(2)
        for page in range(BASE, LAST + 1):
            if page << 12 != CODE:
                victim.vm.ram.write(page << 12, HOST_ONLY)
        self.host.guests[2].power_off()
        for frame in range(self.host.frames.first):
            self.host.memory.write_bytes(frame * PAGE, HOST_ONLY)
        self.host.add_guest(1, replace(image("_start: ecall\nj _start"), disk=disk), 1, MIB, "")
        self.guest = self._guest(1)
        self.satp = 0

    def _guest(self, number: int) -> VmGuest:
        guest = self.host.guests[number]
        assert isinstance(guest, VmGuest)
        return guest

    @property
    def technique(self) -> Paravirtual:
        assert isinstance(self.guest.technique, Paravirtual)
        return self.guest.technique

    def call(self, number: int, a: int = 0, b: int = 0, extension: int = EXTENSION) -> tuple[int, int]:
        """(error, value)."""
        virtual = self.guest.vm.vcpus[0].virtual
        self.host.unload_guest(self.guest)
        virtual.pc, virtual.privilege, virtual.waiting = CODE, 1, False
        virtual.satp = self.satp  # whatever space it chose: it makes its next call from one that has its code
        if self.technique.domain.shared is not None:
            self.guest.vm.ram.write(self.technique.domain.shared + 8 * WORD["upcalls_off"], b"\1")
        virtual.x[A0], virtual.x[A1], virtual.x[A6], virtual.x[A7] = a & MASK64, b & MASK64, number & MASK64, extension
        calls = self.guest.exits
        for _ in range(8):  # the page with the code, and others on the way to it, may have to come first
            if self.guest.ended or (self.guest.exits > calls and self._last_kind() == Kind.HYPERCALL):
                break
            assert self.host.run(1) == 1
        error, value = virtual.x[A0], virtual.x[A1]
        return error - (1 << 64) if error >> 63 else error, value

    def _last_kind(self) -> Kind:
        return Kind(self.host.trace.records(1, limit=1)[-1]["kind"])

    def share(self) -> None:
        """Share a page, with upcalls off."""
        self.poke(SHARED + 8 * WORD["upcalls_off"], 1)
        assert self.call(Number.SHARE, SHARED) == (0, 0)

    def poke(self, address: int, *words: int) -> None:
        """As a store of the guest: not to a table."""
        assert address >> 12 not in self.technique.tables.tables
        self.guest.vm.ram.write(address, b"".join(word.to_bytes(8, "little") for word in words))

    def peek(self, address: int) -> int:
        return int.from_bytes(self.guest.vm.ram.read(address, 8), "little")

    def identity(self) -> int:
        """A pinned root in use, with the attacker's memory at its own addresses."""
        root, middle = (LAST - 1) << 12, LAST << 12
        for page in (root, middle):  # the device tree was there
            self.poke(page, *[0] * 512)
        self.poke(middle, *(BASE + 512 * index << 10 | V | R | W | X | A | D for index in range(MIB // 2)))
        self.poke(root + 16, LAST << 10 | V)
        assert self.call(Number.PIN, root) == (0, 0)
        assert self.call(Number.SET_SPACE, root) == (0, 0)
        self.satp = self.guest.vm.vcpus[0].virtual.satp
        return root

    # -- what must hold ----------------------------------------------------------------------------------
    def check(self) -> None:
        tables, frames, ram = self.technique.tables, self.host.frames, self.guest.vm.ram
        own = set(ram.map.values())
        page_of = {frame: page for page, frame in ram.map.items()}
        memory = self.host.memory
        parts = {frame: table.level for table in tables.tables.values() for frame in (table.kernel, table.user)}
        parts |= dict.fromkeys(tables.megapages.values(), 0)
        assert not own & (parts.keys() | set(tables.start))
        assert len(parts) == 2 * len(tables.tables) + len(tables.megapages)
        users = {table.user for table in tables.tables.values()}
        references: Counter[int] = Counter(self.technique.domain.pins)
        places: dict[int, set[int]] = {}
        for frame in (*parts, *tables.start):
            entries = np.frombuffer(memory.read_bytes(frame * PAGE, PAGE), "<u8")
            for index in np.flatnonzero(entries).tolist():
                entry = int(entries[index])
                leads_to = (entry >> 10) - BASE
                assert entry & V
                if not entry & (R | W | X):
                    assert leads_to in parts or leads_to in tables.start
                    if leads_to in parts and frame in parts:
                        assert parts[leads_to] == parts[frame] - 1
                    continue
                assert parts.get(frame, 0) == 0
                assert leads_to in own
                page = page_of[leads_to]
                places.setdefault(page, set()).add(frame * PAGE + 8 * index)
                assert not (entry & W and page in tables.tables)
                assert entry & U
                if frame in users:
                    assert entry & 1 << 9
        assert tables._leaves == places
        for page, table in tables.tables.items():
            content = np.frombuffer(ram.read(page << 12, PAGE), "<u8")
            kernel = np.frombuffer(memory.read_bytes(table.kernel * PAGE, PAGE), "<u8")
            for index in np.flatnonzero(kernel).tolist():
                value = int(content[index])
                if not value & (R | W | X):
                    references[value >> 10 & mmu.ROOT_PAGES] += 1
        assert references == {page: table.references for page, table in tables.tables.items()}
        taken = len(own) + len(parts) + len(tables.start) + len(self._guest(2).vm.ram.map)
        assert frames.used == taken

    def untouched(self) -> bytes:
        """The memory of everybody else."""
        mine = set(self.guest.vm.ram.map.values()) | set(self.technique.tables.start)
        tables = self.technique.tables
        mine |= {frame for table in tables.tables.values() for frame in (table.kernel, table.user)}
        mine |= set(tables.megapages.values())
        memory = self.host.memory
        victims = sorted(self._guest(2).vm.ram.map.values())
        assert not mine & set(victims)
        return b"".join(memory.read_bytes(frame * PAGE, PAGE) for frame in (*range(self.host.frames.first), *victims))


WILD = (
    0, 1, 7, 8, PAGE, RAM_BASE - PAGE, RAM_BASE, CODE + 4, SHARED, (LAST + 1) << 12, (LAST << 12) + 4092,
    1 << 31, 1 << 41, 1 << 56, 1 << 63, MASK64, MASK64 - 7, MASK64 - 4095,
)  # fmt: skip
FLAGS = (V, V | R, V | R | W | A | D, V | R | X | A, V | U | R | W | A | D, V | U | R | A, V | U | X | A, V | W, V | A, V | U)


def _entry(chance: random.Random) -> int:
    target = chance.choice([*POOL, *POOL, BASE, LAST, LAST + 1, BASE - 1, 0, SHARED >> 12, 0x80200, 0x80400, mmu.ROOT_PAGES])
    flags = chance.choice([*FLAGS, V, V, chance.getrandbits(10)])
    return (target << 10 | flags | chance.choice([0, 0, 0, 0, 0, 1 << 54, 1 << 63, 3 << 61])) & MASK64


def _argument(chance: random.Random) -> int:
    page = chance.choice(POOL) << 12
    return chance.choice([
        chance.choice(WILD), page, page, page, page | 8 * chance.randrange(512), page | chance.randrange(PAGE),
        chance.getrandbits(64), chance.randrange(20), _entry(chance),
    ])  # fmt: skip


def _fill(puppet: Puppet, chance: random.Random) -> None:
    """Write to a page, as the attacker can: not to a table."""
    page = chance.choice(POOL)
    if page in puppet.technique.tables.tables:
        return
    words = [0] * 512
    for _ in range(chance.choice([1, 3, 20])):
        words[chance.choice([0, 1, 2, 3, 511, chance.randrange(512)])] = _entry(chance)
    puppet.poke(page << 12, *words)


SAFE = [number for number in Number if number != Number.SHUTDOWN]


@pytest.mark.parametrize("seed", range(12))
def test_hostile_calls_hurt_nobody_else(seed: int) -> None:
    chance = random.Random(seed)
    puppet = Puppet()
    puppet.identity()
    before = puppet.untouched()
    puppet.share()
    answers: Counter[int] = Counter()
    for turn in range(400):
        for _ in range(chance.randrange(3)):
            _fill(puppet, chance)
        number: int = chance.choice([*SAFE, Number.PIN, Number.SET_ENTRY, Number.SET_ENTRY, Number.MULTICALL])
        a, b = _argument(chance), _argument(chance)
        if number == Number.SET_ENTRY:
            b = _entry(chance)
        elif number in (Number.MULTICALL, Number.RETURN):
            _batch(puppet, chance, a)
            b = chance.choice([0, 1, 4, BATCH_LIMIT, BATCH_LIMIT + 1, b])
        if number == Number.RETURN:
            puppet.guest.vm.ram.write(SHARED, _frame(chance))
        elif number == Number.SET_TIMER:
            a = MASK64
        if chance.random() < 0.02:
            number, extension = chance.getrandbits(chance.choice([3, 64])), chance.choice([0, 1, 0x10, 0x54494D45])
            puppet.call(number, a, b, extension)
            continue
        error, _ = puppet.call(number, a, b)
        answers[error] += 1
        if puppet.guest.ended:  # a shared page full of nonsense: it took an upcall that it could not
            assert puppet.guest.failure is not None
            puppet.guest.ended = False
        if turn % 20 == 0:
            puppet.check()
    puppet.check()
    assert puppet.untouched() == before
    assert answers[sbi.Error.SUCCESS] > 100
    assert answers[sbi.Error.DENIED] + answers[sbi.Error.INVALID_PARAM] + answers[sbi.Error.INVALID_ADDRESS] > 100
    tables = puppet.technique.tables
    known = tables.save(), {page: set(offsets) for page, offsets in tables._leaves.items()}
    state = puppet.host.save()
    puppet.host.load(state)
    puppet.check()
    assert (tables.save(), tables._leaves) == known
    puppet.host.remove_guest(1)
    assert puppet.host.frames.used == len(puppet._guest(2).vm.ram.map)


def _frame(chance: random.Random) -> bytes:
    words = [0] * len(WORD)
    words[WORD["pc"]], words[WORD["privilege"]], words[WORD["upcalls_off"]] = CODE + 4, chance.randrange(2), 1
    return b"".join(word.to_bytes(8, "little") for word in words)


def _batch(puppet: Puppet, chance: random.Random, address: int) -> None:
    """Calls to be made from here, if it is memory that can be written to."""
    calls = b""
    for _ in range(4):
        number = chance.choice([*SAFE, Number.SET_ENTRY, Number.PIN, chance.getrandbits(64)])
        a, b = _argument(chance), _argument(chance)
        if number == Number.SET_ENTRY:
            b = _entry(chance)
        elif number == Number.SET_TIMER:
            a = MASK64
        calls += CALL.pack(number & MASK64, a, b, chance.getrandbits(64))
    pages = {address >> 12, address + len(calls) - 1 >> 12}
    ram = puppet.guest.vm.ram
    if ram.holds(address, len(calls)) and not pages & (puppet.technique.tables.tables.keys() | {0x80200}):
        ram.write(address, calls)


# -- one by one ------------------------------------------------------------------------------------------
def test_every_call_refuses_what_is_not_the_guests() -> None:
    puppet = Puppet()
    before = puppet.untouched()
    for call in CALLS:
        if call.number in (Number.SHUTDOWN, Number.BLOCK, Number.YIELD, Number.DELIVER, Number.FLUSH, Number.SET_TIMER):
            continue
        for wild in (RAM_BASE - PAGE, (LAST + 1) << 12, 1 << 63, MASK64, 1):
            count = 1 if call.number in (Number.MULTICALL, Number.RETURN) else wild
            number, a = (call.number, wild)
            if call.number == Number.CONNECT:
                a, count = Device.NET_SEND, wild
            if call.number == Number.SET_TRAP_ENTRY and wild % 4 == 0:
                continue
            error, _ = puppet.call(number, a, count)
            assert error in call.errors, (call.number, hex(wild))
    puppet.check()
    assert puppet.untouched() == before


def test_a_mapping_of_a_foreign_frame_is_refused_and_changes_nothing() -> None:
    puppet = Puppet()
    root = puppet.identity()
    table, middle, page = (POOL[0] << 12, POOL[1] << 12, POOL[2])
    puppet.poke(middle, POOL[0] << 10 | V)
    assert puppet.call(Number.SET_ENTRY, root, POOL[1] << 10 | V) == (0, 0)
    own = page << 10 | V | U | R | W | A | D
    assert puppet.call(Number.SET_ENTRY, table, own) == (0, 0)
    victim = next(iter(puppet._guest(2).vm.ram.map.values()))
    for foreign in (victim, BASE + victim, 0, BASE - 1, LAST + 1, mmu.ROOT_PAGES):
        for flags in (V | U | R | W | A | D, V | R | A):
            if BASE <= foreign <= LAST:
                continue
            assert puppet.call(Number.SET_ENTRY, table, foreign << 10 | flags)[0] == sbi.Error.INVALID_ADDRESS
            assert puppet.peek(table) == own
            assert puppet.call(Number.SET_ENTRY, middle, foreign << 10 | V)[0] == sbi.Error.INVALID_ADDRESS
    puppet.check()


@pytest.mark.parametrize("table", [POOL[0], POOL[1], LAST - 1, LAST])
def test_user_mode_never_gets_to_write_to_a_table(table: int) -> None:
    puppet = Puppet()
    root = puppet.identity()
    puppet.poke(POOL[1] << 12, POOL[0] << 10 | V)
    assert puppet.call(Number.SET_ENTRY, root, POOL[1] << 10 | V) == (0, 0)
    entry = POOL[0] << 12
    writable = table << 10 | V | U | R | W | A | D
    assert puppet.call(Number.SET_ENTRY, entry, writable)[0] == sbi.Error.DENIED
    assert puppet.call(Number.SET_ENTRY, entry, writable & ~(W | D)) == (0, 0)
    # The other way round: what user mode can write to becomes no table.
    page = POOL[5]
    assert puppet.call(Number.SET_ENTRY, entry, page << 10 | V | U | R | W | A | D) == (0, 0)
    assert puppet.call(Number.PIN, page << 12)[0] == sbi.Error.DENIED
    puppet.check()


def test_a_store_of_the_kernel_to_its_table_is_the_kernels_own_fault() -> None:
    """Through a megapage that it may write to everywhere else."""
    root, middle = POOL[1] << 12, POOL[2] << 12
    source = f"""
    _start: li a7, {EXTENSION}
        li a6, {Number.SHARE}
        li a0, {SHARED}
        ecall
        li a6, {Number.SET_TRAP_ENTRY}
        la a0, handler
        ecall
        li t0, {root}
        li t1, {POOL[2] << 10 | V}
        sd t1, 16(t0)
        li t2, {middle}
        li t1, {BASE << 10 | V | R | W | X | A | D}
        sd t1, 0(t2)
        li t1, {(BASE + 512) << 10 | V | R | W | X | A | D}
        sd t1, 8(t2)
        li a6, {Number.PIN}
        mv a0, t0
        ecall
        bnez a0, fail
        li a6, {Number.SET_SPACE}
        mv a0, t0
        ecall
        ld s0, 8(t2)                # reading is allowed
        li s1, {(POOL[0] << 12)}
        sd s1, 0(s1)                # and writing beside it
        sd zero, 8(t2)
    fail: j fail
    .balign 4
    handler:
        li t0, {SHARED}
        ld s2, {8 * WORD["cause"]}(t0)
        ld s3, {8 * WORD["value"]}(t0)
        ld s4, {8 * WORD["privilege"]}(t0)
        li a6, {Number.SHUTDOWN}
        li a7, {EXTENSION}
        li a0, 0
        li a1, 77
        ecall
    """
    host = Host(1, 1, 32, Configuration.parse(PARAVIRTUAL), Trace(), lambda _guest, _data: None)
    host.add_guest(1, image(source), 1, MIB, "")
    host.run(10_000)
    guest = host.guests[1]
    assert guest.exit_status == 77
    x = guest.registers(0)["x"]
    assert (x[18], x[19], x[20]) == (15, middle + 8, 1)


@pytest.mark.parametrize(
    "indices",
    [(OUTPUT + 1, 0, 0, 0), (0, 1, 0, 0), (MASK64, 0, 0, 0), (0, 0, 0, 1), (0, 0, INPUT + 1, 0), (5, MASK64, 0, MASK64)],
)
def test_a_ring_with_impossible_indices_is_not_looked_at_again(indices: tuple[int, int, int, int]) -> None:
    puppet = Puppet()
    ring = POOL[0] << 12
    puppet.share()
    assert puppet.call(Number.NOTIFY, Device.CONSOLE)[0] == sbi.Error.FAILED
    assert puppet.call(Number.CONNECT, Device.CONSOLE, ring) == (0, 0)
    puppet.poke(ring, *indices)
    puppet.guest.receive(b"typed")
    error, _ = puppet.call(Number.NOTIFY, Device.CONSOLE)
    if indices[0] - indices[1] & MASK64 > OUTPUT or indices[2] - indices[3] & MASK64 > INPUT:
        assert error == sbi.Error.FAILED
        puppet.poke(ring, 0, 0, 0, 0)
        assert puppet.call(Number.NOTIFY, Device.CONSOLE)[0] == sbi.Error.FAILED
        assert puppet.shown == b""
        assert puppet.call(Number.CONNECT, Device.CONSOLE, ring) == (0, 0)
    assert puppet.call(Number.NOTIFY, Device.CONSOLE)[0] == 0
    puppet.check()


DISK = bytes(range(256)) * 64
RING, BUFFER = POOL[0] << 12, POOL[1] << 12


def with_ring(device: Device) -> tuple[Puppet, int]:
    """A guest with a ring, whose grant 5 is a page that the back end may use in both ways; and what CONNECT said."""
    puppet = Puppet(disk=DISK)
    puppet.share()
    puppet.poke(SHARED + GRANTS_AT + 8 * 5, BUFFER | READABLE | WRITABLE)
    error, value = puppet.call(Number.CONNECT, device, RING)
    assert error == 0
    return puppet, value


def ask(puppet: Puppet, device: Device, *requests: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    """Make requests and tell the back end; (status, bytes) of each."""
    produced = puppet.peek(RING)
    places = [RING + 64 + (produced + number) % SLOTS * 32 for number in range(len(requests))]
    for place, request in zip(places, requests, strict=True):
        puppet.poke(place, *request)
    puppet.poke(RING, produced + len(requests) & MASK64)
    assert puppet.call(Number.NOTIFY, device) == (0, 0)
    assert puppet.peek(RING + 8) == puppet.peek(RING)
    found = [(puppet.peek(place), puppet.peek(place + 24)) for place in places]
    return [(status - (1 << 64) if status >> 63 else status, moved) for status, moved in found]


def test_the_disks_ring_reads_and_writes_what_was_granted() -> None:
    puppet, sectors = with_ring(Device.BLOCK)
    assert sectors == len(DISK) // 512
    ram, here = puppet.guest.vm.ram, 5 * PAGE
    assert ask(puppet, Device.BLOCK, (block.READ, 3, here + 512, 1024)) == [(0, 1024)]
    assert ram.read(BUFFER + 512, 1024) == DISK[3 * 512 : 5 * 512]
    ram.write(BUFFER, bytes(512 * [7]) + bytes(512 * [8]))
    several = (block.WRITE, 31, here, 512), (block.WRITE, 0, here + 512, 512), (block.FLUSH, 0, 0, 0)
    assert ask(puppet, Device.BLOCK, *several) == [(0, 512), (0, 512), (0, 0)]
    assert ask(puppet, Device.BLOCK, (block.READ, 31, here + 1024, 512), (block.READ, 0, here + 2048, 512)) == [(0, 512)] * 2
    assert ram.read(BUFFER + 1024, 512) == bytes(512 * [7])
    assert ram.read(BUFFER + 2048, 512) == bytes(512 * [8])
    assert puppet.peek(SHARED + 8 * WORD["pending"]) == 1 << Event.BLOCK
    assert ask(puppet, Device.BLOCK, *[(block.FLUSH, 0, 0, 0)] * SLOTS) == [(0, 0)] * SLOTS


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ((block.READ, 0, 6 * PAGE, 512), Status.DENIED),  # never granted
        ((block.READ, 0, GRANTS * PAGE, 512), Status.INVALID),
        ((block.READ, 0, MASK64, 512), Status.INVALID),
        ((block.READ, 0, 5 * PAGE + 4000, 512), Status.INVALID),  # beyond the page
        ((block.READ, 0, 5 * PAGE, 8192), Status.INVALID),
        ((block.READ, 0, 5 * PAGE, MASK64 - 511), Status.INVALID),
        ((block.READ, 0, 5 * PAGE, 0), Status.INVALID),
        ((block.READ, 0, 5 * PAGE, 100), Status.INVALID),
        ((block.READ, 32, 5 * PAGE, 512), Status.INVALID),  # beyond the disk
        ((block.READ, MASK64, 5 * PAGE, 512), Status.INVALID),
        ((99, 0, 5 * PAGE, 512), Status.INVALID),
        ((block.READ, 0, 7 * PAGE, 512), Status.DENIED),  # granted for reading only
        ((block.WRITE, 0, 8 * PAGE, 512), Status.DENIED),  # granted for writing only
        ((block.READ, 0, 9 * PAGE, 512), Status.DENIED),  # granted, but not the guest's
        ((block.READ, 0, 10 * PAGE, 512), Status.DENIED),
    ],
)
def test_a_request_that_cannot_be_is_answered_with_why(request_: tuple[int, int, int, int], status: Status) -> None:
    puppet, _ = with_ring(Device.BLOCK)
    foreign = RAM_BASE + next(iter(puppet._guest(2).vm.ram.map.values())) * PAGE
    rest = (BUFFER | READABLE, BUFFER | WRITABLE, RAM_BASE - PAGE | 3, MASK64 - 4095 | 3)
    puppet.poke(SHARED + GRANTS_AT + 8 * 7, *rest)
    puppet.poke(SHARED + GRANTS_AT + 8 * 11, foreign | 3)
    before, ours = puppet.untouched(), puppet.guest.vm.ram.read(BUFFER, PAGE)
    assert ask(puppet, Device.BLOCK, request_) == [(status, 0)]
    ask(puppet, Device.BLOCK, (block.READ, 0, 11 * PAGE, 512))
    assert puppet.guest.vm.ram.read(BUFFER, PAGE) == ours
    assert puppet.untouched() == before
    assert [Status[name].value for name in ("OK", "FAILED", "INVALID", "DENIED")] == [
        sbi.Error.SUCCESS, sbi.Error.FAILED, sbi.Error.INVALID_PARAM, sbi.Error.DENIED,
    ]  # fmt: skip


@pytest.mark.parametrize("device", [Device.BLOCK, Device.NET_SEND])
@pytest.mark.parametrize("indices", [(SLOTS + 1, 0), (0, 1), (MASK64, 0)])
def test_a_ring_of_requests_with_impossible_indices_is_not_looked_at_again(device: Device, indices: tuple[int, int]) -> None:
    puppet, _ = with_ring(device)
    puppet.poke(RING, *indices)
    assert puppet.call(Number.NOTIFY, device)[0] == sbi.Error.FAILED
    puppet.poke(RING, 0, 0)
    assert puppet.call(Number.NOTIFY, device)[0] == sbi.Error.FAILED
    assert puppet.call(Number.CONNECT, device, RING)[0] == 0
    assert puppet.call(Number.NOTIFY, device)[0] == 0


def test_there_is_no_disk_where_there_is_none() -> None:
    puppet = Puppet()
    puppet.share()
    assert puppet.call(Number.CONNECT, Device.BLOCK, RING)[0] == sbi.Error.FAILED


def test_frames_go_out_and_come_in() -> None:
    puppet, address = with_ring(Device.NET_SEND)
    assert address.to_bytes(6, "big") == mac_address(1)
    ram, here = puppet.guest.vm.ram, 5 * PAGE
    frame = bytes(range(200))
    ram.write(BUFFER + 100, frame)
    assert ask(puppet, Device.NET_SEND, (0, 0, here + 100, 200), (0, 0, here, 13), (0, 0, here, 4000)) == [
        (0, 200), (Status.INVALID, 0), (Status.INVALID, 0),
    ]  # fmt: skip
    assert puppet.sent == [frame]
    puppet.guest.arrive([frame])  # nobody listens: it is lost
    assert puppet.call(Number.CONNECT, Device.NET_RECEIVE, RING)[0] == 0
    puppet.poke(RING, 2, 0)
    for number, (offset, room) in enumerate(((0, 1500), (2048, 100))):
        puppet.poke(RING + 64 + 32 * number, 0, 0, here + offset, room)
    puppet.guest.arrive([frame, b"x" * 60, b"y" * 60])
    assert puppet.peek(RING + 8) == 2
    assert [puppet.peek(RING + 64 + 32 * number + 24) for number in (0, 1)] == [200, 60]
    assert (ram.read(BUFFER, 200), ram.read(BUFFER + 2048, 60)) == (frame, b"x" * 60)
    assert puppet.peek(SHARED + 8 * WORD["pending"]) >> Event.NET & 1
    state = puppet.host.save()
    puppet.host.load(state)
    puppet.poke(RING, 3)
    puppet.poke(RING + 64 + 64, 0, 0, here, 1500)
    puppet.guest.arrive([b"z" * 60])
    assert ram.read(BUFFER, 60) == b"z" * 60


@pytest.mark.parametrize(
    ("buffer", "room", "answered"),
    [
        (6 * PAGE, 1500, Status.DENIED),  # never granted
        (7 * PAGE, 1500, Status.DENIED),  # granted for reading only
        (9 * PAGE, 1500, Status.DENIED),  # granted, but below RAM
        (10 * PAGE, 1500, Status.DENIED),
        (GRANTS * PAGE, 1500, Status.INVALID),
        (MASK64, 1500, Status.INVALID),
        (5 * PAGE + 4000, 1500, Status.INVALID),  # beyond the page
        (5 * PAGE, 4097, Status.INVALID),
        (5 * PAGE, MASK64, Status.INVALID),
        (5 * PAGE, 59, None),  # too little room: the frame is lost, the buffer stays
        (5 * PAGE, 0, None),
    ],
)
def test_a_buffer_that_cannot_be_gets_no_frame(buffer: int, room: int, answered: Status | None) -> None:
    puppet, _ = with_ring(Device.NET_RECEIVE)
    puppet.poke(SHARED + GRANTS_AT + 8 * 7, BUFFER | READABLE, BUFFER | WRITABLE, RAM_BASE - PAGE | 3, MASK64 - 4095 | 3)
    before, ours = puppet.untouched(), puppet.guest.vm.ram.read(BUFFER, PAGE)
    puppet.poke(RING + 64, 0, 0, buffer, room)
    puppet.poke(RING + 96, 0, 0, 5 * PAGE, 1500)
    puppet.poke(RING, 2)
    puppet.guest.arrive([b"x" * 60])
    assert puppet.guest.vm.ram.read(BUFFER, PAGE) == ours
    assert puppet.peek(RING + 8) == (answered is not None)
    if answered is not None:
        assert (puppet.peek(RING + 64), puppet.peek(RING + 88)) == (answered & MASK64, 0)
        puppet.guest.arrive([b"y" * 60])
        assert puppet.guest.vm.ram.read(BUFFER, 60) == b"y" * 60
    assert puppet.untouched() == before
    puppet.check()


@pytest.mark.parametrize("indices", [(SLOTS + 1, 0), (0, 1), (MASK64, 0)])
def test_buffers_with_impossible_indices_are_not_looked_at_again(indices: tuple[int, int]) -> None:
    puppet, _ = with_ring(Device.NET_RECEIVE)
    puppet.poke(RING, *indices)
    before = puppet.guest.vm.ram.read(RING, PAGE)
    puppet.guest.arrive([b"x" * 60])
    assert puppet.guest.vm.ram.read(RING, PAGE) == before
    puppet.poke(RING, 1, 0)
    puppet.poke(RING + 64, 0, 0, 5 * PAGE, 1500)
    puppet.guest.arrive([b"x" * 60])
    assert puppet.peek(RING + 8) == 0
    assert puppet.call(Number.CONNECT, Device.NET_RECEIVE, RING)[0] == 0
    puppet.guest.arrive([b"x" * 60])
    assert puppet.peek(RING + 8) == 1
    assert puppet.call(Number.NOTIFY, Device.NET_RECEIVE)[0] == sbi.Error.INVALID_PARAM


def test_a_ring_whose_buffers_are_itself_harms_its_guest_only() -> None:
    puppet = Puppet()
    puppet.share()
    puppet.poke(SHARED + GRANTS_AT + 8 * 5, RING | READABLE | WRITABLE)
    for device in (Device.NET_SEND, Device.NET_RECEIVE):
        assert puppet.call(Number.CONNECT, device, RING)[0] == 0
    before = puppet.untouched()
    for start in range(0, 128, 8):
        puppet.poke(RING, 4, 0)
        for number in range(4):
            puppet.poke(RING + 64 + 32 * number, 0, 0, 5 * PAGE + start, 1500)
        puppet.guest.arrive([b"\xff" * 1500, bytes(60), b"\1" * 200])
        puppet.call(Number.NOTIFY, Device.NET_SEND)
        for device in (Device.NET_SEND, Device.NET_RECEIVE):
            assert puppet.call(Number.CONNECT, device, RING)[0] == 0
    puppet.check()
    assert puppet.untouched() == before


def test_the_consoles_ring_carries_everything_in_order() -> None:
    puppet, chance = Puppet(), random.Random(3)
    ring, said, typed, heard = POOL[0] << 12, b"", b"", b""
    puppet.share()
    puppet.poke(ring, *(MASK64 - 99,) * 4)  # the indices are about to wrap
    puppet.call(Number.CONNECT, Device.CONSOLE, ring)
    ram = puppet.guest.vm.ram
    for _ in range(60):
        produced, consumed = puppet.peek(ring), puppet.peek(ring + 8)
        text = chance.randbytes(chance.randrange(OUTPUT - (produced - consumed & MASK64) + 1))
        for byte in text:
            ram.write(ring + 32 + INPUT + produced % OUTPUT, bytes([byte]))
            produced = produced + 1 & MASK64
        puppet.poke(ring, produced)
        said += text
        keys = chance.randbytes(chance.randrange(900))
        typed += keys[: puppet.guest.receive(keys)]
        puppet.call(Number.NOTIFY, Device.CONSOLE)
        produced, consumed = puppet.peek(ring + 16), puppet.peek(ring + 24)
        for _ in range(chance.randrange((produced - consumed & MASK64) + 1)):
            heard += ram.read(ring + 32 + consumed % INPUT, 1)
            consumed = consumed + 1 & MASK64
        puppet.poke(ring + 24, consumed)
    assert bytes(puppet.shown) == said
    assert typed.startswith(heard)
    assert len(heard) > 5000
    assert puppet.peek(SHARED + 8 * WORD["pending"]) >> Event.CONSOLE & 1


def test_a_device_that_writes_to_a_table_changes_no_mapping() -> None:
    """The ring becomes a table after it was connected: what the back end writes there is checked like the rest."""
    puppet = Puppet()
    root = puppet.identity()
    before = puppet.untouched()
    ring = POOL[0] << 12
    puppet.share()
    assert puppet.call(Number.CONNECT, Device.CONSOLE, ring) == (0, 0)
    puppet.poke(POOL[1] << 12, POOL[0] << 10 | V)
    assert puppet.call(Number.SET_ENTRY, root, POOL[1] << 10 | V) == (0, 0)
    assert POOL[0] in puppet.technique.tables.tables
    victim = (BASE + 5) << 10 | V | U | R | W | A | D
    puppet.guest.receive(victim.to_bytes(8, "little") * 100 + (1 << 60 | victim).to_bytes(8, "little"))
    puppet.check()
    puppet.call(Number.NOTIFY, Device.CONSOLE)
    puppet.check()
    assert puppet.untouched() == before


def test_a_device_that_makes_more_tables_than_there_may_be_ends_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    puppet = Puppet()
    root = puppet.identity()
    puppet.share()
    assert puppet.call(Number.CONNECT, Device.CONSOLE, RING) == (0, 0)
    assert puppet.call(Number.SET_ENTRY, root, RING >> 12 << 10 | V) == (0, 0)
    before = puppet.untouched()
    monkeypatch.setattr(direct_tables, "MAX_TABLES", len(puppet.technique.tables.tables) + 3)
    puppet.guest.receive(b"".join((page << 10 | V).to_bytes(8, "little") for page in POOL[2:]))
    assert puppet.guest.failure is not None
    assert puppet.guest.failure.key == "out-of-memory"
    assert puppet.untouched() == before
    puppet.host.run(1000)
    puppet.host.remove_guest(1)
    assert puppet.host.frames.used == len(puppet._guest(2).vm.ram.map)


@pytest.mark.parametrize(
    "source",
    [
        ".word 0",  # before it said where traps go
        f"li a7, {EXTENSION}\nli a6, {Number.SHARE}\nli a0, {SHARED}\necall\n.word 0",
        f"""li a7, {EXTENSION}
        li a6, {Number.SHARE}
        li a0, {SHARED}
        ecall
        li a6, {Number.SET_TRAP_ENTRY}
        li a0, 0x1000
        ecall
        .word 0""",
    ],
)
def test_a_guest_that_cannot_take_its_own_traps_ends_alone(source: str) -> None:
    host = Host(1, 1, 32, Configuration.parse(PARAVIRTUAL), Trace(), lambda _guest, _data: None)
    host.add_guest(1, image("_start: " + source), 1, MIB, "")
    host.add_guest(2, image("_start: j _start"), 1, MIB, "")
    assert host.run(100_000) == 100_000
    failure = host.guests[1].failure
    assert failure is not None
    assert failure.key == "no-trap-handler"
    assert host.guests[2].instructions > 90_000


def test_tables_never_take_more_than_their_share() -> None:
    """A guest that makes tables of all its pages is told that there is no more room."""
    puppet = Puppet(host_mib=24)
    free = puppet.host.frames.total - puppet.host.frames.used - puppet.host.frames.promised
    error = 0
    pinned = 0
    for page in range(0x80210, LAST):
        error, _ = puppet.call(Number.PIN, page << 12)
        if error:
            break
        pinned += 1
    assert error == sbi.Error.FAILED
    assert 2 * pinned <= free
    puppet.check()
    for page in range(0x80210, 0x80210 + pinned):
        assert puppet.call(Number.UNPIN, page << 12) == (0, 0)
    puppet.check()
