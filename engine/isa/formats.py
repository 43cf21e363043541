"""How a row's pattern becomes an encoding: the manual's instruction diagrams, read as text.

A pattern lists, from bit 31 to bit 0 (bit 15, for a compressed instruction), fixed bits (`0110011`) and
fields: `rd rs1 rs2 rs3` (5 bits), `csr` (12), `uimm` (5), `rm` (3), `shamt[5:0]`, `aq rl` (1), `fm pred succ`
(4), and slices of the immediate as the manual writes them: `imm[12|10:5]`, whose highest bit is the sign
(unprivileged specification, section 2.3), or `uimm[5:3|8:6]`, which has none; both are the operand `imm`. The
manual's shorthands for compressed instructions (section 16.2) are

    rd'       three bits that name x8 to x15 (f8 to f15)
    rd/rs1    one field that is both operands

and after the bits may stand what takes none:

    rs1=2     the operand has this value in every encoding
    rd!=0,2   these values are reserved: the word is no encoding of this row
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

#: Rounding modes as assembly writes them, by number; None is reserved. The last takes the mode from frm.
ROUNDING_MODES = ("rne", "rtz", "rdn", "rup", "rmm", None, None, "dyn")
DYNAMIC = ROUNDING_MODES.index("dyn")
WIDTHS = {
    "rd": 5, "rs1": 5, "rs2": 5, "rs3": 5, "csr": 12, "uimm": 5, "rm": 3, "aq": 1, "rl": 1,
    "fm": 4, "pred": 4, "succ": 4,
}  # fmt: skip
#: Reserved in every row that has the field (section 11.2).
RESERVED = {"rm": frozenset(number for number, name in enumerate(ROUNDING_MODES) if name is None)}


@dataclass(frozen=True)
class Piece:
    """A run of bits: `width` bits of `field` from its bit `field_low`, placed at bit `word_low` of the
    encoding. `plus` is added to the field's value: 8 where three bits name one of eight registers."""

    field: str
    field_low: int
    word_low: int
    width: int
    plus: int = 0


class Limits(NamedTuple):
    """The values that a field can hold: `low` to `high` in steps."""

    low: int
    high: int
    step: int


class _Parsed(NamedTuple):
    bits: int
    mask: int
    match: int
    pieces: tuple[Piece, ...]
    aliases: dict[str, str]
    implied: dict[str, int]
    excluded: dict[str, frozenset[int]]
    unsigned: bool


@dataclass(frozen=True)
class Row:
    """One instruction.

    mnemonic: as in the manual. pattern: see the module. syntax: operands as written in assembly. semantics:
    lines of restricted Python over 64-bit words (see engine.isa.table). extension: the standard's name.
    """

    mnemonic: str
    pattern: str
    syntax: str
    semantics: str
    extension: str

    @cached_property
    def _parsed(self) -> _Parsed:
        tokens = self.pattern.split()
        encoded = [token for token in tokens if "=" not in token]
        bits = 16 if len(encoded[-1]) == 2 else 32
        mask = match = 0
        pieces: list[Piece] = []
        aliases: dict[str, str] = {}
        at = bits
        for token in encoded:
            if re.fullmatch(r"[01]+", token):
                at -= len(token)
                mask |= ((1 << len(token)) - 1) << at
                match |= int(token, 2) << at
                continue
            name, _, ranges = token.partition("[")
            if not ranges:
                names = [part.rstrip("'") for part in name.split("/")]
                width, plus = (3, 8) if name.endswith("'") else (WIDTHS[names[0]], 0)
                at -= width
                pieces += [Piece(part, 0, at, width, plus) for part in names]
                aliases |= dict.fromkeys(names[1:], names[0])
                continue
            for part in ranges.rstrip("]").split("|"):
                high, _, low = part.partition(":")
                low = low or high
                width = int(high) - int(low) + 1
                at -= width
                pieces.append(Piece("imm" if name == "uimm" else name, int(low), at, width))
        if at:
            raise ValueError(f"{self.mnemonic}: the pattern has {bits - at} bits, not {bits}")
        implied: dict[str, int] = {}
        excluded = {field: RESERVED[field] for piece in pieces if (field := piece.field) in RESERVED}
        for token in tokens:
            name, equals, values = token.partition("=")
            if name.endswith("!"):
                excluded[name.rstrip("!")] = frozenset(map(int, values.split(",")))
            elif equals:
                implied[name] = int(values)
        return _Parsed(bits, mask, match, tuple(pieces), aliases, implied, excluded, "uimm[" in self.pattern)

    @property
    def length(self) -> int:
        """Bytes of an encoding: 2 or 4."""
        return self._parsed.bits // 8

    @property
    def mask(self) -> int:
        """Bits that are fixed."""
        return self._parsed.mask

    @property
    def match(self) -> int:
        """The fixed bits' values."""
        return self._parsed.match

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Where the operands are; those of `rd/rs1` share their bits."""
        return self._parsed.pieces

    @property
    def implied(self) -> Mapping[str, int]:
        """Operands that have one value in every encoding and no bits."""
        return self._parsed.implied

    @property
    def excluded(self) -> Mapping[str, frozenset[int]]:
        """Reserved values by field."""
        return self._parsed.excluded

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, each once, in the pattern's order; `rd/rs1` is the field rd."""
        names = dict.fromkeys(piece.field for piece in self.pieces)
        return tuple(name for name in names if name not in self._parsed.aliases)

    @cached_property
    def immediate_bits(self) -> int:
        """Width of the immediate including its implied low zeros; 0 where there is none."""
        return max((p.field_low + p.width for p in self.pieces if p.field == "imm"), default=0)

    def limits(self, field: str) -> Limits:
        """The values that a field can hold, reserved ones included."""
        known = self._limits.get(field)
        if known is None:
            known = self._limits[field] = self._find_limits(field)
        return known

    @cached_property
    def _limits(self) -> dict[str, Limits]:
        return {}

    def _find_limits(self, field: str) -> Limits:
        pieces = [piece for piece in self.pieces if piece.field == field]
        bits = max(piece.field_low + piece.width for piece in pieces)
        step = 1 << min(piece.field_low for piece in pieces)
        if field == "imm" and not self._parsed.unsigned:
            return Limits(-(1 << (bits - 1)), (1 << (bits - 1)) - step, step)
        plus = pieces[0].plus
        return Limits(plus, plus + (1 << bits) - step, step)

    def operands(self, word: int) -> dict[str, int]:
        """The operands of an encoding, implied ones included; `imm` is a signed Python int, the others
        unsigned."""
        values = dict(self.implied)
        for piece in self.pieces:
            part = (word >> piece.word_low) & ((1 << piece.width) - 1)
            values[piece.field] = values.get(piece.field, piece.plus) | part << piece.field_low
        bits = self.immediate_bits
        if bits and not self._parsed.unsigned and values["imm"] >> (bits - 1):
            values["imm"] -= 1 << bits
        return values

    def admits(self, word: int) -> bool:
        """Is `word` an encoding of this row: its fixed bits are there, and no field has a reserved value?"""
        if word & self.mask != self.match:
            return False
        if not self.excluded:
            return True
        operands = self.operands(word)
        return all(operands[field] not in values for field, values in self.excluded.items())

    def encode(self, **operands: int) -> int:
        """The encoding, `length` bytes. Raises ValueError naming a field that does not fit."""
        word = self.match
        for name in self.fields:
            low, high, step = self.limits(name)
            value = operands.get(name, low if low > 0 else 0)
            if not low <= value <= high or value % step:
                multiple = f" and a multiple of {step}" if step > 1 else ""
                raise ValueError(f"{name} = {value} must be from {low} to {high}{multiple}")
            if value in self.excluded.get(name, ()):
                raise ValueError(f"{name} = {value} is reserved")
            for piece in self.pieces:
                if piece.field == name:
                    part = (value - piece.plus) >> piece.field_low
                    word |= (part & ((1 << piece.width) - 1)) << piece.word_low
        return word
