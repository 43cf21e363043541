"""The JIT tier: hot operations become regions of native code, compiled beside the guests.

    native code counts jumps ── a count wraps ──> HartState.hot ── attend() ──> a bounded queue ──> compiling thread
                                                                       │                                  │
    the operation's handler is replaced by the region <── attend() ── finished <── LLVM IR, object, linked code

One daemon thread in a process compiles; LLVM runs without Python's lock. Only the thread that executes guests touches
decoded pages, here and everywhere, and only between two stretches of native execution: so nothing has to be locked and
no code is freed that anyone executes. When a region takes its place depends on the wall clock, and nothing else does:
no guest can tell (see engine.machine.native.regions).
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import re
from collections import deque
from collections.abc import Mapping
from hashlib import blake2b
from itertools import count
from queue import Empty, Full, PriorityQueue
from threading import Thread
from typing import NamedTuple, Protocol

import numpy as np

from engine.machine.memory import PAGE
from engine.machine.native import layout, objects, regions
from engine.machine.state import HartState

#: How often an operation is reached by a counted jump until it is worth compiling: a region takes some 20 ms, in which the
#: interpreter executes millions of instructions. Below 1 << 16.
THRESHOLD = 60_000
#: The same for one that was worth it before: its object may still be on disk.
WARM_THRESHOLD = 16
#: Regions waiting to be compiled. What finds no room is asked for again when its count wraps the next time.
MAX_WAITING = 256
#: Compiled regions kept in a process; then all are forgotten with all decoded pages.
MAX_REGIONS = 4096
_OPTIMIZATION = 1

_NAME = re.compile(r"([0-9a-f]{32})-(\d{1,4})")
_log = logging.getLogger(__name__)
Key = tuple[bytes, int]


def digest(content: bytes) -> bytes:
    """What names the content of a page of code."""
    return blake2b(content, digest_size=16).digest()


def compiled_before() -> dict[bytes, set[int]]:
    """The slots of regions whose objects are on disk, by their page's digest."""
    found: dict[bytes, set[int]] = {}
    for name in objects.kept():
        region = _NAME.fullmatch(name)
        if region is not None:
            found.setdefault(bytes.fromhex(region[1]), set()).add(int(region[2]))
    return found


class Pages(Protocol):
    """Decoded pages by content, as far as regions are concerned."""

    def holds(self, page: int, content: bytes) -> bool:
        """Is this the decoded page of that content?"""
        ...

    def forget(self) -> None:
        """Drop all decoded pages, wherever they are in use."""
        ...


class _Request(NamedTuple):
    key: Key
    page: int
    content: bytes
    slot: int
    executed: bytes  # a byte for each slot: has it been decoded?


class _Finished(NamedTuple):
    request: _Request
    code: objects.Linked | None  # None: there is nothing to compile


class Jit:
    """The regions of a process. `imported`: addresses of the interpreter's symbols.

    worth: the slots that are worth compiling by their page's digest, as `compiled_before` gives them; more come with
    time. background: False compiles at once in `attend`, for tests.
    """

    def __init__(
        self, pages: Pages, imported: Mapping[str, int], worth: dict[bytes, set[int]], background: bool = True
    ) -> None:
        self.finished: deque[_Finished] = deque()
        self._pages = pages
        self._worth = worth
        self._imported = {name: imported[name] for name in regions.IMPORTED}
        self._undecoded = imported["decode"]
        self._known: dict[Key, objects.Linked | None] = {}
        self._waiting: set[Key] = set()
        # What was compiled before comes first: it only has to be read. The number keeps the order; None: the end.
        self._queue: PriorityQueue[tuple[bool, int, _Request | None]] = PriorityQueue(MAX_WAITING)
        self._serial = count()
        self._thread: Thread | None = None
        self._background = background

    # -- in the thread that executes guests ----------------------------------------------------------
    def attend(self, hart: HartState) -> None:
        """Take what native code reported, and put finished regions in their places."""
        for index in range(hart.hot_count):
            self._ask(hart.hot[2 * index], hart.hot[2 * index + 1] // layout.OPERATION_BYTES)
        hart.hot_count = 0
        while self.finished:
            self._take(self.finished.popleft())

    def _ask(self, page: int, slot: int) -> None:
        content = ctypes.string_at(page + layout.CONTENT_AT, PAGE)
        if not self._pages.holds(page, content):
            return
        key = (digest(content), slot)
        if key in self._known:
            self._place(page, slot, self._known[key])
            return
        if key in self._waiting:
            return
        handlers = np.ctypeslib.as_array((ctypes.c_uint64 * (layout.SLOTS * 2)).from_address(page))[::2]
        request = _Request(key, page, content, slot, (handlers != self._undecoded).tobytes())
        if not self._background:
            self._take(self._compile(request))
            return
        try:
            new = slot not in self._worth.get(key[0], ())
            self._queue.put_nowait((new, next(self._serial), request))
        except Full:
            return
        self._waiting.add(key)
        if self._thread is None:
            self._thread = Thread(target=self._serve, name="ringside-jit", daemon=True)
            self._thread.start()
            atexit.register(self._stop)

    def _take(self, finished: _Finished) -> None:
        request, code = finished
        self._waiting.discard(request.key)
        self._worth.setdefault(request.key[0], set()).add(request.slot)
        if len(self._known) >= MAX_REGIONS:
            self._pages.forget()
            self._known.clear()
        self._known[request.key] = code
        if self._pages.holds(request.page, request.content):
            self._place(request.page, request.slot, code)

    def _place(self, page: int, slot: int, code: objects.Linked | None) -> None:
        """Let a region stand in the place of its first operation's handler."""
        handler = ctypes.c_uint64.from_address(page + layout.OPERATION_BYTES * slot)
        plain = ctypes.c_uint64.from_address(page + layout.PLAIN_AT + 8 * slot)
        if code is not None and not plain.value and handler.value != self._undecoded:
            plain.value = handler.value
            handler.value = code.addresses[regions.SYMBOL]

    # -- in the compiling thread ---------------------------------------------------------------------
    def _serve(self) -> None:
        objects.thin_out()
        while (request := self._queue.get()[-1]) is not None:
            try:
                self.finished.append(self._compile(request))
            except Exception:  # noqa: BLE001 (the interpreter goes on without the region)
                _log.exception("region at %d of %s: not compiled", request.slot, request.key[0].hex())
                self.finished.append(_Finished(request, None))

    def _compile(self, request: _Request) -> _Finished:
        page, slot = request.key
        image = objects.image_of(f"{page.hex()}-{slot}", _OPTIMIZATION, lambda: _module(request))
        if image is None:
            return _Finished(request, None)
        return _Finished(request, objects.Linked(regions.SYMBOL, image, [regions.SYMBOL], self._imported))

    def _stop(self) -> None:
        """Before the process ends: let the compiler finish what it has begun."""
        try:
            while True:
                self._queue.get_nowait()
        except Empty:
            pass
        self._queue.put((False, next(self._serial), None))
        assert self._thread is not None
        self._thread.join()


def _module(request: _Request) -> str | None:
    return regions.module(request.content, request.slot, np.frombuffer(request.executed, np.bool_))
