"""Trap-and-emulate: what a guest sees is what it would see alone; what the trace says is what happened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.guests import load_image
from engine.hypervisor.host import Host
from engine.hypervisor.vm_guest import VmGuest
from engine.machine import mmu
from engine.machine.loader import RAM_BASE, inspect
from engine.machine.memory import PAGE
from engine.machine.mmu import Access, RecordedWalk
from engine.machine.traps import Trap
from engine.trace.record import PATHS, Action, Disposition, Kind, Level
from tests.support.machine import ASSISTED, BARE, PROGRAMS, VM, WORK, Machine, program
from tests.support.qemu import run_qemu


@pytest.fixture(scope="module")
def worked() -> Machine:
    machine = Machine(load_image("ringos"), VM, arguments=WORK)
    machine.run()
    return machine


@pytest.mark.parametrize(
    ("stack", "harts"), [(BARE, 2), *((stack, harts) for stack in (VM, ASSISTED) for harts in (1, 2, 3))]
)
def test_two_harts_share_memory_and_interrupt_each_other(stack: str, harts: int, tmp_path: Path) -> None:
    image = program((PROGRAMS / "two_harts.s").read_text())
    (tmp_path / "kernel").write_bytes(image)
    expected = run_qemu(tmp_path / "kernel", [], harts=2).output.replace("\r", "").strip().splitlines()[-1]
    traces = set()
    for slice_steps in (100_000, 997):
        machine = Machine(image, stack, harts=harts, vcpus=2)
        machine.run(slice_steps=slice_steps)
        assert machine.output.decode().strip() == expected == "both harts counted"
        assert (machine.guest.exit_status, machine.guest.failure) == (0, None)
        traces.add(machine.trace.hash())
    assert len(traces) == 1


def test_the_trace_accounts_for_every_instruction_and_every_switch(worked: Machine) -> None:
    records = worked.trace.records(1, limit=1 << 16)
    assert worked.trace.first(1) == 1
    assert int(records["executed"].sum()) == worked.guest.instructions
    assert len(records) == worked.guest.exits
    for record in records:
        path = PATHS[record["path"]]
        assert (path[0], path[-1]) == (record["from_level"], record["to_level"]) or path[
            -1
        ] == Level.HYPERVISOR
        assert Level.HYPERVISOR in path
        assert record["cost"] in (0, sum(leg.cycles for leg in worked.host.routes.legs(path)))
        assert (Level.DEVICE_MODEL in path) == (record["disposition"] == Disposition.FORWARDED)
    assert np.all(np.diff(records["position"].astype(np.int64)) > 0)
    # The host's clock is its steps, what the switches cost, and sleep: this guest never sleeps.
    assert worked.host.time == worked.host.position + int(records["cost"].sum())


def test_the_last_record_says_how_the_guest_ended(worked: Machine) -> None:
    (last,) = worked.trace.records(1, limit=1)
    assert (last["action"], last["a"]) == (Action.SHUTDOWN, 3)
    assert PATHS[last["path"]][-1] == Level.HYPERVISOR


def test_every_system_call_is_seen_and_handed_back(worked: Machine) -> None:
    alone = Machine(load_image("ringos"), BARE, arguments=WORK)
    alone.run()
    calls = {
        stack: sum(count for (kind, *_), count in machine.trace.counters(1).items() if kind == Kind.SYSCALL)
        for stack, machine in ((VM, worked), (BARE, alone))
    }
    assert calls[VM] == calls[BARE] > 50
    assert worked.output == alone.output


def test_shadow_tables_never_say_more_than_the_guests_own() -> None:
    machine = Machine(load_image("ringos"), VM, arguments=WORK)
    guest = machine.guest
    assert isinstance(guest, VmGuest)
    shadow, checked = guest.technique.shadow, 0
    while machine.host.run(1_500):
        for (satp, privilege, bits), root in shadow.roots.items():
            for address, entry in _leaves(machine.host, root):
                wanted = (
                    (Access.FETCH, mmu.X),
                    (Access.LOAD, mmu.R),
                    (Access.STORE, mmu.W),
                )
                for access, bit in wanted:
                    if not entry & bit:
                        continue
                    target = _translate(guest, satp, address, access, privilege, bits)
                    frame = (entry >> 10) - (RAM_BASE >> 12)
                    assert guest.vm.ram.map[target >> 12] == frame
                    assert access != Access.STORE or target >> 12 not in shadow.table_pages
                    checked += 1
    assert checked > 10_000


def _leaves(host: Host, root: int) -> list[tuple[int, int]]:
    """(virtual address, entry) of every leaf below a shadow root."""
    found = []

    def descend(table: int, level: int, address: int) -> None:
        for index in np.flatnonzero(np.frombuffer(host.memory.read_bytes(table * PAGE, PAGE), "<u8") & 1):
            entry = host.memory.read(table * PAGE + 8 * int(index), 8)
            below = address | int(index) << (12 + 9 * level)
            if level:
                descend((entry >> 10) - (RAM_BASE >> 12), level - 1, below)
            else:
                found.append((below, entry))

    descend(root, 2, 0)
    return found


def _translate(guest: VmGuest, satp: int, address: int, access: Access, privilege: int, bits: int) -> int:
    if not satp:
        return address
    bus = guest.vm.vcpus[0].virtual.bus
    address |= -(address >> 38) << 39 & (1 << 64) - 1
    try:
        return mmu.walk(RecordedWalk(bus), satp, 0, address, access, privilege, bits | mmu.LOOK)
    except Trap as trap:
        raise AssertionError(f"the guest's tables do not allow {access.name} at {address:#x}") from trap


@pytest.mark.parametrize("stack", [BARE, VM])
@pytest.mark.parametrize(
    ("source", "failure"),
    [
        ("_start: li t0, 0x40000000\n jr t0\n", "jump-to-nowhere"),
        ("_start: la t0, 1f\n csrw stvec, t0\n li t1, 0x1000\n1: lw t2, 0(t1)\n", "trap-loop"),
        ("_start: li t0, 0x50000000\n csrw stvec, t0\n ebreak\n", "no-trap-handler"),
    ],
)
def test_a_guest_that_can_only_trap_is_ended_with_the_reason(stack: str, source: str, failure: str) -> None:
    machine = Machine(program(source), stack)
    machine.run(10_000)
    assert machine.guest.failure is not None
    assert machine.guest.failure.key == failure
    if stack == VM:
        (last,) = machine.trace.records(1, limit=1)
        assert (last["disposition"], last["action"]) == (Disposition.KILLED, Action.KILL)


def test_a_guest_that_spins_for_ever_leaves_the_others_their_time() -> None:
    machine = Machine(program("_start: j _start\n"), VM)
    machine.host.add_guest(2, inspect(load_image("ringos"), "ringos"), 1, 16, "run=work compute 3;poweroff 5")
    machine.run(2_200_000)
    assert machine.host.guests[2].exit_status == 5
    assert machine.guest.failure is None
    assert machine.guest.instructions > 100_000
    actions = machine.trace.records(1, limit=1 << 16)["action"]
    assert np.count_nonzero(actions == Action.PREEMPT) > 2


def test_a_masked_timer_is_recorded_as_waiting() -> None:
    source = """
    _start:
        csrci sstatus, 2
        rdtime a0
        addi a0, a0, 100
        li   a6, 0
        li   a7, 0x54494D45
        ecall
    1:  csrr t0, sip
        andi t0, t0, 32
        beqz t0, 1b
        li   a0, 0
        li   a1, 0
        li   a7, 0x53525354
        ecall
    """
    machine = Machine(program(source), VM)
    machine.run(100_000)
    assert machine.guest.exit_status == 0
    records = machine.trace.records(1, limit=1000)
    timers = records[records["action"] == Action.TIMER]
    assert timers["a"].tolist() == [1]
