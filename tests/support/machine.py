"""One guest on one host, its trace and what it printed: for tests of the techniques."""

from __future__ import annotations

from collections.abc import Sequence
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


def carry_around(content: bytes, stacks: Sequence[str], arguments: str, steps_between: int) -> tuple[list[Host], bytes]:
    """Let a guest run on hosts of these stacks in turn, carried on every `steps_between` steps (later less often), until
    it ends. The hosts, of which the first has it, and what it printed."""
    image = inspect(content, "ringos")
    shown = bytearray()
    hosts = [
        Host(number, 1, 64, Configuration.parse(stack), Trace(), lambda _guest, data: shown.extend(data))
        for number, stack in enumerate(stacks, 1)
    ]
    hosts[0].add_guest(1, image, 1, 16, arguments)
    moves = 0
    while not hosts[0].guests[1].ended and moves < 40_000:
        hosts[0].run(steps_between if moves < 400 else 50_000)
        state = hosts[0].export_guest(1)
        hosts[0].remove_guest(1)
        hosts.append(hosts.pop(0))
        hosts[0].import_guest(1, image, state)
        moves += 1
    return hosts, bytes(shown)
