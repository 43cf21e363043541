"""A guest can never read or write outside its own memory: guests that try it, and what must hold meanwhile.

The attackers are random programs in M, S and U mode with write access to their own page tables, which they
point at host frames, at other guests' memory, at themselves and at nothing, change between walk and use, and
use without fences. While they run:

    confinement   every leaf of every shadow table leads to a frame that the guest owns, every inner entry to
    a
                  table that its shadow owns, and no leaf permits more than the guest's tables permit right
                  now
    integrity     no byte of host memory outside the attacker's frames and its shadow tables changes
    secrecy       the attacker never sees a secret that fills another guest, the hypervisor's memory, freed
    frames
    equivalence   its memory ends as on the bare machine
"""

from __future__ import annotations

import random

import pytest

from engine.devices import AccessFault
from engine.hypervisor.binary_translation import BinaryTranslation
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.vm_guest import VmGuest
from engine.isa.assembler import assemble
from engine.isa.program import Program
from engine.machine import mmu
from engine.machine.loader import RAM_BASE, inspect
from engine.machine.memory import PAGE
from engine.machine.mmu import Access, RecordedWalk
from engine.machine.traps import Trap
from engine.trace.rings import Trace
from tests.conformance.compare import differences
from tests.conformance.programs import BASE, Body, Scenario, Step, build
from tests.conformance.sides import MEMORY_MIB, run_on_reference

HOST_MIB = 64
VICTIM_MIB = 4
SECRET = 0x5EC2_E75E_C2E7_0BAD
SECRET_PAGE = SECRET.to_bytes(8, "little") * (PAGE // 8)
SLICE_STEPS = 400
STEP_LIMIT = 60_000
KERNELS = (1, 3, -1)  # what the key of a shadow space says of a kernel's
TECHNIQUES = ("trap-and-emulate", "binary-translation")
RUNS = [*(("trap-and-emulate", seed) for seed in range(6)), *(("binary-translation", seed) for seed in (2, 4))]
IDLE_VICTIM = "1: wfi\nj 1b"


class World:
    """A host with a victim full of secrets and an attacker."""

    def __init__(
        self, program: Program, technique: str, memory_mib: int = MEMORY_MIB, host_mib: int = HOST_MIB
    ) -> None:
        self.shown = bytearray()
        self.host = Host(
            1, 1, host_mib, Configuration.parse(technique), Trace(), lambda _guest, data: self.shown.extend(data)
        )
        self.host.add_guest(2, inspect(assemble(IDLE_VICTIM).elf(), "victim"), 1, VICTIM_MIB, "")
        self.victim = self._guest(2)
        for page in range(RAM_BASE >> 12, (RAM_BASE >> 12) + VICTIM_MIB * 256):
            if page != 0x80200:
                self.victim.vm.ram.write(page << 12, SECRET_PAGE)
        memory = self.host.memory
        for page in range(self.host.frames.first):
            memory.write_bytes(page * PAGE, SECRET_PAGE)
        self.host.run(50)
        self._leave_secrets_in_freed_frames()
        self.host.add_guest(1, inspect(program.elf(), program.name), 1, memory_mib, "")
        self.attacker = self._guest(1)

    def _guest(self, number: int) -> VmGuest:
        guest = self.host.guests[number]
        assert isinstance(guest, VmGuest)
        return guest

    def _leave_secrets_in_freed_frames(self) -> None:
        frames = self.host.frames
        taken = [frames.take() for _ in range(300)]
        for frame in taken:
            self.host.memory.write_bytes(frame * PAGE, SECRET_PAGE)
            frames.give_back(frame)

    def run(self) -> None:
        """The attack, looked at every SLICE_STEPS."""
        before = self._others()
        ran = 0
        while not self.attacker.ended and ran < STEP_LIMIT:
            ran += self.host.run(SLICE_STEPS)
            check_confinement(self.attacker)
        self._check_integrity(before)
        self._check_secrecy()

    def _owned(self) -> set[int]:
        """Frames that may change: the attacker's, every shadow table, and frames that nobody has."""
        frames = self.host.frames
        owned = set(self.attacker.vm.ram.map.values()) | set(range(frames.first, frames.first + frames.total))
        return owned - set(self.victim.vm.ram.map.values())

    def _others(self) -> dict[int, bytes]:
        frames = {*range(self.host.frames.first), *self.victim.vm.ram.map.values()}
        return {frame: self.host.memory.read_bytes(frame * PAGE, PAGE) for frame in frames}

    def _check_integrity(self, before: dict[int, bytes]) -> None:
        for frame, content in before.items():
            assert frame not in self._owned()
            assert self.host.memory.read_bytes(frame * PAGE, PAGE) == content, (
                f"host frame {frame:#x} changed"
            )

    def _check_secrecy(self) -> None:
        secret = SECRET.to_bytes(8, "little")
        for page, frame in self.attacker.vm.ram.map.items():
            content = self.host.memory.read_bytes(frame * PAGE, PAGE)
            assert secret not in content, f"guest page {page:#x} shows the secret"
        assert SECRET not in self.attacker.vm.vcpus[0].virtual.x
        assert secret not in self.shown


def check_confinement(guest: VmGuest) -> None:
    """The shadow tables as they lie in host memory say nothing that they must not say."""
    shadow = guest.technique.shadow
    translations = translation_frames(guest)
    owned = set(guest.vm.ram.map.values())
    for key, root in shadow.roots.items():
        tables = {root, *shadow.tables[key], *(shadow.foreign if key[1] in KERNELS else ())}
        assert not (tables | translations) & owned
        for address, entry in leaves(guest, root, 2, 0, tables):
            frame = (entry >> 10) - (RAM_BASE >> 12)
            if frame in translations:
                assert key[1] in KERNELS, "user code reaches the translations"
                assert not entry & (mmu.R | mmu.W), "a guest can read or change its translations"
                continue
            assert frame in owned, (
                f"{address:#x} is mapped to host frame {frame:#x}, which the guest does not own"
            )
            assert entry & mmu.U
            assert not (translations and key[1] in KERNELS and entry & mmu.X), "a kernel can run in place"
            check_permissions(guest, key, address, entry, frame)


def translation_frames(guest: VmGuest) -> set[int]:
    """The frames that hold translated code."""
    technique = guest.technique
    if not isinstance(technique, BinaryTranslation):
        return set()
    return {frame for _, frame in technique.cache.save()["pages"]}


def leaves(guest: VmGuest, table: int, level: int, begin: int, tables: set[int]) -> list[tuple[int, int]]:
    """(virtual address, entry) of every leaf below a shadow table; inner entries must stay in `tables`."""
    found: list[tuple[int, int]] = []
    memory = guest.host.memory
    for index in range(512):
        entry = memory.read(table * PAGE + 8 * index, 8)
        if not entry & mmu.V:
            continue
        address = begin + (index << (12 + 9 * level))
        if level == 0:
            assert entry & (mmu.R | mmu.W | mmu.X)
            found.append((address, entry))
        else:
            assert not entry & (mmu.R | mmu.W | mmu.X), "a large page in a shadow table"
            child = (entry >> 10) - (RAM_BASE >> 12)
            assert child in tables, f"a shadow table leads to frame {child:#x}, which is none of its own"
            found += leaves(guest, child, level - 1, address, tables)
    return found


def check_permissions(
    guest: VmGuest, key: tuple[int, int, int], address: int, entry: int, frame: int
) -> None:
    """A shadow leaf permits no more than the guest's own tables do now, and never a store to a page table."""
    satp, privilege, status = key
    address |= -1 << 39 & (1 << 64) - 1 if address >> 38 else 0
    virtual = guest.vm.vcpus[0].virtual
    for flag, access in ((mmu.R, Access.LOAD), (mmu.W, Access.STORE), (mmu.X, Access.FETCH)):
        if not entry & flag:
            continue
        physical = address
        if satp:
            try:
                walk = RecordedWalk(virtual.bus)
                physical = mmu.walk(walk, satp, 0, address, access, privilege, status | mmu.LOOK)
            except (Trap, AccessFault) as error:
                raise AssertionError(
                    f"{address:#x}: {access.name} is permitted, but the guest says {error}"
                ) from error
        assert guest.vm.ram.map[physical >> 12] == frame, (
            f"{address:#x} leads to another page than the guest says"
        )
        if access == Access.STORE:
            assert physical >> 12 not in guest.technique.shadow.table_pages


# -- what attackers do ---------------------------------------------------------------------------------
def wild_address(rng: random.Random) -> int:
    """A physical address that the guest has no business with, or one of its own."""
    return rng.choice(
        (
            BASE + rng.randrange(HOST_MIB << 8) * PAGE,  # the host's RAM, most of it beyond the guest's
            BASE + (MEMORY_MIB << 20) + rng.randrange(16) * PAGE,  # just behind the guest's RAM
            BASE - PAGE,
            rng.randrange(1 << 44) * PAGE,
            0x1000_0000,  # a device
            0x0200_0000,
        )
    ) & ((1 << 56) - 1)


def wild_entry(body: Body) -> None:
    """Any entry of any table that the program does not stand on becomes anything."""
    rng = body.rng
    table, index = rng.choice(
        (
            ("root_table", rng.choice((1, 3, 4, 255, 256, 510, 511))),
            ("middle_table", rng.randrange(12)),
            ("leaf_table", rng.randrange(16)),
        )
    )
    flags = rng.choice((1, 0xC7, 0xCF, 0xDF, 0x0F, 0x1F, rng.getrandbits(8)))
    if rng.random() < 0.5:
        lines = [f"li t6, {wild_address(rng) >> 2 | flags}"]
    else:
        target = rng.choice(("root_table", "middle_table", "leaf_table", "arena", "arena + 4096", "log"))
        lines = [f"la t6, {target}", "srli t6, t6, 12", "slli t6, t6, 10", f"ori t6, t6, {flags}"]
    body.add(f"la s9, {table} + {8 * index}", *lines)
    body.add(
        *rng.choice(
            (
                ["sd t6, 0(s9)"],
                ["sw t6, 0(s9)", "srli t6, t6, 32", "sw t6, 4(s9)"],
                ["amoswap.d t6, t6, (s9)"],
            )
        )
    )
    if rng.random() < 0.3:
        body.add("sfence.vma")


def write_through_window(body: Body) -> None:
    """Page tables are also reached through whatever the window maps them to."""
    rng = body.rng
    address = (
        rng.choice((0x4000_0000, 0x4020_0000, 0xFFFF_FFFF_C000_0000))
        + rng.randrange(16) * PAGE
        + 8 * rng.randrange(512)
    )
    body.add(
        f"li s9, {address}",
        f"li t6, {wild_address(rng) >> 2 | 0xCF}",
        rng.choice(("sd t6, 0(s9)", "amoor.d t6, t6, (s9)", "ld t6, 0(s9)")),
    )


def wild_satp(body: Body) -> None:
    """Another root for one access under MPRV, from M mode, where the program itself needs no translation."""
    rng = body.rng
    root = rng.choice(
        (f"li s9, {8 << 60 | wild_address(rng) >> 12 | rng.getrandbits(4) << 44}", "csrr s9, satp")
    )
    body.add(root, "csrw satp, s9")
    body.modify_privilege()
    body.add("la s9, root_table", "srli s9, s9, 12", f"li t6, {8 << 60}", "or s9, s9, t6", "csrw satp, s9")


def wild_physical(body: Body) -> None:
    """Without paging: straight at the addresses."""
    rng = body.rng
    name = rng.choice(("ld", "lbu", "lw", "amoadd.d", "lr.d"))
    address = "(s9)" if name[0] == "a" or name[1] == "r" else "0(s9)"
    operands = f"t6, t6, {address}" if name[0] == "a" else f"t6, {address}"
    body.add(
        f"li s9, {BASE + (MEMORY_MIB << 20) + rng.randrange(48 << 20) // 8 * 8}",
        f"{name} {operands}",
        "sd t6, 0(gp)",
        "addi gp, gp, 8",
    )


ACCESSES: dict[Step, float] = {
    Body.virtual_access: 6,
    Body.virtual_jump: 1,
    Body.status_bits: 1,
    wild_entry: 5,
    Body.change_entry: 1,
    write_through_window: 2,
}
ATTACKS = {
    "supervisor": Scenario(ACCESSES, modes="s", paging=True, length=110, delegation=0xB1FF, status=0xC0000),
    "machine": Scenario(
        {Body.modify_privilege: 5, wild_satp: 3, wild_entry: 4, wild_physical: 2},
        modes="m",
        paging=True,
        length=90,
    ),
    "bare": Scenario({wild_physical: 3, Body.bad_access: 1, Body.bad_jump: 1}, modes="msu", length=120),
}


@pytest.mark.parametrize(("technique", "seed"), RUNS)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attacker_stays_in_its_own_memory(technique: str, name: str, seed: int) -> None:
    program = assemble(build(name, ATTACKS[name], seed).source, name)
    world = World(program, technique)
    world.run()
    assert world.attacker.ended
    if world.attacker.exit_status == 0:
        memory = world.attacker.vm.ram.read(BASE, MEMORY_MIB << 20)
        found = differences(program, run_on_reference(program), memory, "the machine")
        assert not found, "\n".join(found)


def test_most_attackers_come_to_their_end() -> None:
    """So that the attacks attack: a program that dies at its first step would prove nothing."""
    ended = 0
    for seed in range(10):
        world = World(assemble(build("supervisor", ATTACKS["supervisor"], seed).source), TECHNIQUES[0])
        world.run()
        ended += world.attacker.exit_status == 0
    assert ended >= 8


# -- firmware calls --------------------------------------------------------------------------------------
EXTENSIONS = (0x0, 0x1, 0x2, 0x10, 0x54494D45, 0x735049, 0x52464E43, 0x48534D, 0x4442434E, 0x53525354, 0xDEAD)
#: What would stop the caller. Legacy shutdown is not in EXTENSIONS.
#: hart_stop and hart_suspend have no answer; the fences of the H extension have another one where a hart has it.
NEVER_CALLED = {(0x48534D, 1), (0x48534D, 3), (0x52464E43, 3), (0x52464E43, 4)}


def sbi_program(seed: int) -> str:
    """Firmware calls with wild pointers, lengths, hart numbers and masks; the answers are kept in
    `answers`."""
    rng = random.Random(f"sbi {seed}")
    wild = (
        0,
        1,
        8,
        4096,
        BASE,
        BASE - 1,
        BASE + (16 << 20) - 4,
        BASE + (16 << 20),
        BASE + (20 << 20),
        0x8020_0000,
        1 << 32,
        1 << 63,
        (1 << 64) - 1,
        (1 << 64) - 8,
        0x1000_0000,
    )
    lines = ["_start:", "la s0, answers"]
    for _ in range(250):
        extension, function = rng.choice(EXTENSIONS), rng.choice((0, 0, 1, 2, 3, 4, 7, 1 << 31))
        if (extension, function) in NEVER_CALLED:
            function = 2
        lines += [f"li a7, {extension}", f"li a6, {function}"]
        lines += [f"li a{index}, {rng.choice((*wild, rng.getrandbits(64)))}" for index in range(6)]
        if extension == 0x53525354:
            lines.append(f"li a0, {rng.choice((3, 9, 0x7FFFFFFF, 1 << 32))}")
        lines += ["ecall", "sd a0, 0(s0)", "sd a1, 8(s0)", "addi s0, s0, 16"]
    lines += ["li a7, 0x53525354", "li a6, 0", "li a0, 0", "li a1, 0", "ecall", "1: j 1b"]
    return "\n".join([*lines, ".data", "answers: .zero 4096"])


@pytest.mark.parametrize(("technique", "seed"), RUNS)
def test_firmware_calls_with_wild_arguments(technique: str, seed: int) -> None:
    program = assemble(sbi_program(seed), "sbi")
    world = World(program, technique)
    world.run()
    assert world.attacker.exit_status == 0, world.attacker.failure
    host = Host(1, 1, 16, Configuration.parse("bare-metal"), Trace(), lambda _guest, _data: None)
    host.add_guest(1, inspect(program.elf(), "sbi"), 1, MEMORY_MIB, "")
    host.run(STEP_LIMIT)
    assert host.guests[1].exit_status == 0
    answers = program.symbols["answers"]
    assert world.attacker.vm.ram.read(answers, 4096) == host.memory.read_bytes(answers - RAM_BASE, 4096)


# -- the hypervisor's own memory -------------------------------------------------------------------------
GREEDY = """
# Every gigabyte of the address space is our RAM; a page in each of many 2 MiB regions costs tables.
_start:
    la t0, table
    li t1, 0x200000cf
    li t2, 512
1:  sd t1, 0(t0)
    addi t0, t0, 8
    addi t2, t2, -1
    bnez t2, 1b
    la t0, table
    srli t0, t0, 12
    li t1, 8
    slli t1, t1, 60
    or t0, t0, t1
    csrw satp, t0
    sfence.vma
    li s0, 0                    # gigabyte
    li s1, 0                    # sum of what was read
2:  slli t0, s0, 30
    slli t0, t0, 25
    srai t0, t0, 25
    li t1, 8
3:  ld t2, 0(t0)
    add s1, s1, t2
    li t3, 0x200000
    add t0, t0, t3
    addi t1, t1, -1
    bnez t1, 3b
    addi s0, s0, 1
    li t3, 512
    bne s0, t3, 2b
    sd s1, sum, t0
    li a7, 0x53525354
    li a6, 0
    li a0, 0
    li a1, 0
    ecall
.data
.balign 4096
table: .zero 4096
sum: .dword 0
"""


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_guest_cannot_exhaust_the_hypervisor(technique: str) -> None:
    program = assemble(GREEDY, "greedy")
    world = World(program, technique, host_mib=24)
    world.run()
    assert world.attacker.exit_status == 0, world.attacker.failure
    words = [world.attacker.vm.ram.read(BASE + (megabyte << 20), 8) for megabyte in range(0, 16, 2)]
    total = 512 * sum(int.from_bytes(word, "little") for word in words) & ((1 << 64) - 1)
    assert int.from_bytes(world.attacker.vm.ram.read(program.symbols["sum"], 8), "little") == total


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_memory_that_a_guest_gave_back_is_empty_for_the_next(technique: str) -> None:
    """All of RAM read by the next guest: not one secret."""
    scanner = assemble(
        """
_start:
    li t0, 0x80000000
    li t1, 0x81000000
    la t2, _start
    la t3, end
1:  ld t4, 0(t0)
    beqz t4, 2f
    bltu t0, t2, 3f
    bltu t0, t3, 2f
    li t5, 0x80c00000           # the device tree lies above
    bltu t0, t5, 3f
2:  li t5, 4096
    add t0, t0, t5
    bltu t0, t1, 1b
    li a1, 0
    j 4f
3:  li a1, 1
4:  li a7, 0x53525354
    li a6, 0
    li a0, 0
    ecall
end:
"""
    )
    world = World(scanner, technique)
    world.run()
    assert world.attacker.exit_status == 0, world.attacker.failure
