"""The native tiers of this process: the linked interpreter, the pages that it has decoded, and each hart's
contexts.

Decoded pages are found by content: the same bytes give the same operations wherever they are mapped and
whoever executes them, so guests from one image share them. They hold no address of a guest.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from weakref import WeakSet

import numpy as np

from engine.machine.memory import PAGE, Memory
from engine.machine.native import calls, handlers, layout, objects, traps
from engine.machine.native.jit import THRESHOLD, WARM_THRESHOLD, Jit, compiled_before, digest
from engine.machine.state import HartState

_OPTIMIZATION = 2
_PAGES_A_CHUNK = 64
#: Decoded pages that one hart has of its own, to stop in.
MAX_OWN_PAGES = 64
#: Decoded pages kept in a process; then all are forgotten and found again as they are executed.
MAX_PAGES = 2048


class Interpreter:
    """Entry points of the interpreter tier.

    proceed, translate: of the module `entry`. refresh: access.choose_anew. enter_trap: of `privileged`. number_records: of
    `traps`. walk, look, resume, put_leaf, table_stored: of `exits`, with a virtual hart. What has no result of its own returns
    how it ended (procedures.DONE and so on). Harts are state addresses."""

    def __init__(self) -> None:
        image = objects.image_of("interpreter", _OPTIMIZATION, handlers.module)
        assert image is not None
        symbols = ["run", "decode", "next_page", "slow", "over", "far", "plain", *calls.OF_INTERPRETER]
        self.code = objects.Linked("interpreter", image, symbols, {})
        self.addresses = self.code.addresses
        builtin = calls.Builtins(self.addresses).function
        self.proceed: Callable[[int, bool], int] = builtin("proceed")
        self.refresh: Callable[[int], int] = builtin("refresh")
        self.translate: Callable[[int, int, int], int] = builtin("translate")
        self.enter_trap: Callable[[int, int, int, int, int], int] = builtin("enter_trap")
        self.number_records: Callable[[int, int, int], int] = builtin("number_records")
        self.walk: Callable[[int, int, int], int] = builtin("walk")
        self.look: Callable[[int, int, int, int], int] = builtin("look")
        self.put_leaf: Callable[[int, int, int, int, int, int], int] = builtin("put_leaf")
        self.table_stored: Callable[[int, int, int], int] = builtin("table_stored")
        self.resume: Callable[[int, int], int] = builtin("resume_exit")
        self.moves = calls.Moves(builtin)


class CodePages:
    """Decoded pages by content. An address is that of the page's operations (see engine.machine.native.layout).

    threshold, worth: see engine.machine.native.jit.
    """

    def __init__(self, interpreter: Interpreter, threshold: int, worth: Mapping[bytes, set[int]]) -> None:
        decode, beyond = (interpreter.addresses[name] for name in ("decode", "next_page"))
        empty = np.zeros(layout.CODE_PAGE_BYTES, np.uint8)
        handlers = empty[: layout.CONTENT_AT].view("<u8")[::2]
        handlers[: layout.SLOTS] = decode
        handlers[layout.SLOTS :] = beyond
        empty[layout.HEAT_AT :].view("<u2")[: layout.SLOTS] = (1 << 16) - threshold
        self._empty = empty.tobytes()
        self._worth = worth
        self._by_content: dict[bytes, int] = {}
        self._chunks: list[mmap.mmap] = []
        self._free: list[int] = []
        self.users: WeakSet[Memory] = WeakSet()
        self.stops: WeakSet[Stops] = WeakSet()

    def of(self, content: bytes) -> int:
        """The decoded page of 4096 bytes of code; nothing is decoded in a new one."""
        found = self._by_content.get(content)
        if found is None:
            if len(self._by_content) >= MAX_PAGES:
                self.forget()
            found = self._by_content[content] = self.take(content)
            for slot in self._worth.get(digest(content), ()):
                ctypes.c_uint16.from_address(found + layout.HEAT_AT + 2 * slot).value = (1 << 16) - WARM_THRESHOLD
        return found

    def take(self, content: bytes) -> int:
        """A page of its own of a content, in which nothing is decoded and no region will be; `give_back` it."""
        if not self._free:
            self._grow()
        found = self._free.pop()
        ctypes.memmove(found, self._empty, len(self._empty))
        ctypes.memmove(found + layout.CONTENT_AT, content, PAGE)
        return found

    def give_back(self, pages: Iterable[int]) -> None:
        self._free += pages

    def holds(self, page: int, content: bytes) -> bool:
        """Is this the decoded page that everybody has of that content?"""
        return self._by_content.get(content) == page

    def forget(self) -> None:
        """Drop all decoded pages, wherever they are in use."""
        for memory in self.users:
            memory.forget_native()
        for stops in self.stops:
            stops.forget()
        self._free += self._by_content.values()
        self._by_content.clear()

    def _grow(self) -> None:
        chunk = mmap.mmap(-1, _PAGES_A_CHUNK * layout.CODE_PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            chunk.madvise(mmap.MADV_HUGEPAGE)  # every byte is about to be written
        self._chunks.append(chunk)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(chunk))
        self._free += [begin + index * layout.CODE_PAGE_BYTES for index in range(_PAGES_A_CHUNK)]


class Native:
    """A native tier and the pages that it has decoded.

    compiles: is there a JIT? threshold, background: see engine.machine.native.jit.Jit.
    """

    def __init__(self, compiles: bool = True, threshold: int = THRESHOLD, background: bool = True) -> None:
        self.interpreter = _interpreter()
        self.proceed, self.refresh = self.interpreter.proceed, self.interpreter.refresh
        worth = compiled_before() if compiles else {}
        self.pages = CodePages(self.interpreter, threshold, worth)
        self.jit = Jit(self.pages, self.interpreter.addresses, worth, background) if compiles else None


@cache
def _interpreter() -> Interpreter:
    """Made on first use: that compiles it, or reads what was compiled before."""
    return Interpreter()


@cache
def native(compiles: bool) -> Native:
    """What a process has once of each native tier."""
    return Native(compiles)


_TAG = struct.Struct("<Q")
_ROW = struct.Struct(f"<{traps.KEY_BYTES}s{8 - traps.KEY_BYTES}xQ")


class Contexts:
    """The memory of a hart's contexts. Native code chooses among them, fills and empties them."""

    def __init__(self, hart: HartState) -> None:
        self._map = mmap.mmap(-1, layout.CONTEXTS * layout.CONTEXT_BYTES)
        hart.contexts_at = hart.tlb_at = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._words = np.frombuffer(self._map, np.uint64).reshape(layout.CONTEXTS, -1)
        self._words[:, layout.KEY_AT // 8 :] = layout.EMPTY
        hart.stale = layout.EMPTY

    def empty_writable(self) -> None:
        """No store finds its translation any more."""
        self._words[:, layout.WRITES // 8 : layout.DATA_BYTES // 8] = layout.EMPTY

    def holds(self, hart: HartState, address: int) -> tuple[bool, bool, bool]:
        """Does the hart's present context have the page of an address for a load, a store and a fetch?"""
        if hart.stale >> hart.context & 1:
            return False, False, False
        page, begin = address >> 12, hart.context * layout.CONTEXT_BYTES
        data = (page % layout.DATA_ENTRIES) << layout.ENTRY_SHIFT
        code = layout.DATA_BYTES + page % layout.FETCH_ENTRIES * layout.FETCH_ENTRY_BYTES
        loads, stores, fetches = (
            _TAG.unpack_from(self._map, begin + at)[0] == page << 12
            for at in (layout.READS + data, layout.WRITES + data, code)
        )
        return loads, stores, fetches


class Stops:
    """The virtual addresses before whose instructions a hart's native code stops: it leaves them to Python. Their pages have
    decoded pages of their own, because others execute the shared ones. `close` it in the end."""

    def __init__(self, hart: HartState, native: Native, addresses: Iterable[int]) -> None:
        self.addresses = frozenset(addresses)
        self._hart, self._pages, self._slow = hart, native.pages, native.interpreter.addresses["slow"]
        self._slots: dict[int, list[int]] = {}  # by virtual page
        for address in self.addresses:
            self._slots.setdefault(address & -PAGE, []).append(address % PAGE >> 1)
        self._numbers = {page: number for number, page in enumerate(self._slots)}
        self._rows = np.zeros((len(self._slots), layout.STOP_BYTES // 8), np.uint64)
        self._rows[:, 0] = np.array(list(self._slots), np.uint64)
        self._own: dict[tuple[int, int], int] = {}  # by virtual page and shared decoded page
        hart.stops_at, hart.stop_count, hart.stale = self._rows.ctypes.data, len(self._slots), layout.EMPTY
        native.pages.stops.add(self)

    def use(self, pc: int, shared: int) -> None:
        """pc's virtual page has a content now that others execute by the decoded page `shared`."""
        page = pc & -PAGE
        slots = self._slots.get(page)
        if slots is None:
            return
        own = self._own.get((page, shared))
        if own is None:
            if len(self._own) >= MAX_OWN_PAGES:
                self.forget()
            own = self._own[page, shared] = self._pages.take(ctypes.string_at(shared + layout.CONTENT_AT, PAGE))
            for slot in slots:
                ctypes.c_uint64.from_address(own + layout.OPERATION_BYTES * slot).value = self._slow
        self._rows[self._numbers[page], 1:] = shared, own

    def forget(self) -> None:
        """The shared decoded pages are others from now on."""
        self._rows[:, 1:] = 0
        self._pages.give_back(self._own.values())
        self._own.clear()
        self._hart.stale = layout.EMPTY

    def close(self) -> None:
        """The hart stops nowhere."""
        self._hart.stop_count = 0
        self.forget()


class NativeRecords:
    """Room for so many records of traps that native code takes."""

    def __init__(self, room: int) -> None:
        self._records, self._rows = (
            np.empty(room * size, np.uint8).data for size in (traps.RECORD_BYTES, traps.ROW_BYTES)
        )
        self.address, self._rows_at = (
            ctypes.addressof(ctypes.c_char.from_buffer(place)) for place in (self._records, self._rows)
        )

    def numbered(self, hart: HartState, interpreter: Interpreter, sequence: int) -> tuple[memoryview, dict[int, int]]:
        """What a hart wrote here, as Trace.extend wants it: the records, with the sequences that follow `sequence`, and how
        many there are of each key."""
        rows = interpreter.number_records(hart.address, sequence, self._rows_at)
        counts = _ROW.iter_unpack(self._rows[: rows * traps.ROW_BYTES])
        return (
            self._records[: hart.record_count * traps.RECORD_BYTES],
            {int.from_bytes(key, "big"): count for key, count in counts},
        )


def word_at(code_page: int, offset: int) -> int:
    """The four bytes at an offset of a code page's content, below 4093."""
    return ctypes.c_uint32.from_address(code_page + layout.CONTENT_AT + offset).value
