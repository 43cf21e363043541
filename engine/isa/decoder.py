"""Encoding -> row. The low two bits tell the length: 3 is a 32-bit instruction, anything else a compressed
one of 16 (unprivileged specification, section 1.5; lengths above 32 bits are no instructions of this
machine).

Rows are grouped by their fixed bits, those with the most first: a look-up is one dictionary probe a group,
and where one row's encodings are the reserved ones of another (c.jr is c.mv with rs2 = 0) the special
precedes the general.
"""

from __future__ import annotations

from functools import lru_cache

from engine.isa.formats import Row
from engine.isa.table import ROWS


def _index(length: int) -> list[tuple[int, dict[int, Row]]]:
    by_mask: dict[int, dict[int, Row]] = {}
    for row in ROWS:
        if row.length == length:
            by_mask.setdefault(row.mask, {})[row.match] = row
    return sorted(by_mask.items(), key=lambda item: -item[0].bit_count())


_INDEX = {length: _index(length) for length in (2, 4)}


def length_of(half: int) -> int:
    """Bytes of the instruction that begins with this halfword: 2 or 4."""
    return 4 if half & 3 == 3 else 2


def encoding_of(word: int) -> int:
    """The instruction at the begin of four bytes: all of them, or the low two."""
    return word if word & 3 == 3 else word & 0xFFFF


@lru_cache(1 << 16)
def decode(word: int) -> Row | None:
    """The row that the instruction at the begin of `word` encodes, or None for an illegal encoding."""
    word = encoding_of(word)
    for mask, rows in _INDEX[length_of(word)]:
        row = rows.get(word & mask)
        if row is not None and row.admits(word):
            return row
    return None
