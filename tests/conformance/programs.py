"""Random programs for the differential tests, each a pure function of (scenario, seed).

A program's shape:

    _start (M)  ->  prepare: trap vectors, delegation, page tables, registers  ->  body in M, S or U
    every trap: its handler logs cause, epc, tval, status and mode, and goes on after the instruction, or at
    s11 when it could not be fetched
    the body ends with ecall and a7 = MAGIC  ->  store registers and CSRs  ->  finisher

Registers with a meaning in the body: gp (next output word), s9 (address at hand), s10 (the arena's middle),
s11 (where to go on after a jump to nowhere), a7 (MAGIC only at the end). Everything else is random. In U mode
with paging the body runs at an alias of the same memory that has U set; `la` is pc-relative, so the same text
serves all modes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.isa.csrs import Status
from engine.isa.decoder import decode
from engine.isa.disassembler import disassemble
from engine.isa.table import ROWS

BASE = 0x8000_0000
MAGIC = 0x5117
TO_MACHINE = 0x5118  # with ecall in a7: go on in M mode
ALIAS = 0x1_4000_0000  # one gigabyte, mapped to BASE's gigabyte with U set
LARGE_PAGE = BASE + 0x20_0000  # 2 MiB of memory that a large page may map
WINDOW = 0x4000_0000  # where the random page table entries are
LOG_ENTRIES = 480
MODES = {"u": 0, "s": 1, "m": 3}

WAY_BACK = 0x000D8067  # jalr x0, 0(s11), 16 bytes into every page that the window maps
RESERVED = {0, 3, 17, 25, 26, 27}
FREE = [number for number in range(32) if number not in RESERVED]

INTERESTING = (
    0,
    1,
    2,
    3,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0x7FF,
    0x800,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x1_0000_0000,
    0x7FFF_FFFF_FFFF_FFFF,
    1 << 63,
    (1 << 64) - 1,
    (1 << 64) - 2,
    0xFFFF_FFFF_8000_0000,
    0xFFFF_FFFF_7FFF_FFFF,
    0x5555_5555_5555_5555,
    0xAAAA_AAAA_AAAA_AAAA,
)

REGISTER_REGISTER = [
    "add",
    "sub",
    "sll",
    "slt",
    "sltu",
    "xor",
    "srl",
    "sra",
    "or",
    "and",
    "addw",
    "subw",
    "sllw",
    "srlw",
    "sraw",
    "mul",
    "mulh",
    "mulhsu",
    "mulhu",
    "div",
    "divu",
    "rem",
    "remu",
    "mulw",
    "divw",
    "divuw",
    "remw",
    "remuw",
]
REGISTER_REGISTER += [
    *("add.uw", "sh1add", "sh2add", "sh3add", "sh1add.uw", "sh2add.uw", "sh3add.uw", "andn", "orn", "xnor"),
    *("max", "maxu", "min", "minu", "rol", "ror", "rolw", "rorw", "bclr", "bext", "binv", "bset"),
]
BIT_UNARY = ["clz", "clzw", "ctz", "ctzw", "cpop", "cpopw", "sext.b", "sext.h", "zext.h", "orc.b", "rev8"]
REGISTER_IMMEDIATE = ["addi", "slti", "sltiu", "xori", "ori", "andi", "addiw"]
SHIFTS = {"slli": 64, "srli": 64, "srai": 64, "slliw": 32, "srliw": 32, "sraiw": 32}
SHIFTS |= {"slli.uw": 64, "rori": 64, "roriw": 32, "bclri": 64, "bexti": 64, "binvi": 64, "bseti": 64}
UPPER = ("lui", "auipc")
LOADS = {"lb": 1, "lbu": 1, "lh": 2, "lhu": 2, "lw": 4, "lwu": 4, "ld": 8}
STORES = {"sb": 1, "sh": 2, "sw": 4, "sd": 8}
AMOS = ["amoswap", "amoadd", "amoxor", "amoand", "amoor", "amomin", "amomax", "amominu", "amomaxu"]
BRANCHES = ["beq", "bne", "blt", "bge", "bltu", "bgeu"]
CSR_OPERATIONS = ["csrrw", "csrrs", "csrrc", "csrrwi", "csrrsi", "csrrci"]
OTHERS = [
    "jal",
    "jalr",
    "lr.w",
    "lr.d",
    "sc.w",
    "sc.d",
    "fence",
    "fence.i",
    "ecall",
    "ebreak",
    "mret",
    "sret",
    "wfi",
    "sfence.vma",
    "sinval.vma",
    "sfence.w.inval",
    "sfence.inval.ir",
    "fence.tso",
    "pause",
]
FLOATING = [row for row in ROWS if row.extension in {"F", "D"}]
COMPRESSED = [row for row in ROWS if row.length == 2]
#: Halfwords that are encodings and change nothing: those that would write x0.
HINTS = [
    half
    for half in range(1 << 16)
    if (row := decode(half)) is not None
    and row.length == 2
    and row.operands(half).get("rd") == 0
    and row.mnemonic not in {"c.j", "c.jr", "c.fld", "c.fldsp"}
]
ILLEGAL_HALVES = [half for half in range(1 << 16) if half & 3 != 3 and decode(half) is None]
COVERED = frozenset(
    [
        *(row.mnemonic for row in COMPRESSED),
        *(row.mnemonic for row in FLOATING),
        *BIT_UNARY,
        *REGISTER_REGISTER,
        *REGISTER_IMMEDIATE,
        *SHIFTS,
        *UPPER,
        *LOADS,
        *STORES,
        *BRANCHES,
        *CSR_OPERATIONS,
        *OTHERS,
    ]
    + [f"{name}.{width}" for name in AMOS for width in "wd"]
)

HARNESS = Path(__file__).with_name("harness.s").read_text(encoding="utf-8")

#: CSRs stored at the end, what both sides must agree on.
STATE_CSRS = [
    "mstatus",
    "medeleg",
    "mideleg",
    "mie",
    "mip",
    "mtvec",
    "mepc",
    "mcause",
    "mtval",
    "mcounteren",
    "satp",
    "sepc",
    "scause",
    "stval",
    "stvec",
    "sscratch",
    "scounteren",
    "sie",
    "sip",
    "sstatus",
    "misa",
    "mhartid",
]


#: Where in `state` the floating-point registers are; fcsr is right before them.
FLOATS = 256 + 8 * len(STATE_CSRS) + 8


@dataclass(frozen=True)
class Case:
    """One program and where to look in memory: `regions` are (label, begin label, end label)."""

    scenario: str
    seed: int
    source: str

    @property
    def name(self) -> str:
        return f"{self.scenario}-{self.seed}"


def float_lines(rng: random.Random) -> str:
    """Random values for all floating-point registers."""
    return "\n".join(f"    li t0, {float_value(rng)}\n    fmv.d.x f{number}, t0" for number in range(32))


def float_value(rng: random.Random) -> int:
    """A word that is a double, a boxed single or neither; often special, or near where rounding changes."""
    if rng.random() < 0.5:
        return 0xFFFF_FFFF_0000_0000 | number_word(rng, 8, 23)
    return number_word(rng, 11, 52) if rng.random() < 0.9 else rng.getrandbits(64)


def number_word(rng: random.Random, exponent_bits: int, fraction_bits: int) -> int:
    """A number of an IEEE 754 format: exponents near each other, near the ends, or any."""
    greatest = (1 << exponent_bits) - 1
    middle = greatest >> 1
    exponent = rng.choice(
        (
            0, 0, 1, 2, greatest, greatest - 1, greatest - 2, rng.randrange(greatest + 1),
            middle, middle + rng.randrange(-3, 4), middle + rng.randrange(-3, 4),
            middle + rng.choice((fraction_bits, 31, 32, 63, 64, -fraction_bits)) + rng.randrange(-2, 3),
        )
    )  # fmt: skip
    ones = (1 << fraction_bits) - 1
    fraction = rng.choice(
        (0, 0, 1, ones, 1 << (fraction_bits - 1), rng.getrandbits(fraction_bits), rng.getrandbits(fraction_bits),
         ones ^ ((1 << rng.randrange(fraction_bits)) - 1), (1 << rng.randrange(fraction_bits)) - 1)
    )  # fmt: skip
    return (rng.getrandbits(1) << exponent_bits | exponent) << fraction_bits | fraction


def register_lines(rng: random.Random) -> str:
    """Random values for all registers that the body may use."""
    return "\n".join(f"    li x{number}, {value(rng)}" for number in FREE)


def value(rng: random.Random) -> int:
    """A 64-bit value, often one at an edge."""
    choice = rng.random()
    if choice < 0.4:
        return rng.choice(INTERESTING)
    if choice < 0.6:
        return (1 << rng.randrange(64)) + rng.randrange(-1, 2) & (1 << 64) - 1
    return rng.getrandbits(rng.choice((8, 16, 32, 64)))


class Body:
    """Grows a body's text. Every method adds one thing that may happen."""

    def __init__(self, rng: random.Random, mode: str) -> None:
        self.rng = rng
        self.mode = mode
        self.lines: list[str] = []
        self.labels = 0

    def add(self, *lines: str) -> None:
        self.lines.extend("    " + line for line in lines)

    def register(self) -> str:
        return f"x{self.rng.choice(FREE)}"

    def source(self) -> str:
        return f"x{self.rng.choice([0, *FREE])}"

    def label(self) -> str:
        self.labels += 1
        return f"l{self.labels}"

    def output(self, register: str) -> None:
        self.add(f"sd {register}, 0(gp)", "addi gp, gp, 8")

    # -- the base ISA
    def arithmetic(self) -> None:
        rng = self.rng
        match rng.randrange(7):
            case 0 | 1 | 2:
                name = rng.choice(REGISTER_REGISTER)
                self.add(f"{name} {self.register()}, {self.source()}, {self.source()}")
            case 6:
                name, destination, source = rng.choice(BIT_UNARY), self.register(), self.source()
                if name == "ctzw":  # QEMU 7.2 looks beyond the low word when that is zero
                    self.add(f"zext.w {destination}, {source}")
                    source = destination
                self.add(f"{name} {destination}, {source}")
            case 3:
                immediate = rng.choice((rng.randrange(-2048, 2048), rng.randrange(-4, 5), -2048, 2047))
                self.add(f"{rng.choice(REGISTER_IMMEDIATE)} {self.register()}, {self.source()}, {immediate}")
            case 4:
                name = rng.choice(list(SHIFTS))
                self.add(f"{name} {self.register()}, {self.source()}, {rng.randrange(SHIFTS[name])}")
            case 5:
                upper = rng.choice((rng.getrandbits(20), 0, 0x80000, 0xFFFFF))
                self.add(f"{rng.choice(UPPER)} {self.register()}, {upper}")

    def load_store(self, misaligned: float = 0.2) -> None:
        rng = self.rng
        name = rng.choice([*LOADS, *STORES])
        size = LOADS.get(name) or STORES[name]
        offset = rng.randrange(-2000, 2000)
        if rng.random() >= misaligned:
            offset -= offset % size
        register = self.register() if name in LOADS else self.source()
        self.add(f"{name} {register}, {offset}(s10)")

    def atomic(self, misaligned: float = 0.1) -> None:
        rng = self.rng
        width = rng.choice("wd")
        size = 4 if width == "w" else 8
        offset = rng.randrange(-1000, 1000) // size * size
        if rng.random() < misaligned:
            offset += rng.randrange(size)
        self.add(f"addi s9, s10, {offset}")
        order = rng.choice(("", ".aq", ".rl", ".aqrl"))
        if rng.random() < 0.75:
            self.add(f"{rng.choice(AMOS)}.{width}{order} {self.register()}, {self.source()}, (s9)")
            return
        self.add(f"lr.{width}{order} {self.register()}, (s9)")
        if offset % size:
            return  # no sc after it: QEMU lets one fail before it looks at the address
        for _ in range(rng.randrange(3)):
            self.arithmetic()
        if rng.random() < 0.3:
            self.add("addi s9, s9, 64")
        self.add(f"sc.{width}{order} {self.register()}, {self.source()}, (s9)")

    def branch(self) -> None:
        rng = self.rng
        label = self.label()
        match rng.randrange(4):
            case 0 | 1:
                self.add(f"{rng.choice(BRANCHES)} {self.source()}, {self.source()}, {label}")
            case 2:
                self.add(f"jal {self.register()}, {label}")
            case 3:
                self.add(f"la s9, {label}", f"jalr {self.register()}, {rng.choice((0, 1, 1))}(s9)")
        for _ in range(rng.randrange(1, 4)):
            self.arithmetic()
        self.lines.append(f"{label}:")

    def bad_jump(self) -> None:
        """A jump into the middle of an instruction (its second half is c.li) or to nowhere. The handler goes
        on at s11."""
        rng = self.rng
        label = self.label()
        self.add(f"la s11, {label}")
        match rng.randrange(4):
            case 0:
                self.add("la s9, 1f", f"jalr {self.register()}, {rng.choice((2, 3))}(s9)")
                self.lines.append(f"1: .word {0x4501_0013 | rng.randrange(1, 32) << 23}")
            case 1:
                self.add(f"li s9, {rng.choice((0, 0x1000_0000_0000, 0x50, 0x2000_0000_0000_0000, 1 << 63))}")
                self.add(f"jalr {self.register()}, 0(s9)")
            case 2:
                self.add(f"li s9, {rng.getrandbits(64) | 1 << 62}", f"jalr {self.register()}, 0(s9)")
            case 3:
                self.add(f"jal {self.register()}, . + {rng.choice((8, 12, 16)) + 0}")
        self.add("nop", "nop", "nop", "nop")
        self.lines.append(f"{label}:")

    def bad_access(self) -> None:
        """A load or store where there is no memory."""
        rng = self.rng
        address = rng.choice((0, 8, 0x1800_0000, 0x1_0000_0000_0000, 1 << 63, (1 << 64) - 8, 0x7FFF_FFFF_FFF0))
        self.add(f"li s9, {address}")
        name = rng.choice([*LOADS, *STORES, "amoadd.w", "amoor.d", "lr.w", "lr.d"])
        if name.startswith("lr"):
            self.add(f"{name} {self.register()}, (s9)")
        elif name.startswith("amo"):
            self.add(f"{name} {self.register()}, {self.source()}, (s9)")
        else:
            size = LOADS.get(name) or STORES[name]
            self.add(f"{name} {self.register()}, {rng.randrange(-8, 8) // size * size}(s9)")

    def environment(self) -> None:
        self.add(self.rng.choice(("ecall", "ebreak", "fence", "fence.i", "fence rw, w", "fence.tso", "pause")))

    # -- floating point
    def floating(self) -> None:
        """One instruction of F or D: any registers, any rounding mode, now and then a reserved one."""
        rng = self.rng
        row = rng.choice(FLOATING)
        if rng.random() < 0.08:
            choice = rng.randrange(4)
            self.add(
                (f"fsrmi {rng.randrange(8)}", f"fsflagsi {rng.randrange(32)}",
                 f"li s9, {rng.getrandbits(8)}\n    fscsr {self.register()}, s9", "frflags s9")[choice]
            )  # fmt: skip
            if choice == 3:
                self.output("s9")
            return
        if rng.random() < 0.15:
            number = rng.randrange(32)
            self.add(f"li s9, {float_value(rng)}", f"fmv.d.x f{number}, s9")
        if "(" in row.syntax:
            size = 8 if "d" in row.mnemonic else 4
            self.add(f"{row.mnemonic} f{rng.randrange(32)}, {rng.randrange(-2000, 2000) // size * size}(s10)")
            return
        operands = {name: rng.randrange(32) for name in row.fields if name[0] == "r"}
        if "frd" not in row.syntax:
            operands["rd"] = rng.choice([0, *FREE])
        elif "frs1" not in row.syntax:
            operands["rs1"] = rng.choice([0, *FREE])
        if "rm" in row.fields:
            operands["rm"] = rng.choice((0, 1, 2, 3, 4, 7, 7, 7)) if "rm" in row.syntax else 0
        word = row.encode(**operands)
        if "rm" in row.fields and rng.random() < 0.02:
            self.add(f".word {word & ~0x7000 | rng.choice((5, 6)) << 12}")
            return
        self.add(disassemble(word, 0))

    # -- compressed instructions
    def compressed(self) -> None:
        """One compressed instruction, with an address in its base register or a label in its way."""
        rng = self.rng
        if rng.random() < 0.1:
            self.add(f".half {rng.choice(HINTS)}")
            return
        row = rng.choice(COMPRESSED)
        operands: dict[str, int] = {}
        for field in row.fields:
            low, high, step = row.limits(field)
            allowed = [
                number
                for number in range(low, high + 1, step)
                if number not in row.excluded.get(field, ()) and (field[0] != "r" or number in FREE)
            ]
            operands[field] = rng.choice(allowed)
        base = operands.get("rs1", row.implied.get("rs1"))
        text = disassemble(row.encode(**operands), 0)
        if "target" in row.syntax:
            label = self.label()
            self.add(f"{text.rpartition(' ')[0]} {label}")
        elif row.mnemonic in {"c.jr", "c.jalr"}:
            label = self.label()
            self.add(f"la x{base}, {label}", text)
        else:
            if "(" in row.syntax:
                self.add(
                    f"mv x{base}, s10",
                    *([f"addi x{base}, x{base}, {rng.randrange(8)}"] * (rng.random() < 0.2)),
                )
            self.add(text)
            return
        for _ in range(rng.randrange(1, 4)):
            self.arithmetic()
        self.lines.append(f"{label}:")

    # -- privilege
    def csr(self) -> None:
        """One access to a CSR of the table below, with a value that both sides must treat alike."""
        rng = self.rng
        access = rng.choice(CSR_ACCESSES)
        name = rng.choice(CSR_OPERATIONS)
        destination = rng.choice((self.register(), "x0"))
        if access.volatile:
            self.add(f"csrrs s9, {access.name}, x0", "li s9, 0")
            return
        operand = "s9"
        if name.endswith("i"):
            operand = str(rng.randrange(32) & access.writable)
        else:
            number = value(rng) & access.writable
            if access.name == "mstatus":
                number = number & ~0x1800 | (rng.choice((0, 0x800, 0x1800)) if name == "csrrw" else 0)
            if access.name == "satp":
                number = number & ~(0xF << 60) | rng.choice((0, 0, 8, 1, 5, 15)) << 60
            self.add(f"li s9, {number}")
        if access.restore:
            # no trap may happen between the change and the restoration, so only where the access is permitted
            if self.mode != "m" and not (self.mode == "s" and access.name in {"sscratch", "stvec"}):
                self.add(f"csrr {self.register()}, {access.name}")
                return
            if name.endswith("i"):
                self.add("li s9, 0")
            saved = self.register()
            self.add(f"csrr {saved}, {access.name}", f"{name} {destination}, {access.name}, {operand}")
            self.add(f"csrrw s9, {access.name}, {saved}")
            self.output("s9")
        else:
            self.add(f"{name} {destination}, {access.name}, {operand}")
            self.add(f"csrr s9, {access.name}")
            self.output("s9")
        if destination not in {"x0", "x2"} and rng.random() < 0.5:
            self.output(destination)

    def unknown_csr(self) -> None:
        self.add(f"csrrs {self.register()}, {self.rng.choice(UNKNOWN_CSRS)}, {self.source()}")

    def read_only_csr(self) -> None:
        """Writing a read-only CSR traps; reading one that a write would not change does not."""
        rng = self.rng
        number = rng.choice(("mhartid", "mvendorid", "mconfigptr"))
        # never a register that holds zero: QEMU takes that for no write, section 9.1 only x0 itself
        self.add(
            "li s9, 1",
            f"{rng.choice(CSR_OPERATIONS[:3])} {self.register()}, {number}, {rng.choice(('x0', 's9'))}",
        )

    def illegal(self) -> None:
        if self.rng.random() < 0.3:
            self.add(f".half {self.rng.choice(ILLEGAL_HALVES)}")
        else:
            self.add(f".word {illegal_word(self.rng)}")

    def privileged(self) -> None:
        """Instructions that are legal only at some level, under some bits of mstatus."""
        rng = self.rng
        label = self.label()
        self.add(f"la s11, {label}")
        match rng.randrange(7):
            case 0:
                self.add(f"{rng.choice(('sfence', 'sinval'))}.vma {self.source()}, {self.source()}")
                if self.mode != "u":  # where QEMU 7.2 permits what Svinval forbids
                    self.add(rng.choice(("sfence.w.inval", "sfence.inval.ir")))
            case 1:
                self.add("csrr s9, satp", "csrw satp, s9")
            case 2:
                if self.mode == "s":
                    self.add("li s9, 0x100", "csrs sstatus, s9")
                if self.mode != "m":
                    self.add(f"la s9, {label}", "csrw sepc, s9", "sret")
            case 3:
                if self.mode == "m":
                    self.add("li s9, 0x1800", "csrs mstatus, s9", f"la s9, {label}", "csrw mepc, s9", "mret")
                else:
                    self.add("mret")
            case 4:
                if self.mode == "s":
                    self.add("csrr s9, sie")
                elif self.mode == "u":
                    self.add("wfi")
            case 5:
                self.add("csrr s9, sstatus")
                self.output("s9")
            case 6:
                self.environment()
        self.lines.append(f"{label}:")

    # -- virtual memory
    def virtual_access(self) -> None:
        rng = self.rng
        page = rng.choice(WINDOW_PAGES)
        offset = rng.choice((64, 128, 1024, 4088, 4095, 4092, rng.randrange(64, 4096)))
        if page == WINDOW + 0x1000 * NOWHERE:
            offset = 64  # crossing its end, the order of two different faults would be anybody's choice
        self.add(f"li s9, {page + offset}")
        name = rng.choice([*LOADS, *STORES, *LOADS, *STORES, "amoadd.w", "amoswap.d", "lr.w", "lr.d"])
        if name.startswith("lr"):
            self.add("andi s9, s9, -8", f"{name} {self.register()}, (s9)")
        elif name.startswith("amo"):
            self.add("andi s9, s9, -8", f"{name} {self.register()}, {self.source()}, (s9)")
        else:
            if rng.random() < 0.7:
                self.add("andi s9, s9, -8")
            self.add(f"{name} {self.register()}, 0(s9)")

    def virtual_jump(self) -> None:
        """Into a page, where WAY_BACK is.

        S mode drops SUM first: QEMU 7.2's TLB lets S mode execute a U page that SUM let it load from.
        """
        label = self.label()
        if self.mode == "s":
            self.add("li s9, 0x40000", "csrc sstatus, s9")
        self.add(
            f"la s11, {label}",
            f"li s9, {self.rng.choice(WINDOW_PAGES) + 16}",
            f"jalr {self.register()}, 0(s9)",
        )
        self.lines.append(f"{label}:")

    def status_bits(self) -> None:
        """SUM and MXR, from wherever they can be changed."""
        rng = self.rng
        bits = rng.choice((1 << 18, 1 << 19, 3 << 18))
        register = "sstatus" if self.mode == "s" else "mstatus"
        if self.mode != "u":
            self.add(f"li s9, {bits}", f"{rng.choice(('csrs', 'csrc'))} {register}, s9")

    def modify_privilege(self) -> None:
        """M mode: one load or store as S or U would make it (MPRV)."""
        rng = self.rng
        as_mode = rng.choice((0, 1)) << 11
        self.add("li s9, 0x21800", "csrc mstatus, s9", f"li s9, {1 << 17 | as_mode}", "mv t6, s9")
        page = rng.choice(WINDOW_PAGES)
        name = rng.choice([*LOADS, *STORES])
        self.add(f"li s9, {page + rng.randrange(64, 4000) // 8 * 8}", "csrs mstatus, t6")
        self.add(f"{name} {self.register()}, 0(s9)", "li s9, 0x20000", "csrc mstatus, s9")

    def change_entry(self) -> None:
        """S or M mode: a page table entry becomes another, with the fence that the architecture asks for."""
        if self.mode == "u":
            return
        rng = self.rng
        self.add(f"la s9, leaf_table + {8 * rng.randrange(1, 16)}", *entry_lines(rng, "t6"))
        if rng.random() < 0.2:
            self.add("sd zero, -8(s9)", "slli t6, t6, 32", "sd t6, -4(s9)")  # over the halves of two entries
        else:
            self.add("sd t6, 0(s9)")
        self.add(rng.choice(("sfence.vma", "sfence.vma zero, zero")))

    # -- interrupts
    def interrupt(self) -> None:
        """From M mode: raise some interrupts while all are off, then let them in, here or in S or U mode.

        A store to the CLINT only happens while its interrupt is off: when QEMU notices is its own business.
        """
        rng = self.rng
        label = self.label()
        self.add("csrw mie, zero", f"la s11, {label}")
        for register, level in (("mtvec", "machine"), ("stvec", "supervisor")):
            vectored = rng.random() < 0.5
            self.add(f"la s9, {level}_{'vectors + 1' if vectored else 'trap'}", f"csrw {register}, s9")
        self.add(f"li s9, {rng.getrandbits(12) & 0x222}", "csrw mideleg, s9")
        self.add(f"li s9, {rng.getrandbits(12) & 0x222}", "csrw mip, s9")
        for address, on, off, width in ((0x200_0000, 1, 0, "w"), (0x200_4000, 0, -1, "d")):
            self.add(f"li s9, {address}", f"li t6, {rng.choice((on, off))}", f"s{width} t6, 0(s9)")
        self.add("csrr s9, mip")
        self.output("s9")
        enabled = rng.choice((0xAAA, rng.getrandbits(12) & 0xAAA))
        self.add(f"li s9, {enabled}", "csrw mie, s9")
        mode = rng.choice((0, 1, 3))
        if mode == 3:
            self.add(f"csrsi mstatus, {rng.choice((0, 2, 8, 10))}", "csrr s9, mip", "csrci mstatus, 10")
            self.output("s9")
        else:
            status = mode << 11 | rng.choice((0, 1 << 5)) | rng.choice((0, 1 << 1)) | rng.choice((0, 1 << 7))
            self.add("li s9, 0x18aa", "csrc mstatus, s9", f"li s9, {status}", "csrs mstatus, s9")
            self.add(f"la s9, {label}", "csrw mepc, s9", "mret")
        self.lines.append(f"{label}:")
        self.add("nop", f"li a7, {TO_MACHINE}", "ecall", "li a7, 0")

    def wait(self) -> None:
        """wfi with an interrupt pending and enabled by mie alone: it goes on at once."""
        self.add(
            "csrci mstatus, 10",
            "csrw mideleg, zero",
            "li s9, 2",
            "csrw mip, s9",
            "csrw mie, s9",
            "wfi",
            "csrw mip, zero",
        )


@dataclass(frozen=True)
class CsrAccess:
    """A CSR with the bits that both sides let a program write, and why the others are left alone."""

    name: str
    writable: int = (1 << 64) - 1
    why: str = ""
    restore: bool = False  # the harness needs it: put it back at once
    volatile: bool = False  # its value is time: only whether it may be read is compared


#: QEMU has more extensions or makes another legal (WARL) choice where `why` says so; writes stay within
#: what both implement, so that what is compared is defined by the privileged specification.
CSR_ACCESSES = (
    CsrAccess("mstatus", 0x7E79AA, "no VS, UXL and MPP = 2: QEMU keeps bits of extensions that are off"),
    CsrAccess("sstatus", 0xC6122, "the same"),
    CsrAccess("fflags", 0x1F),
    CsrAccess("frm", 7),
    CsrAccess("fcsr", 0xFF),
    CsrAccess("mie", 0xAAA, "QEMU keeps VS-level bits without the H extension"),
    CsrAccess("sie", 0x222, "the same"),
    CsrAccess("mip", 0x222, "the same"),
    CsrAccess("sip", 0x222, "the same"),
    CsrAccess("medeleg", 0xB1FF, "QEMU also delegates causes 10, 11 and 20 to 23; ecall from S is how a body ends"),
    CsrAccess("mideleg", 0x222, "QEMU keeps VS-level bits"),
    CsrAccess("mepc", (1 << 64) - 2, "QEMU keeps bit 0"),
    CsrAccess("sepc", (1 << 64) - 2, "the same"),
    CsrAccess("mcause"),
    CsrAccess("scause"),
    CsrAccess("mtval"),
    CsrAccess("stval"),
    CsrAccess("mscratch", restore=True),
    CsrAccess("sscratch", restore=True),
    CsrAccess("mtvec", (1 << 64) - 3, "a reserved mode: QEMU drops the whole write", restore=True),
    CsrAccess("stvec", (1 << 64) - 3, "the same", restore=True),
    CsrAccess("satp", (8 << 60) | (1 << 44) - 1, "QEMU has Sv48 and Sv57 too, and 16 bits of ASID", restore=True),
    CsrAccess("mcounteren", 7, "QEMU has the performance counters"),
    CsrAccess("scounteren", 7, "the same"),
    CsrAccess("menvcfg", 1, "QEMU keeps bits of cache-block extensions"),
    CsrAccess("senvcfg", 1, "the same"),
    CsrAccess("misa", 0, "neither side lets extensions be switched"),
    CsrAccess("cycle", volatile=True),
    CsrAccess("time", volatile=True),
    CsrAccess("instret", volatile=True),
    CsrAccess("mcycle", volatile=True),
    CsrAccess("minstret", volatile=True),
)
#: Numbers without a register on either side.
UNKNOWN_CSRS = (
    0x000,
    0x101,
    0x109,
    0x110,
    0x145,
    0x1FF,
    0x200,
    0x280,
    0x307,
    0x345,
    0x3F0,
    0x5FF,
    0x600,
    0x700,
    0x7FF,
    0x8FF,
    0x9C0,
    0xBFF,
    0xCFF,
    0xDFF,
    0xF16,
    0xFFF,
)

#: The window's page that a leaf entry maps to where nothing answers.
NOWHERE = 7
WINDOW_PAGES = [WINDOW + 0x1000 * page for page in range(16)] + [
    WINDOW + 0x20_0000,  # a 2 MiB page
    WINDOW + 0x40_0000,  # a misaligned 2 MiB page
    WINDOW + 0x80_0000,  # an invalid entry
    WINDOW + 0xA0_0000,  # a table entry with reserved bits
    0xC000_0000,  # nothing at the top level
    0x40_0000_0000,  # the 39th bit without those above it
    0xFFFF_FFFF_C000_0000,
]


def entry_lines(rng: random.Random, register: str) -> list[str]:
    """Instructions that make a random leaf entry for a page of the arena."""
    flags = entry_flags(rng)
    where = f"arena + {0x1000 * rng.randrange(4)}"
    return [
        f"la {register}, {where}",
        f"srli {register}, {register}, 12",
        f"slli {register}, {register}, 10",
        f"ori {register}, {register}, {flags}",
    ]


def entry_flags(rng: random.Random) -> int:
    """Bits 7:0 of a leaf, D A G U X W R V; mostly one that permits something."""
    if rng.random() < 0.15:
        return rng.getrandbits(8)
    flags = 0xC1 | rng.choice((0b0010, 0b0110, 0b1000, 0b1010, 0b1110, 0b1110)) | rng.choice((0, 0x10))
    if rng.random() < 0.25:
        flags &= ~rng.choice((0x40, 0x80, 0xC0))
    return flags


def tables(rng: random.Random) -> str:
    """The root, middle and leaf table; see WINDOW_PAGES for what is where."""

    def entry(target: str, flags: int, high: int = 0) -> str:
        return f"    .dword (({target}) >> 12 << 10) + {flags | high}"

    root: dict[int, str] = {}
    root[1] = entry("middle_table", 1)
    root[2] = entry(str(BASE), 0xCF)
    root[ALIAS >> 30] = entry(str(BASE), 0xDF)
    root[511] = entry("middle_table", 1)
    middle: dict[int, str] = {}
    middle[0] = entry("leaf_table", 1)
    middle[1] = entry(str(LARGE_PAGE), entry_flags(rng))
    middle[2] = entry(str(LARGE_PAGE + 0x1000), entry_flags(rng))
    middle[5] = entry("leaf_table", 1, 1 << rng.choice((54, 57, 60, 63)))
    leaf: dict[int, str] = {}
    for index in range(16):
        if index == NOWHERE:
            # writable, as QEMU asks for an atomic's load before its store
            leaf[index] = entry(str(rng.choice((0x1800_0000, 1 << 40))), entry_flags(rng) | 6)
        elif rng.random() < 0.9:
            leaf[index] = entry(f"arena + {0x1000 * rng.randrange(4)}", entry_flags(rng))
        else:
            leaf[index] = entry("arena", entry_flags(rng) | 1, 1 << rng.choice((54, 58, 61, 62, 63)))
    return "\n".join((table("root_table", root), table("middle_table", middle), table("leaf_table", leaf)))


def table(name: str, entries: dict[int, str]) -> str:
    """512 entries, those that are not given invalid."""
    lines = [f"{name}:"]
    following = 0
    for index, line in sorted(entries.items()):
        lines += [f"    .zero {8 * (index - following)}", line]
        following = index + 1
    return "\n".join([*lines, f"    .zero {8 * (512 - following)}"])


def arena_page(rng: random.Random) -> str:
    """4 KiB: the way back, and random words at the begin, in the middle and at the end."""

    def words(count: int) -> str:
        return "    .dword " + ", ".join(str(rng.getrandbits(64)) for _ in range(count))

    zero = "    .zero 1024"
    return "\n".join((f"    .word 0, 0, 0, 0, {WAY_BACK}, 0", words(61), zero, words(128), zero, words(64)))


def illegal_word(rng: random.Random) -> int:
    """A 32-bit word that no row of the table matches and that is not a shorter or longer encoding's begin."""
    while True:
        word = rng.getrandbits(32) | 3
        if rng.random() < 0.7:
            opcode = rng.choice(
                (0x03, 0x13, 0x1B, 0x23, 0x2F, 0x33, 0x3B, 0x63, 0x67, 0x73, 0x0F, 0x57, 0x53, 0x07, 0x0B)
            )
            word = word & ~0x7F | opcode
        if rng.random() < 0.5:
            word &= ~0xFE00_0000
        if word & 0x1F != 0x1F and decode(word) is None:
            return word


def vectors(level: str, mark: str) -> str:
    """A vector table whose entries leave the cause they are for in `mark`, which the handler logs."""
    jumps = [f"    j {level}_trap"] + [f"    j {level}_vector_{cause}" for cause in range(1, 16)]
    entries = [f"{level}_vector_{cause}: csrwi {mark}, {cause & 7}\n    j {level}_trap" for cause in range(1, 16)]
    return "\n".join(jumps + entries)


# -- scenarios -----------------------------------------------------------------------------------------
Step = Callable[[Body], None]


@dataclass(frozen=True)
class Scenario:
    """What a body is made of: steps with weights, the modes it runs in, whether there is paging."""

    steps: dict[Step, float]
    modes: str = "msu"
    paging: bool = False
    length: int = 150
    delegation: int = 0  # exception causes that may be delegated (never 9: it ends a body)
    status: int = 0  # bits of mstatus that may be set at the begin
    interrupts: bool = False  # needs QEMU's interrupts in the order of their priorities


SYNCHRONOUS = 0xB1FF
PLAIN: dict[Step, float] = {Body.arithmetic: 8, Body.load_store: 3, Body.branch: 1}
SCENARIOS: dict[str, Scenario] = {
    "integer": Scenario({**PLAIN, Body.atomic: 2}, length=250),
    "compressed": Scenario(
        {Body.compressed: 8, Body.arithmetic: 1, Body.branch: 1, Body.illegal: 0.3},
        delegation=SYNCHRONOUS,
        length=200,
    ),
    "floating": Scenario(
        {Body.floating: 12, Body.arithmetic: 1, Body.compressed: 1, Body.branch: 0.5}, status=0x6000, length=300
    ),
    "memory": Scenario(
        {Body.arithmetic: 2, Body.load_store: 5, Body.atomic: 4, Body.bad_access: 1}, delegation=SYNCHRONOUS
    ),
    "jumps": Scenario({Body.arithmetic: 2, Body.branch: 4, Body.bad_jump: 2}, delegation=SYNCHRONOUS),
    "illegal": Scenario({Body.arithmetic: 1, Body.illegal: 4, Body.environment: 1}, delegation=SYNCHRONOUS),
    "csrs": Scenario(
        {Body.arithmetic: 1, Body.csr: 6, Body.unknown_csr: 1, Body.read_only_csr: 1}, length=120, interrupts=True
    ),
    "privilege": Scenario(
        {Body.arithmetic: 1, Body.privileged: 5, Body.bad_access: 1},
        delegation=SYNCHRONOUS,
        status=0x700000,
        length=100,
    ),
    "paging": Scenario(
        {
            Body.arithmetic: 1,
            Body.virtual_access: 6,
            Body.virtual_jump: 2,
            Body.status_bits: 1,
            Body.change_entry: 1,
        },
        modes="su",
        paging=True,
        delegation=SYNCHRONOUS,
        status=0xC0000,
        length=120,
    ),
    "interrupts": Scenario(
        {Body.arithmetic: 1, Body.interrupt: 6, Body.wait: 1}, modes="m", length=50, interrupts=True
    ),
    "modified-privilege": Scenario(
        {Body.modify_privilege: 6, Body.status_bits: 1, Body.change_entry: 1},
        modes="m",
        paging=True,
        length=80,
    ),
}


def case(name: str, seed: int) -> Case:
    """The program of one scenario and seed."""
    return build(name, SCENARIOS[name], seed)


def build(name: str, scenario: Scenario, seed: int, written: str = "") -> Case:
    """A scenario's program for a seed. `written`: what the random body begins with."""
    rng = random.Random(f"{name} {seed}")
    mode = scenario.modes[seed % len(scenario.modes)]
    body = Body(rng, mode)
    body.lines.append(written)
    steps = list(scenario.steps)
    for step in rng.choices(steps, list(scenario.steps.values()), k=scenario.length) if steps else ():
        step(body)
    registers = register_lines(rng)
    medeleg = rng.getrandbits(16) & scenario.delegation if rng.random() < 0.7 else 0
    medeleg = medeleg & ~0x80C0 | (medeleg & 0x2030) << 2  # see compare.py about atomics
    status = rng.getrandbits(32) & scenario.status | MODES[mode] << 11
    if medeleg:
        status &= ~Status.TSR  # the supervisor's handler returns with sret
    source = HARNESS.format(
        magic=MAGIC,
        to_machine=TO_MACHINE,
        machine_vectors=vectors("machine", "mcounteren"),
        supervisor_vectors=vectors("supervisor", "scounteren"),
        base=BASE,
        large_page=LARGE_PAGE,
        way_back=WAY_BACK,
        medeleg=medeleg,
        mideleg=rng.choice((0, 0x222)),
        satp_mode=8 << 60 if scenario.paging else 0,
        alias_offset=ALIAS - BASE if scenario.paging and mode == "u" else 0,
        mstatus=status,
        registers=registers,
        float_registers=float_lines(rng),
        fcsr=rng.choice((0, rng.getrandbits(5) | rng.randrange(5) << 5)),
        store_floats="\n".join(f"    fsd f{number}, {8 * number}(a0)" for number in range(32)),
        fcsr_offset=256 + 8 * len(STATE_CSRS),
        floats_offset=FLOATS,
        store_registers="\n".join(f"    sd x{number}, {8 * number}(a0)" for number in range(1, 32) if number != 10),
        store_csrs="\n".join(
            f"    csrr t0, {name}\n    sd t0, {256 + 8 * index}(a0)" for index, name in enumerate(STATE_CSRS)
        ),
        body="\n".join(body.lines),
        tables=tables(rng),
        arena="\n".join(arena_page(rng) for _ in range(4)),
        state_size=FLOATS + 256,
        log_size=64 * LOG_ENTRIES,
    )
    return Case(name, seed, source)
