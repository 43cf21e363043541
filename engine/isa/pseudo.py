"""The pseudo-instructions: one table, read forwards by the assembler and backwards by the disassembler.

A line is `spelling = real instruction` (both ways) or `spelling -> instruction; instruction` (assembler
only). In a spelling, rd rs rt stand for registers, frd frs frt for floating-point ones, offset(rs) for an address, and
value, symbol, csr, target for anything that is not a register. The disassembler takes the first line that fits, so the
special precedes the general (`ret` before `jr`). `%pcrel_lo(. - 4)` means: the low part of what the instruction before
has as %pcrel_hi. Only `li` is not here: how many instructions it becomes depends on its value
(assembler.load_immediate). Source: RISC-V Assembly Programmer's Manual, tables "pseudoinstructions";
spellings as GNU binutils 2.40 prints them.
"""

from __future__ import annotations

from typing import NamedTuple


class Pseudo(NamedTuple):
    """`operands` are the spelling's patterns; `expansion` the real instructions as assembly text."""

    mnemonic: str
    operands: tuple[str, ...]
    expansion: tuple[str, ...]
    reversible: bool


_TABLE = """
nop                       = addi x0, x0, 0
li rd, value              = addi rd, x0, value
mv rd, rs                 = addi rd, rs, 0
not rd, rs                = xori rd, rs, -1
neg rd, rs                = sub rd, x0, rs
negw rd, rs               = subw rd, x0, rs
zext.w rd, rs             = add.uw rd, rs, x0
sext.w rd, rs             = addiw rd, rs, 0
zext.b rd, rs             = andi rd, rs, 255
seqz rd, rs               = sltiu rd, rs, 1
snez rd, rs               = sltu rd, x0, rs
sltz rd, rs               = slt rd, rs, x0
sgtz rd, rs               = slt rd, x0, rs
beqz rs, target           = beq rs, x0, target
bnez rs, target           = bne rs, x0, target
blez rs, target           = bge x0, rs, target
bgez rs, target           = bge rs, x0, target
bltz rs, target           = blt rs, x0, target
bgtz rs, target           = blt x0, rs, target
bgt rs, rt, target        -> blt rt, rs, target
ble rs, rt, target        -> bge rt, rs, target
bgtu rs, rt, target       -> bltu rt, rs, target
bleu rs, rt, target       -> bgeu rt, rs, target
j target                  = jal x0, target
jal target                = jal x1, target
ret                       = jalr x0, 0(x1)
jr rs                     = jalr x0, 0(rs)
jr offset(rs)             = jalr x0, offset(rs)
jr rs, value              -> jalr x0, value(rs)
jalr rs                   = jalr x1, 0(rs)
jalr offset(rs)           = jalr x1, offset(rs)
jalr rd, rs               = jalr rd, 0(rs)
jalr rd, rs, value        -> jalr rd, value(rs)
jalr rs, value            -> jalr x1, value(rs)
call symbol               -> auipc x1, %pcrel_hi(symbol); jalr x1, %pcrel_lo(. - 4)(x1)
call rd, symbol           -> auipc rd, %pcrel_hi(symbol); jalr rd, %pcrel_lo(. - 4)(rd)
tail symbol               -> auipc x6, %pcrel_hi(symbol); jalr x0, %pcrel_lo(. - 4)(x6)
jump symbol, rt           -> auipc rt, %pcrel_hi(symbol); jalr x0, %pcrel_lo(. - 4)(rt)
la rd, symbol             -> auipc rd, %pcrel_hi(symbol); addi rd, rd, %pcrel_lo(. - 4)
lla rd, symbol            -> auipc rd, %pcrel_hi(symbol); addi rd, rd, %pcrel_lo(. - 4)
lb rd, symbol             -> auipc rd, %pcrel_hi(symbol); lb rd, %pcrel_lo(. - 4)(rd)
lbu rd, symbol            -> auipc rd, %pcrel_hi(symbol); lbu rd, %pcrel_lo(. - 4)(rd)
lh rd, symbol             -> auipc rd, %pcrel_hi(symbol); lh rd, %pcrel_lo(. - 4)(rd)
lhu rd, symbol            -> auipc rd, %pcrel_hi(symbol); lhu rd, %pcrel_lo(. - 4)(rd)
lw rd, symbol             -> auipc rd, %pcrel_hi(symbol); lw rd, %pcrel_lo(. - 4)(rd)
lwu rd, symbol            -> auipc rd, %pcrel_hi(symbol); lwu rd, %pcrel_lo(. - 4)(rd)
ld rd, symbol             -> auipc rd, %pcrel_hi(symbol); ld rd, %pcrel_lo(. - 4)(rd)
sb rs, symbol, rt         -> auipc rt, %pcrel_hi(symbol); sb rs, %pcrel_lo(. - 4)(rt)
sh rs, symbol, rt         -> auipc rt, %pcrel_hi(symbol); sh rs, %pcrel_lo(. - 4)(rt)
sw rs, symbol, rt         -> auipc rt, %pcrel_hi(symbol); sw rs, %pcrel_lo(. - 4)(rt)
sd rs, symbol, rt         -> auipc rt, %pcrel_hi(symbol); sd rs, %pcrel_lo(. - 4)(rt)
add rd, rs, value         -> addi rd, rs, value
addw rd, rs, value        -> addiw rd, rs, value
and rd, rs, value         -> andi rd, rs, value
or rd, rs, value          -> ori rd, rs, value
xor rd, rs, value         -> xori rd, rs, value
slt rd, rs, value         -> slti rd, rs, value
sltu rd, rs, value        -> sltiu rd, rs, value
sgt rd, rs, rt            -> slt rd, rt, rs
sgtu rd, rs, rt           -> sltu rd, rt, rs
sll rd, rs, value         -> slli rd, rs, value
srl rd, rs, value         -> srli rd, rs, value
sra rd, rs, value         -> srai rd, rs, value
sllw rd, rs, value        -> slliw rd, rs, value
srlw rd, rs, value        -> srliw rd, rs, value
sraw rd, rs, value        -> sraiw rd, rs, value
ror rd, rs, value         -> rori rd, rs, value
rorw rd, rs, value        -> roriw rd, rs, value
bclr rd, rs, value        -> bclri rd, rs, value
bext rd, rs, value        -> bexti rd, rs, value
binv rd, rs, value        -> binvi rd, rs, value
bset rd, rs, value        -> bseti rd, rs, value
unimp                     = csrrw x0, cycle, x0
rdcycle rd                = csrrs rd, cycle, x0
rdtime rd                 = csrrs rd, time, x0
rdinstret rd              = csrrs rd, instret, x0
frcsr rd                  = csrrs rd, fcsr, x0
frrm rd                   = csrrs rd, frm, x0
frflags rd                = csrrs rd, fflags, x0
fscsr rs                  = csrrw x0, fcsr, rs
fscsr rd, rs              = csrrw rd, fcsr, rs
fsrm rs                   = csrrw x0, frm, rs
fsrm rd, rs               = csrrw rd, frm, rs
fsflags rs                = csrrw x0, fflags, rs
fsflags rd, rs            = csrrw rd, fflags, rs
fsrmi value               = csrrwi x0, frm, value
fsrmi rd, value           = csrrwi rd, frm, value
fsflagsi value            = csrrwi x0, fflags, value
fsflagsi rd, value        = csrrwi rd, fflags, value
csrr rd, csr              = csrrs rd, csr, x0
csrw csr, rs              = csrrw x0, csr, rs
csrs csr, rs              = csrrs x0, csr, rs
csrc csr, rs              = csrrc x0, csr, rs
csrwi csr, value          = csrrwi x0, csr, value
csrsi csr, value          = csrrsi x0, csr, value
csrci csr, value          = csrrci x0, csr, value
csrw csr, value           -> csrrwi x0, csr, value
csrs csr, value           -> csrrsi x0, csr, value
csrc csr, value           -> csrrci x0, csr, value
csrrw rd, csr, value      -> csrrwi rd, csr, value
csrrs rd, csr, value      -> csrrsi rd, csr, value
csrrc rd, csr, value      -> csrrci rd, csr, value
fmv.s frd, frs            = fsgnj.s frd, frs, frs
fneg.s frd, frs           = fsgnjn.s frd, frs, frs
fabs.s frd, frs           = fsgnjx.s frd, frs, frs
fmv.d frd, frs            = fsgnj.d frd, frs, frs
fneg.d frd, frs           = fsgnjn.d frd, frs, frs
fabs.d frd, frs           = fsgnjx.d frd, frs, frs
fgt.s rd, frs, frt        -> flt.s rd, frt, frs
fge.s rd, frs, frt        -> fle.s rd, frt, frs
fgt.d rd, frs, frt        -> flt.d rd, frt, frs
fge.d rd, frs, frt        -> fle.d rd, frt, frs
fmv.x.s rd, frs           -> fmv.x.w rd, frs
fmv.s.x frd, rs           -> fmv.w.x frd, rs
flw frd, symbol, rt       -> auipc rt, %pcrel_hi(symbol); flw frd, %pcrel_lo(. - 4)(rt)
fld frd, symbol, rt       -> auipc rt, %pcrel_hi(symbol); fld frd, %pcrel_lo(. - 4)(rt)
fsw frs, symbol, rt       -> auipc rt, %pcrel_hi(symbol); fsw frs, %pcrel_lo(. - 4)(rt)
fsd frs, symbol, rt       -> auipc rt, %pcrel_hi(symbol); fsd frs, %pcrel_lo(. - 4)(rt)
fence                     = fence iorw, iorw
sfence.vma                = sfence.vma x0, x0
sfence.vma rs             = sfence.vma rs, x0
hfence.vvma               = hfence.vvma x0, x0
hfence.vvma rs            = hfence.vvma rs, x0
hfence.gvma               = hfence.gvma x0, x0
hfence.gvma rs            = hfence.gvma rs, x0
sbreak                    -> ebreak
scall                     -> ecall
"""


def _read(table: str) -> tuple[Pseudo, ...]:
    rows: list[Pseudo] = []
    for line in table.strip().splitlines():
        reversible = "->" not in line
        spelling, _, expansion = line.partition("=" if reversible else "->")
        mnemonic, _, operands = spelling.strip().partition(" ")
        patterns = tuple(operand.strip() for operand in operands.split(",") if operand.strip())
        instructions = tuple(instruction.strip() for instruction in expansion.split(";"))
        if any((row.mnemonic, row.operands) == (mnemonic, patterns) for row in rows):
            raise ValueError(f"pseudo-instruction {spelling.strip()!r} is defined twice")
        rows.append(Pseudo(mnemonic, patterns, instructions, reversible))
    return tuple(rows)


PSEUDOS = _read(_TABLE)
