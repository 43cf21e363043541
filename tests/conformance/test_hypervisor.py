"""The H extension on our machine and on QEMU: the same traps, the same registers, the same memory."""

from __future__ import annotations

import pytest

from engine.isa.program import Program
from tests.conformance import hypervisor
from tests.conformance.hypervisor import DIRECTED, MODES, differences, traps
from tests.conformance.sides import run_natively, run_on_qemu, run_on_reference

NAMES = [*DIRECTED, *(f"guarded in {mode}" for mode in MODES)]


def program_of(name: str) -> Program:
    body = DIRECTED.get(name) or hypervisor.guarded(MODES[name.removeprefix("guarded in ")])
    return hypervisor.program(name, body)


@pytest.mark.parametrize("name", NAMES)
def test_same_traps_and_memory_as_qemu(name: str) -> None:
    program = program_of(name)
    theirs = run_on_qemu(program, advanced_interrupts=True, cpu=hypervisor.QEMU_CPU)
    ours = run_on_reference(program, hypervisor_extension=True)
    found = differences(program, theirs, ours)
    assert not found, "\n".join(found)
    assert len(traps(program, ours)) >= hypervisor.LEAST_TRAPS.get(name, 0)


@pytest.mark.parametrize("name", NAMES)
def test_same_traps_and_memory_natively(name: str) -> None:
    """To the last byte of RAM."""
    program = program_of(name)
    assert run_natively(program, hypervisor_extension=True) == run_on_reference(program, hypervisor_extension=True)


def test_a_difference_is_noticed() -> None:
    """The comparison itself: one bit of a trap, of the output, of a table."""
    program = hypervisor.program("fetches", DIRECTED["fetches"])
    memory = run_on_reference(program, hypervisor_extension=True)
    assert not differences(program, memory, memory)
    for label, offset in (("log", 8), ("log", 40), ("output", 0), ("second_leaves", 8), ("arena", 0)):
        changed = bytearray(memory)
        changed[program.symbols[label] - hypervisor.BASE + offset] ^= 8
        assert differences(program, memory, bytes(changed)), label
