"""Guests that share a host end as they would alone on a machine, however they are interleaved."""

from __future__ import annotations

import pytest

from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.vm_guest import VmGuest
from engine.isa.assembler import assemble
from engine.machine.loader import inspect
from engine.trace.rings import Trace
from tests.conformance.compare import differences
from tests.conformance.programs import BASE, SCENARIOS, case
from tests.conformance.sides import MEMORY_MIB, STEP_LIMIT, run_on_reference


@pytest.mark.parametrize("harts", [1, 2, 3])
@pytest.mark.parametrize("slice_steps", [1, 97, 5000])
def test_each_guest_ends_as_it_would_alone(harts: int, slice_steps: int) -> None:
    programs = [assemble(case(name, 40 + harts).source, name) for name in SCENARIOS]
    host = Host(
        1,
        harts,
        len(programs) * 2 * MEMORY_MIB,
        Configuration.parse("trap-and-emulate"),
        Trace(),
        lambda _guest, _data: None,
    )
    for number, program in enumerate(programs, 1):
        host.add_guest(number, inspect(program.elf(), program.name), 1, MEMORY_MIB, "")
    ran = 0
    while not all(guest.ended for guest in host.guests.values()) and ran < len(programs) * STEP_LIMIT:
        ran += host.run(slice_steps)
    for number, program in enumerate(programs, 1):
        guest = host.guests[number]
        assert isinstance(guest, VmGuest)
        assert guest.exit_status == 0, (program.name, guest.failure)
        memory = guest.vm.ram.read(BASE, MEMORY_MIB << 20)
        found = differences(program, run_on_reference(program), memory, "the machine")
        assert not found, f"{program.name}:\n" + "\n".join(found)


@pytest.mark.parametrize("stack", ["bare-metal", "trap-and-emulate"])
@pytest.mark.parametrize("steps_between", [7, 301])
def test_a_guest_that_keeps_moving_ends_as_if_it_stayed(stack: str, steps_between: int) -> None:
    """Moved between two hosts every few steps. Only a reservation may be lost: no program with lr and sc."""
    for name in ("jumps", "csrs", "privilege", "interrupts", "modified-privilege"):
        program = assemble(case(name, 33).source, name)
        image = inspect(program.elf(), name)
        hosts = [
            Host(number, 1, 4 * MEMORY_MIB, Configuration.parse(stack), Trace(), lambda _guest, _data: None)
            for number in (1, 2)
        ]
        hosts[0].add_guest(1, image, 1, MEMORY_MIB, "")
        moves = 0
        while not hosts[0].guests[1].ended and moves < STEP_LIMIT // steps_between:
            hosts[0].run(steps_between)
            state = hosts[0].export_guest(1)
            hosts[0].remove_guest(1)
            hosts.reverse()
            hosts[0].import_guest(1, image, state)
            moves += 1
        guest = hosts[0].guests[1]
        assert guest.exit_status == 0, (name, guest.failure)
        ram = guest.vm.ram if isinstance(guest, VmGuest) else guest.board.ram
        alone = run_on_reference(program, hypervisor_extension=stack == "bare-metal")  # a host's harts have it
        found = differences(program, alone, ram.read(BASE, MEMORY_MIB << 20), "the machine")
        assert not found, f"{name}:\n" + "\n".join(found)
