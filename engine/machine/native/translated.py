"""What a hart that executes translated kernel code (engine.hypervisor.translation) has of the vCPU's state: words of the VMM
in floating-point registers, which such code does not use otherwise.

As in engine.machine.native.carried, the hart of a procedure is the virtual hart, `host` the address of the one that carries
it, and Python calls the compiled form where there is one. Integer registers and the pc are the caller's matter.
"""

from __future__ import annotations

from typing import Any

from engine.isa.csrs import CSR_NUMBERS, CSRS, Csr, Status
from engine.machine import csrfile
from engine.machine.native.layout import field

#: The words: views of virtual CSRs as the guest reads them; 2 (the bit of SIE) if an interrupt waits for SIE alone; the
#: guest's pc for the stub that enters nowhere; and what was in registers that inline code uses.
STATUS, SCRATCH, EPC, CAUSE, TVAL, TVEC, ENABLED, ADDRESS_SPACE, INTERRUPT, PC = range(10)
FIRST, SECOND, OLD = 10, 11, 12
#: The registers that the first words show, by their numbers.
SHOWN: tuple[Csr, ...] = tuple(
    CSRS[CSR_NUMBERS[name]] for name in ("sstatus", "sscratch", "sepc", "scause", "stval", "stvec", "sie", "satp")
)
#: sstatus bits that change nothing but sstatus, unless an interrupt waits for SIE: translated code changes them by itself.
INLINE = Status.SIE | Status.SPIE | Status.SPP
WORDS, HOST_STATUS = field("f_words"), field("mstatus")
FLOATS = Status.FS | Status.SD


def catch_up(h: Any, host: int) -> None:
    """What translated code writes without an exit."""
    words = host + WORDS
    h.sscratch = h.peek(words + 8 * SCRATCH, 8)
    h.sepc = h.peek(words + 8 * EPC, 8)
    h.scause = h.peek(words + 8 * CAUSE, 8)
    h.stval = h.peek(words + 8 * TVAL, 8)
    h.mstatus = h.mstatus & ~INLINE | h.peek(words + 8 * STATUS, 8) & INLINE


def announce(h: Any, host: int) -> None:
    """Does an interrupt wait for SIE alone?"""
    waits = (h.mip | h.lines) & h.mie & h.mideleg
    h.poke(host + WORDS + 8 * INTERRUPT, 8, Status.SIE if waits else 0)


def hand_over(
    h: Any, host: int, status: Csr, scratch: Csr, epc: Csr, cause: Csr, tval: Csr, tvec: Csr, enabled: Csr, space: Csr
) -> None:
    """All words; the rows are those of SHOWN."""
    words = host + WORDS
    h.poke(words + 8 * STATUS, 8, csrfile.read(h, status))
    h.poke(words + 8 * SCRATCH, 8, csrfile.read(h, scratch))
    h.poke(words + 8 * EPC, 8, csrfile.read(h, epc))
    h.poke(words + 8 * CAUSE, 8, csrfile.read(h, cause))
    h.poke(words + 8 * TVAL, 8, csrfile.read(h, tval))
    h.poke(words + 8 * TVEC, 8, csrfile.read(h, tvec))
    h.poke(words + 8 * ENABLED, 8, csrfile.read(h, enabled))
    h.poke(words + 8 * ADDRESS_SPACE, 8, csrfile.read(h, space))
    h.poke(words + 8 * PC, 8, h.pc)
    announce(h, host)
    h.poke(host + HOST_STATUS, 8, h.peek(host + HOST_STATUS, 8) | FLOATS)
