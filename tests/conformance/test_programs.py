"""Random programs on our machine, in the reference tier, natively and in a VM, and on QEMU leave the same memory.
`python -m tests.conformance` runs more.
"""

from __future__ import annotations

import pytest

from engine.isa.assembler import assemble
from engine.isa.csrs import CSRS
from engine.isa.table import ROWS
from tests.conformance.compare import differences, traps
from tests.conformance.programs import COVERED, CSR_ACCESSES, SCENARIOS, UNKNOWN_CSRS, case
from tests.conformance.sides import run_in_vm, run_natively, run_on_qemu, run_on_reference

SEEDS = range(10)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_same_memory_as_qemu(scenario: str) -> None:
    trapped: set[int] = set()
    for seed in SEEDS:
        program = assemble(case(scenario, seed).source, f"{scenario}-{seed}")
        theirs = run_on_qemu(program, SCENARIOS[scenario].interrupts)
        ours = run_on_reference(program)
        found = differences(program, theirs, ours)
        found += differences(program, run_natively(program), ours, "the native tiers")
        assert not found, f"{scenario}-{seed}:\n" + "\n".join(found)
        trapped |= {trap["cause"] for trap in traps(program, ours)}
    assert trapped >= EXPECTED_CAUSES[scenario]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_same_memory_in_a_vm(scenario: str) -> None:
    """A guest cannot tell: even a program for M mode runs deprivileged as it runs on the machine."""
    for seed in SEEDS:
        program = assemble(case(scenario, seed).source, f"{scenario}-{seed}")
        found = differences(program, run_on_reference(program), run_in_vm(program), "the machine")
        assert not found, f"{scenario}-{seed}:\n" + "\n".join(found)


#: So that a scenario cannot stop testing what it is for without anybody noticing.
EXPECTED_CAUSES: dict[str, set[int]] = {
    "integer": {4, 6, 8, 9, 11},
    "memory": {4, 5, 6, 7},
    "compressed": {2, 3},
    "floating": {2},
    "jumps": {1},
    "illegal": {2, 3},
    "csrs": {2},
    "privilege": {2, 3, 5, 7},
    "paging": {12, 13, 15, 5, 7},
    "modified-privilege": {5, 7, 13, 15},
    "interrupts": {(1 << 63) | code for code in (1, 3, 5, 7, 9)},
}


def test_a_difference_is_noticed() -> None:
    """The comparison itself: one bit of the arena, one trap, one register."""
    program = assemble(case("memory", 1).source)
    memory = run_on_reference(program)
    assert not differences(program, memory, memory)
    for label, offset in (("arena", 8), ("log", 0), ("state", 8), ("state", 256), ("output", 0)):
        changed = bytearray(memory)
        changed[program.symbols[label] - 0x8000_0000 + offset] ^= 4
        assert differences(program, memory, bytes(changed)), label


def test_the_generator_knows_every_instruction() -> None:
    """The H extension's have tests of their own."""
    assert {row.mnemonic for row in ROWS if row.extension != "H"} == COVERED


def test_the_generator_knows_every_csr_that_can_be_written() -> None:
    """Those of the H extension and Sstc, which are off here, have tests of their own."""
    known = {access.name for access in CSR_ACCESSES}
    named = {
        row.name
        for row in CSRS.values()
        if (row.storage or row.constant or row.rule) and row.rule != "hpmcounter" and not row.of_hypervisor
    }
    assert named - known == {"mhartid", "stimecmp"}
    assert all(CSRS[number].of_hypervisor for number in UNKNOWN_CSRS if number in CSRS)
