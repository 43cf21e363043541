"""From an address in a guest to the symbol and the source line that it came from.

A kernel's addresses are known from its image. The user programs of a teaching guest overlap in their virtual
addresses, but the guest maps their text in place, out of the kernel image's read-only data: the guest
physical address tells which program a pc belongs to (`programs` in engine/guests/ringos/programs.S: 16 bytes
of name, 8 of address, for each).
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from engine import guests
from engine.document import ImageRow
from engine.isa.assembler import assemble
from engine.machine.loader import LoadedImage, Symbols

_NAME_BYTES = 16
_ROW_BYTES = _NAME_BYTES + 8


class Place(NamedTuple):
    file: str
    line: int


class SourceMap:
    """Lines and symbols of one image; every lookup takes the guest virtual address and, if known, the
    physical one.
    """

    def __init__(self, image: LoadedImage) -> None:
        self._symbols = image.symbols
        self._lines = _Lines([], [])
        self._programs: list[tuple[int, _Program]] = []
        self._texts: dict[str, list[str]] = {}

    def symbol(self, address: int, physical: int | None = None) -> tuple[str, int] | None:
        """The nearest name at or before `address`, and the distance; a program's names are "program:name"."""
        program = self._program(address, physical)
        if program is None:
            return self._symbols.lookup(address)
        found = program.symbols.lookup(address)
        return None if found is None else (f"{program.name}:{found[0]}", found[1])

    def address(self, name: str) -> int | None:
        """Where a symbol is, by the names that `symbol` gives."""
        program, _, inner = name.rpartition(":")
        found = next((row for _, row in self._programs if row.name == program), None)
        return found.symbols.address(inner) if found is not None else self._symbols.address(name)

    def place(self, address: int, physical: int | None = None) -> Place | None:
        program = self._program(address, physical)
        return (self._lines if program is None else program.lines).place(address)

    def text(self, file: str) -> list[str]:
        """The lines of a source file; empty when it did not come with the image."""
        return self._texts.get(file, [])

    def _program(self, address: int, physical: int | None) -> _Program | None:
        if physical is None or physical == address:
            return None
        index = bisect_right(self._programs, physical, key=lambda row: row[0]) - 1
        return (
            self._programs[index][1]
            if index >= 0 and address >> 12 in self._programs[index][1].pages
            else None
        )

    @classmethod
    def of_builtin(cls, name: str, image: LoadedImage) -> SourceMap:
        self = cls(image)
        table = guests.load_lines(name)
        known = set(guests.source_files(name))
        self._texts = {
            file: guests.source_text(name, file).splitlines() for file in table["files"] if file in known
        }
        self._lines = _Lines(table["files"], table["rows"])
        symbols = guests.program_symbols(name)
        for program, base in _program_bases(image):
            rows = symbols.get(program, [])
            names = Symbols({symbol: address for address, _, symbol in rows})
            pages = frozenset(address >> 12 for address, _, _ in rows)
            lines = _Lines(table["files"], table["programs"].get(program, []))
            self._programs.append((base, _Program(program, names, lines, pages)))
        self._programs.sort(key=lambda row: row[0])
        return self

    @classmethod
    def of_assembly(cls, name: str, source: str, image: LoadedImage) -> SourceMap:
        self = cls(image)
        rows = sorted((address, 0, line) for address, line in assemble(source, name).lines)
        if rows:
            rows.append((rows[-1][0] + 4, -1, 0))
        self._lines = _Lines([name], rows)
        self._texts = {name: source.splitlines()}
        return self


class _Lines:
    """Rows (address, file index, line), ascending; each holds up to the next one's address, file -1 ends a
    run.
    """

    def __init__(self, files: list[str], rows: list[tuple[int, int, int]]) -> None:
        self._files = files
        self._rows = rows

    def place(self, address: int) -> Place | None:
        index = bisect_right(self._rows, address, key=lambda row: row[0]) - 1
        if index < 0:
            return None
        _, file, line = self._rows[index]
        return Place(self._files[file], line) if file >= 0 else None


class _Program(NamedTuple):
    name: str
    symbols: Symbols
    lines: _Lines
    pages: frozenset[int]  # virtual page numbers of its text


def _program_bases(image: LoadedImage) -> list[tuple[str, int]]:
    begin, end = image.symbols.address("programs"), image.symbols.address("programs_end")
    if begin is None or end is None:
        return []
    segment = next((part for part in image.segments if part.address <= begin < part.end), None)
    if segment is None:
        return []
    table = bytes(segment.data[begin - segment.address : end - segment.address])
    marks = range(0, len(table) + 1, _ROW_BYTES)
    rows = [table[first:last] for first, last in pairwise(marks)]
    return [
        (
            row[:_NAME_BYTES].rstrip(b"\0").decode("ascii", "replace"),
            int.from_bytes(row[_NAME_BYTES:], "little"),
        )
        for row in rows
    ]


@lru_cache(maxsize=32)
def _cached(identity: str, name: str, source: str | None, image: LoadedImage) -> SourceMap:
    if source is not None:
        return SourceMap.of_assembly(name, source, image)
    if any(guest.name == identity for guest in guests.guests()):
        return SourceMap.of_builtin(identity, image)
    return SourceMap(image)


def source_map(row: ImageRow, image: LoadedImage) -> SourceMap:
    """The lines and symbols of an image; for an upload only the symbols it carries itself."""
    return _cached(row.id, row.name, None if row.builtin else row.source, image)
