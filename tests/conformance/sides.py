"""The two sides of a comparison: Debian's QEMU and our reference machine, each given an ELF, each giving memory back."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from engine.isa.program import Program
from tests.conformance.programs import BASE

MEMORY_MIB = 16
#: QEMU's rv64 with every extension off that our machine does not have (7.2's names).
QEMU_CPU = "rv64," + ",".join(
    f"{name}=false" for name in "c f d h v sstc svinval svpbmt svnapot zba zbb zbc zbs Zfh Zihintpause sscofpmf".split()
)
QEMU_SECONDS = 20


def run_on_qemu(program: Program) -> bytes:
    """RAM after the program wrote the finisher. Guest RAM is a shared file, so nothing is asked of QEMU itself."""
    with tempfile.TemporaryDirectory() as folder:
        image, ram = Path(folder) / "program.elf", Path(folder) / "ram"
        image.write_bytes(program.elf())
        command = [
            "qemu-system-riscv64",
            *("-machine", "virt,memory-backend=ram", "-m", f"{MEMORY_MIB}M", "-cpu", QEMU_CPU, "-bios", "none"),
            *("-object", f"memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={ram},share=on"),
            *("-display", "none", "-serial", "none", "-monitor", "none", "-kernel", str(image)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=QEMU_SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        return ram.read_bytes()


def region(memory: bytes, program: Program, begin: str, end: str) -> bytes:
    """The bytes of `memory` (RAM from BASE) between two labels."""
    return memory[program.symbols[begin] - BASE : program.symbols[end] - BASE]
