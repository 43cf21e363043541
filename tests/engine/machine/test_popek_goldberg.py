"""The classification, held against what QEMU traps in each mode, and against what the paper says of a machine."""

from __future__ import annotations

import struct

import pytest

from engine.isa.assembler import assemble
from engine.isa.csrs import CSRS
from engine.isa.silent import SILENT
from engine.isa.table import ROWS
from engine.machine.popek_goldberg import CSR_WRITES, MODES, classify, registers
from tests.conformance.sides import QEMU_CPU, run_on_qemu

BY_NAME = {verdict.name: verdict for verdict in classify()}
SWITCHED = {verdict.name: verdict for verdict in classify(silent=True)}
BASE = 0x8000_0000
RAN = 255
#: It would wait for ever.
LEFT_OUT = {"wfi"}
#: QEMU 7.2 lets user mode execute these (Svinval, chapter 6, does not).
QEMU_PERMITS = {"sfence.w.inval", "sfence.inval.ir"}
ILLEGAL, VIRTUAL = 2, 22

#: Each word of `cases` executes at `slot` in the mode that its first half names; `results` gets the cause if it trapped
#: there itself.
PROGRAM = """
_start: la    t0, trapped
        csrw  mtvec, t0
        li    t0, -1
        csrw  pmpaddr0, t0
        li    t0, 0x1f
        csrw  pmpcfg0, t0
        la    s0, cases
        la    s1, results
        li    s3, {count}
next:   beqz  s3, done
        lw    t1, 0(s0)
        la    t2, slot
        sw    t1, 0(t2)
        li    t3, 0x00100073
        li    t4, 16
        addi  t5, t2, 4
fill:   sw    t3, 0(t5)
        addi  t5, t5, 4
        addi  t4, t4, -1
        bnez  t4, fill
        andi  t4, t1, 3
        addi  t4, t4, -3
        beqz  t4, wide
        slli  t1, t1, 48
        srli  t1, t1, 48
        li    t5, 0x90020000
        or    t1, t1, t5
        sw    t1, 0(t2)
wide:   la    a1, arena
        sw    t3, 0(a1)
        sw    t3, 4(a1)
        sw    t3, 8(a1)
        sw    t3, 12(a1)
        fence.i
        csrw  0x302, zero
        csrw  0x303, zero
        csrw  0x304, zero
        csrw  sepc, a1
        li    t5, 7
        csrw  mcounteren, t5
        csrw  0x606, t5
        csrw  scounteren, zero
        li    t5, 1 << 63
        csrw  0x30a, t5
        csrw  0x60a, t5
        csrw  0x602, zero
        csrw  0x603, zero
        csrw  0x600, zero
        csrw  0x680, zero
        csrw  0x280, zero
        csrw  satp, zero
        li    t5, 3 << 13
        csrw  0x200, t5
        lw    t4, 4(s0)
        slli  t1, t4, 63
        srli  t1, t1, 24
        srli  t4, t4, 1
        slli  t4, t4, 11
        or    t1, t1, t4
        or    t1, t1, t5
        csrw  mstatus, t1
        csrw  mepc, t2
        mv    sp, a1
        lw    t6, 8(s0)
        beqz  t6, go
        li    a1, 0
go:     mret
        .balign 4
trapped: la   t2, slot
        csrr  t3, mcause
        csrr  t4, mepc
        beq   t4, t2, itself
        li    t3, {ran}
itself: sb    t3, 0(s1)
        addi  s1, s1, 1
        addi  s0, s0, 12
        addi  s3, s3, -1
        j     next
done:   li    t0, 0x100000
        li    t1, 0x5555
        sw    t1, 0(t0)
stop:   j     stop
        .balign 8
slot:   .zero 128
arena:  .zero 128
results: .zero {count}
        .balign 8
cases:
"""


def test_every_instruction_and_every_register_is_there() -> None:
    names = {row.mnemonic for row in ROWS if "csr" not in row.fields}
    accesses = {f"{access} {row.name}" for row in registers() for access in ("csrr", "csrw")}
    assert set(BY_NAME) == names | accesses
    assert len(CSRS) > len(registers()) >= 70
    assert {row.mnemonic for row in ROWS if "csr" in row.fields} == set(CSR_WRITES)


def test_it_satisfies_the_theorem_and_the_switched_machine_fails_by_exactly_its_rows() -> None:
    assert [name for name, verdict in BY_NAME.items() if verdict.violates] == []
    expected = {f"{'csrr' if row.access == 'read' else 'csrw'} {row.csr}" for row in SILENT}
    assert {name for name, verdict in SWITCHED.items() if verdict.violates} == expected
    assert {name for name, verdict in SWITCHED.items() if verdict.x86} == expected
    for name in set(BY_NAME) - expected:
        assert BY_NAME[name] == SWITCHED[name], name


@pytest.mark.parametrize(
    ("name", "privileged", "control", "behaviour"),
    [
        ("addi", False, False, False), ("lw", False, False, False), ("fadd.d", False, False, False),
        ("auipc", False, False, False), ("lr.d", False, False, False), ("csrw fcsr", False, False, False),
        ("ecall", False, False, False), ("sret", True, True, True), ("mret", True, True, True),
        ("wfi", True, True, False), ("csrw satp", True, True, False), ("csrr satp", True, False, True),
        ("csrr time", True, False, True), ("hsv.d", True, True, False), ("hlv.d", True, False, True),
        ("csrr mhartid", True, False, True), ("csrw sscratch", True, True, False), ("sfence.vma", True, False, False),
    ],
)  # fmt: skip
def test_classes(name: str, privileged: bool, control: bool, behaviour: bool) -> None:
    verdict = BY_NAME[name]
    assert (verdict.privileged, verdict.control, verdict.behaviour) == (privileged, control, behaviour)


def test_evidence() -> None:
    change = next(change for change in BY_NAME["csrw sstatus"].modes["S"].changes if change.what == "sstatus.SIE")
    assert {change.before, change.after} == {0, 1}
    assert {change.what for change in BY_NAME["csrw sstatus"].modes["VS"].changes} >= {"vsstatus.SIE"}
    assert [shown.what for shown in BY_NAME["csrr satp"].modes["S"].shows] == ["a0"]
    ignored, shown = SWITCHED["csrw sstatus"], SWITCHED["csrr satp"]
    assert ignored.modes["U"].trap is None
    assert not ignored.modes["U"].changes
    assert ignored.differs
    assert [difference.what for difference in shown.modes["U"].shows] == ["a0"]
    assert shown.modes["VU"].trap is None  # and shows vsatp, which is the guest's own
    assert ignored.plain()["x86"] == "POPF"


def test_qemu_traps_where_we_say() -> None:
    """Every row, and every read and write of a CSR, in U, S, VU and VS mode on QEMU."""
    modes = {"U": 0, "S": 1 << 1, "VU": 1, "VS": 1 << 1 | 1}
    cases = [(verdict, mode) for verdict in classify() if verdict.name not in LEFT_OUT for mode in modes]
    data = b"".join(
        struct.pack("<III", verdict.encoding, modes[mode], verdict.name.startswith("csrw")) for verdict, mode in cases
    )
    source = PROGRAM.format(count=len(cases), ran=RAN) + "".join(
        f"        .word {word:#x}\n" for (word,) in struct.iter_unpack("<I", data)
    )
    program = assemble(source, base=BASE)
    memory = run_on_qemu(program, cpu=QEMU_CPU.replace(",h=false", ",h=true").replace("sstc=false", "sstc=true"))
    results = memory[program.symbols["results"] - BASE :][: len(cases)]
    for (verdict, mode), result in zip(cases, results, strict=True):
        trap = verdict.modes[mode].trap
        if mode == "VU" and trap == VIRTUAL and result == ILLEGAL:
            continue  # QEMU 7.2 has no virtual-instruction exception there
        if verdict.name in QEMU_PERMITS and mode in ("U", "VU"):
            assert result == RAN
            continue
        assert result == (RAN if trap is None else trap), f"{verdict.name} in {mode}"


def test_modes_are_those_of_the_machine() -> None:
    assert set(next(iter(BY_NAME.values())).modes) == set(MODES)
