"""Random programs that are hot: loops, calls and branches around arithmetic, loads and stores, with what is awkward for
compiled code among them. Each is a pure function of its seed and ends by writing the finisher.

A program's two code pages lie side by side: `first` calls into `second`, some instruction begins in one and ends in the
other. In the loops there may be misaligned accesses, addresses without memory (the handler skips them), stores to the
code that is being executed, jumps through registers, atomics, CSRs and `fence.i`.
"""

from __future__ import annotations

import random

BASE = 0x8000_0000
#: t0 to t2, s0, s1 and a0 to a5 are random; s2 counts rounds, s3 and s4 are inner counters, s5 is the data, s6 code.
_REGISTERS = ("t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "zero")
_THREE = (
    "add", "sub", "sll", "slt", "sltu", "xor", "srl", "sra", "or", "and", "addw", "subw", "sllw", "srlw",
    "sraw", "mul", "mulh", "mulhu", "mulhsu", "mulw", "div", "divu", "rem", "remu", "divw", "remuw",
    "sh1add", "andn", "rol", "max", "minu", "bext",
)  # fmt: skip
_IMMEDIATE = ["addi", "slti", "sltiu", "xori", "ori", "andi", "addiw"]
_SHIFTS = ["slli", "srli", "srai"]
_LOADS = (("lb", 1), ("lbu", 1), ("lh", 2), ("lhu", 2), ("lw", 4), ("lwu", 4), ("ld", 8))
_STORES = (("sb", 1), ("sh", 2), ("sw", 4), ("sd", 8))
_BRANCHES = ["beq", "bne", "blt", "bge", "bltu", "bgeu"]
_ATOMICS = ["amoadd", "amoxor", "amoswap", "amomax", "amominu"]


class _Program:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.lines: list[str] = []
        self._labels = 0

    def label(self, stem: str) -> str:
        self._labels += 1
        return f"{stem}_{self._labels}"

    def any(self) -> str:
        return self.rng.choice(_REGISTERS)

    def straight(self) -> None:
        """One instruction, or a few that belong together."""
        rng, add = self.rng, self.lines.append
        kind = rng.random()
        if kind < 0.4:
            add(f"{rng.choice(_THREE)} {self.any()}, {self.any()}, {self.any()}")
        elif kind < 0.55:
            add(f"{rng.choice(_IMMEDIATE)} {self.any()}, {self.any()}, {rng.randint(-2048, 2047)}")
        elif kind < 0.62:
            add(f"{rng.choice(_SHIFTS)} {self.any()}, {self.any()}, {rng.randrange(64)}")
        elif kind < 0.66:
            add(f"auipc {self.any()}, {rng.randrange(16)}")
        elif kind < 0.78:
            name, size = rng.choice(_LOADS)
            add(f"{name} {self.any()}, {self.offset(size)}(s5)")
        elif kind < 0.9:
            name, size = rng.choice(_STORES)
            add(f"{name} {self.any()}, {self.offset(size)}(s5)")
        else:
            self.awkward()

    def offset(self, size: int) -> int:
        """Mostly aligned; s5 is the middle of 4 KiB around a page's border."""
        offset = self.rng.randint(-2048, 2047)
        return offset if self.rng.random() < 0.1 else offset // size * size

    def awkward(self) -> None:
        rng, add = self.rng, self.lines.append
        match rng.randrange(9):
            case 0:  # an address without memory, now and then
                add(f"andi a6, s2, {rng.choice((1, 3, 7))}")
                skip = self.label("present")
                add(f"bnez a6, {skip}")
                add(f"{rng.choice(('lw', 'sd', 'lb'))} {self.any()}, {rng.randrange(64)}(a6)")
                add(f"{skip}:")
            case 1:
                add(f"{rng.choice(_ATOMICS)}.{rng.choice('wd')} {self.any()}, {self.any()}, (s5)")
            case 2:
                add("lr.d a6, (s5)")
                add(f"sc.d {self.any()}, {self.any()}, (s5)")
            case 3:
                add(f"csrrw {self.any()}, mscratch, {self.any()}")
            case 4:
                add(f"csrr {self.any()}, {rng.choice(('instret', 'cycle', 'mcause', 'mepc'))}")
            case 5:  # the next round executes another instruction here
                patched = self.label("patched")
                add(f"la a6, {patched}")
                add("lw a7, 0(a6)")
                add(f"{rng.choice(('addi', 'xori'))} a7, a7, 0")
                add(f"slli t6, s2, {rng.choice((15, 20))}")
                add("xor a7, a7, t6")
                add(f"andi t6, s2, {rng.choice((3, 15))}")
                skip = self.label("unpatched")
                add(f"bnez t6, {skip}")
                add("sw a7, 0(a6)")
                if rng.random() < 0.5:
                    add("fence.i")
                add(f"{skip}:")
                add(".balign 4")
                add(f"{patched}: addi {rng.choice(_REGISTERS[:-1])}, {self.any()}, {rng.randrange(2048)}")
            case 6:  # through a register, near
                target = self.label("target")
                add(f"la a6, {target}")
                add("jr a6")
                add("unimp")
                add(f"{target}:")
            case 7:
                add(rng.choice(("ecall", "ebreak", ".word 0", "fence", "fence.i")))
            case _:
                add(f"call {rng.choice(('near', 'leaf', 'leaf_far'))}")

    def block(self, depth: int) -> None:
        rng, add = self.rng, self.lines.append
        for _ in range(rng.randint(1, 6)):
            kind = rng.random()
            if kind < 0.7 or depth == 0:
                for _ in range(rng.randint(1, 8)):
                    self.straight()
            elif kind < 0.85:
                other, join = self.label("else"), self.label("join")
                add(f"{rng.choice(_BRANCHES)} {self.any()}, {self.any()}, {other}")
                self.block(depth - 1)
                add(f"j {join}")
                add(f"{other}:")
                self.block(depth - 1)
                add(f"{join}:")
            elif depth > 1:
                again = self.label("again")
                counter = ("s3", "s4")[depth % 2]
                add(f"li {counter}, {rng.randint(1, 5)}")
                add(f"{again}:")
                self.block(depth - 2)
                add(f"addi {counter}, {counter}, -1")
                add(f"bgtz {counter}, {again}")

    def function(self, name: str) -> None:
        self.lines.append(f"{name}:")
        for _ in range(self.rng.randint(1, 6)):
            self.lines.append(f"{self.rng.choice(_THREE)} {self.any()}, {self.any()}, {self.any()}")
        self.lines.append("ret")


def source(seed: int) -> str:
    """Assembly of one program."""
    program = _Program(seed)
    rng, add = program.rng, program.lines.append
    add(f".org {BASE:#x}")
    add(".globl _start")
    add("_start: la t0, handler")
    add("csrw mtvec, t0")
    add("li t0, 0x6000")
    add("csrs mstatus, t0")
    for register in _REGISTERS[:-1]:
        add(f"li {register}, {rng.getrandbits(64) if rng.random() < 0.5 else rng.randint(-40, 40)}")
    add("la s5, data")
    add(f"li s2, {rng.randint(6, 30)}")
    add("first:")
    program.block(2)
    add("addi s2, s2, -1")
    add("beqz s2, finish")
    add("j first")
    program.function("near")
    add("finish: li t0, 0x100000")
    add("li t1, 0x5555")
    add("sw t1, 0(t0)")
    add("stop: j stop")
    # Every trap goes on behind the instruction; a fetch that failed, at the return address.
    add(".balign 4")
    add("handler: csrw mtval, t0")
    add("csrr t0, mepc")
    add("lhu t0, 0(t0)")
    add("andi t0, t0, 3")
    add("sltiu t0, t0, 3")
    add("xori t0, t0, 1")
    add("addi t0, t0, 1")
    add("slli t0, t0, 1")
    add("csrw mcause, t0")
    add("csrr t0, mepc")
    add("csrw mepc, zero")
    add("csrw mepc, t0")
    add("csrr t0, mcause")
    add("sd t1, -2040(s5)")
    add("csrr t1, mepc")
    add("add t0, t0, t1")
    add("csrw mepc, t0")
    add("ld t1, -2040(s5)")
    add("csrr t0, mtval")
    add("mret")
    program.function("leaf")
    if rng.random() < 0.7:
        add(".balign 4096")
        add(f".space {rng.choice((0, 0, 4092 - 40, 4094 - 40))}")
        add("nop")
    program.function("leaf_far")
    add(".balign 4096")
    add("before: .space 4096")
    add(".balign 4096")
    add("data: .space 4096")
    return "\n".join(program.lines) + "\n"
