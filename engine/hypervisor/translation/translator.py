"""Guest kernel code, a block of it at a time, to code that may run in U mode of a host hart.

    innocuous            copied
    pc-relative          auipc, jal: the guest's address as a constant. Branches: to a stub behind the block
    indirect jump        computes the place of its target in the table of jumps, which is code too (see `cache`); a
                         call-out outside of S mode, whose table it is
    sensitive            inline where the virtual CSR is a word at hand and nothing has to be checked; else a call-out
    floating point       a call-out, because the floating-point registers are not the guest's here
    end of the block     a call-out that asks for what follows; `cache` makes a jump of it

A call-out is `ecall`: it traps on any machine, also on one whose sensitive instructions do not.

**Where the virtual CSRs are.** Inline code needs words to work on and registers to work in, which the guest cannot
reach. No address is safe, since the guest kernel's own loads and stores run here unchecked. The floating-point
registers are: while a guest kernel runs, the VMM has the hart's (the guest's wait in the virtual hart), f0 to f7 hold
virtual CSRs, f8 to f11 what inline code has taken registers from, and one `fmv` moves a word without an address.

**Precise state.** At each instruction of the translation there is a `Point`: the guest's pc, and which registers have
to be set right to get the guest's own. Before the step in which an instruction's effect shows, the guest is still at
it; after that it is at the next one. So an exception, an interrupt or a look finds the guest between two
instructions, always. The registers hold what the guest put there: a return address is a guest address.

Nothing here knows memory, tables or harts: bytes in, `Draft` out, the same for the same arguments.
RISC-V unprivileged specification 20191213; K. Adams, O. Agesen, A Comparison of Software and Hardware Techniques
for x86 Virtualization, ASPLOS 2006, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from engine.bits import MASK64, sign_extend, signed
from engine.isa.csrs import CSR_NUMBERS, Status
from engine.isa.decoder import decode, encoding_of, length_of
from engine.isa.formats import Row
from engine.isa.table import BY_MNEMONIC, ROWS, uses_floats
from engine.machine.native.translated import EPC, FIRST, INLINE, INTERRUPT, OLD, SECOND, SHOWN, STATUS

MAX_INSTRUCTIONS = 32
PAGE = 4096
#: Points whose guest pc is a value at run time: in register TARGET, or in the word PC.
IN_REGISTER, IN_WORD = -1, -2
TARGET, INDEX = 5, 6
#: The table of jumps: entries of 32 bytes, chosen by bits 13 to 1 of the target, up to the end of the address space.
JUMPS, JUMP_BYTES = 8192, 32
JUMP_TABLE = JUMPS * JUMP_BYTES
#: Where in an entry its target was not the one asked for; an odd address leads here at once.
_MISS_AT = 16
_INDEX_BITS = JUMPS.bit_length()
ECALL, NOP, COMPRESSED_NOP = 0x73, 0x13, 0x0001

_SYSTEM = 0x73
_READABLE = {row.number: word for word, row in enumerate(SHOWN)}
#: Those of them that take any value.
_WRITABLE = {CSR_NUMBERS[name] for name in ("sscratch", "scause", "stval")}
_SSTATUS, _SEPC = CSR_NUMBERS["sstatus"], CSR_NUMBERS["sepc"]
_FENCES = ("sfence.vma", "sinval.vma", "sfence.w.inval", "sfence.inval.ir")
_LEAVES = ("sret", "mret")
#: Rows of which no instruction is copied: what depends on its address, and what is not for U mode.
_MOVED = frozenset(
    ("auipc", "jal", "c.j", "jalr", "c.jr", "c.jalr", "beq", "bne", "blt", "bge", "bltu", "bgeu", "c.beqz", "c.bnez")
)
_CALLED = frozenset(
    row.mnemonic
    for row in ROWS
    if uses_floats(row) or (row.length == 4 and row.match & 0x7F == _SYSTEM) or row.mnemonic == "c.ebreak"
)
#: Stores that may be retranslated to call-outs.
STORES = ("sb", "sh", "sw", "sd", "c.sw", "c.sd", "c.swsp", "c.sdsp")


class Call(IntEnum):
    """What is done at a point where the code leaves to the VMM."""

    NONE = 0
    CHAIN = 1  # go on at the point's guest pc, and by yourself the next time
    EMULATE = 2  # execute the sensitive instruction
    STORE = 3  # execute the store, which has faulted often
    MISS = 4  # go on at the point's guest pc, which the table of jumps does not know


class Fix(NamedTuple):
    """The guest's value of register `register`: of the word `word`, or, where that is negative, `constant`."""

    register: int
    word: int
    constant: int = 0


class Point(NamedTuple):
    """The guest's state before the host instruction at `offset` of the block."""

    offset: int
    pc: int
    fixes: tuple[Fix, ...] = ()
    call: Call = Call.NONE
    instruction: int = 0


class Draft(NamedTuple):
    """The translation of guest code [pc, end). `entries`: guest pc of each instruction -> offset. `body`: where they all
    end; behind it is the way on, and what branches lead to."""

    pc: int
    end: int
    code: bytes
    points: tuple[Point, ...]
    entries: dict[int, int]
    body: int


@lru_cache(1 << 14)
def constant(register: int, value: int) -> tuple[int, ...]:
    """Instructions that put a 64-bit value into a register, and use no other."""
    value = signed(value & MASK64)
    if -(1 << 11) <= value < 1 << 11:
        return (_encode("addi", rd=register, rs1=0, imm=value),)
    if -(1 << 31) <= value < 1 << 31:
        low = signed(sign_extend(value, 12))
        upper = _encode("lui", rd=register, imm=signed(sign_extend(value - low, 32)))
        return (upper, _encode("addiw", rd=register, rs1=register, imm=low)) if low else (upper,)
    zeros = (value & -value).bit_length() - 1
    if -(1 << 31) <= value >> zeros < 1 << 31:
        return (*constant(register, value >> zeros), _encode("slli", rd=register, rs1=register, shamt=zeros))
    low = signed(sign_extend(value, 12))
    rest = value - low >> 12
    shift = 12
    while not rest & 1:
        rest >>= 1
        shift += 1
    # `rest` may have left the range of 64 bits by one: it is read modulo 2**(64 - shift).
    rest = signed(sign_extend(rest, 64 - shift))
    words = (*constant(register, rest), _encode("slli", rd=register, rs1=register, shamt=shift))
    return (*words, _encode("addi", rd=register, rs1=register, imm=low)) if low else words


def is_store(word: int) -> bool:
    row = decode(word)
    return row is not None and row.mnemonic in STORES


def jump(distance: int) -> int:
    """The direct jump over `distance` bytes."""
    return _encode("jal", rd=0, imm=distance)


def jump_target(word: int, at: int) -> int:
    """Where the direct jump at `at` leads."""
    return at + BY_MNEMONIC["jal"].operands(word)["imm"]


@lru_cache(1 << 14)
def jump_points(pc: int) -> tuple[Point, ...]:
    """The points of an entry of the table of jumps that compares with a guest pc; the last is its jump's. None
    of them: the address takes too many instructions to compare with."""
    length = 4 * len(constant(INDEX, pc))
    if length >= _MISS_AT:
        return ()
    both, hit = (Fix(TARGET, FIRST), Fix(INDEX, SECOND)), _MISS_AT + 4
    points = [Point(offset, IN_REGISTER, both) for offset in (*range(0, length + 4, 4), hit)]
    return (*points, Point(hit + 4, pc, both[1:]), Point(hit + 8, pc))


def jump_entry(pc: int, at: int, target: int) -> list[int]:
    """The entry at address `at` of the table of jumps that leads guest pc `pc`, which has `jump_points`, to `target`."""
    compared = constant(INDEX, pc)
    length, hit = 4 * len(compared), _MISS_AT + 4
    return [
        *compared,
        _encode("beq", rs1=INDEX, rs2=TARGET, imm=hit - length),
        *[ECALL] * ((_MISS_AT - length) // 4),
        _to_register(TARGET, FIRST),
        _to_register(INDEX, SECOND),
        jump(target - (at + hit + 8)),
    ]


@lru_cache(1 << 14)
def _encode(mnemonic: str, **operands: int) -> int:
    return BY_MNEMONIC[mnemonic].encode(**operands)


def _to_word(word: int, register: int) -> int:
    return _encode("fmv.d.x", rd=word, rs1=register)


def _to_register(register: int, word: int) -> int:
    return _encode("fmv.x.d", rd=register, rs1=word)


def _copy_word(to: int, word: int) -> int:
    return _encode("fsgnj.d", rd=to, rs1=word, rs2=word)


class _Stub(NamedTuple):
    """Code behind the block that the branch at `branch` (a row and its operands) leads to: a call-out at `point`."""

    branch: int
    row: Row
    rs1: int
    rs2: int
    point: Point


class Translator:
    """One block. `half_at(pc)` gives the halfword at a guest address, of which [pc, limit) can be fetched. `known(pc)`:
    this address is translated already, so the block ends before it. `inline`: the guest is in S mode and may do
    what S mode can; otherwise every sensitive instruction is a call-out. `stores`: addresses of stores
    that are to be call-outs."""

    def __init__(
        self,
        half_at: Callable[[int], int],
        limit: int,
        known: Callable[[int], bool],
        inline: bool,
        stores: Callable[[int], bool],
    ) -> None:
        self._half_at = half_at
        self._limit = limit
        self._known = known
        self._inline = inline
        self._is_call_out = stores
        self._code = bytearray()
        self._points: list[Point] = []
        self._stubs: list[_Stub] = []

    def translate(self, pc: int) -> Draft:
        """The block that begins at `pc`, whose first instruction can be fetched."""
        begin = pc
        entries: dict[int, int] = {}
        goes_on = True
        while goes_on and len(entries) < MAX_INSTRUCTIONS and pc < self._limit and not (entries and self._known(pc)):
            word = self._half_at(pc)
            length = length_of(word)
            if pc + length > self._limit:
                break
            if length == 4:
                word |= self._half_at(pc + 2) << 16
            entries[pc] = len(self._code)
            goes_on = self._instruction(pc, word, length)
            pc += length
        body = len(self._code)
        if goes_on:
            self._chain(pc & MASK64)
        for stub in self._stubs:
            self._align()
            row, here = stub.row, len(self._code)
            word = row.encode(rs1=stub.rs1, rs2=stub.rs2, imm=here - stub.branch)
            self._code[stub.branch : stub.branch + 4] = word.to_bytes(4, "little")
            self._points.append(stub.point._replace(offset=here))
            self._code += ECALL.to_bytes(4, "little")
        return Draft(begin, pc, bytes(self._code), tuple(self._points), entries, body)

    # -- writing -------------------------------------------------------------------------------------
    def _emit(
        self, word: int, pc: int, fixes: tuple[Fix, ...] = (), call: Call = Call.NONE, instruction: int = 0
    ) -> None:
        self._points.append(Point(len(self._code), pc & MASK64 if pc >= 0 else pc, fixes, call, instruction))
        self._code += word.to_bytes(length_of(word), "little")

    def _align(self) -> None:
        """What may be written again later lies in one word."""
        if len(self._code) & 2:
            self._code += COMPRESSED_NOP.to_bytes(2, "little")

    def _chain(self, pc: int) -> None:
        if len(self._code) & 2:
            self._emit(COMPRESSED_NOP, pc)
        self._emit(ECALL, pc, call=Call.CHAIN)

    def _branch(self, row: Row, rs1: int, rs2: int, at: Point, there: Point) -> None:
        """A branch at `at` to a stub behind the block, where the guest is at `there`."""
        self._stubs.append(_Stub(len(self._code), row, rs1, rs2, there))
        self._emit(row.encode(rs1=rs1, rs2=rs2, imm=0), at.pc, at.fixes)

    # -- instructions --------------------------------------------------------------------------------
    def _instruction(self, pc: int, word: int, length: int) -> bool:
        """Translate one. False: nothing follows it."""
        row = decode(word)
        if row is None or row.mnemonic in _CALLED:
            return self._sensitive(row, pc, encoding_of(word))
        if row.mnemonic not in _MOVED:
            if row.mnemonic in STORES and self._is_call_out(pc):
                self._emit(ECALL, pc, call=Call.STORE, instruction=word)
            else:
                self._emit(word, pc)
            return True
        operands = row.operands(word)
        rd, rs1, rs2, imm = (operands.get(name, 0) for name in ("rd", "rs1", "rs2", "imm"))
        match row.mnemonic:
            case "auipc":
                self._constant(rd, pc + imm, pc, pc + length)
            case "jal" | "c.j":
                self._constant(rd, pc + length, pc, pc + imm & MASK64)
                self._chain(pc + imm & MASK64)
                return False
            case "jalr" | "c.jr" | "c.jalr":
                if self._inline:
                    self._indirect(pc, rd, rs1, imm, pc + length)
                else:
                    self._emit(ECALL, pc, call=Call.EMULATE, instruction=word)
                return False
            case _:
                full = BY_MNEMONIC[row.mnemonic.removeprefix("c.").removesuffix("z")]
                there = Point(0, pc + imm & MASK64, call=Call.CHAIN)
                self._branch(full, rs1, rs2, Point(0, pc), there)
        return True

    def _constant(self, register: int, value: int, pc: int, after: int, fixes: tuple[Fix, ...] = ()) -> None:
        """Let a register be a constant. With its first instruction done the guest is at `after`."""
        if not register:
            self._emit(NOP, pc, fixes)
            return
        first, *rest = constant(register, value)
        self._emit(first, pc, fixes)
        done = (*fixes, Fix(register, -1, value & MASK64))
        for word in rest:
            self._emit(word, after, done)

    def _indirect(self, pc: int, rd: int, rs1: int, imm: int, following: int) -> None:
        taken = (Fix(TARGET, FIRST), Fix(INDEX, SECOND))
        self._emit(_to_word(FIRST, TARGET), pc)
        self._emit(_to_word(SECOND, INDEX), pc)
        self._emit(_encode("addi", rd=TARGET, rs1=rs1, imm=imm), pc, taken)
        if rd in (TARGET, INDEX):
            for word in constant(INDEX, following):
                self._emit(word, pc, taken)
            self._emit(_to_word(FIRST if rd == TARGET else SECOND, INDEX), pc, taken)
        elif rd:
            self._constant(rd, following, pc, IN_REGISTER, taken)
        # Bits 13 to 1 below a one, at the top; then down to bits 17 to 5, and ones above.
        for word in (
            _encode("slli", rd=INDEX, rs1=TARGET, shamt=63 - _INDEX_BITS),
            _encode("bseti", rd=INDEX, rs1=INDEX, shamt=63),
            _encode("srai", rd=INDEX, rs1=INDEX, shamt=63 - (JUMP_TABLE.bit_length() - 1)),
        ):
            self._emit(word, IN_REGISTER, taken)
        self._emit(_encode("jalr", rd=0, rs1=INDEX, imm=0), IN_REGISTER, taken)

    # -- sensitive instructions ----------------------------------------------------------------------
    def _sensitive(self, row: Row | None, pc: int, word: int) -> bool:
        if row is not None and self._inline:
            if row.mnemonic in _FENCES:
                self._emit(NOP, pc)  # shadow tables never say more than the guest's
                return True
            if row.extension == "Zicsr" and self._access(row.mnemonic, row.operands(word), pc, word):
                return True
        self._emit(ECALL, pc, call=Call.EMULATE, instruction=word)
        return row is None or row.mnemonic not in _LEAVES

    def _access(self, mnemonic: str, operands: dict[str, int], pc: int, instruction: int) -> bool:
        """A CSR instruction inline. False: it needs a call-out."""
        number, rd = operands["csr"], operands["rd"]
        source = operands.get("rs1", 0) or operands.get("uimm", 0)
        word = _READABLE.get(number)
        if word is None:
            return False
        if mnemonic not in ("csrrw", "csrrwi") and not source:
            self._emit(_to_register(rd, word) if rd else NOP, pc)
        elif number == _SSTATUS:
            return self._access_status(mnemonic, rd, operands, pc, instruction)
        elif mnemonic == "csrrw" and number in _WRITABLE:
            self._exchange(word, rd, source, pc)
        elif mnemonic == "csrrw" and number == _SEPC and not rd:
            self._write_epc(source, pc)
        else:
            return False
        return True

    def _exchange(self, word: int, rd: int, rs1: int, pc: int) -> None:
        if rd:
            self._emit(_copy_word(OLD, word), pc)
        self._emit(_to_word(word, rs1), pc)
        if rd:
            self._emit(_to_register(rd, OLD), pc + 4, (Fix(rd, OLD),))

    def _write_epc(self, rs1: int, pc: int) -> None:
        taken, fixes = self._take(pc, rs1)
        self._emit(_encode("andi", rd=taken, rs1=rs1, imm=-2), pc, fixes)
        self._emit(_to_word(EPC, taken), pc, fixes)
        self._emit(_to_register(taken, FIRST), pc + 4, fixes)

    def _take(self, pc: int, *others: int) -> tuple[int, tuple[Fix, ...]]:
        """A register to work in."""
        taken = next(number for number in (TARGET, INDEX, 7) if number not in others)
        self._emit(_to_word(FIRST, taken), pc)
        return taken, (Fix(taken, FIRST),)

    def _access_status(
        self, mnemonic: str, rd: int, operands: dict[str, int], pc: int, instruction: int
    ) -> bool:
        """sstatus, as long as only SIE, SPIE and SPP change and no interrupt waits for SIE; whether that is so is
        found out at run time, except for csrsi and csrci."""
        rs1, immediate = operands.get("rs1", 0), operands.get("uimm", 0)
        writes = mnemonic == "csrrw"
        if (immediate and immediate != Status.SIE) or mnemonic == "csrrwi" or (writes and (rd or not rs1)):
            return False
        sets = mnemonic in ("csrrs", "csrrsi")
        t, fixes = self._take(pc, rd, rs1)
        there = Point(0, pc, fixes, Call.EMULATE, instruction)

        def emit(word: int) -> None:
            self._emit(word, pc, fixes)

        def unless_zero() -> None:
            self._branch(BY_MNEMONIC["bne"], t, 0, Point(0, pc, fixes), there)

        if not immediate:
            emit(_to_register(t, STATUS))
            if writes:
                emit(_encode("xor", rd=t, rs1=t, rs2=rs1))
            elif sets:
                emit(_encode("andn", rd=t, rs1=rs1, rs2=t))
            else:
                emit(_encode("and", rd=t, rs1=t, rs2=rs1))
            emit(_encode("andi", rd=t, rs1=t, imm=~INLINE))
            unless_zero()
        if writes or sets:
            emit(_to_register(t, INTERRUPT))
            if not immediate:
                emit(_encode("and", rd=t, rs1=t, rs2=rs1))
            unless_zero()
        if not writes:
            emit(_to_register(t, STATUS))
            if immediate:
                change = _encode("ori", rd=t, rs1=t, imm=Status.SIE) if sets else None
                emit(change or _encode("andi", rd=t, rs1=t, imm=~Status.SIE))
            else:
                emit(_encode("or" if sets else "andn", rd=t, rs1=t, rs2=rs1))
        if rd:
            emit(_copy_word(OLD, STATUS))
        emit(_to_word(STATUS, rs1 if writes else t))
        if rd:
            self._emit(_to_register(rd, OLD), pc + 4, (*fixes, Fix(rd, OLD)))
        self._emit(_to_register(t, FIRST), pc + 4, fixes)
        return True
