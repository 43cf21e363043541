"""An assembled program, and its two forms for the outside: an ELF file and a listing.

Invariant: `elf()` is what binutils, QEMU and our own loader read: one segment a section, a symbol table, no
padding a program did not ask for. Source: ELF-64 Object File Format 1.5; RISC-V ELF psABI.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.isa.decoder import length_of

EF_RISCV_RVC = 1


def instructions(code: bytes) -> Iterator[tuple[int, int]]:
    """(offset, encoding) of each instruction from the begin of `code`; what is cut off at its end is none."""
    at = 0
    while at + 2 <= len(code):
        length = length_of(code[at])
        if at + length > len(code):
            return
        yield at, int.from_bytes(code[at : at + length], "little")
        at += length


class Section(NamedTuple):
    """A placed section; .bss has `size` and no content."""

    name: str
    address: int
    content: bytes
    size: int
    alignment: int


@dataclass(frozen=True, slots=True)
class Program:
    """An assembled program. `symbols` maps labels and .equ names to values; `exported` are those with .globl;
    `constants` those that .equ defined. `lines` are (address, source line) of every instruction, by
    address."""

    name: str
    source: str
    base: int
    entry: int
    sections: tuple[Section, ...]
    symbols: dict[str, int]
    exported: frozenset[str]
    constants: frozenset[str]
    lines: tuple[tuple[int, int], ...]

    def line_at(self, address: int) -> int | None:
        """The source line of the instruction at `address`."""
        index = bisect.bisect_left(self.lines, (address, 0))
        return self.lines[index][1] if index < len(self.lines) and self.lines[index][0] == address else None

    def encoding_at(self, address: int) -> int:
        """The instruction that begins at `address` in .text, 2 or 4 bytes."""
        text = self.sections[0]
        return next(instructions(text.content[address - text.address :][:4]))[1]

    @property
    def compressed(self) -> bool:
        """Does it hold 16-bit instructions?"""
        return any(length_of(self.encoding_at(address)) == 2 for address, _ in self.lines)

    def elf(self) -> bytes:
        """The program as an ELF64 executable with a segment for each section and a symbol table."""
        return _elf(self)

    def listing(self) -> str:
        """The source with the address and encoding of every instruction before its line."""
        words: dict[int, list[tuple[int, int]]] = {}
        for address, line in self.lines:
            words.setdefault(line, []).append((address, self.encoding_at(address)))
        rows: list[str] = []
        for number, line_text in enumerate(self.source.splitlines(), 1):
            encoded = words.get(number, [])
            first = _listed(*encoded[0]) if encoded else " " * 22
            rows.append(f"{first:22}  {number:5d}  {line_text}".rstrip())
            rows.extend(_listed(address, word) for address, word in encoded[1:])
        return "\n".join(rows) + "\n"


def _listed(address: int, encoding: int) -> str:
    """An instruction's address and encoding, as many digits as it has."""
    return f"{address:12x}: {encoding:0{2 * length_of(encoding)}x}"


def _elf(program: Program) -> bytes:
    """ELF64, little-endian, EXEC, RISC-V with the integer calling convention.

    Source: ELF-64 Object File Format 1.5; RISC-V ELF psABI.
    """
    placed = [section for section in program.sections if section.size or section.name == ".text"]
    strings = _StringTable()
    section_strings = _StringTable()
    loaded = [section for section in placed if section.size]
    position = 64 + 56 * len(loaded)
    body = bytearray()
    headers = [bytes(64)]
    segments: list[bytes] = []
    for section in placed:
        padding = (section.address - position - len(body)) % section.alignment
        body += bytes(padding)
        offset = position + len(body)
        body += section.content
        kind = 8 if section.name == ".bss" else 1
        flags = {".text": 0x6, ".rodata": 0x2, ".data": 0x3, ".bss": 0x3}[section.name]
        header = (section_strings.add(section.name), kind, flags, section.address, offset, section.size)
        headers.append(struct.pack("<IIQQQQIIQQ", *header, 0, 0, section.alignment, 0))
        if section.size:
            rights = {".text": 5, ".rodata": 4, ".data": 6, ".bss": 6}[section.name]
            sizes = (len(section.content), section.size)
            places = (offset, section.address, section.address)
            segments.append(struct.pack("<IIQQQQQQ", 1, rights, *places, *sizes, section.alignment))
    symbols = [bytes(24)]
    names = sorted(program.symbols, key=lambda name: (name in program.exported, program.symbols[name], name))
    local = 1
    for name in names:
        exported = name in program.exported
        local += not exported
        index = 0xFFF1 if name in program.constants else _section_index(placed, program.symbols[name])
        symbols.append(
            struct.pack("<IBBHQQ", strings.add(name), exported << 4, 0, index, program.symbols[name], 0)
        )
    body += bytes(-(position + len(body)) % 8)
    table_offset = position + len(body)
    table = b"".join(symbols)
    body += table
    for name, kind, data_offset, size, link, info, alignment, entry_size in (
        (".symtab", 2, table_offset, len(table), len(headers) + 1, local, 8, 24),
        (".strtab", 3, table_offset + len(table), len(strings.data), 0, 0, 1, 0),
    ):
        row = (section_strings.add(name), kind, 0, 0, data_offset, size, link, info, alignment, entry_size)
        headers.append(struct.pack("<IIQQQQIIQQ", *row))
    body += strings.data
    own_name = section_strings.add(".shstrtab")
    own_offset = position + len(body)
    body += section_strings.data
    own = (own_name, 3, 0, 0, own_offset, len(section_strings.data), 0, 0, 1, 0)
    headers.append(struct.pack("<IIQQQQIIQQ", *own))
    body += bytes(-(position + len(body)) % 8)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header_offset = position + len(body)
    program_header_offset = 64 if segments else 0
    counts = (64, 56, len(segments), 64, len(headers), len(headers) - 1)
    flags = EF_RISCV_RVC if program.compressed else 0
    fields = (2, 243, 1, program.entry, program_header_offset, header_offset, flags, *counts)
    return (
        ident + struct.pack("<HHIQQQIHHHHHH", *fields) + b"".join(segments) + bytes(body) + b"".join(headers)
    )


def _section_index(placed: Sequence[Section], address: int) -> int:
    """The ELF index of the section that holds `address`; a label may stand at a section's end."""
    for index, section in enumerate(placed, 1):
        if section.address <= address < section.address + section.size:
            return index
    for index, section in enumerate(placed, 1):
        if address == section.address + section.size:
            return index
    return 1


class _StringTable:
    def __init__(self) -> None:
        self.data = bytearray(1)

    def add(self, text: str) -> int:
        """The offset of `text`."""
        offset = len(self.data)
        self.data += text.encode() + b"\0"
        return offset
