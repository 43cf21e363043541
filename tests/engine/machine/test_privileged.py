"""What the H extension and its neighbours demand where QEMU 7.2, which tests/conformance compares with, is silent or
wrong. Each program runs in the frame of tests/conformance/hypervisor.s; section numbers are of the privileged
specification 1.12.
"""

from __future__ import annotations

import struct

import pytest

from engine.isa.assembler import assemble
from engine.isa.csrs import CSRS
from engine.isa.table import ROWS
from tests.conformance.hypervisor import BASE, HS, VS, VU, M, program, show, to, traps
from tests.conformance.sides import run_on_reference

ILLEGAL, VIRTUAL = 2, 22
LOAD_PAGE_FAULT, LOAD_GUEST_FAULT, STORE_GUEST_FAULT = 13, 21, 23
WINDOW = 0x4000_0000


def run(body: str) -> tuple[list[dict[str, int]], list[int]]:
    """The traps that were logged, and the words that were shown."""
    of = program("fetches", body)  # a name whose second stage has all flavours
    memory = run_on_reference(of, hypervisor_extension=True)
    return traps(of, memory), list(struct.unpack_from("<64Q", memory, of.symbols["output"] - BASE))


def causes(body: str) -> list[int]:
    return [trap["cause"] for trap in run(body)[0]]


def entry(table: str, index: int, value: str) -> str:
    return f" la t0, {table}\n li t1, {value}\n li t2, {8 * index}\n add t0, t0, t2\n sd t1, 0(t0)\n"


def leaf(table: str, index: int, flags: int) -> str:
    """A leaf to the arena's first page, in either table of the window."""
    address = f"li t1, {WINDOW >> 12 << 10:#x}" if table == "guest_leaves" else "la t1, arena\n srli t1, t1, 2"
    return f" {address}\n li t2, {flags:#x}\n or t1, t1, t2\n la t0, {table}\n sd t1, {8 * index}(t0)\n"


def test_tvm_traps_what_is_hs_modes_and_not_the_guests() -> None:
    """Sections 8.2.10, 8.3.2, 8.4.1."""
    found = causes(f"""
    li t0, 1 << 20
    csrs mstatus, t0
    {to(HS)}
    csrr t0, hgatp
    csrr t0, satp
    hfence.gvma
    sfence.vma
    csrr t0, vsatp
    hfence.vvma
    {to(VS)}
    csrr t0, satp
    sfence.vma
    """)
    assert found == [ILLEGAL] * 4


def test_vtvm_vtsr_and_vtw_trap_vs_mode() -> None:
    """Sections 8.2.1 and 8.6.1."""
    found = causes(f"""
    li t0, 7 << 20
    csrs hstatus, t0
    {to(VS)}
    csrr t0, satp
    csrw satp, t0
    sfence.vma
    sret
    wfi
    csrr t0, stvec
    """)
    assert found == [VIRTUAL] * 5


def test_what_vu_mode_may_not_do() -> None:
    """What HS mode could do is a virtual instruction; TW alone makes wfi illegal (section 8.6.1)."""
    may = f"{to(VU)} csrr t0, sstatus\n csrw satp, t0\n sret\n wfi\n sfence.vma\n hlv.b t0, (s10)\n"
    assert causes(may) == [VIRTUAL] * 6
    assert causes(f"{to(VU)} csrr t0, mstatus\n mret\n csrr t0, hgatp\n csrr t0, vsatp\n") == [
        ILLEGAL, ILLEGAL, VIRTUAL, VIRTUAL,
    ]  # fmt: skip
    assert causes(f"li t0, 1 << 21\n csrs mstatus, t0\n {to(VU)} wfi\n {to(VS)} wfi\n") == [ILLEGAL, ILLEGAL]


def test_an_exception_keeps_its_code_in_vs_mode() -> None:
    """Only interrupts are one lower there (section 8.2.2)."""
    found, _ = run(f"li t0, 0xb1ff\n csrw medeleg, t0\n csrw hedeleg, t0\n {to(VS)} .word 0x0000100b\n")
    assert [(trap["mode"], trap["cause"], trap["tval"]) for trap in found] == [(2, ILLEGAL, 0x100B)]


def test_mret_into_machine_mode_leaves_v_zero() -> None:
    """Section 8.6.4."""
    found, shown = run(f"""
    la t0, 1f
    csrw mepc, t0
    li t0, 1 << 39 | 0x1800
    csrs mstatus, t0
    mret
1:  csrr t0, mstatus
    srli t0, t0, 39
    andi t0, t0, 1
    csrr t1, mscratch
    {show("t0")}
    """)
    assert (found, shown[0]) == ([], 0)


@pytest.mark.parametrize(
    ("guest", "second", "expected"),
    [(0xDF, 0xDF, []), (0xD9, 0xD9, []), (0xD3, 0xDF, [LOAD_PAGE_FAULT]), (0xDF, 0xD3, [LOAD_GUEST_FAULT])],
)
def test_hlvx_needs_x_in_both_stages_and_r_in_none(guest: int, second: int, expected: list[int]) -> None:
    """Section 8.3.1."""
    body = leaf("guest_leaves", 0, guest) + leaf("second_leaves", 0, second)
    assert causes(f"{body} li a0, {WINDOW}\n hlvx.wu a1, (a0)\n") == expected


@pytest.mark.parametrize(
    ("guest_mxr", "own_mxr", "guest", "second", "expected"),
    [
        (0, 0, 0xC9, 0xDF, [LOAD_PAGE_FAULT]), (1, 0, 0xC9, 0xDF, []), (0, 1, 0xC9, 0xDF, []),
        (0, 0, 0xCF, 0xD9, [LOAD_GUEST_FAULT]), (1, 0, 0xCF, 0xD9, [LOAD_GUEST_FAULT]), (0, 1, 0xCF, 0xD9, []),
    ],
)  # fmt: skip
def test_which_mxr_opens_which_stage(
    guest_mxr: int, own_mxr: int, guest: int, second: int, expected: list[int]
) -> None:
    """The guest's opens the first stage, HS mode's both (section 8.5.1)."""
    body = leaf("guest_leaves", 0, guest) + leaf("second_leaves", 0, second)
    for register, on in (("vsstatus", guest_mxr), ("mstatus", own_mxr)):
        body += f"li t0, 0x80000\n csrs {register}, t0\n" if on else ""
    assert causes(f"{body} {to(VS)} li a0, {WINDOW}\n ld a1, 0(a0)\n") == expected


@pytest.mark.parametrize("sum_bit", [0, 1])
def test_hlv_heeds_the_guests_sum(sum_bit: int) -> None:
    """Section 8.3.1: as though V=1."""
    body = leaf("guest_leaves", 0, 0xDF) + leaf("second_leaves", 0, 0xDF)
    body += "li t0, 0x40000\n csrs vsstatus, t0\n" if sum_bit else ""
    body += f"li t0, 0x100\n csrs hstatus, t0\n li a0, {WINDOW}\n hlv.d a1, (a0)\n"
    assert causes(body) == ([] if sum_bit else [LOAD_PAGE_FAULT])


@pytest.mark.parametrize(
    ("machine", "guest", "stage", "kind", "expected"),
    [
        (0, 0, "guest_leaves", 1, [LOAD_PAGE_FAULT]), (1, 0, "guest_leaves", 1, [LOAD_PAGE_FAULT]),
        (0, 1, "guest_leaves", 1, [LOAD_PAGE_FAULT]), (1, 1, "guest_leaves", 2, []),
        (1, 1, "guest_leaves", 3, [LOAD_PAGE_FAULT]), (1, 1, "guest_leaves", 4, [LOAD_PAGE_FAULT]),
        (0, 0, "second_leaves", 1, [LOAD_GUEST_FAULT]), (1, 0, "second_leaves", 1, []),
        (1, 0, "second_leaves", 3, [LOAD_GUEST_FAULT]),
    ],
)  # fmt: skip
def test_memory_types_where_they_are_switched_on(
    machine: int, guest: int, stage: str, kind: int, expected: list[int]
) -> None:
    """Svpbmt: menvcfg opens the second stage, with henvcfg the first; 3 and bit 63 are reserved."""
    other = {"guest_leaves": "second_leaves", "second_leaves": "guest_leaves"}[stage]
    flags = kind << 61 | (0xDF if stage == "second_leaves" else 0xCF)
    body = leaf(stage, 0, flags) + leaf(other, 0, 0xDF if other == "second_leaves" else 0xCF)
    body += f"li t0, {machine << 62}\n csrw menvcfg, t0\n li t0, {guest << 62}\n csrw henvcfg, t0\n"
    assert causes(f"{body} {to(VS)} li a0, {WINDOW}\n ld a1, 0(a0)\n") == expected


def test_a_and_d_of_the_guests_tables_need_leave_to_write_them() -> None:
    """The second stage may forbid the walker's own store: a fault of the access that caused it, with the
    pseudoinstruction of a write (section 8.6.3)."""
    found, shown = run(f"""
    la t0, second_middle                    # the window's guest physical pages: the tables once more, read-only
    la t1, guest_leaves
    srli t1, t1, 2
    ori t1, t1, 0xd3
    la t0, second_leaves
    sd t1, 40 * 8(t0)
    li t1, {((WINDOW >> 12) + 40) << 10 | 1}
    la t0, guest_middle
    sd t1, 0(t0)
    {leaf("guest_leaves", 0, 0x0F)}
    {leaf("second_leaves", 0, 0xDF)}
    {to(VS)}
    li a0, {WINDOW}
    ld a1, 0(a0)
    sd a1, 0(a0)
    {to(M)}
    la t0, guest_leaves
    ld t1, 0(t0)
    {show("t1")}
    """)
    place = (WINDOW + 40 * 4096) >> 2
    assert [(trap["cause"], trap["tval"], trap["gpa"], trap["instruction"]) for trap in found] == [
        (LOAD_GUEST_FAULT, WINDOW, place, 0x3020), (STORE_GUEST_FAULT, WINDOW, place, 0x3020),
    ]  # fmt: skip
    assert shown[0] & 0xFF == 0x0F


def test_the_guest_sees_its_interrupts_in_sip() -> None:
    """vsip is hip one lower, as far as hideleg goes (section 8.2.11)."""
    _, shown = run(f"""
    li t0, 0x440
    csrw hideleg, t0
    li t0, 0x444
    csrw hvip, t0
    {to(VS)}
    csrr t0, sip
    {show("t0")}
    li t0, 0x222
    csrw sie, t0
    csrr t0, sie
    {show("t0")}
    {to(M)}
    csrr t0, hie
    {show("t0")}
    """)
    assert shown[:3] == [0x220, 0x220, 0x440]


def test_the_environment_of_a_guest_is_what_machine_mode_lets_through() -> None:
    _, shown = run(f"""
    li t0, -1
    csrw henvcfg, t0
    csrr t1, henvcfg
    li t0, 1 << 63
    csrw menvcfg, t0
    li t0, -1
    csrw henvcfg, t0
    csrr t2, henvcfg
    csrw menvcfg, zero
    csrr t3, henvcfg
    {show("t1", "t2", "t3")}
    """)
    assert shown[:3] == [1, 1 << 63 | 1, 1]


def test_a_hart_without_the_extension_has_none_of_it() -> None:
    """Every register and instruction of it is illegal, and no bit of it can be written."""
    lines = [f"csrr t0, {row.name}" for row in CSRS.values() if row.of_hypervisor]
    lines += ["hfence.vvma", "hfence.gvma", "hinval.vvma zero, zero", "hinval.gvma zero, zero"]
    lines += [f"{row.mnemonic} {'t0, (sp)' if row.mnemonic[1] == 'l' else 'zero, (sp)'}" for row in ROWS
              if row.extension == "H" and row.mnemonic.startswith(("hl", "hs"))]  # fmt: skip
    source = """
    .org 0x80000000
    _start: la t0, handler
        csrw mtvec, t0
        la sp, save
        li s0, 0
        li t0, -1
        csrw medeleg, t0
        csrw mideleg, t0
        csrw mie, t0
        csrs mip, t0
        csrs mstatus, t0
        csrr s1, misa
        csrr s2, medeleg
        csrr s3, mideleg
        csrr s4, mie
        csrr s5, mip
        csrr s6, mstatus
    """ + "\n".join(lines) + """
        la t0, save
        sd s0, 0(t0)
        sd s1, 8(t0)
        sd s2, 16(t0)
        sd s3, 24(t0)
        sd s4, 32(t0)
        sd s5, 40(t0)
        sd s6, 48(t0)
        li t0, 0x100000
        li t1, 0x5555
        sw t1, 0(t0)
        j .
    .balign 4
    handler:
        csrr t0, mcause
        addi t0, t0, -2
        bnez t0, 1f
        addi s0, s0, 1
    1:  csrr t0, mepc
        addi t0, t0, 4
        csrw mepc, t0
        mret
    .balign 8
    save: .zero 64
    """
    of = assemble(source, "without")
    memory = run_on_reference(of)
    count, misa, medeleg, mideleg, mie, mip, mstatus = struct.unpack_from("<7Q", memory, of.symbols["save"] - BASE)
    assert count == len(lines) > 40
    assert not misa >> 7 & 1
    assert (medeleg >> 10 & 1, medeleg >> 20, mideleg & 0x1444, mie & 0x1444, mip & 0x1444, mstatus >> 38 & 3) == (
        0, 0, 0, 0, 0, 0,
    )  # fmt: skip
