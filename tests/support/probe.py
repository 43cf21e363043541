"""A table of calls made by a real guest on QEMU: loads, stores and SBI calls, with what came of each.

Why: some answers only a hart sees: that an access faults, and what firmware returns. The guest is one C file
for Debian's cross compiler; it works through a table and prints a line of hexadecimal numbers for each row.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.qemu import run_qemu

COMPILER = "riscv64-linux-gnu-gcc"
_SOURCE = r"""
typedef unsigned long word;
struct row { word what, a[8]; };
static const struct row rows[] = { ROWS };

__attribute__((naked, aligned(4))) void trap(void)
{
    __asm__("csrr t0, PREFIXepc\n addi t0, t0, 4\n csrw PREFIXepc, t0\n csrr t5, PREFIXcause\n PREFIXret");
}

static void put(char c)
{
    while (!(*(volatile unsigned char *)0x10000005 & 0x20))
        continue;
    *(volatile unsigned char *)0x10000000 = c;
}

static void hex(word value, char end)
{
    for (int shift = 60; shift >= 0; shift -= 4)
        put("0123456789abcdef"[value >> shift & 15]);
    put(end);
}

#define LOAD(instruction)                                                                                   \
    __asm__ volatile(".option push\n.option norvc\n" instruction " %0, 0(%2)\n.option pop"                 \
                     : "+r"(value), "+r"(cause) : "r"(row->a[0]) : "t0", "memory")

void main(void)
{
    __asm__ volatile("csrw PREFIXtvec, %0" : : "r"(trap));
    for (const struct row *row = rows; row < rows + sizeof rows / sizeof *rows; row++) {
        register word value __asm__("a5") = 0;
        register word cause __asm__("t5") = 0;
        switch (row->what) {
        case 1: LOAD("lbu"); break;
        case 2: LOAD("lhu"); break;
        case 4: LOAD("lwu"); break;
        case 8: LOAD("ld"); break;
        case 9: {
            register word a0 __asm__("a0") = row->a[0];
            register word a1 __asm__("a1") = row->a[1];
            register word a2 __asm__("a2") = row->a[2];
            register word a3 __asm__("a3") = row->a[3];
            register word a4 __asm__("a4") = row->a[4];
            register word a5 __asm__("a5") = row->a[5];
            register word a6 __asm__("a6") = row->a[6];
            register word a7 __asm__("a7") = row->a[7];
            __asm__ volatile("ecall" : "+r"(a0), "+r"(a1)
                             : "r"(a2), "r"(a3), "r"(a4), "r"(a5), "r"(a6), "r"(a7) : "memory");
            cause = a0;
            value = a1;
        }
        }
        word first = cause, second = value;
        hex(first, ' ');
        hex(second, '\n');
    }
    for (const char *mark = "probed"; *mark != 0; mark++)
        put(*mark);
    for (;;)
        continue;
}

__asm__(".pushsection .text.start\n.globl _start\n_start: la sp, stack_end\n j main\n.popsection\n"
        ".pushsection .bss\n.balign 16\n.space 4096\nstack_end:\n.popsection\n");
"""


_LAYOUT = """
ENTRY(_start)
SECTIONS { . = BASE; .text : { *(.text.start) *(.text .text.*) *(.rodata .rodata.* .srodata .srodata.*) }
           .data : { *(.data .data.* .sdata .sdata.*) } .bss : { *(.bss .bss.* .sbss .sbss.*) } }
"""
_BASES = {"m": 0x80000000, "s": 0x80200000}
_SBI_CALL = 9


def loads_on_qemu(accesses: Sequence[tuple[int, int]], folder: Path) -> list[tuple[int, int]]:
    """Load from every (address, width in bytes) in M mode: [(mcause or 0, value or 0)]."""
    return _run([(width, address) for address, width in accesses], "m", folder, ("-bios", "none"))


def sbi_on_qemu(calls: Sequence[Sequence[int]], folder: Path, harts: int = 1) -> list[tuple[int, int]]:
    """Make every call [a0 .. a7] from S mode to QEMU's OpenSBI: [(a0, a1)]."""
    return _run([(_SBI_CALL, *call) for call in calls], "s", folder, (), harts)


def _run(
    rows: Sequence[Sequence[int]], mode: str, folder: Path, options: Sequence[str], harts: int = 1
) -> list[tuple[int, int]]:
    if shutil.which(COMPILER) is None:
        raise RuntimeError(f"{COMPILER} is missing. Install it: apt install gcc-riscv64-linux-gnu")
    table = ",".join(f"{{{what}, {{{','.join(f'{value:#x}ul' for value in rest)}}}}}" for what, *rest in rows)
    source, layout, kernel = folder / "probe.c", folder / "probe.ld", folder / "probe.elf"
    source.write_text(_SOURCE.replace("ROWS", table).replace("PREFIX", mode))
    layout.write_text(_LAYOUT.replace("BASE", hex(_BASES[mode])))
    subprocess.run(
        [
            COMPILER, "-march=rv64ima_zicsr_zifencei", "-mabi=lp64", "-mcmodel=medany", "-O1",
            "-ffreestanding", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,--no-warn-rwx-segments",
            "-T", str(layout), "-o", str(kernel), str(source),
        ],
        check=True,
    )  # fmt: skip
    result = run_qemu(kernel, until="probed", memory="64M", harts=harts, options=options)
    lines = result.output[: result.output.index("probed")].splitlines()
    answers = [line.split() for line in lines[-len(rows) :]]
    return [(int(first, 16), int(second, 16)) for first, second in answers]
