"""Two hosts instruction by instruction: the first that leads them apart, and nothing where none does."""

from __future__ import annotations

import pytest

from engine.commands import GuestCreate, HostCreate, ImageAssemble, LabError, LockstepQuery
from engine.guests import load_image
from engine.isa.disassembler import disassemble
from engine.lab import Lab
from engine.lockstep import first_difference
from tests.support.machine import ASSISTED, BARE, TRANSLATED, VM, WORK, Machine, program

SILENT = "+silent-sensitive"
OFF = "\n li t0, 0x100000\n li t1, 0x5555\n sw t1, 0(t0)\n j .\n"


def pair(image: bytes, one: str, two: str, arguments: str = "") -> tuple[Machine, Machine]:
    return Machine(image, one, arguments=arguments), Machine(image, two, arguments=arguments)


@pytest.mark.parametrize(
    ("one", "two"), [(VM, VM), *((where, where + SILENT) for where in (TRANSLATED, ASSISTED, BARE))]
)
def test_equal_machines_have_no_difference(one: str, two: str) -> None:
    machines = pair(load_image("ringos"), one, two, WORK)
    found = first_difference(*(machine.host for machine in machines), 1_000_000)
    assert found is not None
    assert (found.difference, found.ended) == (None, True)
    assert found.instructions == machines[0].guest.instructions == machines[1].guest.instructions


def test_harmless_silence_is_no_difference_although_it_takes_no_time() -> None:
    """What is ignored or shown here is what the register holds anyway; time is read after that."""
    source = "_start: csrci sstatus, 2\n csrr a0, sscratch\n rdtime a1\n rdcycle a2\n csrsi sstatus, 2\n" + OFF
    one, two = pair(program(source), VM, VM + SILENT)
    found = first_difference(one.host, two.host, 1000)
    assert found is not None
    assert found.difference is not None
    assert found.instructions == 5
    assert disassemble(found.difference.instruction, 0) == "csrsi sstatus, 2"
    assert [value.name for value in found.difference.values] == ["sstatus"]


def test_ringos_and_the_page_says_which_instruction_it_was() -> None:
    lab = Lab.new("test")
    host = lab.apply(HostCreate(technique="trap-and-emulate", switches=("silent-sensitive",)))["host"]
    guest = lab.apply(GuestCreate(host, "ringos"))["guest"]
    before = lab.trace_hash(), lab.position
    found = lab.query(LockstepQuery(guest))
    assert (lab.trace_hash(), lab.position) == before
    difference = found["difference"]
    assert difference["instruction"].startswith("csrr")
    assert difference["instruction"].endswith("satp")
    assert "csr_read(satp)" in difference["source"]["text"]
    assert difference["x86"] == "SGDT, SLDT"
    ((name, there, here),) = difference["values"]
    assert (name, there >> 60, here >> 60) == ("a5", 8, 8)
    assert there != here


def test_a_guest_that_never_ends_is_compared_as_far_as_the_limit() -> None:
    lab = Lab.new("test")
    host = lab.apply(HostCreate(technique="trap-and-emulate", switches=("silent-sensitive",)))["host"]
    loop = lab.apply(ImageAssemble("loop", "_start: csrr a0, sscratch\n j _start\n"))["image"]
    guest = lab.apply(GuestCreate(host, loop))["guest"]
    found = lab.query(LockstepQuery(guest))
    assert (found["difference"], found["ended"]) == (None, False)
    assert found["instructions"] > 10_000


def test_where_everything_traps_there_is_nothing_to_compare() -> None:
    lab = Lab.new("test")
    host = lab.apply(HostCreate(technique="trap-and-emulate"))["host"]
    guest = lab.apply(GuestCreate(host, "hello"))["guest"]
    assert lab.query(LockstepQuery(guest)) == {"instructions": 0, "ended": False, "difference": None}
    with pytest.raises(LabError) as refused:
        lab.query(LockstepQuery(99))
    assert refused.value.problem.key == "no-such-guest"
