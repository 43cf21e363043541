"""word -> row, by the fixed bits alone: rows are grouped by their mask, so a look-up is one dictionary probe
a mask."""

from __future__ import annotations

from engine.isa.formats import Row
from engine.isa.table import ROWS


def _index() -> list[tuple[int, dict[int, Row]]]:
    by_mask: dict[int, dict[int, Row]] = {}
    for row in ROWS:
        by_mask.setdefault(row.mask, {})[row.match] = row
    return sorted(by_mask.items(), key=lambda item: -item[0].bit_count())


_INDEX = _index()


def decode(word: int) -> Row | None:
    """The row that `word` encodes, or None for an illegal encoding."""
    for mask, rows in _INDEX:
        row = rows.get(word & mask)
        if row is not None:
            return row
    return None
