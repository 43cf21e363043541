"""Floating point on the native interpreter against the reference tier, whose arithmetic is exact integers: for every
row and rounding mode the same registers, flags and status. (The reference itself is held against QEMU in
tests/conformance.)
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator, Sequence
from itertools import product

import pytest

from engine.isa.assembler import assemble
from engine.isa.csrs import Status
from engine.isa.formats import Row
from engine.isa.table import ROWS, uses_floats
from engine.machine.bus import Bus, Devices
from engine.machine.hart import Hart
from engine.machine.memory import PAGE, Memory
from engine.machine.native import layout
from engine.machine.native.handlers import handler
from engine.machine.native.objects import host_has
from engine.machine.native.runtime import Native, native
from tests.conformance.compare import differences
from tests.conformance.programs import case, float_value, value
from tests.conformance.sides import run_natively, run_on_reference

BASE = 0x8000_0000
DATA = BASE + (60 << 12)
SIZE = 64 << 12
DYNAMIC, RMM = 7, 4
DIRTY = int(Status.FS | Status.SD)
FLOATING = [row for row in ROWS if uses_floats(row) and row.extension in ("F", "D")]
ACCESSES = [row for row in FLOATING if "(" in row.syntax]
COMPUTING = [row for row in FLOATING if row not in ACCESSES]

_DOUBLES = (0, 0x7FF0 << 48, 0x7FF8 << 48, 0x7FF4 << 48, 1, 0x7FEF_FFFF_FFFF_FFFF, 0x3FF0 << 48, 0x0010 << 48)
_SINGLES = (0, 0x7F80_0000, 0x7FC0_0000, 0x7FA0_0000, 1, 0x7F7F_FFFF, 0x3F80_0000, 0x0080_0000)
SPECIAL = {
    64: [word | sign << 63 for word in _DOUBLES for sign in (0, 1)],
    32: [word | sign << 31 | 0xFFFF_FFFF << 32 for word in _SINGLES for sign in (0, 1)],
}
#: Where conversions to integers stop fitting or begin to round: doubles, then boxed singles.
EDGES = [
    *(word | sign << 63
      for word in (0x3FE0 << 48, 0x3FE0_0000_0000_0001, 0x3FDF_FFFF_FFFF_FFFF, 0x3FEF_FFFF_FFFF_FFFF, 0x3FF8 << 48,
                   0x4004 << 48, 0x41DF_FFFF_FFC0_0000, 0x41DF_FFFF_FFE0_0000, 0x41DF_FFFF_FFFF_FFFF, 0x41E0 << 48,
                   0x41E0_0000_0010_0000, 0x41E0_0000_0020_0000, 0x41EF_FFFF_FFE0_0000, 0x41EF_FFFF_FFF0_0000,
                   0x41F0 << 48, 0x43DF_FFFF_FFFF_FFFF, 0x43E0 << 48, 0x43E0_0000_0000_0001, 0x43EF_FFFF_FFFF_FFFF,
                   0x43F0 << 48) for sign in (0, 1)),
    *(word | sign << 31 | 0xFFFF_FFFF << 32
      for word in (0x3F00_0000, 0x3EFF_FFFF, 0x3F00_0001, 0x3F7F_FFFF, 0x3FC0_0000, 0x4020_0000, 0x4EFF_FFFF,
                   0x4F00_0000, 0x4F00_0001, 0x4F7F_FFFF, 0x4F80_0000, 0x5EFF_FFFF, 0x5F00_0000, 0x5F00_0001,
                   0x5F7F_FFFF, 0x5F80_0000) for sign in (0, 1)),
]  # fmt: skip


class Pair:
    """Two harts with one program, each instruction at its own address: the reference and the native interpreter."""

    def __init__(self, words: Sequence[int], hypervisor_extension: bool = False, tier: Native | None = None) -> None:
        self.reference, self.hart = (_hart(words, hypervisor_extension) for _ in range(2))
        self.hart.use_native(tier or native(compiles=False))
        for page in range(BASE, BASE + 4 * len(words), PAGE):
            self.hart.pc = page
            self.hart.run(1)  # native code gets to know the page
        self.start = self.reference.save()

    def step(self, index: int, state: dict[str, object]) -> bool:
        """Execute one instruction from a state on both; is it native? They must end alike."""
        for hart in (self.reference, self.hart):
            hart.load(self.start | state | {"pc": BASE + 4 * index})
        self.reference.run(1)
        self.hart.limit = 1
        reason = native(compiles=False).proceed(ctypes.addressof(self.hart), False)
        if reason == layout.TRAP:
            assert self.hart.steps == 1
            self.hart.trap(self.hart.trap_cause, self.hart.trap_value)
        elif reason != layout.LIMIT:
            assert reason == layout.SLOW
            assert self.hart.steps == 0
            self.hart.run(1)
        ours, theirs = self.hart.save(), self.reference.save()
        assert ours == theirs, {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
        return reason != layout.SLOW


def _hart(words: Sequence[int], hypervisor_extension: bool) -> Hart:
    memory = Memory(BASE, SIZE)
    memory.write_bytes(0, b"".join(word.to_bytes(4, "little") for word in words))
    memory.write_bytes(DATA - BASE, bytes(range(1, 129)))
    hart = Hart(0, Bus(memory, Devices([])), lambda: 0, hypervisor_extension)
    hart.mtvec = BASE + SIZE - PAGE
    return hart


def _state(pair: Pair, x: Sequence[int], f: Sequence[int], **csrs: int) -> dict[str, object]:
    reset = {"mstatus": DIRTY, "mtvec": BASE + SIZE - PAGE, "mepc": 0, "mcause": 0, "mtval": 0}
    padding = [0] * 32
    return {
        "x": [0, *x, *padding][:32],
        "f": [0, *f, *padding][:32],
        "csrs": pair.start["csrs"] | reset | csrs,
        "privilege": 3,
        "virtual": 0,
    }


def _encodings(row: Row) -> Iterator[tuple[int, int]]:
    """(rm or 0, word): every rounding mode that can be decoded; the destination is a source, too, in some."""
    registers = {"rd": 5, "rs1": 1, "rs2": 2, "rs3": 3}
    for mode in (0, 1, 2, 3, RMM, DYNAMIC) if "rm" in row.fields else (0,):
        operands = {name: registers[name] for name in row.fields if name in registers}
        if "rm" in row.fields:
            operands["rm"] = mode
            operands["rd"] = (5, 1)[mode == DYNAMIC]
        yield mode, row.encode(**operands)


def _operands(row: Row, rng: random.Random, count: int) -> Iterator[tuple[int, int, int]]:
    for _ in range(count):
        yield float_value(rng), float_value(rng), float_value(rng)
    if row.mnemonic.startswith("fcvt"):
        yield from ((word, 0, 0) for word in EDGES)


def test_every_row_is_native() -> None:
    refused = {row.mnemonic for row in ROWS if uses_floats(row) and handler(row) is None}
    fused = {row.mnemonic for row in FLOATING if "fmadd" in row.semantics}
    everything = {row.mnemonic for row in ROWS if uses_floats(row)}
    assert refused == (set() if host_has("fma") else fused if host_has("sse4.1") else everything)


@pytest.mark.parametrize("row", COMPUTING, ids=lambda row: row.mnemonic)
def test_same_as_the_reference(row: Row) -> None:
    rng = random.Random(row.mnemonic)
    encodings = list(_encodings(row))
    pair = Pair([word for _, word in encodings])
    modes = set()
    for index, (mode, _) in enumerate(encodings):
        for turn, floats in enumerate(_operands(row, rng, 16)):
            dynamic = turn % 8
            fcsr = dynamic << 5 | rng.choice((0, 0, 0, rng.randrange(32)))
            was_native = pair.step(index, _state(pair, [value(rng)], floats, fcsr=fcsr))
            effective = dynamic if mode == DYNAMIC else mode
            assert was_native == (handler(row) is not None and effective < RMM), (mode, dynamic)
            modes.add(effective)
    assert "rm" not in row.fields or modes == set(range(8))


@pytest.mark.parametrize("row", [row for row in COMPUTING if "frs2" in row.semantics], ids=lambda row: row.mnemonic)
def test_special_numbers(row: Row) -> None:
    """Zeros, infinities, NaNs of both kinds, the least and the greatest: every combination."""
    pair = Pair([next(word for _, word in _encodings(row))])
    words = SPECIAL[64 if row.mnemonic.endswith("d") else 32]
    three = "frs3" in row.semantics
    for floats in product(words, words, words[::3] if three else [0]):
        pair.step(0, _state(pair, [], floats))


@pytest.mark.parametrize("row", ACCESSES, ids=lambda row: row.mnemonic)
def test_loads_and_stores(row: Row) -> None:
    """Also one that faults: it changes neither a register nor FS."""
    rng = random.Random(row.mnemonic)
    data = {"rd": 5} if "frd" in row.syntax else {"rs2": 2}
    pair = Pair([row.encode(rs1=1, imm=8, **data)])
    clean = int(Status.FS) & -int(Status.FS) << 1
    for address, status in product((DATA, DATA + 3, DATA + 1, 0x1000), (DIRTY, clean, 0)):
        pair.step(0, _state(pair, [address], [0, float_value(rng)], mstatus=status))
        ours, theirs = (hart.bus.memory.read_bytes(DATA - BASE, 128) for hart in (pair.hart, pair.reference))
        assert ours == theirs
        if address == 0x1000:
            assert (pair.hart.mstatus ^ status) & DIRTY == 0
            assert pair.hart.mcause == ((5 if "frd" in row.syntax else 7) if status else 2)


@pytest.mark.parametrize("mnemonic", ["fadd.d", "fmul.s", "fld", "fsd", "fmv.x.d", "fclass.s", "feq.d", "fsgnj.d"])
def test_when_the_unit_is_off(mnemonic: str) -> None:
    """Each state of FS, of the host and of a guest in VS mode: illegal while either is Off."""
    row = next(row for row in ROWS if row.mnemonic == mnemonic)
    fields = {"rd": 5, "rs1": 1, "rs2": 2, "imm": 0, "rm": 0}
    pair = Pair([row.encode(**{name: fields[name] for name in row.fields if name in fields})], True)
    shift = int(Status.FS).bit_length() - 2
    for virtual, host, guest in product((0, 1), range(4), range(4)):
        words = [field << shift | (int(Status.SD) if field == 3 else 0) for field in (host, guest)]
        state = _state(pair, [DATA], [0x3FF0 << 48] * 3, mstatus=words[0], vsstatus=words[1])
        assert pair.step(0, state | {"virtual": virtual, "privilege": 1 if virtual else 3})
        off = not host or (virtual and not guest)
        assert pair.hart.mcause == (2 if off else 0)


def test_flags_are_where_programs_and_tools_look() -> None:
    """Raised by native code, read, written and cleared by it, and by Python in between."""
    source = """
_start:
    fdiv.d f5, f1, f2
    frflags x6
    fsqrt.d f5, f3
    fsflagsi x7, 1
    fadd.d f5, f1, f4
    frcsr x8
    csrrci x9, fflags, 1
    fdiv.d f5, f1, f2
    csrrsi x10, fcsr, 16
    fsrm x11, x0
    fmul.d f5, f4, f4
"""
    code = assemble(source).sections[0].content
    pair = Pair([int.from_bytes(code[at : at + 4], "little") for at in range(0, len(code), 4)])
    state = _state(pair, [], [0x3FF0 << 48, 0, 0xBFF0 << 48, 1], fcsr=0)
    for stops in ([11], [1] * 11, [2, 3, 6]):
        for hart in (pair.reference, pair.hart):
            hart.load(pair.start | state | {"pc": BASE})
            for steps in stops:
                hart.run(steps)
        assert pair.hart.save() == pair.reference.save()
        assert [pair.hart.x[number] for number in range(6, 11)] == [8, 24, 1, 1, 8]
        assert pair.hart.fcsr == 0b11011


@pytest.mark.parametrize("seed", range(4))
def test_programs(seed: int) -> None:
    program = assemble(case("floating", 100 + seed).source, f"floating-{seed}")
    found = differences(program, run_on_reference(program), run_natively(program), "the reference")
    assert not found, "\n".join(found)


def _loop(rng: random.Random) -> str:
    """Floating-point instructions in a loop that feeds them new numbers, and at times looks at their flags."""
    body = []
    for _ in range(rng.randint(12, 40)):
        row = rng.choice(FLOATING)
        operands = {name: rng.randrange(32) for name in row.fields if name[0] == "r"}
        if "rm" in row.fields:
            operands["rm"] = rng.choice((0, 1, 2, 3, RMM, DYNAMIC, DYNAMIC, DYNAMIC))
        if row in ACCESSES:
            operands |= {"rs1": 8, "imm": 8 * rng.randrange(64)}
        elif "frd" not in row.syntax:
            operands["rd"] = rng.choice((0, 5, 6, 7))
        elif "frs1" not in row.syntax:
            operands["rs1"] = rng.choice((0, 5, 6, 7))
        body.append(f".word {row.encode(**operands)}")
        if rng.random() < 0.15:
            body += ["mul x9, x9, x10", "addi x9, x9, 13", f"fcvt.d.l f{rng.randrange(32)}, x9"]
        if rng.random() < 0.04:
            body.append(rng.choice(("frflags x6", "fsflagsi x7, 0", "fsrmi 1", "fsrmi 0", "fsrmi 0")))
    return "\n".join(["_start: li x11, 60", "again:", *body, "addi x11, x11, -1", "bnez x11, again", "end: j end"])


@pytest.mark.parametrize("seed", range(5))
def test_compiled_loops(seed: int) -> None:
    """In regions, whatever is in a loop, each operation happens as often as the guest says."""
    rng = random.Random(seed)
    code = assemble(_loop(rng), f"loop-{seed}").sections[0].content
    words = [int.from_bytes(code[at : at + 4], "little") for at in range(0, len(code), 4)]
    pair = Pair(words, tier=Native(threshold=2, background=False))
    start = pair.start | _state(pair, [], [float_value(rng) for _ in range(31)], fcsr=0)
    start["x"] = [value(rng) if number in (5, 6, 7, 9) else 0x5851_F42D_4C95_7F2D for number in range(32)]
    start["x"][0], start["x"][8] = 0, DATA
    for hart in (pair.reference, pair.hart):
        hart.load(start | {"pc": BASE})
    for _ in range(60):
        steps = rng.choice((1, 2, 5, 20, 50, 90))
        for hart in (pair.reference, pair.hart):
            hart.run(steps)
        assert pair.hart.save() == pair.reference.save()
        for hart in (pair.reference, pair.hart):
            hart.fcsr &= ~31  # what each stretch raises is seen
    assert not pair.hart.unretired


def test_the_host_keeps_its_own_rounding_and_flags() -> None:
    """What a guest does to the host's unit ends with its turn."""
    pair = Pair([next(row for row in ROWS if row.mnemonic == "fdiv.d").encode(rd=5, rs1=1, rs2=2, rm=3)])
    before = [1.0 / 3.0, -1.0 / 3.0]
    pair.step(0, _state(pair, [], [0x3FF0 << 48, 0x4008 << 48]))
    assert pair.hart.f[5] == 0x3FD5_5555_5555_5556
    one, three = float("1"), float("3")
    assert [one / three, -one / three] == before
