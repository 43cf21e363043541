"""How a row's pattern becomes an encoding: the manual's instruction diagrams, read as text.

A pattern lists, from bit 31 to bit 0, fixed bits (`0110011`) and fields: `rd rs1 rs2` (5 bits), `csr` (12),
`uimm` (5), `shamt[5:0]`, `aq rl` (1), `fm pred succ` (4), and slices of the immediate as the manual writes
them (`imm[12|10:5]`). An immediate's highest bit is its sign (unprivileged specification, section 2.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from engine.bits import MASK32

WIDTHS = {"rd": 5, "rs1": 5, "rs2": 5, "csr": 12, "uimm": 5, "aq": 1, "rl": 1, "fm": 4, "pred": 4, "succ": 4}


@dataclass(frozen=True)
class Piece:
    """A run of bits: `width` bits of `field` from its bit `field_low`, placed at bit `word_low` of the
    encoding."""

    field: str
    field_low: int
    word_low: int
    width: int


@dataclass(frozen=True)
class Row:
    """One instruction.

    mnemonic: as in the manual. pattern: see the module. syntax: operands as written in assembly.
    semantics: lines of restricted Python over 64-bit words (see engine.isa.table). extension: the standard's
    name.
    """

    mnemonic: str
    pattern: str
    syntax: str
    semantics: str
    extension: str

    @cached_property
    def _parsed(self) -> tuple[int, int, tuple[Piece, ...]]:
        mask = match = 0
        pieces: list[Piece] = []
        at = 32
        for token in self.pattern.split():
            if re.fullmatch(r"[01]+", token):
                at -= len(token)
                mask |= ((1 << len(token)) - 1) << at
                match |= int(token, 2) << at
                continue
            name, _, ranges = token.partition("[")
            if not ranges:
                at -= WIDTHS[name]
                pieces.append(Piece(name, 0, at, WIDTHS[name]))
                continue
            for part in ranges.rstrip("]").split("|"):
                high, _, low = part.partition(":")
                low = low or high
                width = int(high) - int(low) + 1
                at -= width
                pieces.append(Piece(name, int(low), at, width))
        if at:
            raise ValueError(f"{self.mnemonic}: the pattern has {32 - at} bits, not 32")
        return mask, match, tuple(pieces)

    @property
    def mask(self) -> int:
        """Bits that are fixed."""
        return self._parsed[0]

    @property
    def match(self) -> int:
        """The fixed bits' values."""
        return self._parsed[1]

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return self._parsed[2]

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, each once, in the pattern's order."""
        return tuple(dict.fromkeys(piece.field for piece in self.pieces))

    @cached_property
    def immediate_bits(self) -> int:
        """Width of the signed immediate including its implied low zeros; 0 where there is none."""
        return max((p.field_low + p.width for p in self.pieces if p.field == "imm"), default=0)

    @cached_property
    def immediate_step(self) -> int:
        """An immediate must be a multiple of this (1, 2 or 4096)."""
        return 1 << min((p.field_low for p in self.pieces if p.field == "imm"), default=0)

    def operands(self, word: int) -> dict[str, int]:
        """The fields of an encoding; `imm` is a signed Python int, the others unsigned."""
        values: dict[str, int] = {}
        for piece in self.pieces:
            part = (word >> piece.word_low) & ((1 << piece.width) - 1)
            values[piece.field] = values.get(piece.field, 0) | part << piece.field_low
        bits = self.immediate_bits
        if bits and values["imm"] >> (bits - 1):
            values["imm"] -= 1 << bits
        return values

    def encode(self, **operands: int) -> int:
        """The 32-bit encoding. Raises ValueError naming a field that does not fit."""
        word = self.match
        for name in self.fields:
            value = operands.get(name, 0)
            pieces = [p for p in self.pieces if p.field == name]
            bits = max(p.field_low + p.width for p in pieces)
            low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if name == "imm" else (0, (1 << bits) - 1)
            step = 1 << min(p.field_low for p in pieces)
            if not low <= value <= high or value % step:
                multiple = f" and a multiple of {step}" if step > 1 else ""
                raise ValueError(f"{name} = {value} must be from {low} to {high // step * step}{multiple}")
            for piece in pieces:
                word |= ((value >> piece.field_low) & ((1 << piece.width) - 1)) << piece.word_low
        return word & MASK32
