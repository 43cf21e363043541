"""The CSR table: one row per register with its number, its fields, and what may be written (WARL).

A row names where its bits live: `storage` is a word of the hart's CSR file, `view` the bits of it that this
register shows. sstatus, sie and sip are views of mstatus, mie and mip. A write changes only the bits in
`writable` and passes through `rule` (a name that engine.machine.csrfile implements) where legality is more
than a mask.

A register that virtualisation doubles wraps two: its `twin` is the row that its number reaches while V=1
(section 8.2). Where the second word holds the same bits as the first, nothing else needs to know.

Number bits 11:10 = 3 mean read-only, bits 9:8 the lowest privilege: 2 is HS mode (privileged specification
1.12, section 2.1). Those of the H extension are there only on a hart that has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from engine.bits import MASK64

Fields = tuple[tuple[str, int, int], ...]  # (name, high bit, low bit)

MSTATUS_FIELDS: Fields = (
    ("SD", 63, 63), ("MPV", 39, 39), ("GVA", 38, 38), ("MBE", 37, 37), ("SBE", 36, 36), ("SXL", 35, 34),
    ("UXL", 33, 32), ("TSR", 22, 22), ("TW", 21, 21),
    ("TVM", 20, 20), ("MXR", 19, 19), ("SUM", 18, 18), ("MPRV", 17, 17), ("XS", 16, 15), ("FS", 14, 13),
    ("MPP", 12, 11),
    ("VS", 10, 9), ("SPP", 8, 8), ("MPIE", 7, 7), ("UBE", 6, 6), ("SPIE", 5, 5), ("MIE", 3, 3), ("SIE", 1, 1),
)  # fmt: skip
INTERRUPT_FIELDS: Fields = (
    ("MEI", 11, 11), ("SEI", 9, 9), ("MTI", 7, 7), ("STI", 5, 5), ("MSI", 3, 3), ("SSI", 1, 1),
)  # fmt: skip
TVEC_FIELDS: Fields = (("BASE", 63, 2), ("MODE", 1, 0))
CAUSE_FIELDS: Fields = (("Interrupt", 63, 63), ("Code", 62, 0))
SATP_FIELDS: Fields = (("MODE", 63, 60), ("ASID", 59, 44), ("PPN", 43, 0))
FLAGS_FIELDS: Fields = (("NV", 4, 4), ("DZ", 3, 3), ("OF", 2, 2), ("UF", 1, 1), ("NX", 0, 0))
COUNTEREN_FIELDS: Fields = (("IR", 2, 2), ("TM", 1, 1), ("CY", 0, 0))
ENVCFG_FIELDS: Fields = (("STCE", 63, 63), ("PBMTE", 62, 62), ("FIOM", 0, 0))
GUEST_INTERRUPT_FIELDS: Fields = (("VSEI", 10, 10), ("VSTI", 6, 6), ("VSSI", 2, 2))
HSTATUS_FIELDS: Fields = (
    ("VSXL", 33, 32), ("VTSR", 22, 22), ("VTW", 21, 21), ("VTVM", 20, 20), ("VGEIN", 17, 12), ("HU", 9, 9),
    ("SPVP", 8, 8), ("SPV", 7, 7), ("GVA", 6, 6), ("VSBE", 5, 5),
)  # fmt: skip
HGATP_FIELDS: Fields = (("MODE", 63, 60), ("VMID", 57, 44), ("PPN", 43, 0))


class Status:
    """Bits of mstatus and sstatus."""

    SIE, MIE, SPIE, MPIE, SPP = 1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 8
    MPP_SHIFT, MPP = 11, 3 << 11
    MPRV, SUM, MXR, TVM, TW, TSR = 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 22
    XLEN_64 = 2 << 32 | 2 << 34  # UXL and SXL, both read-only 2
    GVA, MPV = 1 << 38, 1 << 39  # of the H extension
    FS, SD = 3 << 13, 1 << 63  # Off, Initial, Clean, Dirty; and its summary: set exactly while FS is Dirty
    WRITABLE = SIE | MIE | SPIE | MPIE | SPP | MPP | MPRV | SUM | MXR | TVM | TW | TSR | FS
    SUPERVISOR_VIEW = SIE | SPIE | SPP | SUM | MXR | FS | SD | 3 << 32
    SUPERVISOR_WRITABLE = SIE | SPIE | SPP | SUM | MXR | FS


class GuestStatus:
    """Bits of hstatus."""

    GVA, SPV, SPVP, HU = 1 << 6, 1 << 7, 1 << 8, 1 << 9
    VTVM, VTW, VTSR = 1 << 20, 1 << 21, 1 << 22
    XLEN_64 = 2 << 32  # VSXL, read-only 2
    WRITABLE = GVA | SPV | SPVP | HU | VTVM | VTW | VTSR


class EnvironmentBits:
    """Bits of menvcfg and henvcfg: Svpbmt and Sstc."""

    PBMTE, STCE = 1 << 62, 1 << 63


SUPERVISOR_INTERRUPTS = 1 << 1 | 1 << 5 | 1 << 9
ALL_INTERRUPTS = SUPERVISOR_INTERRUPTS | 1 << 3 | 1 << 7 | 1 << 11
#: Bits of mip and mie for VS mode; vsip and vsie show them one lower.
GUEST_INTERRUPTS = SUPERVISOR_INTERRUPTS << 1
DELEGABLE_EXCEPTIONS = 0xB3FF
#: Calls from VS mode, guest-page faults and virtual instructions; they cannot be delegated to VS mode.
HYPERVISOR_EXCEPTIONS = 1 << 10 | 0xF << 20
#: Everything that VS mode can get: not the calls of S and VS mode.
GUEST_EXCEPTIONS = DELEGABLE_EXCEPTIONS & ~(1 << 9)
MISA_H = 1 << 7
MISA = 2 << 62 | sum(1 << (ord(letter) - ord("A")) for letter in "ACDFIMSU")


@dataclass(frozen=True)
class Csr:
    """One CSR. storage: word of the CSR file ("" where nothing is stored); view: bits of it that are shown; shift: how
    much lower they are shown; writable: bits of the word that a write changes; guest_bits: those of them that only
    the H extension has; rule: name of what is more than a mask; constant: value of a register that has no storage;
    twin: number of the row that holds while V=1."""

    number: int
    name: str
    storage: str = ""
    view: int = MASK64
    writable: int = MASK64
    rule: str = ""
    constant: int = 0
    fields: Fields = ()
    shift: int = 0
    guest_bits: int = 0
    twin: int = 0

    @cached_property
    def read_only(self) -> bool:
        return self.number >> 10 == 3

    @cached_property
    def privilege(self) -> int:
        """The lowest privilege that may access it: 0 user, 1 supervisor, 2 HS, 3 machine."""
        return self.number >> 8 & 3

    @cached_property
    def of_hypervisor(self) -> bool:
        """Is it one of the H extension?"""
        return self.privilege == 2 or self.name in ("mtinst", "mtval2")


_NAMED: list[Csr] = [
    Csr(0x001, "fflags", "fcsr", view=0x1F, rule="float", fields=FLAGS_FIELDS),
    Csr(0x002, "frm", "fcsr", view=7 << 5, shift=5, rule="float"),
    Csr(0x003, "fcsr", "fcsr", view=0xFF, rule="float", fields=(("RM", 7, 5), *FLAGS_FIELDS)),
    Csr(0xC00, "cycle", rule="counter"),
    Csr(0xC01, "time", rule="counter"),
    Csr(0xC02, "instret", rule="counter"),
    Csr(
        0x100, "sstatus", "mstatus", Status.SUPERVISOR_VIEW, Status.SUPERVISOR_WRITABLE, rule="sstatus",
        fields=MSTATUS_FIELDS, twin=0x200,
    ),
    Csr(0x104, "sie", "mie", SUPERVISOR_INTERRUPTS, rule="delegated", fields=INTERRUPT_FIELDS, twin=0x204),
    Csr(0x105, "stvec", "stvec", rule="tvec", fields=TVEC_FIELDS, twin=0x205),
    Csr(0x106, "scounteren", "scounteren", writable=7, fields=COUNTEREN_FIELDS),
    Csr(0x10A, "senvcfg", "senvcfg", writable=1, fields=ENVCFG_FIELDS),
    Csr(0x140, "sscratch", "sscratch", twin=0x240),
    Csr(0x141, "sepc", "sepc", writable=MASK64 & ~1, twin=0x241),
    Csr(0x142, "scause", "scause", fields=CAUSE_FIELDS, twin=0x242),
    Csr(0x143, "stval", "stval", twin=0x243),
    Csr(
        0x144, "sip", "mip", SUPERVISOR_INTERRUPTS, writable=1 << 1, rule="delegated", fields=INTERRUPT_FIELDS,
        twin=0x244,
    ),
    Csr(0x180, "satp", "satp", rule="satp", fields=SATP_FIELDS, twin=0x280),
    Csr(0x14D, "stimecmp", "stimecmp", rule="timer", twin=0x24D),
    Csr(0xF11, "mvendorid"),
    Csr(0xF12, "marchid"),
    Csr(0xF13, "mimpid"),
    Csr(0xF14, "mhartid", rule="hartid"),
    Csr(0xF15, "mconfigptr"),
    Csr(
        0x300, "mstatus", "mstatus", writable=Status.WRITABLE | Status.MPV | Status.GVA, rule="mstatus",
        fields=MSTATUS_FIELDS, guest_bits=Status.MPV | Status.GVA,
    ),
    Csr(0x301, "misa", constant=MISA, rule="misa"),
    Csr(
        0x302, "medeleg", "medeleg", writable=DELEGABLE_EXCEPTIONS | HYPERVISOR_EXCEPTIONS,
        guest_bits=HYPERVISOR_EXCEPTIONS,
    ),
    Csr(0x303, "mideleg", "mideleg", writable=SUPERVISOR_INTERRUPTS, fields=INTERRUPT_FIELDS),
    Csr(
        0x304, "mie", "mie", writable=ALL_INTERRUPTS | GUEST_INTERRUPTS, fields=INTERRUPT_FIELDS,
        guest_bits=GUEST_INTERRUPTS,
    ),
    Csr(0x305, "mtvec", "mtvec", rule="tvec", fields=TVEC_FIELDS),
    Csr(0x306, "mcounteren", "mcounteren", writable=7, fields=COUNTEREN_FIELDS),
    Csr(
        0x30A, "menvcfg", "menvcfg", writable=1 | EnvironmentBits.PBMTE | EnvironmentBits.STCE,
        fields=ENVCFG_FIELDS,
    ),
    Csr(0x320, "mcountinhibit"),
    Csr(0x340, "mscratch", "mscratch"),
    Csr(0x341, "mepc", "mepc", writable=MASK64 & ~1),
    Csr(0x342, "mcause", "mcause", fields=CAUSE_FIELDS),
    Csr(0x343, "mtval", "mtval"),
    Csr(
        0x344, "mip", "mip", writable=SUPERVISOR_INTERRUPTS | 1 << 2, rule="mip", fields=INTERRUPT_FIELDS,
        guest_bits=1 << 2,
    ),
    Csr(0x34A, "mtinst", "mtinst"),
    Csr(0x34B, "mtval2", "mtval2"),
    Csr(0xB00, "mcycle", rule="counter"),
    Csr(0xB02, "minstret", rule="counter"),
]

#: The H extension's: HS mode's own, and what the supervisor registers are while V=1.
_HYPERVISOR: list[Csr] = [
    Csr(0x600, "hstatus", "hstatus", writable=GuestStatus.WRITABLE, fields=HSTATUS_FIELDS),
    Csr(0x602, "hedeleg", "hedeleg", writable=GUEST_EXCEPTIONS),
    Csr(0x603, "hideleg", "hideleg", writable=GUEST_INTERRUPTS, fields=GUEST_INTERRUPT_FIELDS),
    Csr(0x604, "hie", "mie", GUEST_INTERRUPTS, fields=GUEST_INTERRUPT_FIELDS),
    Csr(0x605, "htimedelta", "htimedelta"),
    Csr(0x606, "hcounteren", "hcounteren", writable=7, fields=COUNTEREN_FIELDS),
    Csr(0x607, "hgeie"),  # no guest external interrupts: GEILEN is 0
    Csr(
        0x60A, "henvcfg", "henvcfg", writable=1 | EnvironmentBits.PBMTE | EnvironmentBits.STCE, rule="henvcfg",
        fields=ENVCFG_FIELDS,
    ),
    Csr(0x643, "htval", "htval"),
    Csr(0x644, "hip", "mip", GUEST_INTERRUPTS, writable=1 << 2, fields=GUEST_INTERRUPT_FIELDS),
    Csr(0x645, "hvip", "mip", GUEST_INTERRUPTS, rule="injected", fields=GUEST_INTERRUPT_FIELDS),
    Csr(0x64A, "htinst", "htinst"),
    Csr(0x680, "hgatp", "hgatp", writable=0xF << 60 | (1 << 58) - 4, rule="satp", fields=HGATP_FIELDS),
    Csr(0xE12, "hgeip"),
    Csr(
        0x200, "vsstatus", "vsstatus", Status.SUPERVISOR_VIEW, Status.SUPERVISOR_WRITABLE, rule="sstatus",
        fields=MSTATUS_FIELDS,
    ),
    Csr(0x204, "vsie", "mie", GUEST_INTERRUPTS, shift=1, rule="lowered", fields=INTERRUPT_FIELDS),
    Csr(0x205, "vstvec", "vstvec", rule="tvec", fields=TVEC_FIELDS),
    Csr(0x240, "vsscratch", "vsscratch"),
    Csr(0x241, "vsepc", "vsepc", writable=MASK64 & ~1),
    Csr(0x242, "vscause", "vscause", fields=CAUSE_FIELDS),
    Csr(0x243, "vstval", "vstval"),
    Csr(0x244, "vsip", "mip", GUEST_INTERRUPTS, shift=1, writable=1 << 2, rule="lowered", fields=INTERRUPT_FIELDS),
    Csr(0x24D, "vstimecmp", "vstimecmp", rule="timer"),
    Csr(0x280, "vsatp", "vsatp", rule="satp", fields=SATP_FIELDS),
]

#: Read-only zero, which is legal for all of them: no PMP entry (section 3.7: then every access is permitted),
#: no hardware performance monitor (section 3.1.10).
_ZERO: list[Csr] = [
    *(Csr(0x3A0 + i, f"pmpcfg{i}") for i in range(0, 16, 2)),
    *(Csr(0x3B0 + i, f"pmpaddr{i}") for i in range(64)),
    *(Csr(0xB00 + i, f"mhpmcounter{i}") for i in range(3, 32)),
    *(Csr(0x320 + i, f"mhpmevent{i}") for i in range(3, 32)),
    *(Csr(0xC00 + i, f"hpmcounter{i}", rule="hpmcounter") for i in range(3, 32)),
]

CSRS: dict[int, Csr] = {}
CSR_NUMBERS: dict[str, int] = {}
for _csr in _NAMED + _HYPERVISOR + _ZERO:
    if _csr.number in CSRS or _csr.name in CSR_NUMBERS:
        raise ValueError(f"two rows for CSR {_csr.name} ({_csr.number:#x})")
    CSRS[_csr.number] = _csr
    CSR_NUMBERS[_csr.name] = _csr.number

for _csr in CSRS.values():
    if _csr.twin and CSRS[_csr.twin].rule not in (_csr.rule, "lowered"):
        raise ValueError(f"{_csr.name} and its twin differ in more than where they keep their bits")

#: Words of a hart's CSR file, with their values at reset. The specification leaves stimecmp's open: no timer is
#: pending before somebody sets one.
STORAGE: dict[str, int] = {row.storage: 0 for row in CSRS.values() if row.storage} | {
    "mstatus": Status.XLEN_64,
    "hstatus": GuestStatus.XLEN_64,
    "vsstatus": Status.XLEN_64 & Status.SUPERVISOR_VIEW,
    "stimecmp": MASK64,
    "vstimecmp": MASK64,
}


def csr_fields(name: str, value: int) -> list[tuple[str, int]]:
    """A CSR's value taken apart by its row: [(field, value)], highest bits first."""
    row = CSRS[CSR_NUMBERS[name]]
    return [(label, value >> low & ((1 << (high - low + 1)) - 1)) for label, high, low in row.fields]
