"""RAM: one sparse mapping, and what must be noticed about its pages.

Harts cache translations and decoded instructions. So that a cache can never be seen by a guest (and a run
from a checkpoint equals the run that took it), the caches are coherent: a page that holds decoded code or a
page table in use is flagged, stores to flagged pages take the slow path, and the caches are corrected there.

Checkpoints share pages: `save` copies only pages written since the last one.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.bits import MASK64
from engine.machine.state import MemoryState

PAGE = 4096
CODE, TABLE, WATCHED = 1, 2, 4
_ZERO = bytes(PAGE)


class Cache(Protocol):
    """A hart's translation caches, as RAM sees them."""

    def flush(self) -> None:
        """Forget all translations."""
        ...

    def flush_writable(self) -> None:
        """Forget which pages may be stored to without asking."""
        ...

    def flush_fetch(self) -> None:
        """Forget which decoded page stands for which address."""
        ...


class Memory(MemoryState):
    """`size` bytes of RAM at physical address `base`; both are multiples of 4096.

    views: RAM as little-endian words of 1, 2, 4 and 8 bytes, indexed by log2 of the size. flags: what must be
    noticed, for each page. dirty: 1 for each page written since the last save.
    """

    def __init__(self, base: int, size: int) -> None:
        super().__init__(base=base, size=size)
        self.ram = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        view = memoryview(self.ram)
        self.views = (view, view.cast("H"), view.cast("I"), view.cast("Q"))
        self.flags = bytearray(size // PAGE)
        self.dirty = bytearray(size // PAGE)
        code, tables = mmap.mmap(-1, 8 * size // PAGE), mmap.mmap(-1, 4 * size // PAGE)
        self.native_code = memoryview(code).cast("Q")  # for each page its decoded page, or 0
        self._tables = memoryview(tables).cast("I")
        self.ram_at, self.flags_at, self.dirty_at = _address(self.ram), _address(self.flags), _address(self.dirty)
        self.code_at, self.tables_at = _address(code), _address(tables)
        self.code: dict[int, list[Any]] = {}  # page number -> decoded instructions
        self.caches: list[Cache] = []
        self.watchers: dict[int, Callable[[], None]] = {}  # page number -> told after each store to it
        self._saved: dict[int, bytes] = {}

    def holds(self, address: int, length: int) -> bool:
        """Is all of [address, address + length) RAM?"""
        return self.base <= address and address + length <= self.base + self.size

    # -- plain access by offset from `base`; callers have checked the range --------------------------
    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.ram[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Store within one page and keep every cache true."""
        page = offset >> 12
        flags = self.flags[page]
        # A misaligned store may reach into two entries.
        if flags & TABLE and (self.ram[offset & ~7] | self.ram[(offset + size - 1) & ~7]) & 1:
            self.flush()
        self.dirty[page] = 1
        if size == 8 and not offset & 7:
            self.views[3][offset >> 3] = value & MASK64
        else:
            self.ram[offset : offset + size] = (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
        if not flags:
            return
        if flags & CODE:
            self._forget_native(page)
        if page in self.code:
            ops = self.code[page]
            first = (offset & 0xFFF) >> 1  # a 32-bit instruction may begin a halfword before
            for slot in range(max(0, first - 1), (((offset + size - 1) & 0xFFF) >> 1) + 1):
                ops[slot] = ops[-1]
        if flags & WATCHED:
            self.watchers[page]()

    def watch(self, page: int, watcher: Callable[[], None] | None) -> None:
        """Tell `watcher` after each store to a page; None: no longer."""
        if watcher is None:
            self.watchers.pop(page, None)
            self.flags[page] &= ~WATCHED
        else:
            self.watchers[page] = watcher
            self.flags[page] |= WATCHED
            self._flush_writable()

    def read_bytes(self, offset: int, length: int) -> bytes:
        return self.ram[offset : offset + length]

    def write_bytes(self, offset: int, data: bytes | memoryview) -> None:
        """Store any stretch (loading, DMA, hypervisor) and keep every cache true."""
        at = touched = 0
        while at < len(data):
            chunk = min(len(data) - at, PAGE - ((offset + at) & 0xFFF))
            page = (offset + at) >> 12
            self.dirty[page] = 1
            self.ram[offset + at : offset + at + chunk] = data[at : at + chunk]
            if self.flags[page] & CODE:
                self.forget_code(page)
            touched |= self.flags[page]
            at += chunk
        if touched & TABLE:
            self.flush()

    def copy_pages(self, frames: npt.NDArray[np.int64], source: Memory, source_frames: npt.NDArray[np.int64]) -> None:
        """Store whole pages of another memory into `frames`, and keep every cache true."""
        here, there = (np.frombuffer(memory.ram, np.uint8).reshape(-1, PAGE) for memory in (self, source))
        here[frames] = there[source_frames]
        np.frombuffer(self.dirty, np.uint8)[frames] = 1
        flags = np.frombuffer(self.flags, np.uint8)[frames]
        for page in frames[flags & CODE != 0].tolist():
            self.forget_code(page)
        if (flags & TABLE).any():
            self.flush()

    def clear_bits(self, table: int, indexes: npt.NDArray[np.uint64], bits: int) -> None:
        """Take `bits` out of the valid entries among `indexes` of the page table in a frame; the caller flushes."""
        first = table * PAGE // 8
        entries = np.frombuffer(self.views[3], np.uint64)[first : first + PAGE // 8]
        chosen = entries[indexes]
        entries[indexes] = np.where(chosen & np.uint64(1), chosen & ~np.uint64(bits), chosen)
        self.dirty[table] = 1

    def set_entry(self, offset: int, entry: int) -> None:
        """Write a page-table entry for a walker that sets A and D: cached translations stay true."""
        self.dirty[offset >> 12] = 1
        self.views[3][offset >> 3] = entry

    # -- flags ---------------------------------------------------------------------------------------
    def use_as_table(self, offset: int) -> None:
        """A walker read a page-table entry here."""
        page = offset >> 12
        if not self.flags[page] & TABLE:
            self.flags[page] |= TABLE
            self._tables[self.table_count] = page
            self.table_count += 1
            self._flush_writable()

    def use_as_code(self, page: int, ops: list[Any]) -> None:
        """Instructions of this page are decoded into `ops` (one a halfword; the last item decodes)."""
        self.code[page] = ops
        self._flag_code(page)

    def use_as_native_code(self, page: int, address: int) -> None:
        """Native code executes this page by the decoded page at `address`."""
        self.native_code[page] = address
        self._flag_code(page)

    def _flag_code(self, page: int) -> None:
        if not self.flags[page] & CODE:
            self.flags[page] |= CODE
            self._flush_writable()

    def forget_code(self, page: int) -> None:
        """The content of a page with code has changed."""
        self._forget_native(page)
        if page in self.code:
            ops = self.code[page]
            ops[:] = [ops[-1]] * len(ops)

    def _forget_native(self, page: int) -> None:
        if self.native_code[page]:
            self.native_code[page] = 0
            for cache in self.caches:
                cache.flush_fetch()
        if page not in self.code:
            self.flags[page] &= ~CODE

    def forget_native(self) -> None:
        """No decoded page exists any more."""
        for page in np.flatnonzero(np.frombuffer(self.native_code, np.uint64)).tolist():
            self._forget_native(page)

    def use_as_data(self, page: int) -> bool:
        """May a hart store to this page without asking again until the next flush?"""
        if self.flags[page]:
            return False
        self.dirty[page] = 1
        return True

    def flush(self) -> None:
        """Drop all cached translations; then no page is a page table in use."""
        for cache in self.caches:
            cache.flush()
        for page in self._tables[: self.table_count]:
            self.flags[page] &= ~TABLE
        self.table_count = 0

    def _flush_writable(self) -> None:
        for cache in self.caches:
            cache.flush_writable()

    # -- checkpoints ---------------------------------------------------------------------------------
    def save(self) -> dict[int, bytes]:
        """Page number -> content of every page that is not zero. Unchanged pages are shared with earlier
        saves."""
        pages = dict(self._saved)
        for page in self._take_dirty():
            content = self.ram[page * PAGE : (page + 1) * PAGE]
            if content == _ZERO:
                pages.pop(page, None)
            else:
                pages[page] = content
        self._flush_writable()
        self._saved = pages
        return pages

    def load(self, pages: dict[int, bytes]) -> None:
        """Take the content that `save` gave."""
        changed = set(self._take_dirty()) | {
            page for page, content in self._saved.items() if pages.get(page) is not content
        }
        changed |= pages.keys() - self._saved.keys()
        for page in changed:
            self.ram[page * PAGE : (page + 1) * PAGE] = pages.get(page, _ZERO)
            if self.flags[page] & CODE:
                self.forget_code(page)
        self._saved = dict(pages)
        self.flush()

    def _take_dirty(self) -> list[int]:
        """The pages written since the last save or load; from now on there are none."""
        marks = np.frombuffer(self.dirty, np.uint8)
        pages: list[int] = np.flatnonzero(marks).tolist()
        self.dirty[:] = bytes(len(self.dirty))
        return pages


def _address(buffer: mmap.mmap | bytearray) -> int:
    """Where a buffer that never moves lies in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
