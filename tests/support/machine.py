"""One guest on one host, its trace and what it printed: for tests of the techniques."""

from __future__ import annotations

from pathlib import Path

from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.isa.assembler import assemble
from engine.machine.loader import inspect
from engine.trace.rings import Trace

PROGRAMS = Path(__file__).parents[1] / "engine/hypervisor/programs"
VM, ASSISTED, BARE, PARAVIRTUAL = "trap-and-emulate", "hardware-assist", "bare-metal", "paravirtual"
TRANSLATED = "binary-translation"
WORK = "run=work compute 3;work syscall 5;work pagefault 5;work switch 5;work io 5;poweroff 3"


class Machine:
    """One guest on one host, with its trace and what it printed."""

    def __init__(
        self, image: bytes, stack: str, *, harts: int = 1, vcpus: int = 1, arguments: str = ""
    ) -> None:
        self.trace = Trace(capacity=1 << 16)
        self.output = b""
        self.host = Host(1, harts, 64, Configuration.parse(stack), self.trace, self._console)
        self.host.add_guest(1, inspect(image, "guest"), vcpus, 16, arguments)
        self.guest = self.host.guests[1]

    def _console(self, _guest: int, data: bytes) -> None:
        self.output += data

    def run(self, steps: int = 3_000_000, slice_steps: int = 100_000) -> None:
        while steps > 0 and (done := self.host.run(min(slice_steps, steps))):
            steps -= done


def program(source: str) -> bytes:
    return assemble(source, "test").elf()
