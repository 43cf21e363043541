"""Programs for the H extension: two-stage tables made by hand, every mode, and what each may do.

`hypervisor.s` is what surrounds them. Each body is straight-line code that switches modes by ecall; whatever
traps is logged by M, HS or VS mode's own handler with everything that this mode can read of the trap.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from engine.isa.assembler import assemble
from engine.isa.csrs import CSRS, Status
from engine.isa.disassembler import disassemble
from engine.isa.program import Program
from engine.machine.mmu import TABLE_READ, TABLE_WRITE
from engine.trace.record import Cause

#: Svpbmt on means that QEMU ignores other reserved bits of an entry: no table here has any.
QEMU_CPU = "rv64,h=true,sstc=true,svpbmt=true," + ",".join(
    f"{name}=false"
    for name in ("v", "svinval", "svnapot", "zba", "zbb", "zbc", "zbs", "Zfh", "Zihintpause", "sscofpmf")
)
M, HS, U, VS, VU = 3, 1, 0, 5, 4
MODES = {"M": M, "HS": HS, "U": U, "VS": VS, "VU": VU}
BASE = 0x8000_0000
PAGES = 64  # of the window
TRAP = struct.Struct("<10Q")
TRAP_BYTES = 96
FIELDS = ("mode", "cause", "epc", "tval", "status", "gpa", "instruction", "hstatus", "pending", "other")
#: Flags of leaves in the two stages; window page 8 a + b has flavour a in the first and b in the second.
FIRST = (0xCF, 0xDF, 0x87, 0x47, 0xC9, 0x00, 0xC5, 0x1CF)
SECOND = (0xDF, 0xD3, 0xD9, 0xCF, 0x00, 0x17, 0xD5, 0x5F)
#: Without what is wrong in QEMU 7.2 where MXR is on.
READABLE = (0xDF, 0xDF, 0xDB, 0xCF, 0x00, 0x1F, 0xD5, 0x5F)


def to(mode: int) -> str:
    """Go on in another mode."""
    return f"li a7, SWITCH + {mode}\n ecall\n"


def show(*registers: str) -> str:
    """Write registers to the output."""
    return "".join(f" sd {register}, 0(gp)\n addi gp, gp, 8\n" for register in registers)


def each_page(access: str) -> str:
    """`access` for every page of the window; t0 is its address, t1 gets a result."""
    return f"""
    li t0, 0x40000000
    li t2, {PAGES}
1:  li t1, 0x77
    {access}
    {show("t1")}
    li t3, 0x1000
    add t0, t0, t3
    addi t2, t2, -1
    bnez t2, 1b
"""


def source(body: str, second_flags: tuple[int, ...] = SECOND) -> str:
    """The whole program."""
    first = [f" .dword {0x40000 + i << 10 | FIRST[i // 8]:#x}" for i in range(PAGES)]
    second = [f" .dword ((arena + {4096 * (i & 3)}) >> 12) << 10 | {second_flags[i % 8]:#x}" for i in range(PAGES)]
    # jalr x0, 0(s11) at every place that is fetched from: the window's pages lead into the arena.
    pages = "".join(f" .dword 0x{0x1122334400000000 + 16 * i:x}, 0x000d8067000d8067\n .zero 4080\n" for i in range(4))
    return (Path(__file__).parent / "hypervisor.s").read_text().format(
        body=body,
        guest_leaves="\n".join([*first, f" .zero {4096 - 8 * PAGES}"]),
        second_leaves="\n".join([*second, f" .zero {4096 - 8 * PAGES}"]),
        arena=pages,
        output_size=1 << 16,
        log_size=TRAP_BYTES * 4000,
    )


def program(name: str, body: str) -> Program:
    return assemble(source(body, SECOND if name in ALL_SECOND else READABLE), name)


LOAD, STORE = "ld t1, 0(t0)", "sd t1, 16(t0)"
SUM_MXR = ("0", "0x40000", "0x80000", "0xc0000")


def _accesses(mode: int, settings: tuple[str, ...] = SUM_MXR) -> Iterator[str]:
    """Loads and stores of every page, in settings of vsstatus.SUM and MXR."""
    for bits in settings:
        yield f"""
    li t0, 0xc0000
    csrc vsstatus, t0
    li t0, {bits}
    csrs vsstatus, t0
    hfence.vvma
    hfence.gvma
    {to(mode)}
    {each_page(LOAD)}
    {each_page(STORE)}
    {to(M)}
"""


def _hypervisor_accesses() -> Iterator[str]:
    """SUM is on and MXR off: so QEMU 7.2 takes them for hlv and MPRV."""
    for bits in SUM_MXR[1:2]:
        for spvp in ("csrc", "csrs"):
            yield f"""
    li t0, 0xc0000
    csrc vsstatus, t0
    li t0, {bits}
    csrs vsstatus, t0
    csrr t0, vsatp                          # not Bare in HS mode: see `agreed`
    csrw satp, t0
    sfence.vma
    li t0, 0x100
    {spvp} hstatus, t0
    hfence.vvma
    hfence.gvma
    {to(HS)}
    {each_page("hlv.d t1, (t0)")}
    {each_page("addi t4, t0, 24; hsv.w t1, (t4)")}
    {to(M)}
"""


def _mprv() -> Iterator[str]:
    yield " csrr t0, vsatp\n csrw satp, t0\n li t0, 0x40000\n csrs vsstatus, t0\n"
    for mpp in (0, 1):
        access = f"""
    li t3, 1 << 39 | 0x1800
    csrc mstatus, t3
    li t3, 1 << 39 | {mpp << 11} | 1 << 17
    csrs mstatus, t3
    ld t1, 0(t0)
    li t3, 1 << 17
    csrc mstatus, t3
"""
        yield each_page(access)


TO_GUEST = "li t0, 0xb1ff & ~0x144\n csrw hedeleg, t0\n"
TO_HS = "li t0, 0xf0b0ff\n csrw medeleg, t0\n"

DIRECTED: dict[str, str] = {
    "no MXR, VS mode": "".join(_accesses(VS, SUM_MXR[:2])),
    "no MXR, VU mode": "".join(_accesses(VU, SUM_MXR[:2])),
    "two stages, VS mode, to M": "".join(_accesses(VS)),
    "two stages, VU mode, to HS": TO_HS + "".join(_accesses(VU)),
    "two stages, VS mode, to VS where it is the guest's": TO_HS + TO_GUEST + "".join(_accesses(VS)),
    "fetches": TO_HS
    + to(VS)
    + each_page("la s11, 2f; addi t4, t0, 8; jr t4\n2:")
    + to(M)
    + TO_GUEST
    + to(VS)
    + each_page("la s11, 2f; addi t4, t0, 8; jr t4\n2:"),
    "hlv and hsv": TO_HS + "".join(_hypervisor_accesses()),
    "MPRV and MPV": "".join(_mprv()),
    "a first stage that is not in guest memory": f"""
    {TO_HS}
    la t0, guest_root
    li t1, 0x10001401                # a table at an invalid page of the window
    sd t1, 24(t0)
    li t1, 0x10000401                # one that may only be read
    sd t1, 32(t0)
    li t1, 0x10000c01                # one without U
    sd t1, 40(t0)
    hfence.vvma
    {to(VS)}
    li t0, 3 << 30
    ld t1, 0(t0)
    sd t1, 0(t0)
    la s11, 1f
    jr t0
1:  li t0, 4 << 30
    ld t1, 0(t0)
    li t0, 5 << 30
    ld t1, 0(t0)
    li t0, 1 << 45
    ld t1, 0(t0)
    {to(M)}
    la t0, guest_root
    li t1, 1 << 40 | 0xcf                   # a leaf beyond the 41 bits of a guest physical address
    sd t1, 24(t0)
    hfence.vvma
    {to(VS)}
    li t0, 3 << 30
    ld t1, 8(t0)
""",
    "bare first stage": f"""
    {TO_HS}
    csrw vsatp, zero
    hfence.vvma
    {to(VS)}
    {each_page(LOAD)}
    li t0, 1 << 41
    ld t1, 0(t0)
    li t0, 1 << 30 | 1 << 40
    ld t1, 0(t0)
    {to(M)}
""",
    "bare second stage": f"""
    {TO_HS}
    csrw hgatp, zero
    hfence.gvma
    {to(VS)}
    la t0, arena
    ld t1, 0(t0)
    {show("t1")}
    li t0, 0x123000
    ld t1, 0(t0)
    {to(M)}
""",
    "registers that are doubled": f"""
    {to(VS)}
    li t0, 0x1110
    csrw sscratch, t0
    csrw sepc, t0
    csrw scause, t0
    csrw stval, t0
    li t0, 0xc0122
    csrw sstatus, t0
    csrr t1, sstatus
    csrr t2, sscratch
    csrr t3, sepc
    csrr t4, stvec
    csrr t5, satp
    {show("t1", "t2", "t3", "t4", "t5")}
    {to(HS)}
    csrr t1, vsstatus
    csrr t2, vsscratch
    csrr t3, vsepc
    csrr t4, vscause
    csrr t5, vstval
    {show("t1", "t2", "t3", "t4", "t5")}
    csrr t1, sstatus
    csrr t2, sscratch
    csrr t3, sepc
    csrr t4, scause
    csrr t5, stval
    {show("t1", "t2", "t4", "t5")}
    la t0, guest_save
    csrw vsscratch, t0
""",
    "delegated to VS mode": f"""
    {TO_HS} {TO_GUEST}
    {to(VS)}
    ebreak
    li t0, 3
    lr.w t1, (t0)
    {to(VU)}
    ebreak
    li t0, 3
    lr.w t1, (t0)
    csrr t0, mscratch
    {to(M)}
    li t0, 0x100
    csrs medeleg, t0
    csrs hedeleg, t0
    {to(VU)}
    li a7, 0
    ecall
""",
    "returns": f"""
    {TO_HS}
    {to(HS)}
    la t0, 1f                               # sret to VU
    li t1, 1 << 32
    or t0, t0, t1
    csrw sepc, t0
    li t0, 0x100
    csrc sstatus, t0
    li t0, 0x80
    csrs hstatus, t0
    sret
1:  csrr t0, sscratch                       # VU may not
    {to(VS)}
    la t0, 2f                               # sret to VU
    li t1, 1 << 32
    or t0, t0, t1
    csrw sepc, t0
    li t0, 0x122
    csrc sstatus, t0
    li t0, 0x20
    csrs sstatus, t0
    sret
2:  nop
    sret
    mret
    {to(VS)}
    csrr t0, sstatus
    {show("t0")}
    mret
    {to(M)}
    csrr t0, mstatus
    csrr t1, hstatus
    {show("t0", "t1")}
""",
    "interrupts through hvip": f"""
    {TO_HS}
    li t0, 0x222
    csrw mideleg, t0
    csrr t0, mideleg
    andi t0, t0, 0x666
    {show("t0")}
    li t0, 0x444
    csrw hideleg, t0
    csrw hie, t0
    li t0, 0x444
    csrw hvip, t0
    csrr t0, hip
    csrr t1, mip
    csrr t2, vsip
    andi t2, t2, 2
    csrr t3, vsie
    {show("t0", "t1", "t2", "t3")}
    {to(VS)}
    csrr t0, sip
    andi t0, t0, 2
    csrr t1, sie
    {show("t0", "t1")}
    csrsi sstatus, 2                        # taken by VS mode, one after the other
    nop
    nop
    nop
    csrci sstatus, 2
    csrr t0, sip
    andi t0, t0, 2
    csrr t1, sie
    {show("t0", "t1")}
    csrci sip, 2
    csrr t0, sip
    andi t0, t0, 2
    {show("t0")}
    li t2, 0x222
    csrw sie, t2
    csrr t1, sie
    {show("t1")}
    {to(VU)}
    nop
    nop
    {to(M)}
    csrr t0, hvip
    csrr t1, hie
    {show("t0", "t1")}
    csrw hideleg, zero
    li t0, 0x444
    csrw hvip, t0
    csrw hie, t0
    {to(VS)}                                # taken by HS mode
    csrr t0, sip
    andi t0, t0, 2
    csrr t1, sie
    {show("t0", "t1")}
    nop
    {to(HS)}
    li t0, 0x44
    csrw hie, t0
    csrsi sstatus, 2
    nop
    nop
    csrci sstatus, 2
    {to(M)}
""",
    "vectored interrupts in VS mode": f"""
    {TO_HS}
    li t0, 0x444
    csrw hideleg, t0
    {to(VS)}
    la t0, vectors
    addi t0, t0, 1
    csrw stvec, t0
    li t0, 0x222
    csrw sie, t0
    csrsi sstatus, 2
    {to(M)}
    li t0, 0x400
    csrw hvip, t0
    la t0, 1f
    {to(VS)}
1:  csrr t0, scause
    {show("t0")}
    {to(M)}
    li t0, 0x44
    csrw hvip, t0
    {to(VS)}
    csrr t0, scause
    {show("t0")}
    j 3f
    .balign 64
vectors:
    li t6, 0
    j 2f
    .balign 4
    li t6, 1
    j 2f
    li t6, 3
    j 2f
    li t6, 5
    j 2f
    li t6, 7
    j 2f
    li t6, 9
    j 2f
2:  csrci sie, 2
    li t5, 0x222
    csrc sie, t5
    {show("t6")}
    sret
3:  nop
""",
    "supervisor timers": f"""
    {TO_HS}
    li t0, 1 << 63
    csrw menvcfg, t0
    csrw henvcfg, t0
    li t0, 7
    csrw mcounteren, t0
    csrw hcounteren, t0
    csrw scounteren, t0
    li t0, 0x444
    csrw hideleg, t0
    li t0, 0x222
    csrw mideleg, t0
    csrw htimedelta, zero
    csrr t0, mip
    {show("t0")}
    csrw stimecmp, zero                     # long ago
    csrr t0, mip
    csrw mip, zero
    csrr t1, mip
    {show("t0", "t1")}
    csrw vstimecmp, zero
    csrr t0, hip
    csrr t1, hvip
    csrr t2, vsip
    andi t2, t2, 2
    {show("t0", "t1", "t2")}
    {to(VS)}
    csrr t0, stimecmp
    {show("t0")}
    csrr t0, sip
    andi t0, t0, 2
    {show("t0")}
    li t0, 0x20
    csrw sie, t0
    csrsi sstatus, 2
    nop
    csrci sstatus, 2
    li t0, -1
    csrw stimecmp, t0
    csrr t0, sip
    andi t0, t0, 2
    {show("t0")}
    {to(M)}
    csrr t0, hip
    {show("t0")}
    {to(HS)}
    li t0, 0x444
    csrw hvip, t0
    csrr t0, hip
    {show("t0")}
    csrw hvip, zero
    li t0, 0x20
    csrw sie, t0
    csrsi sstatus, 2
    nop
    csrci sstatus, 2
    li t0, -1
    csrw stimecmp, t0
    csrr t0, sip
    andi t0, t0, 2
    {show("t0")}
    {to(M)}
    csrw henvcfg, zero
    {to(VS)}
    csrr t0, stimecmp
    {to(HS)}
    csrr t0, vstimecmp
    {to(M)}
    csrw menvcfg, zero
    {to(HS)}
    csrr t0, stimecmp
    csrr t0, vstimecmp
    {to(VS)}
    csrr t0, stimecmp
    {to(VU)}
    csrr t0, stimecmp
""",
    "time with a delta": f"""
    li t0, 7
    csrw mcounteren, t0
    csrw hcounteren, t0
    csrw scounteren, t0
    li t0, 1 << 40
    csrw htimedelta, t0
    {to(VS)}
    csrr t0, time
    srli t0, t0, 40
    {show("t0")}
    {to(VU)}
    csrr t0, time
    srli t0, t0, 40
    {show("t0")}
    {to(HS)}
    csrr t0, time
    srli t0, t0, 40
    {show("t0")}
""",
    "tables changed after use": f"""
    {TO_HS}
    {to(VS)}
    li s2, 0x40000000
    ld t1, 0(s2)
    sd t1, 32(s2)
    {show("t1")}
    la t0, guest_leaves                     # the first stage, by the guest
    ld t1, 0(t0)
    ld t2, 256(t0)
    li t3, 0x40001 << 10 | 0xcf
    sd t3, 0(t0)
    sfence.vma
    ld t1, 0(s2)
    {show("t1")}
    li t3, 0x40000 << 10 | 0xcf
    sd t3, 0(t0)
    sfence.vma
    ld t1, 0(s2)
    {show("t1")}
    {to(HS)}
    la t0, second_leaves                    # the second, by the hypervisor
    la t1, arena + 8192
    srli t1, t1, 12
    slli t1, t1, 10
    ori t1, t1, 0xdf
    sd t1, 0(t0)
    hfence.gvma
    {to(VS)}
    li s2, 0x40000000
    ld t1, 0(s2)
    sd s2, 40(s2)
    {show("t1")}
    {to(HS)}
    la t0, second_leaves
    sd zero, 0(t0)
    hfence.gvma
    {to(VS)}
    li s2, 0x40000000
    ld t1, 0(s2)
    {to(HS)}
    la t0, second_middle
    sd zero, 0(t0)
    hfence.gvma
    {to(VS)}
    li s2, 0x40001000
    ld t1, 0(s2)
""",
    "memory types": f"""
    {TO_HS}
    li t0, 1 << 62
    csrw menvcfg, t0
    csrw henvcfg, t0
    la t0, guest_leaves
    li t1, 1 << 61 | 0x40000 << 10 | 0xcf
    sd t1, 0(t0)
    li t1, 2 << 61 | 0x40000 << 10 | 0xcf
    sd t1, 8(t0)
    la t0, second_leaves
    la t1, arena
    srli t1, t1, 12
    slli t1, t1, 10
    ori t1, t1, 0xdf
    li t2, 2 << 61
    or t2, t1, t2
    sd t2, 0(t0)
    hfence.vvma
    hfence.gvma
    {to(VS)}
    {each_page(LOAD)}
    {to(M)}
""",
}

#: Programs in which MXR stays off.
ALL_SECOND = ("fetches", "bare first stage", "no MXR, VS mode", "no MXR, VU mode")

#: Instructions whose legality depends on the mode, as lines that change nothing where they are legal.
GUARDED = (
    "sfence.vma", "hfence.vvma", "hfence.gvma", "hlv.w t1, (s10)", "hlvx.wu t1, (s10)", "hsv.w zero, (s10)",
)  # fmt: skip
#: Which switches are on: (mstatus, hstatus, mcounteren, hcounteren, scounteren, menvcfg, henvcfg)
SWITCHES = (
    (0, 0, 0, 0, 0, 0, 0),
    (0, 0, 7, 7, 7, 1 << 63, 1 << 63),
    (1 << 20, 0, 7, 0, 7, 1 << 63, 0),
    (0, 1 << 20, 7, 7, 0, 1 << 63, 1 << 63),
    (1 << 22, 1 << 22, 0, 7, 7, 0, 0),
    (1 << 21, 1 << 21 | 1 << 9, 2, 7, 2, 1 << 63, 1 << 63),
    (1 << 20, 1 << 20 | 1 << 9, 5, 7, 2, 0, 0),
)
#: Values that two machines cannot share: identity, and counters that run.
CHANGING = frozenset({"mhartid", "cycle", "time", "instret", "mcycle", "minstret", "mvendorid", "marchid", "mimpid"})


def guarded(mode: int) -> str:
    """Every guarded instruction and a read and a write of every CSR, in one mode, in all settings of the
    switches."""
    lines = []
    for mstatus, hstatus, mcounteren, hcounteren, scounteren, menvcfg, henvcfg in SWITCHES:
        if mode == VS:
            mstatus &= ~(1 << 20)  # QEMU 7.2 lets TVM trap in VS mode too
        lines.append(f"""
    li t0, 0x700000
    csrc mstatus, t0
    li t0, {mstatus}
    csrs mstatus, t0
    li t0, 0x700200
    csrc hstatus, t0
    li t0, {hstatus} | 0x100
    csrs hstatus, t0
    li t0, {mcounteren}
    csrw mcounteren, t0
    li t0, {hcounteren}
    csrw hcounteren, t0
    li t0, {scounteren}
    csrw scounteren, t0
    li t0, {menvcfg}
    csrw menvcfg, t0
    li t0, {henvcfg}
    csrw henvcfg, t0
    {to(mode)}
""")
        lines += [f" {line}\n" for line in GUARDED]
        for row in CSRS.values():
            if row.name.startswith(("pmp", "hpm", "mhpm")) or row.name in UNSHARED:
                continue
            lines.append(f" li t1, 0x99\n csrr t1, {row.name}\n")
            if row.name not in CHANGING:
                lines.append(show("t1"))
            lines.append(f" csrs {row.name}, zero\n csrrs t1, {row.name}, zero\n")
        lines.append(to(M))
    return "".join(lines)


#: CSRs whose contents QEMU 7.2 and we choose differently, where the specification leaves that open or QEMU is
#: wrong: see `agreed`.
UNSHARED = frozenset({"mconfigptr", "mcountinhibit", "hgatp", "vsstatus", "mideleg", "satp"})


def traps(of: Program, memory: bytes) -> list[dict[str, int]]:
    """The log that the handlers wrote."""
    (end,) = struct.unpack_from("<Q", memory, of.symbols["log_next"] - BASE)
    return [
        dict(zip(FIELDS, TRAP.unpack_from(memory, address - BASE), strict=True))
        for address in range(of.symbols["log"], min(end, of.symbols["log_end"]), TRAP_BYTES)
    ]


MPRV_CAUSES = {Cause.LOAD_GUEST_PAGE_FAULT: Cause.LOAD_PAGE_FAULT}
ILLEGAL = (Cause.ILLEGAL_INSTRUCTION, Cause.VIRTUAL_INSTRUCTION)
#: Fields that VS mode cannot read: nothing was logged there.
LINE_BITS = {1: 0x444, 2: 0x2, 3: 0x666}


def agreed(of: Program, trap: dict[str, int]) -> dict[str, int]:
    """A trap without what QEMU 7.2 and we tell differently, because QEMU is wrong or the choice is free:

    mstatus.GVA       QEMU sets it for every trap from VS and VU mode with a tval, and not for hlv's; it never
                      clears it
    SXL of vsstatus   QEMU shows it
    VSTIP, VSEIP      QEMU does not show them in vsip
    htinst, mtinst    QEMU gives the transformed instruction; 0 is legal but for a walk's own references
    ebreak            QEMU's tval is 0, ours the pc: both allowed
    hedeleg           QEMU tells VS mode of cause 1 instead of 2, 5 instead of 6 (no program delegates those)
    VU mode           QEMU calls illegal what is a virtual instruction there: sret and supervisor registers
    hlv, hsv          QEMU's tval is that of an earlier instruction where they are not allowed
    MPRV with MPV     QEMU calls guest-page faults page faults
    hlvx              QEMU wants R, not X (no program reads from a page where that differs)
    hgatp, satp       QEMU does not let TVM and VTVM trap them (no program does)
    MXR               QEMU looks at the wrong one in the second stage, and not at HS mode's (no program sets that)
    satp              with satp Bare, QEMU says access fault for page faults of hlv and MPRV (no program does)
    """
    trap = dict(trap)
    if trap["mode"] == 3:
        trap["status"] &= ~Status.GVA
    trap["other"] &= ~(3 << 34)
    trap["pending"] &= LINE_BITS[trap["mode"]]
    if trap["cause"] == Cause.BREAKPOINT:
        trap["tval"] = 0
    if trap["instruction"] not in (TABLE_READ, TABLE_WRITE):
        trap["instruction"] = 0
    if trap["cause"] == Cause.VIRTUAL_INSTRUCTION and trap["epc"] >> 32:
        trap["cause"] = Cause.ILLEGAL_INSTRUCTION
    word = _word(of, trap["epc"])
    if trap["cause"] in ILLEGAL and word is not None and word >> 28 == 6:
        trap["tval"] = 0
    if trap["status"] & Status.MPRV and trap["mode"] == 3:
        trap["gpa"], trap["cause"] = 0, MPRV_CAUSES.get(trap["cause"], trap["cause"])
    return trap


def differences(of: Program, theirs: bytes, ours: bytes) -> list[str]:
    """What differs, the most telling first; at most a dozen sentences."""
    found = []
    both = zip(traps(of, theirs), traps(of, ours), strict=False)
    pairs = [(agreed(of, one), agreed(of, other)) for one, other in both]
    for index, (one, other) in enumerate(pairs):
        unequal = {name: (hex(one[name]), hex(other[name])) for name in FIELDS if one[name] != other[name]}
        if unequal:
            found.append(f"trap {index} at {_place(of, other['epc'])}, cause {other['cause']:#x}: {unequal}")
            if one["epc"] != other["epc"]:
                break
    counts = len(traps(of, theirs)), len(traps(of, ours))
    if counts[0] != counts[1]:
        found.append(f"QEMU logged {counts[0]} traps, we {counts[1]}")
    begin, end = of.symbols["second_root"] - BASE, of.symbols["log_next"] - BASE
    output = of.symbols["output"] - BASE, of.symbols["log"] - BASE
    for low, high in ((begin, end), output):
        for at in range(low, high, 8):
            if theirs[at : at + 8] != ours[at : at + 8]:
                words = [int.from_bytes(memory[at : at + 8], "little") for memory in (theirs, ours)]
                found.append(f"{_symbol(of, BASE + at)}: QEMU {words[0]:#x}, we {words[1]:#x}")
    return found[:12]


def _symbol(of: Program, address: int) -> str:
    below = {name: value for name, value in of.symbols.items() if BASE <= value <= address}
    name = max(below, key=lambda name: below[name])
    return f"{name}+{address - below[name]:#x}"


def _word(of: Program, pc: int) -> int | None:
    text = of.sections[0]
    at = (pc & ~(1 << 32)) - text.address
    return int.from_bytes(text.content[at : at + 4], "little") if 0 <= at < text.size else None


def _place(of: Program, pc: int) -> str:
    word = _word(of, pc)
    if word is None:
        return f"{pc:#x}"
    return f"{pc:#x} (line {of.line_at(pc & ~(1 << 32))}: {disassemble(word, pc)})"


#: So that a program cannot stop testing what it is for without anybody noticing.
LEAST_TRAPS = {
    "no MXR, VS mode": 190, "two stages, VS mode, to M": 300, "fetches": 100, "hlv and hsv": 200, "MPRV and MPV": 90,
    "delegated to VS mode": 6, "interrupts through hvip": 10, "supervisor timers": 7, "guarded in HS": 400,
    "guarded in VS": 800, "guarded in VU": 1000,
}  # fmt: skip
