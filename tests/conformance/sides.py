"""The two sides of a comparison: Debian's QEMU and our reference machine, each given an ELF, each giving
memory back.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.vm_guest import VmGuest
from engine.isa.program import Program
from engine.machine.board import Board
from engine.machine.bus import Bus
from engine.machine.hart import TICK_NS, Hart
from engine.machine.loader import inspect
from engine.machine.memory import Memory
from engine.machine.native.runtime import Native, native
from engine.trace.rings import Trace
from tests.conformance.programs import BASE

MEMORY_MIB = 16
#: QEMU's rv64 with every extension off that our machine does not have, and on that it has (7.2's names).
QEMU_CPU = ",".join(
    [
        "rv64",
        "svinval=true",
        *(f"{name}=false" for name in ("h", "v", "sstc", "svpbmt", "svnapot", "zbc", "Zfh", "sscofpmf")),
    ]
)
#: Without AIA, QEMU 7.2 takes the lowest-numbered pending interrupt; with it, in section 3.1.9's order.
ADVANCED_INTERRUPTS = ",x-smaia=true,x-ssaia=true"
QEMU_SECONDS = 20
STEP_LIMIT = 200_000


def run_on_qemu(program: Program, advanced_interrupts: bool = False, cpu: str = QEMU_CPU) -> bytes:
    """RAM after the program wrote the finisher. Guest RAM is a shared file, so nothing is asked of QEMU
    itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        image, ram = Path(folder) / "program.elf", Path(folder) / "ram"
        image.write_bytes(program.elf())
        cpu += ADVANCED_INTERRUPTS if advanced_interrupts else ""
        command = [
            "qemu-system-riscv64",
            *(
                "-machine",
                "virt,memory-backend=ram",
                "-m",
                f"{MEMORY_MIB}M",
                "-cpu",
                cpu,
                "-bios",
                "none",
            ),
            *("-object", f"memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={ram},share=on"),
            *("-display", "none", "-serial", "none", "-monitor", "none", "-kernel", str(image)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=QEMU_SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        return ram.read_bytes()


def region(memory: bytes, program: Program, begin: str, end: str) -> bytes:
    """The bytes of `memory` (RAM from BASE) between two labels."""
    return memory[program.symbols[begin] - BASE : program.symbols[end] - BASE]


class _Owner:
    """What a board tells: only the end matters here."""

    def output(self, data: bytes) -> None:
        raise AssertionError(f"a test program printed {data!r}")

    def transmit(self, frame: bytes) -> None:
        raise AssertionError(f"a test program sent {frame!r}")

    def finish(self, status: int) -> None:
        assert status == 0, status
        self.hart.leave = True
        self.ended = True

    def reboot(self) -> None:
        raise AssertionError("a test program asked for a reset")

    def wake(self, hart: int) -> None:
        """An interrupt line changed: the hart looks by itself."""

    hart: Hart
    ended = False


class _Ram:
    """A board's RAM by physical address."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.size = memory.size

    def read(self, address: int, length: int) -> bytes:
        return self.memory.read_bytes(address - self.memory.base, length)

    def write(self, address: int, data: bytes) -> None:
        self.memory.write_bytes(address - self.memory.base, data)


def run_on_reference(
    program: Program, hypervisor_extension: bool = False, step_limit: int = STEP_LIMIT
) -> bytes:
    """RAM after the program wrote the finisher, on one hart of our board."""
    return _run(program, hypervisor_extension, step_limit, None)


def run_natively(program: Program, hypervisor_extension: bool = False, step_limit: int = STEP_LIMIT) -> bytes:
    """As `run_on_reference`, on the native interpreter."""
    return _run(program, hypervisor_extension, step_limit, native(compiles=False))


def _run(program: Program, hypervisor_extension: bool, step_limit: int, tier: Native | None) -> bytes:
    memory = Memory(BASE, MEMORY_MIB << 20)
    owner = _Owner()
    board = Board(1, _Ram(memory), lambda: hart.clock, owner)
    hart = Hart(0, Bus(memory, board.devices), lambda: hart.clock // TICK_NS, hypervisor_extension)
    hart.use_native(tier)
    owner.hart = hart
    board.attach([hart])
    board.load_image(inspect(program.elf(), program.name), "")
    ran = hart.run(step_limit)
    assert owner.ended, f"not at its end after {ran} steps, at {hart.pc:#x}"
    return bytes(memory.ram)


def run_in_vm(program: Program, technique: str = "trap-and-emulate") -> bytes:
    """Guest RAM after the program wrote the finisher, as a VM whose M mode is deprivileged."""
    host = Host(1, 1, 4 * MEMORY_MIB, Configuration.parse(technique), Trace(), _silent)
    host.add_guest(1, inspect(program.elf(), program.name), 1, MEMORY_MIB, "")
    guest = host.guests[1]
    assert isinstance(guest, VmGuest)
    ran = 0
    while not guest.ended and ran < STEP_LIMIT:
        ran += host.run(STEP_LIMIT - ran)
    assert guest.exit_status == 0, (guest.failure, guest.exit_status, ran, hex(guest.vcpus[0].pc))
    return guest.vm.ram.read(BASE, MEMORY_MIB << 20)


def _silent(guest: int, data: bytes) -> None:
    raise AssertionError(f"a test program printed {data!r}")
