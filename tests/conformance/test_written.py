"""Programs for one question each, on QEMU, on our machine in each tier, and in our VM: corners that chance seldom
meets."""

from __future__ import annotations

import pytest

from engine.isa.assembler import assemble
from tests.conformance.compare import differences, traps
from tests.conformance.programs import WAY_BACK, Case, Scenario, build
from tests.conformance.sides import run_in_vm, run_natively, run_on_qemu, run_on_reference

#: In S mode, with paging: entries 0 to 3 of the window's leaf table are made and used, then changed.
PREPARE = """
    la t0, leaf_table
    la t1, arena
    srli t1, t1, 12
    slli t1, t1, 10
    ori t1, t1, 0xc7            # D A W R V: a page of the supervisor's
    li t2, 0x400
    sd zero, 0(t0)
    sd t1, 8(t0)                # page 1: the arena's first page
    add t3, t1, t2
    sd t3, 16(t0)               # page 2: its second page
    sd zero, 24(t0)
    sfence.vma
    li a1, 0x40001800
    li a2, 0x40002800
    ld t4, 0(a1)
    ld t5, 0(a2)
    sd t4, 0(gp)
    sd t5, 8(gp)
"""
SHOW = """
    ld t4, 0(a1)
    sd t4, 16(gp)
    sd t4, 64(a2)
    ld t5, 72(a1)
    sd t5, 24(gp)
"""
PAGING = {
    "an entry changed by a store over two entries, the first invalid": "sd zero, 4(t0)",
    "an entry redirected by a store over two entries": "slli t4, t3, 32\n sd t4, 4(t0)",
    "an entry redirected by its low byte": "sb zero, 8(t0)",
    "an entry redirected by a halfword": "lhu t4, 18(t0)\n sh t4, 10(t0)\n lhu t4, 16(t0)\n sh t4, 8(t0)",
    "an entry redirected by an atomic": "addi t6, t0, 8\n amoswap.d t4, t3, (t6)",
    "an entry redirected by store-conditional": "addi t6, t0, 8\n lr.d t4, (t6)\n sc.d t4, t3, (t6)",
    "a table page mapped twice, written through the other mapping": """
    la t4, leaf_table
    srli t4, t4, 12
    slli t4, t4, 10
    ori t4, t4, 0xc7
    sd t4, 24(t0)               # page 3: the leaf table itself
    sfence.vma
    li t6, 0x40003000
    ld t4, 8(t6)
    sd t3, 8(t6)""",
    "a middle entry cleared": "la t6, middle_table\n sd zero, 0(t6)",
    "a root entry cleared": "la t6, root_table\n sd zero, 8(t6)",
    "a page table turned into data and back": """
    la t6, middle_table
    ld t4, 0(t6)
    sd zero, 0(t6)
    sfence.vma
    li s2, 20
1:  sd s2, 2048(t0)
    addi s2, s2, -1
    bnez s2, 1b
    sd t3, 8(t0)
    sd t4, 0(t6)""",
    "another address space and back": """
    la t6, middle_table         # any page will do: its entry 2 is given the identity
    la t4, root_table
    ld t5, 16(t4)
    sd t5, 16(t6)
    srli t6, t6, 12
    li t4, 8
    slli t4, t4, 60
    or t6, t6, t4
    csrrw s2, satp, t6
    sfence.vma
    sd t3, 8(t0)
    csrw satp, s2""",
}


def same_everywhere(source: str, name: str) -> None:
    program = assemble(source, name)
    ours = run_on_reference(program)
    found = differences(program, run_on_qemu(program), ours)
    found += differences(program, run_natively(program), ours, "the native tiers")
    found += differences(program, run_in_vm(program), ours, "the VM")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("change", PAGING)
@pytest.mark.parametrize("delegation", [0, 0xB1FF])
def test_changes_of_page_tables_are_seen_after_the_fence(change: str, delegation: int) -> None:
    scenario = Scenario({}, modes="s", paging=True, length=0, delegation=delegation)
    program_case = build(
        "written",
        scenario,
        3,
        f"{PREPARE}{PAGING[change].replace('2048(t0)', '2040(t0)')}\n sfence.vma\n{SHOW}",
    )
    same_everywhere(program_case.source, change)


DIVISIONS = (
    "div",
    "divu",
    "rem",
    "remu",
    "divw",
    "divuw",
    "remw",
    "remuw",
    "mulh",
    "mulhsu",
    "mulhu",
    "mulw",
)
MACHINE = {
    "self-modifying code": """
    la t0, 1f
    lw t1, 0(t0)
    la t2, 2f
    lw t3, 0(t2)
    li s2, 0
    jal t4, 1f
    sw t3, 0(t0)
    fence.i
    jal t4, 1f
    sd s2, 0(gp)
    j 3f
1:  addi s2, s2, 1
    jr t4
2:  addi s2, s2, 100
3:""",
    "code that changes by one byte, and by a store over two instructions": """
    la t0, 1f
    li s2, 0
    jal t4, 1f
    li t1, 0x90
    sb t1, 3(t0)
    fence.i
    jal t4, 1f
    lw t1, 0(t0)
    lw t2, 4(t0)
    srli t1, t1, 16
    li t3, 0x0059
    slli t3, t3, 20
    or t1, t1, zero
    sh t1, 2(t0)
    fence.i
    jal t4, 1f
    sd s2, 0(gp)
    j 3f
1:  addi s2, s2, 1
    jr t4
3:""",
    "mret to each mode, with what it does to mstatus": """
    la s2, 3f
    li s3, 0
1:  li t1, 0x21888
    csrc mstatus, t1
    slli t2, s3, 7
    li t3, 0x1888
    and t2, t2, t3
    csrs mstatus, t2
    la t4, 2f
    csrw mepc, t4
    mret
2:  csrr t5, sstatus
    li a7, 0x5118
    ecall
    li a7, 0
    csrr t5, mstatus
    sd t5, 0(gp)
    addi gp, gp, 8
    addi s3, s3, 1
    li t5, 64
    bne s3, t5, 1b
3:""",
    "division's corners": "\n".join(
        f"    li t0, {a}\n    li t1, {b}\n    {name} t2, t0, t1\n    sd t2, 0(gp)\n    addi gp, gp, 8"
        for name in DIVISIONS
        for a, b in ((1 << 63, -1), (-(1 << 31), -1), (5, 0), (-5, 0), (1 << 31, 0), (7, -2), (-7, 2))
    ),
}  # fmt: skip


@pytest.mark.parametrize("question", MACHINE)
def test_machine_mode(question: str) -> None:
    scenario = Scenario({}, modes="m", length=0)
    same_everywhere(build("written", scenario, 0, MACHINE[question]).source, question)


#: In S mode, with paging: `addi s2, s2, 1` begins in the last halfword of the window's page 1 and ends in
#: page 2.
OVER_TWO_PAGES = """
    la t0, leaf_table
    la t1, arena
    srli t1, t1, 12
    slli t1, t1, 10
    ori t1, t1, 0xcf
    sd t1, 8(t0)                # page 1: the arena's first page
    addi t3, t1, 0x400
    sd t3, 16(t0)               # page 2: its second page
    addi t4, t3, 0x400
    sd t4, 24(t0)               # page 3: its third page
    sfence.vma
    li a1, 0x40001ffe
    li a2, 0x40002000
    li a3, 0x40003000
    li t5, 0x0913
    sh t5, 0(a1)
    li t5, 0x0019
    sh t5, 0(a2)
    li t5, 0x0029               # with this half it would be addi s2, s2, 2
    sh t5, 0(a3)
    li t5, {way_back}
    sw t5, 2(a2)
    sw t5, 2(a3)
    fence.i
    li s2, 0
"""
RUN = """
    sfence.vma
    fence.i
    la s11, 1f
    jr a1
1:  sd s2, 0(gp)
    addi gp, gp, 8
"""
SECOND_HALVES = {
    "as it is": "nop",
    "of another page": "sd t4, 16(t0)",
    "of no page": "sd zero, 16(t0)",
    "of a page that is not executable": "andi t5, t3, -9\n sd t5, 16(t0)",
    "of a page that is the user's": "ori t5, t3, 0x10\n sd t5, 16(t0)",
    "changed": "li t5, 0x0039\n sh t5, 0(a2)",
}


def over_two_pages(second: str, delegation: int) -> Case:
    scenario = Scenario({}, modes="s", paging=True, length=0, delegation=delegation)
    text = f"{OVER_TWO_PAGES.format(way_back=WAY_BACK)}{RUN}\n {second}\n{RUN}\n sd t3, 16(t0)\n{RUN}"
    return build("written", scenario, 3, text)


@pytest.mark.parametrize("second", SECOND_HALVES)
@pytest.mark.parametrize("delegation", [0, 0xB1FF])
def test_an_instruction_over_two_pages(second: str, delegation: int) -> None:
    same_everywhere(over_two_pages(SECOND_HALVES[second], delegation).source, second)


def test_an_instruction_whose_second_half_is_nowhere() -> None:
    """QEMU 7.2 dies of an assertion here (translator_access), so this is what section 3.1.16 says of mepc and
    mtval."""
    nowhere = "li t5, 0x60000cf\n sd t5, 16(t0)        # physical 0x18000000"
    program = assemble(over_two_pages(nowhere, 0).source, "nowhere")
    ours = run_on_reference(program)
    faults = [(trap["cause"], trap["epc"], trap["tval"]) for trap in traps(program, ours)]
    assert (1, 0x4000_1FFE, 0x4000_2000) in faults
    assert not differences(program, run_in_vm(program), ours, "the VM")
