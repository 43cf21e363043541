"""VM exits that native code takes are those that Python takes: the same records, registers and clocks.

Two hosts with the same guest go side by side, one on the reference tier, where Python handles every exit. In the
other one native code does, but now and then it is made to refuse, and both stop at the same random places.
"""

from __future__ import annotations

import ctypes
import random
from typing import Any

import pytest

from engine.guests import load_image
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.trap_and_emulate import TrapAndEmulate
from engine.hypervisor.vm_guest import VmGuest
from engine.isa.assembler import assemble
from engine.machine.loader import LoadedImage, inspect
from engine.machine.tiers import Tier
from engine.trace.record import Action, Cause, Kind
from engine.trace.rings import Trace
from tests.conformance.programs import SCENARIOS, case

VM = Configuration.parse("trap-and-emulate")
WORK = "run=work compute 1;work syscall 5;work pagefault 5;work switch 5;work io 3;poweroff 3"
#: As many steps at once as let native code take several exits in a row.
STRETCH = 4_000


def vm_host(image: LoadedImage, tier: Tier, arguments: str, harts: int = 1) -> Host:
    host = Host(1, harts, 64, VM, Trace(capacity=1 << 14), lambda _guest, _data: None, tier=tier)
    host.add_guest(1, image, harts, 16, arguments)
    return host


def state(host: Host) -> dict[str, Any]:
    """All that must be the same."""
    guest = host.guests[1]
    assert isinstance(guest, VmGuest)
    vcpus = [
        (vcpu.instructions, vcpu.reported, vcpu.streak, guest.registers(vcpu.number), vcpu.virtual.save())
        for vcpu in guest.vcpus
    ]
    return {
        "trace": host.trace.hash(),
        "exits": (guest.exits, host.trace.total(1), guest.ended, guest.exit_status),
        "harts": [(hart.save(), hart.leave) for hart in host.harts],
        "vcpus": vcpus,
        "idle until": host.busy_from,
    }


def refuse(host: Host, refusing: bool) -> None:
    """From now on native code leaves every exit to Python, or no longer does."""
    for hart, vcpu in zip(host.harts, host.loaded, strict=True):
        if vcpu is not None:
            hart.virtual_at = 0 if refusing else ctypes.addressof(vcpu.virtual)


def side_by_side(image: LoadedImage, arguments: str, tier: Tier, harts: int, steps: int) -> Host:
    """Run both to the end, or for so many steps; returns the one with native exits."""
    rng = random.Random(f"{arguments} {harts}")
    reference, native = (vm_host(image, each, arguments, harts) for each in (Tier.REFERENCE, tier))
    done = 0
    while done < steps:
        length = rng.choice((1, 7, 100, STRETCH, STRETCH))
        traps = rng.choice((None, None, 1, 3, 40))
        refuse(native, rng.random() < 0.2)
        ran = reference.run(length, stop_after_traps=traps)
        assert native.run(length, stop_after_traps=traps) == ran
        assert state(native) == state(reference), f"after {done + ran} steps"
        if not ran:
            break
        done += ran
    return native


@pytest.mark.parametrize(("harts", "tier"), [(1, Tier.INTERPRETER), (2, Tier.JIT)])
def test_a_kernel_exits_alike_in_native_code_and_in_python(harts: int, tier: Tier) -> None:
    host = side_by_side(inspect(load_image("ringos"), "ringos"), WORK, tier, harts, 150_000)
    assert host.trace.total(1) > 1_000


@pytest.mark.parametrize("name", SCENARIOS)
def test_random_privileged_programs_exit_alike(name: str) -> None:
    program = assemble(case(name, 1).source, name)
    side_by_side(inspect(program.elf(), name), name, Tier.INTERPRETER, 1, 60_000)


def test_native_code_takes_the_exits_that_matter_most(monkeypatch: pytest.MonkeyPatch) -> None:
    by_python: list[int] = []
    trap = TrapAndEmulate.trap

    def counting(self: TrapAndEmulate, hart: Any, cause: int, value: int, interrupt: bool) -> None:
        by_python.append(cause)
        trap(self, hart, cause, value, interrupt)

    host = vm_host(inspect(load_image("ringos"), "ringos"), Tier.INTERPRETER, "run=work syscall 300")
    host.run(60_000)
    monkeypatch.setattr(TrapAndEmulate, "trap", counting)
    before = host.trace.total(1)
    host.run(50_000)
    records = host.trace.records(1, limit=host.trace.total(1) - before)
    assert len(records) > 1_000
    assert {Action.CSR_READ, Action.CSR_WRITE, Action.SRET, Action.INJECT_EXCEPTION} <= set(records["action"])
    calls = int((records["kind"] == Kind.SYSCALL).sum())
    assert calls > 100
    # What is left: shadow spaces that are new, wfi, and page faults.
    assert by_python.count(Cause.ILLEGAL_INSTRUCTION) < 5
    assert Cause.ECALL_U not in by_python
    assert len(by_python) < len(records) / 5
