"""A machine whose sensitive instructions are silent in user mode: what breaks there, what does not, and every tier alike."""

from __future__ import annotations

import pytest

from engine.guests import load_image
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.machine.loader import inspect
from engine.machine.tiers import Tier
from engine.trace.rings import Trace
from tests.support.machine import ASSISTED, BARE, PARAVIRTUAL, VM, WORK, Machine, program

SILENT = "+silent-sensitive"

#: Each access in the guest's kernel and then in its user mode; traps there are counted in s2, and what is read is kept.
ACCESSES = """
_start: la    t0, trapped
        csrw  stvec, t0
        li    s2, 0
        csrr  a1, sstatus
        csrr  a2, stvec
        csrr  a3, satp
        csrr  a4, sscratch
        li    t0, 0x55
        csrw  sscratch, t0
        csrr  a5, sscratch
        csrw  sstatus, zero
        la    t0, user
        csrw  sepc, t0
        sret
user:   csrr  s3, sstatus
        csrr  s4, stvec
        csrr  s5, satp
        csrr  s6, sscratch
        csrsi sstatus, 2
        csrw  sstatus, zero
        csrw  sscratch, zero
        csrr  t0, sepc
        ecall
        .balign 4
trapped: csrr t0, scause
        addi  t0, t0, -8
        beqz  t0, off
        addi  s2, s2, 1
        csrr  t0, sepc
        addi  t0, t0, 4
        csrw  sepc, t0
        sret
off:    csrr  t1, sstatus
        li    t0, 0x100000
        li    t1, 0x5555
        sw    t1, 0(t0)
        j     .
"""
USER_ACCESSES = 8


def last_state(stack: str) -> tuple[Machine, dict[str, int]]:
    """The accesses on a stack, and the guest's registers after them."""
    machine = Machine(program(ACCESSES), stack)
    machine.run(10_000)
    assert machine.guest.exit_status == 0
    x = machine.guest.hart(0).x
    names = {"s2": 18, "a2": 12, "a4": 14, "a5": 15, "s3": 19, "s4": 20, "s5": 21, "s6": 22}
    return machine, {name: x[number] for name, number in names.items()}


@pytest.mark.parametrize("stack", [VM, ASSISTED, BARE])
def test_in_user_mode_everything_traps_without_the_switch(stack: str) -> None:
    _, registers = last_state(stack)
    assert registers["s2"] == USER_ACCESSES
    assert registers["s4"] == registers["s6"] == 0
    assert registers["a5"] == 0x55


@pytest.mark.parametrize("stack", [ASSISTED, BARE])
def test_with_it_user_code_sees_its_own_kernels_registers(stack: str) -> None:
    """Alike on the bare machine and in modes of the guest's own: nobody can tell the one from the other."""
    machine, registers = last_state(stack + SILENT)
    assert registers["s2"] == 2  # csrw sscratch and csrr sepc are no rows of the table
    assert registers["s4"] == registers["a2"] == machine.guest.registers(0)["csrs"]["stvec"] != 0
    assert (registers["s6"], registers["a5"]) == (0x55, 0x55)


def test_a_deprivileged_kernel_sees_the_hosts_registers() -> None:
    machine, registers = last_state(VM + SILENT)
    host = machine.host.harts[0]
    assert registers["a2"] == host.stvec == 0
    assert registers["a5"] == host.sscratch == 0
    assert registers["s5"] >> 60 == 8  # satp is the shadow tables', although the guest has no paging
    assert registers["s2"] == 2


def test_trap_and_emulate_breaks_where_the_others_work() -> None:
    """ringos sets SUM to reach into a program's memory; the host ignores it. A translated kernel executes no sensitive
    instruction at all."""
    broken = Machine(load_image("ringos"), VM + SILENT, arguments=WORK)
    broken.run()
    assert broken.guest.exit_status == 1
    assert b"panic" in broken.output
    plain = Machine(load_image("ringos"), VM, arguments=WORK)
    plain.run()
    for stack in (ASSISTED, BARE, "binary-translation"):
        machine = Machine(load_image("ringos"), stack + SILENT, arguments=WORK)
        machine.run()
        assert machine.output == plain.output
        assert machine.guest.exit_status == 3


def test_a_kernel_that_asks_instead_works() -> None:
    """Paravirtualization needs no instruction to trap."""
    plain, silent = (
        Machine(load_image("ringos-pv"), PARAVIRTUAL + switch, arguments=WORK) for switch in ("", SILENT)
    )
    for machine in (plain, silent):
        machine.run()
    assert silent.output == plain.output
    assert silent.guest.exit_status == 3


@pytest.mark.parametrize("stack", [VM, ASSISTED, BARE])
@pytest.mark.parametrize(("image", "arguments"), [(program(ACCESSES), ""), (load_image("ringos"), WORK)])
def test_every_tier_has_the_same_trace(stack: str, image: bytes, arguments: str) -> None:
    hashes = set()
    for tier in Tier:
        trace = Trace()
        host = Host(1, 1, 64, Configuration.parse(stack + SILENT), trace, lambda _guest, _data: None, tier=tier)
        host.add_guest(1, inspect(image, "guest"), 1, 16, arguments)
        while host.run(7_777):
            pass
        hashes.add((trace.hash(), host.position, host.time))
    assert len(hashes) == 1
