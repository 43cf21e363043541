"""Labs for tests: made through commands only, as a page would make them."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.commands import ConsoleInput, GuestCreate, HostCreate, RegistersQuery
from engine.hypervisor.stacks import Configuration
from engine.lab import Lab

#: Enough steps for ringos to reach its shell's prompt.
BOOT_STEPS = 400_000


def lab_of(*hosts: list[str], configuration: str = "trap-and-emulate", harts: int = 1) -> Lab:
    """A paused lab; each host is given as the boot arguments of its ringos guests."""
    lab = Lab.new("test")
    for guests in hosts:
        host = lab.apply(host_create(configuration, harts=harts))["host"]
        for arguments in guests:
            lab.apply(GuestCreate(host, ringos_for(configuration), arguments=arguments))
    return lab


def ringos_for(configuration: str) -> str:
    """The build of ringos that runs there."""
    return "ringos-pv" if "paravirtual" in configuration else "ringos"


def host_create(configuration: str, **fields: Any) -> HostCreate:
    """The command for a host of a configuration as `Configuration.parse` takes it."""
    return HostCreate(**fields, **msgspec.structs.asdict(Configuration.parse(configuration)))


def crowded() -> Lab:
    """Two hosts with three guests that never stop."""
    return lab_of(["run=demo", "run=work switch 1000"], ["run=work syscall 100000"])


def guests_of(lab: Lab) -> list[int]:
    return [row["id"] for row in lab.document()["guests"]]


def registers(lab: Lab, guest: int) -> dict[str, object]:
    return lab.query(RegistersQuery(guest))


def run_to(lab: Lab, position: int) -> None:
    while lab.position < position:
        ran = lab.run(position - lab.position)
        assert ran.steps, f"the lab is idle at {lab.position}, before {position}"


def type_line(lab: Lab, guest: int, line: str) -> None:
    lab.apply(ConsoleInput(guest, line.encode() + b"\r"))


def console(lab: Lab, guest: int) -> bytes:
    """What the guest has printed, as a joining client sees it."""
    return dict(lab.keyframe()["console"])[guest]
