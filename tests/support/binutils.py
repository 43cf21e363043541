"""GNU binutils for RISC-V (Debian's binutils-riscv64-linux-gnu): what our assembler must equal."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from elftools.elf.elffile import ELFFile

from engine.isa.decoder import length_of
from engine.isa.table import isa_string

PREFIX = "riscv64-linux-gnu-"
#: Binutils 2.40 has Zicntr's CSRs without a name for the extension.
MARCH = f"-march={isa_string(True).replace('_zicntr', '')}"


def sections(source: str, addresses: dict[str, int]) -> dict[str, bytes]:
    """Assemble and link `source` with GNU as and ld, each section at its address: the sections' bytes.

    As ours does, it compresses only where the source says `c.` (between `.option rvc` and `.option norvc`).
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder) / name) for name in ("in.s", "out.o", "out.elf")}
        Path(paths["in.s"]).write_text(f".option norvc\n{source}\n")
        _run("as", MARCH, "-mno-relax", "-o", paths["out.o"], paths["in.s"])
        places = [f"--section-start={name}={address:#x}" for name, address in addresses.items()]
        _run(
            "ld",
            "--no-relax",
            "--no-check-sections",
            "-e",
            "0",
            *places,
            "-o",
            paths["out.elf"],
            paths["out.o"],
        )
        with Path(paths["out.elf"]).open("rb") as file:
            elf = ELFFile(file)
            found = ((name, elf.get_section_by_name(name)) for name in addresses)
            return {
                name: section.data()
                for name, section in found
                if section and section["sh_type"] == "SHT_PROGBITS"
            }


def disassembly(words: Sequence[int], *options: str, address: int = 0) -> list[str]:
    """objdump's text for each encoding, blanks made single, comments and symbols gone.

    They are in an object file for our extensions and without symbols: objdump takes them for code.
    """
    with tempfile.TemporaryDirectory() as folder:
        content, source, objects = (str(Path(folder) / name) for name in ("words", "in.s", "out.o"))
        Path(content).write_bytes(b"".join(word.to_bytes(length_of(word), "little") for word in words))
        Path(source).write_text(f'.incbin "{content}"\n')
        _run("as", MARCH, "-o", objects, source)
        _run("strip", objects)
        listing = _run("objdump", "-D", "-z", "-j", ".text", f"--adjust-vma={address:#x}", *options, objects)
        return list(_texts(listing))


def readelf(elf: bytes, *options: str) -> str:
    """readelf's output for an ELF file; a complaint of readelf's is an error."""
    with tempfile.NamedTemporaryFile(suffix=".elf") as file:
        file.write(elf)
        file.flush()
        return _run("readelf", "-W", *options, file.name)


def _texts(listing: str) -> Iterable[str]:
    for line in listing.splitlines():
        match = re.match(r"\s*[0-9a-f]+:\s+[0-9a-f]+\s+(.*)", line)
        if match:
            yield re.sub(r"\s+", " ", re.sub(r"\s*(#|<).*", "", match[1])).strip()


def _run(tool: str, *arguments: str) -> str:
    done = subprocess.run([PREFIX + tool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{tool}: {done.stderr}"
    return done.stdout
