"""What every technique does when it emulates an instruction: know what it asks for, and execute its table row on the
vCPU's virtual hart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from engine.bits import MASK64
from engine.hypervisor.technique import Outcome
from engine.hypervisor.vm import VCpu
from engine.isa.csrs import CSR_NUMBERS
from engine.isa.decoder import decode
from engine.isa.table import uses_floats
from engine.machine.mmu import Access
from engine.machine.reference import operation
from engine.machine.state import NO_RESERVATION
from engine.machine.traps import IllegalInstruction, Trap
from engine.trace.record import Action, Cause, Disposition, Kind

if TYPE_CHECKING:
    from engine.hypervisor.vm_guest import VmGuest

#: Members of enumerations that exits need, by names of their own (why: engine.machine.mmu).
_MMIO = Kind.MMIO
_FORWARDED = Disposition.FORWARDED
_MMIO_READ, _MMIO_WRITE = Action.MMIO_READ, Action.MMIO_WRITE
SATP = CSR_NUMBERS["satp"]


class Meaning(NamedTuple):
    """What a privileged instruction asks for. csr, rd, rs1, immediate: its operands, where it has them."""

    action: Action
    csr: int
    rd: int
    rs1: int | None
    immediate: int


_ACTIONS = {
    "sret": Action.SRET, "mret": Action.MRET, "wfi": Action.WFI, "sfence.vma": Action.SFENCE,
    "sinval.vma": Action.SFENCE,
}  # fmt: skip


@lru_cache(maxsize=4096)
def meaning(word: int) -> Meaning:
    row = decode(word)
    if row is None:
        return Meaning(Action.EMULATE, 0, 0, None, 0)
    operands = row.operands(word)
    number, rs1, immediate = operands.get("csr", 0), operands.get("rs1"), operands.get("uimm", 0)
    action = _ACTIONS.get(row.mnemonic, Action.EMULATE)
    if "csr" in operands:
        # With x0 or 0, csrrs and csrrc and theirs do not write.
        if row.mnemonic not in ("csrrw", "csrrwi") and not (rs1 or immediate):
            action = Action.CSR_READ
        else:
            action = Action.ADDRESS_SPACE if number == SATP else Action.CSR_WRITE
    return Meaning(action, number, operands.get("rd", 0), rs1, immediate)


@lru_cache(maxsize=4096)
def stored_register(word: int) -> tuple[int | None, bool]:
    """The number of the register rs2, if the instruction has one, and whether it is a floating-point one."""
    row = decode(word)
    if row is None or "rs2" not in row.fields:
        return None, False
    return row.operands(word)["rs2"], uses_floats(row)


def execute(vcpu: VCpu, word: int) -> Trap | None:
    """One instruction at the virtual hart's pc, which the VMM retires for the guest. The trap that it takes there, if any,
    is returned and not yet taken."""
    virtual = vcpu.virtual
    try:
        virtual.pc = operation(word)(virtual, virtual.pc) & MASK64
    except Trap as trap:
        return trap
    except IllegalInstruction:
        return Trap(Cause.ILLEGAL_INSTRUCTION, word)
    virtual.instructions_base += 1
    return None


def access_for(vcpu: VCpu, word: int, known: tuple[int, Access, int] | None = None) -> Trap | Outcome | int:
    """Execute a load or store that touches what is the VMM's. known: see VirtualHart. Whoever fetched `word` cleared
    the bus's `touched` before.

    The trap that it takes, not yet taken; of a device's register, the outcome; else the value that it stored, or 0."""
    virtual = vcpu.virtual
    rs2, floats = stored_register(word)
    stored = 0 if rs2 is None else (virtual.f if floats else virtual.x)[rs2]
    virtual.known = known
    trap = execute(vcpu, word)
    virtual.known = None
    if trap is not None:
        return trap
    if virtual.bus.touched is None:
        return stored
    write, address, value = virtual.bus.touched
    action = _MMIO_WRITE if write else _MMIO_READ
    return Outcome(_MMIO, _FORWARDED, action, address, value, True)


def carry_reservation(guest: VmGuest, vcpu: VCpu, target: int) -> None:
    """A store-conditional to a guest physical address is emulated, but its load-reserved ran on the host hart."""
    hart = vcpu.hart
    assert hart is not None
    if hart.reservation == NO_RESERVATION:
        vcpu.virtual.reservation = NO_RESERVATION
        return
    there = guest.host_address(guest.vm.ram.frame(target >> 12)) | target & 0xFFF
    vcpu.virtual.reservation = target if hart.reservation == there else NO_RESERVATION
    hart.reservation = NO_RESERVATION
