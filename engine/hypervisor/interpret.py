"""What every technique does when it emulates an instruction: execute its table row on the vCPU's virtual hart."""

from __future__ import annotations

from engine.bits import MASK64
from engine.hypervisor.vm import VCpu
from engine.machine.reference import operation
from engine.machine.traps import IllegalInstruction, Trap
from engine.trace.record import Cause


def execute(vcpu: VCpu, word: int) -> Trap | None:
    """One instruction at the virtual hart's pc. The trap that it takes there, if any, is returned and not yet
    taken."""
    virtual = vcpu.virtual
    try:
        virtual.pc = operation(word)(virtual, virtual.pc) & MASK64
    except Trap as trap:
        return trap
    except IllegalInstruction:
        return Trap(Cause.ILLEGAL_INSTRUCTION, word)
    vcpu.emulated()
    return None
