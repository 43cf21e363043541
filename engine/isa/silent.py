"""A machine that cannot be virtualized classically: which of its sensitive instructions do not trap in user mode.

x86 was such a machine until 2005: 17 of its instructions show or touch what belongs to the operating system and run in
user mode all the same, with another effect. A hart that is `silent` has the RISC-V instructions of the rows below do
likewise; all others keep to the manual.

    read     shows the machine's own register (with V=1, the guest's), whoever asks
    write    is ignored, and so are setting and clearing bits

Source of the x86 column: J. S. Robin, C. E. Irvine: Analysis of the Intel Pentium's Ability to Support a Secure Virtual
Machine Monitor, USENIX Security Symposium 2000, section 3.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from engine.isa.csrs import CSR_NUMBERS
from engine.isa.decoder import decode


class Silent(NamedTuple):
    """An access to a CSR that does not trap in user mode, and the x86 instructions that it behaves like."""

    csr: str
    access: Literal["read", "write"]
    x86: str


SILENT: tuple[Silent, ...] = (
    Silent("sstatus", "read", "SMSW, PUSHF"),
    Silent("sstatus", "write", "POPF"),
    Silent("stvec", "read", "SIDT"),
    Silent("satp", "read", "SGDT, SLDT"),
    Silent("sscratch", "read", "STR"),
)
SILENT_READS, SILENT_WRITES = (
    frozenset(CSR_NUMBERS[row.csr] for row in SILENT if row.access == access) for access in ("read", "write")
)


def imitated(word: int) -> str:
    """The x86 instructions that this one behaves like on a silent machine; "" if it traps there too."""
    row = decode(word)
    if row is None or "csr" not in row.fields:
        return ""
    operands = row.operands(word)
    writes = row.mnemonic in ("csrrw", "csrrwi") or operands.get("rs1") or operands.get("uimm")
    access = "write" if writes else "read"
    return next((entry.x86 for entry in SILENT if (CSR_NUMBERS[entry.csr], entry.access) == (operands["csr"], access)), "")
