"""Hardware assist: what stays inside the guest, what does not, and that nobody can tell which technique it is."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from engine.commands import LabError
from engine.guests import load_image
from engine.hypervisor.hardware_assist import HardwareAssist, TwoStages
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.vm_guest import VmGuest
from engine.machine import mmu
from engine.machine.loader import RAM_BASE, inspect
from engine.machine.memory import PAGE
from engine.trace.record import PATHS, Action, Cause, Disposition, Kind, Level
from engine.trace.rings import Trace
from tests.support.machine import ASSISTED, BARE, VM, WORK, Machine, carry_around, program

PUTS = """
puts:                           # a0: the string; byte by byte through the UART
    li t0, 0x10000000
1:  lbu t1, 0(a0)
    beqz t1, 2f
    sb t1, 0(t0)
    addi a0, a0, 1
    j 1b
2:  ret
off:
    li t0, 0x100000
    li t1, 0x5555
    sw t1, 0(t0)
    j .
"""


@pytest.fixture(scope="module")
def worked() -> Machine:
    machine = Machine(load_image("ringos"), ASSISTED, arguments=WORK)
    machine.run()
    return machine


def test_the_same_work_with_fewer_exits(worked: Machine) -> None:
    classic, alone = (Machine(load_image("ringos"), stack, arguments=WORK) for stack in (VM, BARE))
    for machine in (classic, alone):
        machine.run()
    assert worked.output == classic.output == alone.output
    assert worked.guest.exit_status == 3
    assert worked.guest.exits * 1.5 < classic.guest.exits


def test_system_calls_and_page_faults_never_leave_the_guest(worked: Machine) -> None:
    for record in worked.trace.records(1, limit=1 << 16):
        path = PATHS[record["path"]]
        stays = record["cause"] in (Cause.ECALL_U, *mmu.PAGE_FAULTS) or record["kind"] == Kind.SYSCALL
        if stays:
            assert path[1:] == (Level.HARDWARE, Level.KERNEL)
            assert (record["disposition"], record["action"], record["cost"]) == (
                Disposition.HARDWARE, Action.DELIVER, 0,
            )  # fmt: skip
        else:
            assert (path[1] == Level.HYPERVISOR) == (record["disposition"] != Disposition.HARDWARE)


def test_the_trace_accounts_for_every_instruction_and_every_switch(worked: Machine) -> None:
    records = worked.trace.records(1, limit=1 << 16)
    assert int(records["executed"].sum()) == worked.guest.instructions
    exits = records[records["disposition"] != Disposition.HARDWARE]
    assert len(exits) == worked.guest.exits
    assert np.all(np.diff(records["position"].astype(np.int64)) > 0)
    assert worked.host.time == worked.host.position + int(records["cost"].sum())


def test_each_page_of_the_guest_costs_one_exit(worked: Machine) -> None:
    records = worked.trace.records(1, limit=1 << 16)
    filled = [int(at) >> 12 for at in records[records["action"] == Action.SECOND_STAGE_FILL]["a"]]
    assert len(filled) == len(set(filled)) > 10


def test_the_timer_needs_no_exit() -> None:
    """Set through the register of Sstc, taken in VS mode."""
    source = """
    _start: la t0, handler
        csrw stvec, t0
        li s0, 5
        csrr t0, time
        addi t0, t0, 20
        csrw stimecmp, t0
        li t0, 0x20
        csrw sie, t0
        csrsi sstatus, 2
    1:  bnez s0, 1b
        j off
    .balign 4
    handler:
        addi s0, s0, -1
        csrr t0, time
        addi t0, t0, 20
        csrw stimecmp, t0
        sret
    """
    machine = Machine(program(source + PUTS), ASSISTED)
    machine.run()
    assert machine.guest.exit_status == 0
    records = machine.trace.records(1, limit=1 << 16)
    timers = records[records["kind"] == Kind.INTERRUPT]
    assert len(timers) == 5
    assert set(timers["disposition"]) == {Disposition.HARDWARE}
    assert np.all(np.diff(timers["time"].astype(np.int64)) >= 2000)
    assert np.all(np.diff(timers["time"].astype(np.int64)) < 3000)


def test_the_registers_of_the_board_and_of_the_hart_tell_one_time() -> None:
    """mtime is set ahead, mtimecmp to the past: `time` follows, the comparator of machine mode disturbs nobody."""
    source = """
    _start: la t0, handler
        csrw stvec, t0
        li s1, 0x200bff8            # mtime
        li s2, 0x2004000            # mtimecmp of hart 0
        sd zero, 0(s2)
        li t0, 1 << 40
        sd t0, 0(s1)
        csrr s3, time
        ld s4, 0(s1)
        csrr s5, time
        srli t1, s3, 40
        beqz t1, fail
        bltu s4, s3, fail
        bltu s5, s4, fail
        addi t0, s5, 100            # the supervisor's timer still comes
        csrw stimecmp, t0
        li t0, 0x20
        csrw sie, t0
        csrsi sstatus, 2
    1:  wfi
        j 1b
    fail: j .
    .balign 4
    handler: j off
    """
    machine = Machine(program(source + PUTS), ASSISTED)
    machine.run(50_000)
    assert machine.guest.exit_status == 0


@pytest.mark.parametrize("harts", [1, 2])
def test_one_vcpu_sets_the_time_of_all(harts: int) -> None:
    source = """
    _start: li t0, 1
        sub a0, t0, a0              # the other one
        la a1, other
        li a7, 0x48534d
        li a6, 0
        ecall
        li s1, 0x200bff8
        li t0, 1 << 50
        sd t0, 0(s1)
    1:  la t0, seen
        ld t1, 0(t0)
        beqz t1, 1b
        j off
    other:                          # waits until it sees it, in its own register and by its own timer
    2:  csrr t0, time
        srli t0, t0, 50
        beqz t0, 2b
        la t0, handler
        csrw stvec, t0
        csrr t0, time
        addi t0, t0, 50
        csrw stimecmp, t0
        li t0, 0x20
        csrw sie, t0
        csrsi sstatus, 2
    3:  j 3b
    .balign 4
    handler:
        la t0, seen
        li t1, 1
        sd t1, 0(t0)
        li t0, -1
        csrw stimecmp, t0
    4:  j 4b
    .balign 8
    seen: .dword 0
    """
    machine = Machine(program(source + PUTS), ASSISTED, harts=harts, vcpus=2)
    machine.run(2_000_000)
    assert machine.guest.exit_status == 0


def test_a_guest_that_needs_machine_mode_is_refused() -> None:
    host = Host(1, 1, 64, Configuration.parse(ASSISTED), Trace(), lambda _guest, _data: None)
    image = inspect(program(".org 0x80000000\n_start: csrr t0, mstatus\n j ."), "firmware")
    used = host.memory_used_mib, host.frames.used, host.frames.promised
    with pytest.raises(LabError) as refusal:
        host.add_guest(1, image, 1, 16, "")
    assert refusal.value.problem.key == "needs-machine-mode"
    assert (host.memory_used_mib, host.frames.used, host.frames.promised) == used
    classic = Host(1, 1, 64, Configuration.parse(VM), Trace(), lambda _guest, _data: None)
    classic.add_guest(1, image, 1, 16, "")
    classic.run(10)
    with pytest.raises(LabError) as refusal:
        host.import_guest(1, image, classic.export_guest(1))
    assert refusal.value.problem.key == "needs-machine-mode"


@pytest.mark.parametrize("access", ["lw t0, 0(a0)", "sw t0, 0(a0)", "jr a0", "amoadd.w t0, t0, (a0)"])
@pytest.mark.parametrize("address", [0x1000, 0x4000_0000, 0x8400_0000, 1 << 41, (1 << 56) + 0x8000_0000])
def test_where_nothing_is_the_guest_gets_what_the_machine_gives(access: str, address: int) -> None:
    """No memory and no device: the same cause and value in stval as on bare metal, for a bare address space."""
    source = f"""
    _start: la t0, handler
        csrw stvec, t0
        li a0, {address}
        {access}
    .balign 4
    handler:
        la t0, seen
        csrr t1, scause
        sd t1, 0(t0)
        csrr t1, stval
        sd t1, 8(t0)
        j off
    .balign 8
    seen: .zero 16
    """
    seen = []
    for stack in (BARE, ASSISTED, VM):
        machine = Machine(program(source + PUTS), stack)
        machine.run(20_000)
        assert machine.guest.exit_status == 0, (stack, machine.guest.failure)
        registers = machine.guest.registers(0)["csrs"]
        seen.append((registers["scause"], registers["stval"]))
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("page", [0x4000_0000, 0x8FFF_F000, 0x8400_0000, 1 << 40, 0x1000_0000])
def test_page_tables_where_there_is_no_memory(page: int) -> None:
    """A root table in nothing, beyond the guest's RAM, or in a device: an access fault, as on the machine."""
    source = f"""
    _start: la t0, handler
        csrw stvec, t0
        li t0, {8 << 60 | page >> 12}
        csrw satp, t0
        nop
    .balign 4
    handler:
        csrw satp, zero
        j off
    """
    seen = []
    for stack in (BARE, ASSISTED):
        machine = Machine(program(source + PUTS), stack)
        machine.run(20_000)
        # The handler cannot be fetched either: the guest traps for ever.
        seen.append((machine.guest.failure.key if machine.guest.failure else None, machine.guest.registers(0)["csrs"]))
        assert seen[-1][0] is not None
    assert [csrs[name] for _, csrs in seen for name in ("scause", "stval")][:2] == [
        csrs[name] for _, csrs in seen for name in ("scause", "stval")
    ][2:]
    assert seen[0][0] == seen[1][0]


@pytest.mark.parametrize("steps_between", [61, 5003])
def test_a_guest_that_moves_between_techniques_ends_as_if_it_stayed(steps_between: int) -> None:
    """Carried from shadow tables to the second stage and back, again and again."""
    hosts, shown = carry_around(load_image("ringos"), (VM, ASSISTED), WORK, steps_between)
    stayed = Machine(load_image("ringos"), ASSISTED, arguments=WORK)
    stayed.run()
    assert shown == stayed.output
    assert hosts[0].guests[1].exit_status == 3
    for host in hosts:
        assert not host.guests or host is hosts[0]
    hosts[0].remove_guest(1)
    assert [host.frames.used for host in hosts] == [0, 0]


def test_no_tier_and_no_slice_can_be_told() -> None:
    """Native code and the reference tier, in one go and in pieces: the same trace."""
    hashes = set()
    for tier, slice_steps in (("native", 1 << 20), ("reference", 1 << 20), ("native", 77)):
        machine = Machine(load_image("ringos"), ASSISTED, arguments=WORK)
        if tier == "reference":
            for hart in machine.host.harts:
                hart.use_native(None)
        machine.run(60_000 if slice_steps < 100 else 3_000_000, slice_steps)
        if slice_steps < 100:
            machine.run(3_000_000)
        hashes.add((machine.trace.hash(), machine.output))
    assert len(hashes) == 1


def test_a_walk_shows_both_stages(worked: Machine) -> None:
    machine = Machine(load_image("ringos"), ASSISTED, arguments="run=work syscall 100000")
    machine.run(200_000, 1000)
    guest = machine.guest
    walk = next(
        walk for walk in (_run_and_walk(machine) for _ in range(2000)) if len(walk["guest"]) == 3 and walk["hpa"]
    )
    assert walk["references"] == {"guest": 3, "shadow": 0, "second": 12}
    assert [len(stage) for stage in walk["second"]] == [3, 3, 3, 3]
    assert walk["fault"] is None
    frame = guest.vm.ram.map[walk["gpa"] >> 12]
    assert walk["hpa"] == RAM_BASE + frame * PAGE | walk["gpa"] & 0xFFF
    for step, stage in zip(walk["guest"], walk["second"], strict=False):
        assert stage[-1]["leaf"]
        assert stage[-1]["pte"] >> 10 == (RAM_BASE >> 12) + guest.vm.ram.map[step["address"] >> 12]
    before = machine.trace.hash(), machine.host.save()
    guest.walk(0, walk["gva"])
    guest.registers(0)
    assert (machine.trace.hash(), machine.host.save()) == before


def _run_and_walk(machine: Machine) -> dict:  # type: ignore[type-arg]
    machine.host.run(11)
    return machine.guest.walk(0, machine.guest.pc)


def test_what_the_guests_machine_level_keeps_goes_there() -> None:
    """With nothing delegated (a debugger may say so) every trap exits and comes back through the firmware; no
    interrupt is ever taken in a mode of the host."""
    source = """
    _start: la t0, handler
        csrw stvec, t0
        li s0, 0
        ebreak
        .word 0x0000100b
        csrr t0, time
        addi t0, t0, 50
        csrw stimecmp, t0
        li t0, 0x20
        csrw sie, t0
        csrsi sstatus, 2
    1:  li t0, 3
        bne s0, t0, 1b
        j off
    .balign 4
    handler:
        addi s0, s0, 1
        li t0, -1
        csrw stimecmp, t0
        csrr t0, scause
        bltz t0, 2f
        csrr t0, sepc
        addi t0, t0, 4
        csrw sepc, t0
    2:  sret
    """
    machine = Machine(program(source + PUTS), ASSISTED)
    virtual = machine.guest.hart(0)
    virtual.medeleg = virtual.mideleg = 0
    machine.run(50_000)
    assert machine.guest.exit_status == 0
    records = machine.trace.records(1, limit=1 << 16)
    kept = records[records["action"] == Action.INJECT_EXCEPTION]
    assert set(kept["cause"]) == {Cause.BREAKPOINT, Cause.ILLEGAL_INSTRUCTION}
    assert set(kept["disposition"]) == {Disposition.INJECTED}


# -- attacks -----------------------------------------------------------------------------------------
SECRET = 0x5EC2_E75E_C2E7_0BAD
SECRET_PAGE = SECRET.to_bytes(8, "little") * (PAGE // 8)
TARGETS = ("0x80000000", "0x80200000", "0x80400000", "0x83000000", "0x80210000", "0x10000000", "0")


def _attack(seed: int) -> str:
    """In S and U mode: random entries in its own page tables, random roots, accesses and jumps everywhere."""
    chance = random.Random(seed)
    lines = [
        "_start: la t0, handler", "csrw stvec, t0", "la t0, save", "csrw sscratch, t0", "li s0, 300",
        "la s1, tables", "li s2, 0x80000000",
    ]  # fmt: skip
    # An identity gigabyte in every root that is used, so that the attack goes on.
    for root in range(3):
        lines += [f"la t0, tables + {root * 4096}", f"li t1, {(0x80000 << 10) | 0xCF:#x}", "sd t1, 16(t0)"]
    for _ in range(150):
        root = f"tables + {chance.randrange(3) * 4096}"
        target = int(chance.choice(TARGETS), 0) + chance.randrange(0, 1 << 22, 4096)
        flags = chance.choice((1, 0xCF, 0xDF, 0x0F, 0x07, chance.randrange(256)))
        slot = chance.choice((0, 1, 3, 4, 511, chance.randrange(512)))
        slot = slot if slot != 2 else 5
        entry = (target >> 12) << 10 | flags | chance.choice((0, 0, 0, chance.getrandbits(10) << 54))
        lines += [f"la t0, {root}", f"li t1, {entry:#x}", f"li t2, {8 * slot}", "add t0, t0, t2", "sd t1, 0(t0)"]
        if chance.random() < 0.5:
            lines += [f"la t0, {root}", "srli t0, t0, 12", f"li t1, {8 << 60:#x}", "or t0, t0, t1", "csrw satp, t0"]
        if chance.random() < 0.1:
            lines.append("csrw satp, zero")
        if chance.random() < 0.5:
            lines.append("sfence.vma")
        address = chance.choice((slot << 30 | chance.randrange(1 << 30), target, chance.getrandbits(40)))
        lines += [f"li a0, {address & ~7:#x}", chance.choice(("ld a1, 0(a0)", "sd a1, 0(a0)", "lr.d a1, (a0)",
                                                               "amoor.d a1, a1, (a0)", "hlv.d a1, (a0)",
                                                               "hsv.d a1, (a0)", "csrw hgatp, a0", "hfence.gvma",
                                                               "csrw vsatp, a0", "csrr a1, hstatus"))]  # fmt: skip
        if chance.random() < 0.1:
            lines += ["csrr t0, sstatus", "li t1, 0x40000", "xor t0, t0, t1", "csrw sstatus, t0"]
    lines.append("j off")
    handler = """
    .balign 4
    handler:
        csrrw sp, sscratch, sp
        sd t0, 0(sp)
        addi s0, s0, -1
        beqz s0, off
        csrr t0, sepc
        addi t0, t0, 4
        csrw sepc, t0
        ld t0, 0(sp)
        csrrw sp, sscratch, sp
        sret
    .data
    .balign 4096
    tables: .zero 12288
    save: .zero 64
    """
    return "\n".join(lines) + "\n" + PUTS + handler


@pytest.mark.parametrize("switches", ["", "+shadow-paging", "+no-vmid+no-direct-interrupts"])
@pytest.mark.parametrize("seed", range(6))
def test_an_attacker_stays_in_its_own_memory(seed: int, switches: str) -> None:
    host = Host(1, 1, 64, Configuration.parse(ASSISTED + switches), Trace(), lambda _guest, _data: None)
    for page in range(host.frames.first):
        host.memory.write_bytes(page * PAGE, SECRET_PAGE)
    host.add_guest(2, inspect(program("_start: wfi\n j _start"), "victim"), 1, 4, "")
    victim = host.guest(2)
    assert isinstance(victim, VmGuest)
    for page in range(RAM_BASE >> 12, (RAM_BASE >> 12) + 1024):
        if page != 0x80200:
            victim.vm.ram.write(page << 12, SECRET_PAGE)
    host.run(50)
    taken = [host.frames.take() for _ in range(100)]
    for frame in taken:
        host.memory.write_bytes(frame * PAGE, SECRET_PAGE)
        host.frames.give_back(frame)
    image = inspect(program(_attack(seed)), "attacker")
    host.add_guest(1, image, 1, 8, "")
    attacker = host.guest(1)
    assert isinstance(attacker, VmGuest)
    others = {
        frame: host.memory.read_bytes(frame * PAGE, PAGE)
        for frame in (*range(host.frames.first), *victim.vm.ram.map.values())
    }
    ran = 0
    while not attacker.ended and ran < 60_000:
        ran += host.run(400)
        _check_confinement(attacker)
    for frame, content in others.items():
        assert host.memory.read_bytes(frame * PAGE, PAGE) == content, f"host frame {frame:#x} changed"
    for page, frame in attacker.vm.ram.map.items():
        assert SECRET_PAGE[:8] not in host.memory.read_bytes(frame * PAGE, PAGE), f"guest page {page:#x}"
    assert SECRET not in attacker.registers(0)["x"]
    assert attacker.exits > 20


def _check_confinement(guest: VmGuest) -> None:
    """Every leaf of the tables that the hart walks below the guest's own, or in their place, leads to a frame of the
    guest's (that of its page, in the second stage), every inner entry to a table; no table of the guest's is writable."""
    technique, memory = guest.technique, guest.host.memory
    assert isinstance(technique, HardwareAssist)
    frames = guest.vm.ram.map

    def descend(table: int, level: int, page: int, pages: int, tables: set[int]) -> Iterator[tuple[int, int]]:
        for index in np.flatnonzero(np.frombuffer(memory.read_bytes(table * PAGE, pages * PAGE), "<u8")):
            entry = memory.read(table * PAGE + 8 * int(index), 8)
            below = page | int(index) << 9 * level
            if level:
                assert entry & 0x3FF == mmu.V
                child = (entry >> 10) - (RAM_BASE >> 12)
                assert child in tables
                yield from descend(child, level - 1, below, 1, tables)
            else:
                yield below, entry

    if isinstance(technique.memory, TwoStages):
        stage = technique.memory.stage
        if stage.root is not None:
            for page, entry in descend(stage.root, 2, 0, 4, set(stage.tables)):
                assert frames[page] == (entry >> 10) - (RAM_BASE >> 12)
    else:
        shadow = technique.memory.shadow
        guarded = {frames[page] for page in frames if page in shadow.table_pages}
        for key, root in shadow.roots.items():
            for _, entry in descend(root, 2, 0, 1, set(shadow.tables[key])):
                frame = (entry >> 10) - (RAM_BASE >> 12)
                if entry & mmu.V:
                    assert frame in frames.values()
                    assert not (entry & mmu.W and frame in guarded)
