"""Regions: what is in one, that it stops on the exact instruction, that it is shared and may vanish at any time."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from engine.isa.assembler import assemble
from engine.isa.program import Program
from engine.isa.table import BY_MNEMONIC
from engine.machine.memory import PAGE
from engine.machine.native import jit, objects, regions
from engine.machine.native.regions import Flow
from engine.machine.native.runtime import Native
from tests.conformance.programs import BASE
from tests.fuzz.tiers import Machine

#: Calls, a loop in a loop, loads and stores that cross no page, and a division.
WORK = f"""
    .org {BASE:#x}
    .globl _start
_start: la s0, data
    li s1, 40
again:
    li s2, 5
inner:
    ld a0, 0(s0)
    addi a0, a0, 3
    sd a0, 0(s0)
    beqz s2, done
    jal twice
    addi s2, s2, -1
    j inner
done:
    addi s1, s1, -1
    bnez s1, again
    li t0, 0x100000
    li t1, 0x5555
    sw t1, 0(t0)
twice:
    slli a1, a0, 1
    remu a2, a1, s1
    ret
    .balign 4096
data: .dword 1
"""


def machines(source: str, *natives: Native | None) -> list[Machine]:
    program: Program = assemble(source, "work")
    return [Machine(program, native) for native in natives]


def compiled(source: str = WORK) -> Native:
    """A tier whose regions of the program are all there: it has run once."""
    native = Native(threshold=1, background=False)
    (machine,) = machines(source, native)
    while not machine.owner.ended:
        machine.hart.run(50)
    return native


def known(native: Native) -> int:
    assert native.jit is not None
    return len(native.jit._known)


# -- what a region is ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("flow", "mnemonics"),
    [
        (Flow.ON, "add c.add lw c.ldsp sd amoadd.w sc.d lui auipc fence fence.i div c.nop"),
        (Flow.BRANCH, "beq bne blt bge bltu bgeu c.beqz c.bnez"),
        (Flow.JUMP, "jal c.j"),
        (Flow.INDIRECT, "jalr c.jr c.jalr"),
        (Flow.LEAVE, "csrrw csrrsi ecall ebreak c.ebreak mret sret wfi sfence.vma"),
    ],
)
def test_where_an_instruction_sends_control(flow: Flow, mnemonics: str) -> None:
    assert {name: regions.flow_of(BY_MNEMONIC[name]) for name in mnemonics.split()} == dict.fromkeys(
        mnemonics.split(), flow
    )


@pytest.mark.parametrize(
    ("flow", "source"),
    [
        (Flow.ON, "csrr a0, sepc; csrw sepc, a0; csrrw sp, sscratch, sp; csrs scause, a0; csrr a0, sstatus; csrr a0, satp"),
        (Flow.ON, "rdtime a0; rdcycle a0; rdinstret a0; csrw stvec, a0; csrr a0, mcause; csrwi mscratch, 0"),
        (Flow.LEAVE, "csrw sstatus, a0; csrsi sstatus, 2; csrw satp, a0; csrw sie, a0; csrw mie, a0; csrw mideleg, a0"),
        (Flow.LEAVE, "frcsr a0; fsrm a0; csrw stimecmp, a0; csrw mcycle, a0; csrw vsatp, a0; csrw 0x7c0, a0"),
    ],
)
def test_what_a_register_decides_about_where_control_goes(flow: Flow, source: str) -> None:
    content, _ = page(source.replace(";", "\n"))
    flows = [instruction.flow for slot in range(0, 2 * (source.count(";") + 1), 2)
             if (instruction := regions._at(content, slot))]  # fmt: skip
    assert flows == [flow] * (source.count(";") + 1)


def page(source: str) -> tuple[bytes, dict[str, int]]:
    """A page of code, and the slots of its labels."""
    program = assemble(source, "page", BASE)
    content = program.sections[0].content
    slots = {name: (address - BASE) // 2 for name, address in program.symbols.items()}
    return content.ljust(PAGE, b"\0"), slots


ALL = np.ones(2048, np.bool_)


def test_a_region_is_what_direct_jumps_reach() -> None:
    content, at = page(WORK)
    blocks = regions.find(content, at["inner"], ALL)
    assert {at["inner"], at["twice"], at["done"], at["again"]} <= blocks.keys()
    assert blocks[at["twice"]].steps == 3
    assert at["_start"] not in blocks


def test_what_was_never_executed_is_left_out() -> None:
    content, at = page(WORK)
    executed = ALL.copy()
    executed[at["done"]] = False
    blocks = regions.find(content, at["inner"], executed)
    assert at["inner"] in blocks
    assert at["done"] not in blocks


def test_a_region_is_bounded() -> None:
    content, _ = page("".join(f"l{index}: addi a0, a0, 1\nbeq a0, a1, l{index // 2}\n" for index in range(500)))
    blocks = regions.find(content, 0, ALL)
    assert 0 < len(blocks) <= regions.MAX_BLOCKS + 1
    assert sum(block.steps for block in blocks.values()) <= regions.MAX_INSTRUCTIONS
    assert not regions.find(bytes(PAGE), 0, ALL)


def test_the_same_page_gives_the_same_text() -> None:
    """So that its object is found on disk."""
    content, at = page(WORK)
    assert regions.module(content, at["inner"], ALL) == regions.module(bytes(content), at["inner"], ALL.copy())


# -- that it is invisible ------------------------------------------------------------------------------
def test_it_stops_at_every_instruction() -> None:
    native = compiled()
    for stretch in range(1, 60):
        reference, other = machines(WORK, None, native)
        while not reference.owner.ended:
            reference.hart.run(stretch)
            other.hart.run(stretch)
            assert reference.state() == other.state()
        assert other.owner.ended


def test_regions_belong_to_a_pages_content() -> None:
    native = compiled()
    before = known(native)
    assert before > 1
    first, second = machines(WORK, native, native)
    for machine in (first, second):
        while not machine.owner.ended:
            machine.hart.run(50)
    assert known(native) == before


def test_decoded_pages_may_vanish_at_any_time() -> None:
    native = compiled()
    before = known(native)
    reference, other = machines(WORK, None, native)
    for stretch in itertools.count(7):
        if reference.owner.ended:
            break
        reference.hart.run(stretch)
        other.hart.run(stretch)
        assert reference.state() == other.state()
        native.pages.forget()
    assert known(native) == before


def test_too_many_regions_are_all_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "MAX_REGIONS", 2)
    native = compiled()
    reference, other = machines(WORK, None, native)
    while not reference.owner.ended:
        reference.hart.run(5)
        other.hart.run(5)
        assert reference.state() == other.state()
        assert known(native) <= 2


# -- beside the guest ----------------------------------------------------------------------------------
LOOP = f".org {BASE:#x}\n.globl _start\n_start: addi a0, a0, 1\nj _start\n"


def test_a_thread_compiles_while_the_guest_goes_on() -> None:
    native = Native(threshold=100)
    (machine,) = machines(LOOP, native)
    for _ in range(100_000):
        machine.hart.run(10_000)
        if known(native):
            break
    assert known(native) == 1
    before = machine.hart.x[10]
    machine.hart.run(20_000)
    assert machine.hart.x[10] == before + 10_000


def test_what_cannot_be_compiled_is_interpreted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_arguments: object) -> str:
        raise RuntimeError("no memory")

    monkeypatch.setattr(regions, "module", fails)
    monkeypatch.setattr(objects, "_folder", None)
    native = Native(threshold=100)
    (machine,) = machines(LOOP, native)
    for _ in range(100_000):
        machine.hart.run(10_000)
        if known(native):
            break
    machine.hart.run(20_000)
    assert machine.hart.x[10] == machine.hart.steps // 2
    assert "not compiled" in caplog.text


def test_what_was_compiled_before_is_read_and_soon_in_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(objects, "_folder", tmp_path)
    first = Native(threshold=100, background=False)
    machines(LOOP, first)[0].hart.run(10_000)
    assert known(first) == 1

    def fails(*_arguments: object) -> str:
        raise AssertionError("nothing has to be compiled")

    monkeypatch.setattr(regions, "module", fails)
    second = Native(threshold=60_000, background=False)
    (machine,) = machines(LOOP, second)
    for _ in range(10):
        machine.hart.run(100)
    assert known(second) == 1
    assert machine.hart.x[10] == machine.hart.steps // 2

    for path in tmp_path.rglob("*.o"):
        path.write_bytes(path.read_bytes()[:-1])  # damaged, and so as if it were not there
    monkeypatch.undo()
    monkeypatch.setattr(objects, "_folder", tmp_path)
    third = Native(threshold=60_000, background=False)
    machines(LOOP, third)[0].hart.run(10_000)
    assert known(third) == 1
