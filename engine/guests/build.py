"""Build the teaching guests from their sources: ``python -m engine.guests.build``.

Why: the images are committed, so that nobody needs a cross compiler to start a guest; this file is how they
come about, and a test runs it again and compares. It uses Debian's ``riscv64-linux-gnu-gcc``, or PyPI's
``ziglang`` where that is missing.

Invariants: the output depends on the sources and the compiler only, not on where or when it is built (no
build id, no paths, no time). For each guest it writes into ``images/``:

``NAME.elf``
    the image, with its symbol table and without debug sections;
``NAME.lines.json``
    where each address comes from, out of DWARF's line programs (DWARF 5, section 6.2):
    ``{"files": [path, ...], "rows": [row, ...], "programs": {name: [row, ...]}}``, a row being
    ``[address, file, line]``. A path is relative to the guest's folder, a file is an index into ``files``,
    rows ascend by address, each holds up to the next one's address, and file -1 ends a run of known
    addresses. ``programs`` are the user programs inside the image: their virtual addresses overlap, so each
    has its own rows;
``NAME.symbols.json``
    for a guest with programs inside, which the image's own symbol table does not name:
    ``{program: [[address, size, name], ...]}``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from engine.guests import Guest, guests

ROOT = Path(__file__).parent
IMAGES = ROOT / "images"
GCC = "riscv64-linux-gnu-gcc"
BUILT_WITH = "riscv64-linux-gnu-gcc (Debian 12.2.0-13) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40"
"""The compiler and the linker of the committed images: others make other bytes."""

GCC_MACHINE = ("-march=rv64ima_zicsr_zifencei",)
ZIG_MACHINE = (
    *("-target", "riscv64-freestanding-none", "-mcpu=generic_rv64+m+a+zicsr+zifencei"),
    *("-fno-sanitize=all", "-fno-builtin", "-Wno-unused-command-line-argument"),
)
MACHINE = ("-mabi=lp64", "-mcmodel=medany")
COMPILE = (
    *("-std=gnu11", "-O1", "-g", "-ffreestanding", "-fno-pic", "-fno-pie", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fno-common", "-ffunction-sections", "-msmall-data-limit=0"),
    *("-Wall", "-Wextra", "-Werror"),
)
LINK = (
    *("-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,--gc-sections"),
    "-Wl,-z,max-page-size=4096",
)

Row = tuple[int, int, int]


class BuildError(Exception):
    """A guest could not be built; the message says which tool said what."""


@dataclass(frozen=True)
class Toolchain:
    """A C compiler for RV64IMA_Zicsr_Zifencei without an operating system.

    ``command``: what starts it for this machine; ``version``: what its parts call themselves.
    """

    command: tuple[str, ...]
    version: str

    @classmethod
    def find(cls) -> Toolchain:
        """Debian's gcc, or else zig. Raises BuildError with the command that installs one."""
        if gcc := shutil.which(GCC):
            tools = (gcc, _output((gcc, "-print-prog-name=ld")).strip())
            versions = (_output((tool, "--version")).splitlines()[0] for tool in tools)
            return cls((gcc, *GCC_MACHINE), ", ".join(versions))
        if importlib.util.find_spec("ziglang"):
            zig = (sys.executable, "-m", "ziglang")
            version = "zig " + _output((*zig, "version")).strip()
            return cls((*zig, "cc", *ZIG_MACHINE), version)
        raise BuildError(
            "No C compiler for RISC-V. One of these installs it: "
            "apt install gcc-riscv64-linux-gnu, or pip install ziglang."
        )

    def compile(self, source: Path, to: Path, *options: str) -> None:
        """Compile or assemble one file; paths inside the result are relative to the guests' folder."""
        prefix = f"-ffile-prefix-map={ROOT}/="
        _output((*self.command, *MACHINE, *COMPILE, prefix, *options, "-c", str(source), "-o", str(to)))

    def link(self, objects: Iterable[Path], script: Path, to: Path, *options: str) -> None:
        """Link objects, in the order given."""
        paths = tuple(str(path) for path in objects)
        _output((*self.command, *MACHINE, *LINK, *options, "-T", str(script), *paths, "-o", str(to)))


def _output(command: tuple[str, ...]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"{' '.join(command)} ended with status {result.returncode}:\n{result.stderr}")
    return result.stdout


@dataclass
class LineTable:
    """Collects the rows of several ELF files over one list of source files."""

    folder: str
    files: list[str] = field(default_factory=list)

    def rows(self, path: Path) -> list[Row]:
        """The rows of one ELF file with DWARF, ascending; of rows at one address the last counts."""
        found: dict[int, tuple[int, int]] = {}
        with path.open("rb") as stream:
            for unit in ELFFile(stream).get_dwarf_info().iter_CUs():
                program = unit.dwarfinfo.line_program_for_CU(unit)
                if program is None:
                    continue
                for state in (entry.state for entry in program.get_entries()):
                    if state is None:
                        continue
                    if state.end_sequence:
                        found.setdefault(state.address, (-1, 0))
                    else:
                        found[state.address] = (self._index(program.header, state.file), state.line)
        rows: list[Row] = []
        for address, (file, line) in sorted(found.items()):
            if not rows or rows[-1][1:] != (file, line):
                rows.append((address, file, line))
        return rows

    def _index(self, header: Any, file: int) -> int:
        """The index of a line program's file; versions before 5 count files and folders from 1."""
        base = 0 if header["version"] >= 5 else 1
        entry = header["file_entry"][file - base]
        folder = header["include_directory"][entry.dir_index - base].decode()
        name = os.path.relpath(os.path.normpath(f"{folder}/{entry.name.decode()}"), self.folder)
        if name not in self.files:
            self.files.append(name)
        return self.files.index(name)


def _symbols(path: Path) -> list[tuple[int, int, str]]:
    with path.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        return sorted(
            (symbol["st_value"], symbol["st_size"], symbol.name)
            for symbol in table.iter_symbols()
            if symbol.name
            and symbol["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT", "STT_NOTYPE")
            and symbol["st_shndx"] not in ("SHN_UNDEF", "SHN_ABS")
            and not symbol.name.startswith((".", "$"))
        )


def _compact(value: object) -> bytes:
    return (json.dumps(value, separators=(",", ":")) + "\n").encode()


def _build_hello(tools: Toolchain, folder: Path, _guest: Guest) -> dict[str, bytes]:
    source = ROOT / "hello"
    tools.compile(source / "hello.s", folder / "hello.o")
    tools.link([folder / "hello.o"], source / "hello.ld", folder / "debug")
    tools.link([folder / "hello.o"], source / "hello.ld", folder / "image", "-Wl,--strip-debug")
    table = LineTable("hello")
    rows = table.rows(folder / "debug")
    return {
        "hello.elf": (folder / "image").read_bytes(),
        "hello.lines.json": _compact({"files": table.files, "rows": rows, "programs": {}}),
    }


def _build_ringos(tools: Toolchain, folder: Path, guest: Guest) -> dict[str, bytes]:
    """ringos above the folder that says what the machine below it is."""
    source, image, machine = ROOT / "ringos", guest.name, guest.machine
    assert machine is not None
    objects: dict[str, Path] = {}
    folders = ("*.[cS]", "common/*.c", "user/*.[cS]", f"{machine}/*.[cS]")
    for path in sorted(path for pattern in folders for path in source.glob(pattern)):
        name = path.relative_to(source).as_posix()
        objects[name] = folder / f"{name.replace('/', '-')}.o"
    for name, target in objects.items():
        if name != "programs.S":
            tools.compile(source / name, target, "-I", str(source / machine))

    shared = ["user/calls.S", "user/lib.c", "common/format.c"]
    workloads = ["user/workload.c"]
    programs = [name for name in objects if name.startswith("user/") and name not in (*shared, *workloads)]
    script = source / "user" / "user.ld"
    embedded = folder / "programs"
    embedded.mkdir()
    table = LineTable("ringos")
    program_rows: dict[str, list[Row]] = {}
    program_symbols: dict[str, list[tuple[int, int, str]]] = {}
    for name in programs:
        program = Path(name).stem
        parts = [objects[part] for part in (name, *shared, *workloads)]
        tools.link(parts, script, folder / program)
        tools.link(parts, script, embedded / program, "-Wl,--strip-all")
        program_rows[program] = table.rows(folder / program)
        program_symbols[program] = _symbols(folder / program)

    tools.compile(source / "programs.S", objects["programs.S"], f"-Wa,-I,{embedded}")
    kernel = [target for name, target in objects.items() if not name.startswith("user/")]
    tools.link(kernel, source / "kernel.ld", folder / "debug")
    tools.link(kernel, source / "kernel.ld", folder / "image", "-Wl,--strip-debug")
    rows = table.rows(folder / "debug")
    return {
        f"{image}.elf": (folder / "image").read_bytes(),
        f"{image}.lines.json": _compact({"files": table.files, "rows": rows, "programs": program_rows}),
        f"{image}.symbols.json": _compact(program_symbols),
    }


BUILDERS = {"hello": _build_hello, "ringos": _build_ringos, "ringos-pv": _build_ringos}


def build(guest: Guest, tools: Toolchain) -> dict[str, bytes]:
    """Build one guest in a temporary folder; return its files for ``images/`` by name. Raises BuildError."""
    with tempfile.TemporaryDirectory() as folder:
        return BUILDERS[guest.name](tools, Path(folder), guest)


def main() -> int:
    """Build every guest, or those named, into a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.guests.build", description="Build the teaching guests."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a guest of the catalogue; all of them if none is given"
    )
    parser.add_argument(
        "--to", type=Path, default=IMAGES, metavar="FOLDER", help="where the files go (default: %(default)s)"
    )
    options = parser.parse_args()
    known = {row.name: row for row in guests()}
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no such guest: {', '.join(unknown)} (there are {', '.join(known)})")
    try:
        tools = Toolchain.find()
        print(f"compiler: {tools.version}")
        options.to.mkdir(parents=True, exist_ok=True)
        for name in options.names or known:
            for file, data in build(known[name], tools).items():
                (options.to / file).write_bytes(data)
                print(f"{options.to / file}: {len(data)} bytes")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
