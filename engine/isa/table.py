"""The instruction table: RV64IMAC_Zicsr_Zifencei and the privileged instructions. One row per instruction.

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
    jump(target)          go to target, which is even, instead of pc + ilen
    load(a, n), store(a, n, v)        n bytes at virtual address a, zero-extended
    amo_load(a, n)                    as load, but faults as a store, and a must be aligned
    load_reserved(a, n), store_conditional(a, n, v) -> 0 on success
    csr_read(c), csr_write(c, v), csr_set(c, bits), csr_clear(c, bits)
    ecall() ebreak() mret() sret() wfi() sfence_vma(address, asid, has_address, has_asid) fence_i()
    hyper_load(a, n, x), hyper_store(a, n, v)   as the guest would do it; x: it needs X instead of R
    hfence_vvma(address, asid, has_address, has_asid) hfence_gvma(address, vmid, has_address, has_vmid)

Everything is evaluated in order; a primitive that traps leaves all later lines undone.
Source: The RISC-V Instruction Set Manual, volume I (20191213) and volume II, privileged architecture 1.12.
"""

from __future__ import annotations

from engine.isa.formats import Row

R, I, S, B = "rd, rs1, rs2", "rd, rs1, imm", "rs2, imm(rs1)", "rs1, rs2, target"
LOAD, SHIFT = "rd, imm(rs1)", "rd, rs1, shamt"

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
    ("ecall", "000000000000 00000 000 00000 1110011", "", "ecall()"),
    ("ebreak", "000000000001 00000 000 00000 1110011", "", "ebreak()"),
]

_ZIFENCEI = [("fence.i", "imm[11:0] rs1 001 rd 0001111", "", "fence_i()")]

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
    lesser_unsigned, greater_unsigned = (
        f"zx(old, {bits}) < zx(rs2, {bits})",
        f"zx(old, {bits}) > zx(rs2, {bits})",
    )
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
    ("csrrw", "csr rs1 001 rd 1110011", "rd, csr, rs1", f"{_OLD_UNLESS_X0}; csr_write(csr, rs1); rd = old"),
    (
        "csrrs",
        "csr rs1 010 rd 1110011",
        "rd, csr, rs1",
        "old = csr_read(csr)\nif rs1_index: csr_set(csr, rs1)\nrd = old",
    ),
    (
        "csrrc",
        "csr rs1 011 rd 1110011",
        "rd, csr, rs1",
        "old = csr_read(csr)\nif rs1_index: csr_clear(csr, rs1)\nrd = old",
    ),
    (
        "csrrwi",
        "csr uimm 101 rd 1110011",
        "rd, csr, uimm",
        f"{_OLD_UNLESS_X0}; csr_write(csr, uimm); rd = old",
    ),
    (
        "csrrsi",
        "csr uimm 110 rd 1110011",
        "rd, csr, uimm",
        "old = csr_read(csr)\nif uimm: csr_set(csr, uimm)\nrd = old",
    ),
    (
        "csrrci",
        "csr uimm 111 rd 1110011",
        "rd, csr, uimm",
        "old = csr_read(csr)\nif uimm: csr_clear(csr, uimm)\nrd = old",
    ),
]

_PRIVILEGED = [
    ("sret", "0001000 00010 00000 000 00000 1110011", "", "sret()"),
    ("mret", "0011000 00010 00000 000 00000 1110011", "", "mret()"),
    ("wfi", "0001000 00101 00000 000 00000 1110011", "", "wfi()"),
    (
        "sfence.vma",
        "0001001 rs2 rs1 000 00000 1110011",
        "rs1, rs2",
        "sfence_vma(rs1, rs2, rs1_index, rs2_index)",
    ),
]

#: Each is another spelling of the instruction in its last column, to which it expands (section 16): implied operands and
#: reserved values stand in the pattern, HINTs are what the expansion makes of them (mostly a write to x0).
_C = [
    ("c.addi4spn", "000 uimm[5:4|9:6|2|3] rd' 00 rs1=2 imm!=0", "rd, sp, imm", "addi"),
    ("c.lw", "010 uimm[5:3] rs1' uimm[2|6] rd' 00", LOAD, "lw"),
    ("c.ld", "011 uimm[5:3] rs1' uimm[7:6] rd' 00", LOAD, "ld"),
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
    ("c.lwsp", "010 uimm[5] rd uimm[4:2|7:6] 10 rs1=2 rd!=0", "rd, imm(sp)", "lw"),
    ("c.ldsp", "011 uimm[5] rd uimm[4:3|8:6] 10 rs1=2 rd!=0", "rd, imm(sp)", "ld"),
    ("c.jr", "1000 rs1 00000 10 rd=0 imm=0 rs1!=0", "rs1", "jalr"),
    ("c.mv", "1000 rd rs2 10 rs1=0 rs2!=0", "rd, rs2", "add"),
    ("c.ebreak", "1001 00000 00000 10", "", "ebreak"),
    ("c.jalr", "1001 rs1 00000 10 rd=1 imm=0 rs1!=0", "rs1", "jalr"),
    ("c.add", "1001 rd/rs1 rs2 10 rs2!=0", "rd, rs2", "add"),
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
    (
        "hfence.vvma",
        "0010001 rs2 rs1 000 00000 1110011",
        "rs1, rs2",
        "hfence_vvma(rs1, rs2, rs1_index, rs2_index)",
    ),
    (
        "hfence.gvma",
        "0110001 rs2 rs1 000 00000 1110011",
        "rs1, rs2",
        "hfence_gvma(rs1, rs2, rs1_index, rs2_index)",
    ),
]

BY_MNEMONIC: dict[str, Row] = {}


def _add(row: Row) -> None:
    if row.mnemonic in BY_MNEMONIC:
        raise ValueError(f"two rows are called {row.mnemonic}")
    BY_MNEMONIC[row.mnemonic] = row


for _extension, _rows in (
    ("I", _BASE), ("Zifencei", _ZIFENCEI), ("M", _M), ("A", _A), ("Zicsr", _ZICSR), ("privileged", _PRIVILEGED),
    ("H", _H),
):  # fmt: skip
    for _row in _rows:
        _add(Row(*_row, _extension))
for _mnemonic, _pattern, _syntax, _expansion in _C:
    _add(Row(_mnemonic, _pattern, _syntax, BY_MNEMONIC[_expansion].semantics, "C"))

ROWS: tuple[Row, ...] = tuple(BY_MNEMONIC.values())

#: What the device tree says of these rows.
ISA_STRING = "rv64imac_zicsr_zifencei"

REGISTERS: tuple[str, ...] = (
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6",
    "a7",
    "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
)  # fmt: skip
