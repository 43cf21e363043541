"""What rests on a guest's pages: for each page of its RAM a chain of rows (space, what), which native code reads and
prolongs too (see engine.machine.mappings.ChainsState).

`space` is the number of a shadow space, from 1 on. Pages are guest physical addresses >> 12, within RAM. Which number
a row has, and in which order a chain has its rows, means nothing.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.machine.loader import RAM_BASE
from engine.machine.mappings import ROW_WORDS, ChainsState

Row = tuple[int, int]
_SPACE, _WHAT, _PAGE, _NEXT = range(ROW_WORDS)
_FIRST = RAM_BASE >> 12
_PAGE_SHIFT, _NUMBER, _ONE = np.uint64(32), np.uint64((1 << 32) - 1), np.uint64(1)


class Chains(ChainsState):
    """Chains for `pages` pages, together at most `rows` rows at a time: the caller sees to that."""

    def __init__(self, pages: int, rows: int) -> None:
        super().__init__()
        heads, table = mmap.mmap(-1, 8 * pages), mmap.mmap(-1, 8 * ROW_WORDS * (rows + 1))
        self._heads, self._words = memoryview(heads).cast("Q"), memoryview(table).cast("Q")
        self._rows = np.frombuffer(table, np.uint64).reshape(-1, ROW_WORDS)
        self.heads_at, self.rows_at = (
            ctypes.addressof(ctypes.c_char.from_buffer(buffer)) for buffer in (heads, table)
        )

    def __contains__(self, page: int) -> bool:
        """Does anything rest on the page?"""
        return bool(self._heads[page - _FIRST])

    def of(self, page: int) -> list[Row]:
        """All that rests on the page; the same may be there twice."""
        found, words, row = [], self._words, self._heads[page - _FIRST]
        while row:
            at = row * ROW_WORDS
            if words[at]:
                found.append((words[at], words[at + _WHAT]))
            row = words[at + _NEXT]
        return found

    def add(self, page: int, row: Row) -> None:
        index = page - _FIRST
        self.count += 1
        at = self.count * ROW_WORDS
        words = self._words
        words[at], words[at + _WHAT] = row
        words[at + _PAGE], words[at + _NEXT] = page, self._heads[index]
        self._heads[index] = self.count

    def forget(self, page: int) -> None:
        """Nothing rests on the page."""
        words, row = self._words, self._heads[page - _FIRST]
        while row:
            words[row * ROW_WORDS] = 0
            row = words[row * ROW_WORDS + _NEXT]
        self._heads[page - _FIRST] = 0

    def forget_space(self, space: int) -> None:
        """A space is gone, and a page on which only its rows rested has none."""
        rows = self._used()
        spaces = rows[:, _SPACE]
        spaces[spaces == space] = 0
        self._close_gaps(rows)

    def _close_gaps(self, rows: npt.NDArray[np.uint64]) -> None:
        """Renumber the rows that are true, and link them again."""
        heads = np.frombuffer(self._heads, np.uint64)
        heads[rows[:, _PAGE] - np.uint64(_FIRST)] = 0
        rows = rows[rows[:, _SPACE] != 0]
        self.count = len(rows)
        numbers = np.arange(1, len(rows) + 1, dtype=np.uint64)
        pages = rows[:, _PAGE] - np.uint64(_FIRST)
        heads[pages] = numbers  # of each page the last row
        # Sorted by page and number, the next of a row is the one before it, if that has the same page.
        keys = np.sort(pages << _PAGE_SHIFT | numbers)
        numbers = keys & _NUMBER
        rows[numbers[:1] - _ONE, _NEXT] = 0
        same = keys[1:] >> _PAGE_SHIFT == keys[:-1] >> _PAGE_SHIFT
        rows[numbers[1:] - _ONE, _NEXT] = np.where(same, numbers[:-1], np.uint64(0))
        self._rows[1 : len(rows) + 1] = rows

    def clear(self) -> None:
        rows = self._used()
        rows[:, _SPACE] = 0
        self._close_gaps(rows)

    def all(self) -> list[tuple[int, int, int]]:
        """(page, space, what) of every row, in order and each once."""
        rows = self._used()
        live = rows[rows[:, _SPACE] != 0]
        return sorted(set(zip(*(live[:, column].tolist() for column in (_PAGE, _SPACE, _WHAT)), strict=True)))

    def whats(self, pages: Sequence[int]) -> dict[int, npt.NDArray[np.uint64]]:
        """By space, in ascending order and each once, what rests on any of these pages."""
        wanted = np.zeros(len(self._heads), np.bool_)
        wanted[np.asarray(pages, np.int64) - _FIRST] = True
        rows = self._used()
        rows = rows[rows[:, _SPACE] != 0]
        rows = rows[wanted[rows[:, _PAGE] - np.uint64(_FIRST)]]
        return {int(space): np.unique(rows[rows[:, _SPACE] == space, _WHAT]) for space in np.unique(rows[:, _SPACE])}

    def _used(self) -> npt.NDArray[np.uint64]:
        return self._rows[1 : self.count + 1]
