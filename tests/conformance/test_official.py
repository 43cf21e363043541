"""What the official RISC-V ISA tests (riscv-software-src/riscv-tests) cover, covered by programs of our own.

OFFICIAL names their tests, suite by suite. One named like an instruction is that instruction with every pair of VALUES
(every triple of some, for three operands), every register that may be the same as another, and for floating point
every rounding mode with the flags it raises: `grids` makes those programs from the rows of the table. The others are in
DIRECTED, or in a scenario of random programs that ELSEWHERE names. Everything runs on QEMU, on our machine and in our
VM, and leaves the same memory; grids run in our native tiers instead of the VM, as no instruction in them traps.

Two tests ask for what the architecture leaves open. `breakpoint`: there is no trigger module, tselect is no register.
`pmpaddr`: there are no PMP entries, so pmpaddr0 is read-only zero and everything is permitted (section 3.7).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import pytest

from engine.isa.assembler import assemble
from engine.isa.formats import Row
from engine.isa.table import BY_MNEMONIC, ROWS
from tests.conformance.compare import differences
from tests.conformance.programs import SCENARIOS, Scenario, build
from tests.conformance.sides import region, run_in_vm, run_natively, run_on_qemu, run_on_reference

OFFICIAL = {
    "rv64ui": "add addi addiw addw and andi auipc beq bge bgeu blt bltu bne fence_i jal jalr lb lbu ld ld_st lh lhu lui"
    " lw lwu ma_data or ori sb sd sh simple sll slli slliw sllw slt slti sltiu sltu sra srai sraiw sraw srl srli srliw"
    " srlw st_ld sub subw sw xor xori",
    "rv64um": "div divu divuw divw mul mulh mulhsu mulhu mulw rem remu remuw remw",
    "rv64ua": "amoadd_d amoadd_w amoand_d amoand_w amomax_d amomax_w amomaxu_d amomaxu_w amomin_d amomin_w amominu_d"
    " amominu_w amoor_d amoor_w amoswap_d amoswap_w amoxor_d amoxor_w lrsc",
    "rv64uf": "fadd fclass fcmp fcvt fcvt_w fdiv fmadd fmin ldst move recoding",
    "rv64ud": "fadd fclass fcmp fcvt fcvt_w fdiv fmadd fmin ldst move recoding structural",
    "rv64uc": "rvc",
    "rv64uzba": "add_uw sh1add sh1add_uw sh2add sh2add_uw sh3add sh3add_uw slli_uw",
    "rv64uzbb": "andn clz clzw cpop cpopw ctz ctzw max maxu min minu orc_b orn rev8 rol rolw ror rori roriw rorw sext_b"
    " sext_h xnor zext_h",
    "rv64uzbs": "bclr bclri bext bexti binv binvi bset bseti",
    "rv64si": "csr dirty icache-alias ma_fetch sbreak scall wfi",
    "rv64mi": "access breakpoint csr illegal instret_overflow ld-misaligned lh-misaligned lw-misaligned ma_addr"
    " ma_fetch mcsr pmpaddr sbreak scall sd-misaligned sh-misaligned sw-misaligned zicntr",
}
#: Tests that are not an instruction's, and the scenarios whose random programs do what they do.
ELSEWHERE = {
    "ldst": ("floating",), "structural": ("floating",),
    "rvc": ("compressed",), "jal": ("jumps",), "jalr": ("jumps",), "lui": ("integer",), "auipc": ("integer",),
    "csr": ("csrs", "privilege"), "mcsr": ("csrs",), "illegal": ("illegal", "privilege", "interrupts"),
    "sbreak": ("illegal",), "scall": ("illegal",), "wfi": ("interrupts", "privilege"),
    "access": ("jumps", "memory"), "dirty": ("paging", "modified-privilege"),
}  # fmt: skip
#: Tests of several instructions of F or D, which the grids hold; `.s` or `.d` follows.
FAMILIES = {
    "fadd": "fadd fsub fmul", "fdiv": "fdiv fsqrt", "fmadd": "fmadd fmsub fnmsub fnmadd", "fmin": "fmin fmax",
    "fcmp": "feq flt fle", "fclass": "fclass",
    "fcvt_w": "fcvt.w fcvt.wu fcvt.l fcvt.lu",
    "move": "fsgnj fsgnjn fsgnjx",
}  # fmt: skip
CONVERSIONS = {
    "rv64uf": "fcvt.s.w fcvt.s.wu fcvt.s.l fcvt.s.lu",
    "rv64ud": "fcvt.d.w fcvt.d.wu fcvt.d.l fcvt.d.lu fcvt.s.d fcvt.d.s",
}
#: As DIRECTED: nothing to compare, see the module.
OPEN = {"breakpoint", "pmpaddr"}
#: As DIRECTED, in a test of its own.
APART = {"instret_overflow"}

VALUES = (
    0, 1, 2, 7, 31, 32, 63, 0x7FFF, 0x8000, 0xFF00FF00, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32,
    0x0102_0304_0506_0708, 0x00FF_00FF_0080_8000, (1 << 63) - 1, 1 << 63, 0xFFFF_FFFF_8000_0000, (1 << 64) - 1,
)  # fmt: skip
DOUBLES = (
    0, 1 << 63, 0x3FF0_0000_0000_0000, 0xBFF0_0000_0000_0001, 0x4000_0000_0000_0000, 0x3FD5_5555_5555_5555,
    0x7FF0_0000_0000_0000, 0xFFF0_0000_0000_0000, 0x7FF8_0000_0000_0000, 0x7FF0_0000_0000_0001, 0xFFFC_0000_0000_1234,
    1, 0x800F_FFFF_FFFF_FFFF, 0x0010_0000_0000_0000, 0x7FEF_FFFF_FFFF_FFFF, 0x41DF_FFFF_FFC0_0000,
    0xC1E0_0000_0010_0000, 0x43E0_0000_0000_0000, 0x380F_FFFF_F000_0000, 0x47EF_FFFF_E800_0000, 0xFFFF_FFFF_3F80_0000,
)  # fmt: skip
SINGLES = (
    *(
        0xFFFF_FFFF_0000_0000 | word
        for word in (
            0, 1 << 31, 0x3F80_0000, 0xBF80_0001, 0x4000_0000, 0x3EAA_AAAA, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000,
            0x7F80_0001, 0xFFE0_0123, 1, 0x807F_FFFF, 0x0080_0000, 0x7F7F_FFFF, 0x4EFF_FFFF, 0xCF00_0001, 0x5F00_0000,
            0x0080_0001,
        )
    ),
    0x3F80_0000,  # not boxed
    0x3FF0_0000_0000_0000,
)  # fmt: skip
#: s4 = s4 rotated ^ the result: one word tells of all.
FOLD = "slli t6, s4, 7\n srli s4, s4, 57\n or s4, s4, t6\n xor s4, s4, {}\n"


def grid(bodies: Iterable[str], operands: int, values: tuple[int, ...]) -> str:
    """For each body, loops over every combination of values in t0, t1, t2; a word of output for each value of t0."""
    lines = [f"j 1f\n .balign 8\nvalues: .dword {', '.join(map(str, values))}\nvalues_end:\n1: la a0, values"]
    lines.append(" la a1, values_end")
    for body in bodies:
        lines.append(" mv s2, a0\n2: ld t0, 0(s2)\n li s4, 0\n mv s3, a0")
        lines.append("3: ld t1, 0(s3)" if operands > 1 else "")
        lines.append(" mv s5, a0\n4: ld t2, 0(s5)" if operands > 2 else "")
        lines.append(body)
        lines.append(" addi s5, s5, 8\n bltu s5, a1, 4b" if operands > 2 else "")
        lines.append(" addi s3, s3, 8\n bltu s3, a1, 3b" if operands > 1 else "")
        lines.append(" sd s4, 0(gp)\n addi gp, gp, 8\n addi s2, s2, 8\n bltu s2, a1, 2b")
    return "\n".join(lines)


def integer_body(row: Row) -> str:
    """The row on t0 and t1 with a destination of its own, each source's, and x0."""
    lines = []
    kinds = row.syntax.split(", ")
    if kinds[-1] == "target":
        return f"li t3, 1\n {row.mnemonic} t0, t1, 9f\n li t3, 0\n9: {FOLD.format('t3')}"
    immediates = [""]
    if row.mnemonic == "ctzw":  # QEMU 7.2 looks beyond the low word when that is zero
        return f"zext.w t4, t0\n ctzw t3, t4\n {FOLD.format('t3')}"
    if kinds[-1] in {"imm", "shamt"}:
        low, high, _ = row.limits(kinds[-1])
        edges = {low, high, 0, 1, 4, low // 2, high // 2 + 1, high // 3}
        immediates = [f", {value}" for value in sorted(edges) if low <= value <= high]
    for immediate in immediates:
        second = ", t1" if kinds[-1] == "rs2" else immediate
        lines.append(f"{row.mnemonic} t3, t0{second}\n {FOLD.format('t3')}")
        lines.append(f"mv t3, t0\n {row.mnemonic} t3, t3{second}\n {FOLD.format('t3')}")
        lines.append(f"{row.mnemonic} x0, t0{second}\n {FOLD.format('x0')}")
        if kinds[-1] == "rs2":
            lines.append(f"mv t3, t1\n {row.mnemonic} t3, t0, t3\n {FOLD.format('t3')}")
            lines.append(f"mv t3, t0\n {row.mnemonic} t3, t3, t3\n {FOLD.format('t3')}")
    return "\n ".join(lines)


def atomic_body(row: Row) -> str:
    return f"sd t0, 0(s10)\n {row.mnemonic} t3, t1, (s10)\n ld t4, 0(s10)\n {FOLD.format('t3')}\n {FOLD.format('t4')}"


def floating_body(row: Row, mode: str) -> str:
    """The row on ft0, ft1, ft2, with the rounding mode in the instruction or ("dyn") in frm; its flags too."""
    operands = row.syntax.removesuffix(", rm").replace("frs", "ft").replace("ft1", "ft0").replace("ft2", "ft1")
    operands = operands.replace("ft3", "ft2").replace("frd", "ft3").replace("rs1", "t0").replace("rd", "t3")
    suffix = f", {mode}" if "rm" in row.syntax and mode != "dyn" else ""
    result = "fmv.x.d t3, ft3\n " if "ft3" in operands else ""
    return (
        f"fmv.d.x ft0, t0\n fmv.d.x ft1, t1\n fmv.d.x ft2, t2\n fsflags x0\n {row.mnemonic} {operands}{suffix}\n "
        f"{result}frflags t4\n {FOLD.format('t3')}\n {FOLD.format('t4')}"
    )


COMPUTING = [
    row
    for row in ROWS
    if row.length == 4
    and row.extension in {"I", "M", "Zba", "Zbb", "Zbs"}
    and row.syntax in {"rd, rs1, rs2", "rd, rs1, imm", "rd, rs1, shamt", "rd, rs1", "rs1, rs2, target"}
]
TWO_OPERANDS = [row for row in COMPUTING if "rs2" in row.syntax]
ONE_OPERAND = [row for row in COMPUTING if "rs2" not in row.syntax]
AMOS = [row for row in ROWS if row.extension == "A" and row.mnemonic.startswith("amo")]
FLOATING = [row for row in ROWS if row.extension in {"F", "D"} and "(" not in row.syntax]
MODES = ("rne", "rtz", "rdn", "rup", "rmm")


def _floating_grids() -> Iterator[tuple[str, str]]:
    for letter, numbers in (("s", SINGLES), ("d", DOUBLES)):
        for operands in (1, 2, 3):
            rows = [
                row
                for row in FLOATING
                if sum(f"rs{index}" in row.syntax for index in (1, 2, 3)) == operands
                and (row.extension == "D") == (letter == "d")
            ]
            chosen = numbers + VALUES if operands == 1 else numbers if operands == 2 else numbers[:3] + numbers[6:14]
            rounding = [row for row in rows if "rm" in row.syntax]
            fixed = [row for row in rows if "rm" not in row.syntax]
            bodies = [floating_body(row, mode) for row in rounding for mode in MODES]
            yield f"{letter} {operands} static", grid(bodies, operands, chosen)
            if operands < 3:
                bodies = [f"fsrmi {mode}\n {floating_body(row, 'dyn')}" for row in rounding for mode in range(5)]
                yield f"{letter} {operands} dynamic", grid(bodies, operands, chosen)
                yield f"{letter} {operands}", grid([floating_body(row, "dyn") for row in fixed], operands, chosen)


def grids() -> dict[str, str]:
    """The bodies by name."""
    found = {}
    for begin in range(0, len(TWO_OPERANDS), 20):
        rows = TWO_OPERANDS[begin : begin + 20]
        found[f"two operands {begin}"] = grid(map(integer_body, rows), 2, VALUES)
    found["one operand"] = grid(map(integer_body, ONE_OPERAND), 1, VALUES)
    found["amo"] = grid(map(atomic_body, AMOS), 2, VALUES)
    return found | {f"floating {name}": text for name, text in _floating_grids()}


GRIDS = grids()
GRID_STEPS = 2_000_000


@pytest.mark.parametrize("name", GRIDS)
def test_every_combination_of_operands(name: str) -> None:
    text = f"li t6, 0x6000\n csrs mstatus, t6\n {GRIDS[name]}"
    program = assemble(build("official", Scenario({}, modes="m", length=0), 0, text).source, name)
    ours = run_on_reference(program, step_limit=GRID_STEPS)
    found = differences(program, run_on_qemu(program), ours)
    found += differences(program, run_natively(program, step_limit=GRID_STEPS), ours, "the native tiers")
    assert not found, "\n".join(found)


LOADS = {"lb": 1, "lbu": 1, "lh": 2, "lhu": 2, "lw": 4, "lwu": 4, "ld": 8, "flw": 4, "fld": 8}
STORES = {"sb": 1, "sh": 2, "sw": 4, "sd": 8, "fsw": 4, "fsd": 8}


FLOATS_ON = "li t6, 0x6000\n csrs mstatus, t6\n"
OUTPUT = "sd t1, 0(gp)\n addi gp, gp, 8"
#: Every load and store from nine bytes before a page's end to nine behind it, aligned or not.
OFFSETS = range(-9, 10)


def misaligned_loads() -> str:
    lines = [FLOATS_ON, "la s9, arena + 4096"]
    for name in LOADS:
        for offset in OFFSETS:
            if name.startswith("f"):
                lines.append(f"{name} ft1, {offset}(s9)\n fmv.x.d t1, ft1\n {OUTPUT}")
            else:
                lines.append(f"{name} t1, {offset}(s9)\n {OUTPUT}")
    return "\n ".join(lines)


def misaligned_stores() -> str:
    lines = [FLOATS_ON, "la s9, arena + 4096\n li t0, 0x8182838485868788\n fmv.d.x ft0, t0"]
    for name in STORES:
        for offset in OFFSETS:
            lines.append(f"{name} {'ft0' if name.startswith('f') else 't0'}, {offset}(s9)")
            lines += [f"ld t1, {place}(s9)\n {OUTPUT}" for place in (-16, -8, 0, 8)]
    return "\n ".join(lines)


#: Bodies in M mode, by the official test that does the same.
DIRECTED = {
    "fence_i": """
    la t0, 2f
    la t1, 1f
    lw t2, 0(t1)
    li s2, 0
    jal t4, 2f
    sw t2, 0(t0)
    fence.i
    jal t4, 2f
    sd s2, 0(gp)
    j 3f
1:  addi s2, s2, 100
2:  addi s2, s2, 1
    jr t4
3:""",
    "ma_data": misaligned_loads(),
    "ld_st": "\n".join(
        f" li t0, {0x1122_3344_5566_7788 + number}\n {store} t0, {offset}(s10)\n {load} t1, {offset & ~7}(s10)\n"
        f" sd t1, 0(gp)\n addi gp, gp, 8"
        for number, (store, size) in enumerate(STORES.items())
        if not store.startswith("f")
        for load in ("lb", "lhu", "lw", "ld")
        for offset in range(0, 16, size)
    ),
    "simple": "nop",
    "lrsc": """
    li t0, 5
    sd t0, 0(s10)
    sd t0, 8(s10)
    addi s9, s10, 8
    sc.d t1, t0, (s10)          # nothing is reserved
    lr.d t2, (s10)
    sc.d t3, t1, (s9)           # another address
    sc.d t4, t1, (s10)          # the reservation is gone
    lr.d t5, (s10)
    addi t5, t5, 1
    sc.d t6, t5, (s10)
    sd t1, 0(gp)
    sd t2, 8(gp)
    sd t3, 16(gp)
    sd t4, 24(gp)
    sd t6, 32(gp)
    addi gp, gp, 40
    li s2, 100                  # a counter
1:  lr.w t0, (s9)
    addi t0, t0, 3
    sc.w t1, t0, (s9)
    bnez t1, 1b
    addi s2, s2, -1
    bnez s2, 1b
    ld t0, 0(s9)
    sd t0, 0(gp)""",
    "recoding": f"""{FLOATS_ON}
    li t0, 0x7f800000           # infinity and numbers times each other, loaded and stored in between
    li t1, 0xbf800000
    sw t0, 0(s10)
    sw t1, 4(s10)
    flw ft0, 0(s10)
    flw ft1, 4(s10)
    fmul.s ft2, ft0, ft1
    fsw ft2, 8(s10)
    feq.s t2, ft2, ft0
    fle.s t3, ft2, ft0
    flt.s t4, ft0, ft2
    fcvt.d.s ft3, ft2
    fsd ft3, 16(s10)
    fcvt.s.d ft4, ft3
    fsd ft4, 24(s10)
    sd t2, 0(gp)
    sd t3, 8(gp)
    sd t4, 16(gp)""",
    "ma_addr": misaligned_stores(),
    "ma_fetch": """
    la s11, 9f
    la t0, 1f + 1
    jalr t1, 0(t0)              # bit 0 is dropped
1:  sd t1, 0(gp)
    la t0, 2f
    jalr t1, 1(t0)
2:  li t0, 0x8001
    csrw mepc, t0
    csrr t1, mepc               # as mepc drops it
    andi t1, t1, -2
    sd t1, 8(gp)
    jal t1, 3f
    .half 0x4515                # c.li a0, 5
3:  .half 0x0505                # c.addi a0, 1
    sd a0, 16(gp)
9:""",
    "zicntr": """
    csrr t0, cycle
    csrr t1, instret
    csrr t2, time
    csrr t3, cycle
    csrr t4, instret
    csrr t5, time
    sltu t0, t0, t3
    sltu t1, t1, t4
    sltu t2, t5, t2
    sd t0, 0(gp)
    sd t1, 8(gp)
    sd t2, 16(gp)
    li t3, 0
    li t4, 0
    li t5, 0""",
    "icache-alias": """
    la t0, 1f                   # the same code at two addresses: the alias holds what is stored through the other
    li t1, 0x00190913           # addi s2, s2, 1
    sw t1, 0(t0)
    fence.i
    li s2, 0
    jal t4, 1f
    li t1, 0x06490913           # addi s2, s2, 100
    sw t1, 0(t0)
    fence.i
    jal t4, 1f
    sd s2, 0(gp)
    j 2f
1:  nop
    jr t4
2:""",
}
SAME_AS = {
    "st_ld": "ld_st", "ld-misaligned": "ma_data", "lh-misaligned": "ma_data", "lw-misaligned": "ma_data",
    "sd-misaligned": "ma_addr", "sh-misaligned": "ma_addr", "sw-misaligned": "ma_addr",
}  # fmt: skip


@pytest.mark.parametrize("name", DIRECTED)
def test_directed(name: str) -> None:
    program = assemble(build("official", Scenario({}, modes="m", length=0), 0, DIRECTED[name]).source, name)
    ours = run_on_reference(program)
    found = differences(program, run_on_qemu(program), ours)
    found += differences(program, run_in_vm(program), ours, "the VM")
    assert not found, "\n".join(found)


def test_instret_overflow() -> None:
    """QEMU's counters follow its host's clock; section 3.1.10 says what a program sees."""
    text = """
    li t0, -1
    csrw minstret, t0
    csrr t1, minstret           # the write takes effect after its instruction
    csrr t2, minstret
    sd t1, 0(gp)
    sd t2, 8(gp)
    li t0, -3
    csrw mcycle, t0
    nop
    nop
    nop
    csrr t1, mcycle
    sd t1, 16(gp)"""
    program = assemble(build("official", Scenario({}, modes="m", length=0), 0, text).source, "instret_overflow")
    for memory in (run_on_reference(program), run_in_vm(program)):
        assert struct.unpack("<3Q", region(memory, program, "output", "signature_end")[:24])[:2] == ((1 << 64) - 1, 0)
    assert struct.unpack("<3Q", region(run_on_reference(program), program, "output", "signature_end")[:24])[2] == 0


def test_every_official_test_is_covered() -> None:
    in_grids = {row.mnemonic for row in (*COMPUTING, *AMOS, *FLOATING)}
    missing = []
    for suite, names in OFFICIAL.items():
        for name in names.split():
            mnemonic = name.replace("_", ".")
            covered = mnemonic in in_grids or name in DIRECTED or SAME_AS.get(name) in DIRECTED or name in OPEN | APART
            covered |= mnemonic in LOADS or mnemonic in STORES
            letter = "s" if suite == "rv64uf" else "d"
            covered |= name in FAMILIES and {f"{family}.{letter}" for family in FAMILIES[name].split()} <= in_grids
            covered |= name == "fcvt" and set(CONVERSIONS[suite].split()) <= in_grids
            covered |= name in ELSEWHERE and all(scenario in SCENARIOS for scenario in ELSEWHERE[name])
            if not covered:
                missing.append(f"{suite}/{name}")
    assert not missing
    assert set(SAME_AS.values()) <= DIRECTED.keys()
    assert {row.mnemonic for row in ROWS if row.extension in {"F", "D"}} - in_grids == {"flw", "fsw", "fld", "fsd"}
    assert BY_MNEMONIC.keys() >= LOADS.keys() | STORES.keys()
