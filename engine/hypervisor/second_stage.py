"""A VM's second stage: the tables by which the hart itself leads guest physical addresses to host frames.

    guest virtual ──(guest's table, vsatp)──> guest physical ──(these tables, hgatp)──> host physical

The hypervisor fills them on guest-page faults and never looks at the guest's own tables: what the guest writes
there takes effect without an exit. Every leaf is a 4 KiB page of the guest's RAM with everything permitted, but for
stores to a page that it shares with a clone. So a guest-page fault says that nothing is here yet, that nothing will
ever be (a device, or no memory), or that the guest is about to need its own copy.

Their frames come from what is not promised to guests: less than a 256th of the guest's RAM, and four in a row for
the root (Sv39x4, privileged specification 1.12, section 8.5). They are kept until the VM is gone.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.hypervisor.frames import Frames
from engine.machine import mmu
from engine.machine.mappings import StageState
from engine.machine.memory import PAGE
from engine.machine.native.exits import FIRST_PAGE, STAGE_LEAF

ROOT_FRAMES = 4
_OWN_LEAF = STAGE_LEAF | mmu.W | mmu.D
_VMID_SHIFT, _VMID_MASK = 44, 0x3FFF


class SecondStage(StageState):
    """The tables of one VM with so many pages of RAM. Frames are numbers, from the start of host RAM; guest pages guest
    physical >> 12. Native code fills and adds tables too (engine.machine.native.exits)."""

    def __init__(self, frames: Frames, vmid: int, pages: int) -> None:
        limit = -(-pages >> 9) + -(-pages >> 18)
        words = mmap.mmap(-1, 8 * limit)
        super().__init__(0, limit, ctypes.addressof(ctypes.c_char.from_buffer(words)))
        self._words = memoryview(words).cast("Q")
        self.frames = frames
        self.memory = frames.memory
        self.vmid = vmid & _VMID_MASK
        self.root: int | None = None
        self._found: dict[int, int] = {}  # lower tables by the number of the 2 MiB that they map

    @property
    def tables(self) -> list[int]:
        """The frames of the lower tables, in the order in which they were made."""
        return self._words[: self.count].tolist()

    def hgatp(self) -> int:
        """The register's value, the root made if it is new. Raises OutOfFramesError."""
        if self.root is None:
            self.root = self.frames.take_row(ROOT_FRAMES)
        return mmu.SV39 << 60 | self.vmid << _VMID_SHIFT | FIRST_PAGE + self.root

    def map(self, page: int, frame: int, writable: bool) -> None:
        """Let the hart reach a guest page. Raises OutOfFramesError."""
        table = self._found.get(page >> 9)
        if table is None:
            table = self._found[page >> 9] = self._table_for(page)
        self.memory.write(table * PAGE + 8 * (page & 0x1FF), 8, _leaf(frame, writable))

    def _table_for(self, page: int) -> int:
        """The table that has the leaf of a guest page, made if it is new. Raises OutOfFramesError."""
        table, words = self.root, self.memory.views[3]
        assert table is not None
        for level in (2, 1):
            offset = table * PAGE + 8 * (page >> 9 * level & (0x7FF if level == 2 else 0x1FF))
            entry = words[offset >> 3]
            if entry & mmu.V:
                table = (entry >> 10) - FIRST_PAGE
            else:
                table = self.frames.take()
                self._words[self.count] = table
                self.count += 1
                self.memory.write(offset, 8, FIRST_PAGE + table << 10 | mmu.V)
        return table

    def remap(self, page: int, frame: int, writable: bool) -> None:
        """Correct the leaf of a guest page, if the hart can reach it."""
        table = self._leaf_table(page)
        if table is not None and self.memory.read(table * PAGE + 8 * (page & 0x1FF), 8) & mmu.V:
            self.memory.write(table * PAGE + 8 * (page & 0x1FF), 8, _leaf(frame, writable))

    def unmap(self, page: int) -> bool:
        """The hart cannot reach a guest page any more. Could it?"""
        table = self._leaf_table(page)
        offset = 0 if table is None else table * PAGE + 8 * (page & 0x1FF)
        if table is None or not self.memory.read(offset, 8) & mmu.V:
            return False
        self.memory.write(offset, 8, 0)
        return True

    def _leaf_table(self, page: int) -> int | None:
        """The table that has the leaf of a guest page, if there is one."""
        table = self.root
        for level in (2, 1):
            if table is None:
                return None
            entry = self.memory.read(table * PAGE + 8 * (page >> 9 * level & (0x7FF if level == 2 else 0x1FF)), 8)
            table = (entry >> 10) - FIRST_PAGE if entry & mmu.V else None
        return table

    def protect(self, pages: Sequence[int]) -> None:
        """No page of these may be stored to: as `remap` of each, in whole tables."""
        numbers = np.asarray(pages, np.uint64)
        self.memory.flush()
        for part in np.split(numbers, np.flatnonzero(np.diff(numbers >> np.uint64(9))) + 1) if len(numbers) else []:
            table = self._leaf_table(int(part[0]))
            if table is not None:
                self.memory.clear_bits(table, part & np.uint64(0x1FF), mmu.W | mmu.D)

    def close(self) -> None:
        """The VM is gone."""
        self.memory.flush()
        if self.root is not None:
            for frame in (*range(self.root, self.root + ROOT_FRAMES), *self.tables):
                self.frames.give_back_own(frame)
        self.root, self.count = None, 0
        self._found.clear()

    def save(self) -> dict[str, Any]:
        """The tables themselves are in host memory."""
        return {"root": self.root, "tables": self.tables}

    def load(self, state: dict[str, Any]) -> None:
        """Raises IndexError for more tables than there can be."""
        self.root, self.count = state["root"], 0
        self._found.clear()
        for table in state["tables"]:
            self._words[self.count] = table
            self.count += 1


def _leaf(frame: int, writable: bool) -> int:
    return FIRST_PAGE + frame << 10 | (_OWN_LEAF if writable else STAGE_LEAF)
