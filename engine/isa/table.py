"""The instruction table: RV64GC, Zba, Zbb, Zbs, Svinval and the privileged instructions. One row per instruction.

Semantics are lines of restricted Python, chosen so that a row compiles to plain Python (the reference tier)
and can be lowered to LLVM IR: straight-line assignments, `if`, and calls of the primitives below; no loops,
no containers.

    rs1, rs2, rd          register values, unsigned 64-bit words; an assignment to rd wraps to 64 bits
    rd_index, rs1_index   register numbers, constants of the decoded instruction (likewise rs2_index)
    imm, shamt, uimm, csr the decoded operands; imm is signed
    pc, ilen              address and length in bytes (2 or 4) of this instruction
    s(x)                  signed reading of a word          sx(x, n)      low n bits of x, sign-extended
    zx(x, n)              low n bits of x                   select(c,a,b) a where c holds, else b
    mulh mulhsu mulhu div divu rem remu (a, b, bits)        as section 7 (M) defines them, with no trap
    clz ctz cpop (x, bits), rev8(x)   leading and trailing zeros, ones; bytes in reverse order
    jump(target)          go to target, which is even, instead of pc + ilen
    load(a, n), store(a, n, v)        n bytes at virtual address a, zero-extended
    amo_load(a, n)                    as load, but faults as a store, and a must be aligned
    load_reserved(a, n), store_conditional(a, n, v) -> 0 on success
    csr_read(c), csr_write(c, v), csr_set(c, bits), csr_clear(c, bits)
    ecall() ebreak() mret() sret() wfi() sfence_vma(address, asid, has_address, has_asid) fence_i()
    sfence_order()        what sfence.w.inval and sfence.inval.ir are beyond sfence.vma: no more than permitted
    hyper_load(a, n, x), hyper_store(a, n, v)   as the guest would do it; x: it needs X instead of R
    hfence_vvma(address, asid, has_address, has_asid) hfence_gvma(address, vmid, has_address, has_vmid)

Floating point. A row that names an f register is illegal while mstatus.FS is Off; `floats_change` says which make it
Dirty. Numbers are IEEE 754 words of `bits` bits (32 or 64); engine.machine.floats defines the primitives exactly.

    frs1 frs2 frs3, frd   as rs1 and rd, of the floating-point registers
    box(x), unbox(x)      a 32-bit number in a 64-bit register (section 12.2): upper half ones; what lacks them is NaN
    rm                    the rounding mode of the instruction or, for 7, of frm; a reserved one is illegal
    fadd fsub fmul fdiv (a, b, bits, rm), fsqrt(a, bits, rm), fmadd(a, b, c, bits, rm)
    fmin fmax feq flt fle (a, b, bits), fclass(a, bits)
    fconvert(a, from_bits, bits, rm)        from_signed from_unsigned (integer, bits, rm)
    to_signed to_unsigned (a, bits, integer_bits, rm)
    All but fclass raise flags in fflags.

Everything is evaluated in order; a primitive that traps leaves all later lines undone.
Sources: The RISC-V Instruction Set Manual, volume I (20191213) and volume II, privileged architecture 1.12; RISC-V
Bit-Manipulation ISA-extensions 1.0.0.
"""

from __future__ import annotations

import re

from engine.isa.formats import Row

#: Primitives that round or compare: they raise floating-point flags.
RAISING = frozenset(
    ("fadd", "fsub", "fmul", "fdiv", "fsqrt", "fmadd", "fmin", "fmax", "feq", "flt", "fle", "fconvert",
     "from_signed", "from_unsigned", "to_signed", "to_unsigned")
)  # fmt: skip


def uses_floats(row: Row) -> bool:
    """Does it name a floating-point register?"""
    return re.search(r"\bfr(d|s[123])\b", row.semantics) is not None


def integer_registers(row: Row) -> frozenset[str]:
    """Which of its operands rd, rs1, rs2 are integer registers."""
    return frozenset({"rd", "rs1", "rs2"} & set(re.findall(r"\w+", row.semantics)))


def floats_change(row: Row) -> bool:
    """Does executing it make mstatus.FS Dirty? Every row that writes an f register or that can raise flags does,
    whether it raises any or not, as section 3.1.6.6 permits: so it is a property of the row, the same on every tier."""
    names = re.findall(r"\bfrd =|\w+", row.semantics)
    return "frd =" in names or not RAISING.isdisjoint(names)


R, I, S, B = "rd, rs1, rs2", "rd, rs1, imm", "rs2, imm(rs1)", "rs1, rs2, target"
LOAD, SHIFT, UNARY = "rd, imm(rs1)", "rd, rs1, shamt", "rd, rs1"
CSR, CSR_IMM = "rd, csr, rs1", "rd, csr, uimm"
FR, FR4 = "frd, frs1, frs2, rm", "frd, frs1, frs2, frs3, rm"

_BASE = [
    ("lui", "imm[31:12] rd 0110111", "rd, upper", "rd = imm"),
    ("auipc", "imm[31:12] rd 0010111", "rd, upper", "rd = pc + imm"),
    ("jal", "imm[20|10:1|11|19:12] rd 1101111", "rd, target", "jump(pc + imm); rd = pc + ilen"),
    ("jalr", "imm[11:0] rs1 000 rd 1100111", LOAD, "jump((rs1 + imm) & -2); rd = pc + ilen"),
    ("beq", "imm[12|10:5] rs2 rs1 000 imm[4:1|11] 1100011", B, "if rs1 == rs2: jump(pc + imm)"),
    ("bne", "imm[12|10:5] rs2 rs1 001 imm[4:1|11] 1100011", B, "if rs1 != rs2: jump(pc + imm)"),
    ("blt", "imm[12|10:5] rs2 rs1 100 imm[4:1|11] 1100011", B, "if s(rs1) < s(rs2): jump(pc + imm)"),
    ("bge", "imm[12|10:5] rs2 rs1 101 imm[4:1|11] 1100011", B, "if s(rs1) >= s(rs2): jump(pc + imm)"),
    ("bltu", "imm[12|10:5] rs2 rs1 110 imm[4:1|11] 1100011", B, "if rs1 < rs2: jump(pc + imm)"),
    ("bgeu", "imm[12|10:5] rs2 rs1 111 imm[4:1|11] 1100011", B, "if rs1 >= rs2: jump(pc + imm)"),
    ("lb", "imm[11:0] rs1 000 rd 0000011", LOAD, "rd = sx(load(rs1 + imm, 1), 8)"),
    ("lh", "imm[11:0] rs1 001 rd 0000011", LOAD, "rd = sx(load(rs1 + imm, 2), 16)"),
    ("lw", "imm[11:0] rs1 010 rd 0000011", LOAD, "rd = sx(load(rs1 + imm, 4), 32)"),
    ("ld", "imm[11:0] rs1 011 rd 0000011", LOAD, "rd = load(rs1 + imm, 8)"),
    ("lbu", "imm[11:0] rs1 100 rd 0000011", LOAD, "rd = load(rs1 + imm, 1)"),
    ("lhu", "imm[11:0] rs1 101 rd 0000011", LOAD, "rd = load(rs1 + imm, 2)"),
    ("lwu", "imm[11:0] rs1 110 rd 0000011", LOAD, "rd = load(rs1 + imm, 4)"),
    ("sb", "imm[11:5] rs2 rs1 000 imm[4:0] 0100011", S, "store(rs1 + imm, 1, rs2)"),
    ("sh", "imm[11:5] rs2 rs1 001 imm[4:0] 0100011", S, "store(rs1 + imm, 2, rs2)"),
    ("sw", "imm[11:5] rs2 rs1 010 imm[4:0] 0100011", S, "store(rs1 + imm, 4, rs2)"),
    ("sd", "imm[11:5] rs2 rs1 011 imm[4:0] 0100011", S, "store(rs1 + imm, 8, rs2)"),
    ("addi", "imm[11:0] rs1 000 rd 0010011", I, "rd = rs1 + imm"),
    ("slti", "imm[11:0] rs1 010 rd 0010011", I, "rd = select(s(rs1) < imm, 1, 0)"),
    ("sltiu", "imm[11:0] rs1 011 rd 0010011", I, "rd = select(rs1 < zx(imm, 64), 1, 0)"),
    ("xori", "imm[11:0] rs1 100 rd 0010011", I, "rd = rs1 ^ imm"),
    ("ori", "imm[11:0] rs1 110 rd 0010011", I, "rd = rs1 | imm"),
    ("andi", "imm[11:0] rs1 111 rd 0010011", I, "rd = rs1 & imm"),
    ("slli", "000000 shamt[5:0] rs1 001 rd 0010011", SHIFT, "rd = rs1 << shamt"),
    ("srli", "000000 shamt[5:0] rs1 101 rd 0010011", SHIFT, "rd = rs1 >> shamt"),
    ("srai", "010000 shamt[5:0] rs1 101 rd 0010011", SHIFT, "rd = s(rs1) >> shamt"),
    ("add", "0000000 rs2 rs1 000 rd 0110011", R, "rd = rs1 + rs2"),
    ("sub", "0100000 rs2 rs1 000 rd 0110011", R, "rd = rs1 - rs2"),
    ("sll", "0000000 rs2 rs1 001 rd 0110011", R, "rd = rs1 << (rs2 & 63)"),
    ("slt", "0000000 rs2 rs1 010 rd 0110011", R, "rd = select(s(rs1) < s(rs2), 1, 0)"),
    ("sltu", "0000000 rs2 rs1 011 rd 0110011", R, "rd = select(rs1 < rs2, 1, 0)"),
    ("xor", "0000000 rs2 rs1 100 rd 0110011", R, "rd = rs1 ^ rs2"),
    ("srl", "0000000 rs2 rs1 101 rd 0110011", R, "rd = rs1 >> (rs2 & 63)"),
    ("sra", "0100000 rs2 rs1 101 rd 0110011", R, "rd = s(rs1) >> (rs2 & 63)"),
    ("or", "0000000 rs2 rs1 110 rd 0110011", R, "rd = rs1 | rs2"),
    ("and", "0000000 rs2 rs1 111 rd 0110011", R, "rd = rs1 & rs2"),
    ("addiw", "imm[11:0] rs1 000 rd 0011011", I, "rd = sx(rs1 + imm, 32)"),
    ("slliw", "0000000 shamt[4:0] rs1 001 rd 0011011", SHIFT, "rd = sx(rs1 << shamt, 32)"),
    ("srliw", "0000000 shamt[4:0] rs1 101 rd 0011011", SHIFT, "rd = sx(zx(rs1, 32) >> shamt, 32)"),
    ("sraiw", "0100000 shamt[4:0] rs1 101 rd 0011011", SHIFT, "rd = s(sx(rs1, 32)) >> shamt"),
    ("addw", "0000000 rs2 rs1 000 rd 0111011", R, "rd = sx(rs1 + rs2, 32)"),
    ("subw", "0100000 rs2 rs1 000 rd 0111011", R, "rd = sx(rs1 - rs2, 32)"),
    ("sllw", "0000000 rs2 rs1 001 rd 0111011", R, "rd = sx(rs1 << (rs2 & 31), 32)"),
    ("srlw", "0000000 rs2 rs1 101 rd 0111011", R, "rd = sx(zx(rs1, 32) >> (rs2 & 31), 32)"),
    ("sraw", "0100000 rs2 rs1 101 rd 0111011", R, "rd = s(sx(rs1, 32)) >> (rs2 & 31)"),
    ("fence", "fm pred succ rs1 000 rd 0001111", "pred, succ", ""),
    ("fence.tso", "1000 0011 0011 00000 000 00000 0001111", "", ""),
    ("ecall", "000000000000 00000 000 00000 1110011", "", "ecall()"),
    ("ebreak", "000000000001 00000 000 00000 1110011", "", "ebreak()"),
]

_ZIFENCEI = [("fence.i", "imm[11:0] rs1 001 rd 0001111", "", "fence_i()")]

_ZIHINTPAUSE = [("pause", "0000 0001 0000 00000 000 00000 0001111", "", "")]

_M = [
    ("mul", "0000001 rs2 rs1 000 rd 0110011", R, "rd = rs1 * rs2"),
    ("mulh", "0000001 rs2 rs1 001 rd 0110011", R, "rd = mulh(rs1, rs2, 64)"),
    ("mulhsu", "0000001 rs2 rs1 010 rd 0110011", R, "rd = mulhsu(rs1, rs2, 64)"),
    ("mulhu", "0000001 rs2 rs1 011 rd 0110011", R, "rd = mulhu(rs1, rs2, 64)"),
    ("div", "0000001 rs2 rs1 100 rd 0110011", R, "rd = div(rs1, rs2, 64)"),
    ("divu", "0000001 rs2 rs1 101 rd 0110011", R, "rd = divu(rs1, rs2, 64)"),
    ("rem", "0000001 rs2 rs1 110 rd 0110011", R, "rd = rem(rs1, rs2, 64)"),
    ("remu", "0000001 rs2 rs1 111 rd 0110011", R, "rd = remu(rs1, rs2, 64)"),
    ("mulw", "0000001 rs2 rs1 000 rd 0111011", R, "rd = sx(rs1 * rs2, 32)"),
    ("divw", "0000001 rs2 rs1 100 rd 0111011", R, "rd = sx(div(rs1, rs2, 32), 32)"),
    ("divuw", "0000001 rs2 rs1 101 rd 0111011", R, "rd = sx(divu(rs1, rs2, 32), 32)"),
    ("remw", "0000001 rs2 rs1 110 rd 0111011", R, "rd = sx(rem(rs1, rs2, 32), 32)"),
    ("remuw", "0000001 rs2 rs1 111 rd 0111011", R, "rd = sx(remu(rs1, rs2, 32), 32)"),
]


def _atomics(suffix: str, funct3: str, size: int) -> list[tuple[str, str, str, str]]:
    """The A extension's rows for one operand size: they differ in the size alone (section 8)."""
    bits = 8 * size
    old = f"old = sx(amo_load(rs1, {size}), {bits})"
    lesser, greater = f"s(old) < s(sx(rs2, {bits}))", f"s(old) > s(sx(rs2, {bits}))"
    lesser_unsigned, greater_unsigned = f"zx(old, {bits}) < zx(rs2, {bits})", f"zx(old, {bits}) > zx(rs2, {bits})"
    results = [
        ("amoswap", "00001", "rs2"),
        ("amoadd", "00000", "old + rs2"),
        ("amoxor", "00100", "old ^ rs2"),
        ("amoand", "01100", "old & rs2"),
        ("amoor", "01000", "old | rs2"),
        ("amomin", "10000", f"select({lesser}, old, rs2)"),
        ("amomax", "10100", f"select({greater}, old, rs2)"),
        ("amominu", "11000", f"select({lesser_unsigned}, old, rs2)"),
        ("amomaxu", "11100", f"select({greater_unsigned}, old, rs2)"),
    ]
    return [
        (f"lr.{suffix}", f"00010 aq rl 00000 rs1 {funct3} rd 0101111", "rd, (rs1)",
         f"rd = sx(load_reserved(rs1, {size}), {bits})"),
        (f"sc.{suffix}", f"00011 aq rl rs2 rs1 {funct3} rd 0101111", "rd, rs2, (rs1)",
         f"rd = store_conditional(rs1, {size}, rs2)"),
        *((f"{name}.{suffix}", f"{funct5} aq rl rs2 rs1 {funct3} rd 0101111", "rd, rs2, (rs1)",
           f"{old}; store(rs1, {size}, {new}); rd = old") for name, funct5, new in results),
    ]  # fmt: skip


_A = _atomics("w", "010", 4) + _atomics("d", "011", 8)

_OLD_UNLESS_X0 = "old = csr_read(csr) if rd_index else 0"
_ZICSR = [
    ("csrrw", "csr rs1 001 rd 1110011", CSR, f"{_OLD_UNLESS_X0}; csr_write(csr, rs1); rd = old"),
    ("csrrs", "csr rs1 010 rd 1110011", CSR, "old = csr_read(csr)\nif rs1_index: csr_set(csr, rs1)\nrd = old"),
    ("csrrc", "csr rs1 011 rd 1110011", CSR, "old = csr_read(csr)\nif rs1_index: csr_clear(csr, rs1)\nrd = old"),
    ("csrrwi", "csr uimm 101 rd 1110011", CSR_IMM, f"{_OLD_UNLESS_X0}; csr_write(csr, uimm); rd = old"),
    ("csrrsi", "csr uimm 110 rd 1110011", CSR_IMM, "old = csr_read(csr)\nif uimm: csr_set(csr, uimm)\nrd = old"),
    ("csrrci", "csr uimm 111 rd 1110011", CSR_IMM, "old = csr_read(csr)\nif uimm: csr_clear(csr, uimm)\nrd = old"),
]

_PRIVILEGED = [
    ("sret", "0001000 00010 00000 000 00000 1110011", "", "sret()"),
    ("mret", "0011000 00010 00000 000 00000 1110011", "", "mret()"),
    ("wfi", "0001000 00101 00000 000 00000 1110011", "", "wfi()"),
    ("sfence.vma", "0001001 rs2 rs1 000 00000 1110011", "rs1, rs2", "sfence_vma(rs1, rs2, rs1_index, rs2_index)"),
]

_SVINVAL = [
    ("sinval.vma", "0001011 rs2 rs1 000 00000 1110011", "rs1, rs2", "sfence_vma(rs1, rs2, rs1_index, rs2_index)"),
    ("sfence.w.inval", "0001100 00000 00000 000 00000 1110011", "", "sfence_order()"),
    ("sfence.inval.ir", "0001100 00001 00000 000 00000 1110011", "", "sfence_order()"),
]

_ZBA = [
    ("add.uw", "0000100 rs2 rs1 000 rd 0111011", R, "rd = rs2 + zx(rs1, 32)"),
    *((f"sh{n}add", f"0010000 rs2 rs1 {funct3} rd 0110011", R, f"rd = rs2 + (rs1 << {n})")
      for n, funct3 in ((1, "010"), (2, "100"), (3, "110"))),
    *((f"sh{n}add.uw", f"0010000 rs2 rs1 {funct3} rd 0111011", R, f"rd = rs2 + (zx(rs1, 32) << {n})")
      for n, funct3 in ((1, "010"), (2, "100"), (3, "110"))),
    ("slli.uw", "000010 shamt[5:0] rs1 001 rd 0011011", SHIFT, "rd = zx(rs1, 32) << shamt"),
]  # fmt: skip

_ZBB = [
    ("andn", "0100000 rs2 rs1 111 rd 0110011", R, "rd = rs1 & ~rs2"),
    ("orn", "0100000 rs2 rs1 110 rd 0110011", R, "rd = rs1 | ~rs2"),
    ("xnor", "0100000 rs2 rs1 100 rd 0110011", R, "rd = ~(rs1 ^ rs2)"),
    ("clz", "0110000 00000 rs1 001 rd 0010011", UNARY, "rd = clz(rs1, 64)"),
    ("clzw", "0110000 00000 rs1 001 rd 0011011", UNARY, "rd = clz(zx(rs1, 32), 32)"),
    ("ctz", "0110000 00001 rs1 001 rd 0010011", UNARY, "rd = ctz(rs1, 64)"),
    ("ctzw", "0110000 00001 rs1 001 rd 0011011", UNARY, "rd = ctz(zx(rs1, 32), 32)"),
    ("cpop", "0110000 00010 rs1 001 rd 0010011", UNARY, "rd = cpop(rs1, 64)"),
    ("cpopw", "0110000 00010 rs1 001 rd 0011011", UNARY, "rd = cpop(zx(rs1, 32), 32)"),
    ("max", "0000101 rs2 rs1 110 rd 0110011", R, "rd = select(s(rs1) < s(rs2), rs2, rs1)"),
    ("maxu", "0000101 rs2 rs1 111 rd 0110011", R, "rd = select(rs1 < rs2, rs2, rs1)"),
    ("min", "0000101 rs2 rs1 100 rd 0110011", R, "rd = select(s(rs1) < s(rs2), rs1, rs2)"),
    ("minu", "0000101 rs2 rs1 101 rd 0110011", R, "rd = select(rs1 < rs2, rs1, rs2)"),
    ("sext.b", "0110000 00100 rs1 001 rd 0010011", UNARY, "rd = sx(rs1, 8)"),
    ("sext.h", "0110000 00101 rs1 001 rd 0010011", UNARY, "rd = sx(rs1, 16)"),
    ("zext.h", "0000100 00000 rs1 100 rd 0111011", UNARY, "rd = zx(rs1, 16)"),
    ("rol", "0110000 rs2 rs1 001 rd 0110011", R, "rd = rs1 << (rs2 & 63) | rs1 >> (-rs2 & 63)"),
    ("ror", "0110000 rs2 rs1 101 rd 0110011", R, "rd = rs1 >> (rs2 & 63) | rs1 << (-rs2 & 63)"),
    ("rori", "011000 shamt[5:0] rs1 101 rd 0010011", SHIFT, "rd = rs1 >> shamt | rs1 << (-shamt & 63)"),
    ("rolw", "0110000 rs2 rs1 001 rd 0111011", R, "rd = sx(rs1 << (rs2 & 31) | zx(rs1, 32) >> (-rs2 & 31), 32)"),
    ("rorw", "0110000 rs2 rs1 101 rd 0111011", R, "rd = sx(zx(rs1, 32) >> (rs2 & 31) | rs1 << (-rs2 & 31), 32)"),
    ("roriw", "0110000 shamt[4:0] rs1 101 rd 0011011", SHIFT,
     "rd = sx(zx(rs1, 32) >> shamt | rs1 << (-shamt & 31), 32)"),
    # A byte is not 0 when its bit 7 is set or adding 0x7f to the others sets it; times 255 makes a 1 a byte of ones.
    ("orc.b", "0010100 00111 rs1 101 rd 0010011", UNARY,
     "carry = (rs1 & 0x7f7f7f7f7f7f7f7f) + 0x7f7f7f7f7f7f7f7f; rd = ((carry | rs1) >> 7 & 0x0101010101010101) * 255"),
    ("rev8", "0110101 11000 rs1 101 rd 0010011", UNARY, "rd = rev8(rs1)"),
]  # fmt: skip

_ZBS = [
    (f"{name}{suffix}", f"{funct} {operand} rs1 {funct3} rd {opcode}", syntax, f"rd = {result.format(shift)}")
    for name, funct6, funct3, result in (
        ("bclr", "010010", "001", "rs1 & ~(1 << {})"), ("bext", "010010", "101", "rs1 >> {} & 1"),
        ("binv", "011010", "001", "rs1 ^ 1 << {}"), ("bset", "001010", "001", "rs1 | 1 << {}"),
    )
    for suffix, funct, operand, opcode, syntax, shift in (
        ("", f"{funct6}0", "rs2", "0110011", R, "(rs2 & 63)"),
        ("i", funct6, "shamt[5:0]", "0010011", SHIFT, "shamt"),
    )
]  # fmt: skip


#: One format's rows of F or D, which differ in the words that `_floats` puts into the braces (chapters 11 and 12).
_FLOATS = [
    ("fl{w}", "imm[11:0] rs1 {width} rd 0000111", "frd, imm(rs1)", "frd = load(rs1 + imm, {size})"),
    ("fs{w}", "imm[11:5] rs2 rs1 {width} imm[4:0] 0100111", "frs2, imm(rs1)", "store(rs1 + imm, {size}, frs2)"),
    ("fmadd.{f}", "rs3 {ff} rs2 rs1 rm rd 1000011", FR4, "frd = fmadd({a}, {b}, {c}, {n}, rm)"),
    ("fmsub.{f}", "rs3 {ff} rs2 rs1 rm rd 1000111", FR4, "frd = fmadd({a}, {b}, {c} ^ {sign}, {n}, rm)"),
    ("fnmsub.{f}", "rs3 {ff} rs2 rs1 rm rd 1001011", FR4, "frd = fmadd({a} ^ {sign}, {b}, {c}, {n}, rm)"),
    ("fnmadd.{f}", "rs3 {ff} rs2 rs1 rm rd 1001111", FR4, "frd = fmadd({a} ^ {sign}, {b}, {c} ^ {sign}, {n}, rm)"),
    ("fadd.{f}", "00000{ff} rs2 rs1 rm rd 1010011", FR, "frd = fadd({a}, {b}, {n}, rm)"),
    ("fsub.{f}", "00001{ff} rs2 rs1 rm rd 1010011", FR, "frd = fsub({a}, {b}, {n}, rm)"),
    ("fmul.{f}", "00010{ff} rs2 rs1 rm rd 1010011", FR, "frd = fmul({a}, {b}, {n}, rm)"),
    ("fdiv.{f}", "00011{ff} rs2 rs1 rm rd 1010011", FR, "frd = fdiv({a}, {b}, {n}, rm)"),
    ("fsgnj.{f}", "00100{ff} rs2 rs1 000 rd 1010011", "frd, frs1, frs2", "frd = {a} & ~{sign} | {b} & {sign}"),
    ("fsgnjn.{f}", "00100{ff} rs2 rs1 001 rd 1010011", "frd, frs1, frs2", "frd = {a} & ~{sign} | ~{b} & {sign}"),
    ("fsgnjx.{f}", "00100{ff} rs2 rs1 010 rd 1010011", "frd, frs1, frs2", "frd = {a} ^ {b} & {sign}"),
    ("fmin.{f}", "00101{ff} rs2 rs1 000 rd 1010011", "frd, frs1, frs2", "frd = fmin({a}, {b}, {n})"),
    ("fmax.{f}", "00101{ff} rs2 rs1 001 rd 1010011", "frd, frs1, frs2", "frd = fmax({a}, {b}, {n})"),
    ("fle.{f}", "10100{ff} rs2 rs1 000 rd 1010011", "rd, frs1, frs2", "rd = fle({a}, {b}, {n})"),
    ("flt.{f}", "10100{ff} rs2 rs1 001 rd 1010011", "rd, frs1, frs2", "rd = flt({a}, {b}, {n})"),
    ("feq.{f}", "10100{ff} rs2 rs1 010 rd 1010011", "rd, frs1, frs2", "rd = feq({a}, {b}, {n})"),
    ("fsqrt.{f}", "01011{ff} 00000 rs1 rm rd 1010011", "frd, frs1, rm", "frd = fsqrt({a}, {n}, rm)"),
    ("fcvt.w.{f}", "11000{ff} 00000 rs1 rm rd 1010011", "rd, frs1, rm", "rd = sx(to_signed({a}, {n}, 32, rm), 32)"),
    ("fcvt.wu.{f}", "11000{ff} 00001 rs1 rm rd 1010011", "rd, frs1, rm", "rd = sx(to_unsigned({a}, {n}, 32, rm), 32)"),
    ("fcvt.l.{f}", "11000{ff} 00010 rs1 rm rd 1010011", "rd, frs1, rm", "rd = to_signed({a}, {n}, 64, rm)"),
    ("fcvt.lu.{f}", "11000{ff} 00011 rs1 rm rd 1010011", "rd, frs1, rm", "rd = to_unsigned({a}, {n}, 64, rm)"),
    ("fcvt.{f}.w", "11010{ff} 00000 rs1 rm rd 1010011", "{of_word}", "frd = from_signed(sx(rs1, 32), {n}, rm)"),
    ("fcvt.{f}.wu", "11010{ff} 00001 rs1 rm rd 1010011", "{of_word}", "frd = from_unsigned(zx(rs1, 32), {n}, rm)"),
    ("fcvt.{f}.l", "11010{ff} 00010 rs1 rm rd 1010011", "frd, rs1, rm", "frd = from_signed(rs1, {n}, rm)"),
    ("fcvt.{f}.lu", "11010{ff} 00011 rs1 rm rd 1010011", "frd, rs1, rm", "frd = from_unsigned(rs1, {n}, rm)"),
    ("fmv.x.{w}", "11100{ff} 00000 rs1 000 rd 1010011", "rd, frs1", "rd = sx(frs1, {n})"),
    ("fclass.{f}", "11100{ff} 00000 rs1 001 rd 1010011", "rd, frs1", "rd = fclass({a}, {n})"),
    ("fmv.{w}.x", "11110{ff} 00000 rs1 000 rd 1010011", "frd, rs1", "frd = rs1"),
]
#: The words for single and double precision. A double holds every word, so that conversion has no rounding mode.
_SINGLE: dict[str, str | int] = {
    "f": "s", "w": "w", "width": "010", "ff": "00", "size": 4, "n": 32, "sign": "0x80000000",
    "a": "unbox(frs1)", "b": "unbox(frs2)", "c": "unbox(frs3)", "of_word": "frd, rs1, rm",
}  # fmt: skip
_DOUBLE: dict[str, str | int] = {
    "f": "d", "w": "d", "width": "011", "ff": "01", "size": 8, "n": 64, "sign": "0x8000000000000000",
    "a": "frs1", "b": "frs2", "c": "frs3", "of_word": "frd, rs1",
}  # fmt: skip


def _floats(words: dict[str, str | int]) -> list[tuple[str, str, str, str]]:
    """The rows of _FLOATS with these words; what a single gives is boxed."""
    rows = []
    for row in _FLOATS:
        mnemonic, pattern, syntax, semantics = (column.format(**words) for column in row)
        target, assigns, result = semantics.partition("frd = ")
        if assigns and words["n"] == 32:
            semantics = f"{target}frd = box({result})"
        rows.append((mnemonic, pattern, syntax, semantics))
    return rows


_F = _floats(_SINGLE)
_D = [
    *_floats(_DOUBLE),
    ("fcvt.s.d", "0100000 00001 rs1 rm rd 1010011", "frd, frs1, rm", "frd = box(fconvert(frs1, 64, 32, rm))"),
    ("fcvt.d.s", "0100001 00000 rs1 rm rd 1010011", "frd, frs1", "frd = fconvert(unbox(frs1), 32, 64, rm)"),
]

#: Each is another spelling of the instruction in its last column, to which it expands (section 16): implied
#: operands and reserved values stand in the pattern, HINTs are what the expansion makes of them (mostly a
#: write to x0).
_C = [
    ("c.addi4spn", "000 uimm[5:4|9:6|2|3] rd' 00 rs1=2 imm!=0", "rd, sp, imm", "addi"),
    ("c.fld", "001 uimm[5:3] rs1' uimm[7:6] rd' 00", "frd, imm(rs1)", "fld"),
    ("c.lw", "010 uimm[5:3] rs1' uimm[2|6] rd' 00", LOAD, "lw"),
    ("c.ld", "011 uimm[5:3] rs1' uimm[7:6] rd' 00", LOAD, "ld"),
    ("c.fsd", "101 uimm[5:3] rs1' uimm[7:6] rs2' 00", "frs2, imm(rs1)", "fsd"),
    ("c.sw", "110 uimm[5:3] rs1' uimm[2|6] rs2' 00", S, "sw"),
    ("c.sd", "111 uimm[5:3] rs1' uimm[7:6] rs2' 00", S, "sd"),
    ("c.nop", "000 imm[5] 00000 imm[4:0] 01 rd=0 rs1=0", "", "addi"),
    ("c.addi", "000 imm[5] rd/rs1 imm[4:0] 01 rd!=0", "rd, imm", "addi"),
    ("c.addiw", "001 imm[5] rd/rs1 imm[4:0] 01 rd!=0", "rd, imm", "addiw"),
    ("c.li", "010 imm[5] rd imm[4:0] 01 rs1=0", "rd, imm", "addi"),
    ("c.addi16sp", "011 imm[9] 00010 imm[4|6|8:7|5] 01 rd=2 rs1=2 imm!=0", "sp, imm", "addi"),
    ("c.lui", "011 imm[17] rd imm[16:12] 01 rd!=2 imm!=0", "rd, upper", "lui"),
    ("c.srli", "100 shamt[5] 00 rd'/rs1' shamt[4:0] 01", "rd, shamt", "srli"),
    ("c.srai", "100 shamt[5] 01 rd'/rs1' shamt[4:0] 01", "rd, shamt", "srai"),
    ("c.andi", "100 imm[5] 10 rd'/rs1' imm[4:0] 01", "rd, imm", "andi"),
    ("c.sub", "100 0 11 rd'/rs1' 00 rs2' 01", "rd, rs2", "sub"),
    ("c.xor", "100 0 11 rd'/rs1' 01 rs2' 01", "rd, rs2", "xor"),
    ("c.or", "100 0 11 rd'/rs1' 10 rs2' 01", "rd, rs2", "or"),
    ("c.and", "100 0 11 rd'/rs1' 11 rs2' 01", "rd, rs2", "and"),
    ("c.subw", "100 1 11 rd'/rs1' 00 rs2' 01", "rd, rs2", "subw"),
    ("c.addw", "100 1 11 rd'/rs1' 01 rs2' 01", "rd, rs2", "addw"),
    ("c.j", "101 imm[11|4|9:8|10|6|7|3:1|5] 01 rd=0", "target", "jal"),
    ("c.beqz", "110 imm[8|4:3] rs1' imm[7:6|2:1|5] 01 rs2=0", "rs1, target", "beq"),
    ("c.bnez", "111 imm[8|4:3] rs1' imm[7:6|2:1|5] 01 rs2=0", "rs1, target", "bne"),
    ("c.slli", "000 shamt[5] rd/rs1 shamt[4:0] 10", "rd, shamt", "slli"),
    ("c.fldsp", "001 uimm[5] rd uimm[4:3|8:6] 10 rs1=2", "frd, imm(sp)", "fld"),
    ("c.lwsp", "010 uimm[5] rd uimm[4:2|7:6] 10 rs1=2 rd!=0", "rd, imm(sp)", "lw"),
    ("c.ldsp", "011 uimm[5] rd uimm[4:3|8:6] 10 rs1=2 rd!=0", "rd, imm(sp)", "ld"),
    ("c.jr", "1000 rs1 00000 10 rd=0 imm=0 rs1!=0", "rs1", "jalr"),
    ("c.mv", "1000 rd rs2 10 rs1=0 rs2!=0", "rd, rs2", "add"),
    ("c.ebreak", "1001 00000 00000 10", "", "ebreak"),
    ("c.jalr", "1001 rs1 00000 10 rd=1 imm=0 rs1!=0", "rs1", "jalr"),
    ("c.add", "1001 rd/rs1 rs2 10 rs2!=0", "rd, rs2", "add"),
    ("c.fsdsp", "101 uimm[5:3|8:6] rs2 10 rs1=2", "frs2, imm(sp)", "fsd"),
    ("c.swsp", "110 uimm[5:2|7:6] rs2 10 rs1=2", "rs2, imm(sp)", "sw"),
    ("c.sdsp", "111 uimm[5:3|8:6] rs2 10 rs1=2", "rs2, imm(sp)", "sd"),
]


def _guest_accesses() -> list[tuple[str, str, str, str]]:
    """hlv, hlvx and hsv: one line for each width."""
    rows = []
    for size, letter, width in ((1, "b", "00"), (2, "h", "01"), (4, "w", "10"), (8, "d", "11")):
        load = f"0110{width}0 {{}} rs1 100 rd 1110011"
        guest = f"hyper_load(rs1, {size}, 0)"
        rows.append((f"hlv.{letter}", load.format("00000"), "rd, (rs1)", f"rd = sx({guest}, {8 * size})"))
        if size < 8:
            rows.append((f"hlv.{letter}u", load.format("00001"), "rd, (rs1)", f"rd = {guest}"))
        if size in {2, 4}:
            code = f"hyper_load(rs1, {size}, 1)"
            rows.append((f"hlvx.{letter}u", load.format("00011"), "rd, (rs1)", f"rd = {code}"))
        store = f"hyper_store(rs1, {size}, rs2)"
        rows.append((f"hsv.{letter}", f"0110{width}1 rs2 rs1 100 00000 1110011", "rs2, (rs1)", store))
    return rows


_H = [
    *_guest_accesses(),
    ("hfence.vvma", "0010001 rs2 rs1 000 00000 1110011", "rs1, rs2", "hfence_vvma(rs1, rs2, rs1_index, rs2_index)"),
    ("hfence.gvma", "0110001 rs2 rs1 000 00000 1110011", "rs1, rs2", "hfence_gvma(rs1, rs2, rs1_index, rs2_index)"),
    ("hinval.vvma", "0010011 rs2 rs1 000 00000 1110011", "rs1, rs2", "hfence_vvma(rs1, rs2, rs1_index, rs2_index)"),
    ("hinval.gvma", "0110011 rs2 rs1 000 00000 1110011", "rs1, rs2", "hfence_gvma(rs1, rs2, rs1_index, rs2_index)"),
]

BY_MNEMONIC: dict[str, Row] = {}


def _add(row: Row) -> None:
    if row.mnemonic in BY_MNEMONIC:
        raise ValueError(f"two rows are called {row.mnemonic}")
    BY_MNEMONIC[row.mnemonic] = row


for _extension, _rows in (
    ("I", _BASE), ("Zifencei", _ZIFENCEI), ("M", _M), ("A", _A), ("Zicsr", _ZICSR),
    ("privileged", _PRIVILEGED), ("F", _F), ("D", _D), ("Zba", _ZBA), ("Zbb", _ZBB), ("Zbs", _ZBS),
    ("Zihintpause", _ZIHINTPAUSE), ("Svinval", _SVINVAL), ("H", _H),
):  # fmt: skip
    for _row in _rows:
        _add(Row(*_row, _extension))
for _mnemonic, _pattern, _syntax, _expansion in _C:
    _add(Row(_mnemonic, _pattern, _syntax, BY_MNEMONIC[_expansion].semantics, "C"))

ROWS: tuple[Row, ...] = tuple(BY_MNEMONIC.values())

#: What the device tree says of these rows, and of the CSRs and page tables that go with them.
ISA_STRING = "rv64imafdc_zicntr_zicsr_zifencei_zihintpause_zba_zbb_zbs_sstc_svinval_svpbmt"


def isa_string(hypervisor_extension: bool) -> str:
    """As the device tree has it: the single letters end at the first underscore."""
    return ISA_STRING.replace("_", "h_", 1) if hypervisor_extension else ISA_STRING


REGISTERS: tuple[str, ...] = (
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6",
    "a7",
    "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
)  # fmt: skip
FLOAT_REGISTERS: tuple[str, ...] = (
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4",
    "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9",
    "ft10", "ft11",
)  # fmt: skip
