"""A ring of requests in a page that a guest shares, and the grants through which a back end reaches its buffers.

    0    produced    the guest's: requests that it has made            words; they only grow, modulo 2**64,
    8    answered    ours: those that are done                         and a request's place is the remainder
    64   SLOTS x { operation, place, buffer, bytes }

A request is answered in its place and in order: its operation becomes a Status, its bytes what was moved. `buffer` is
a grant's number times 4096 plus an offset; a request stays within one granted page. A grant is a word of the shared
page: the address of a page of the guest, and READABLE, WRITABLE: what the back end may do there. (Xen: blkif.h and
grant_table.h have the same parts.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple

from engine.bits import MASK64
from engine.devices import AccessFault, GuestMemory, State

SLOTS = 64
GRANTS = 256
READABLE, WRITABLE = 1, 2
PAGE = 4096
_INDICES = struct.Struct("<2Q")
_REQUEST = struct.Struct("<4Q")
_WORD = struct.Struct("<Q")
_ANSWERED, _SLOTS_AT = 8, 64


class Status(IntEnum):
    """Answers, with SBI's numbers."""

    OK = 0
    FAILED = -1
    INVALID = -3
    DENIED = -4


class BrokenRingError(Exception):
    """The guest says that it has made more requests than there are slots."""


class Request(NamedTuple):
    operation: int
    place: int
    buffer: int
    bytes: int


class RequestRing:
    """`granted(number)` reads a grant, 0 where there is none."""

    def __init__(self, memory: GuestMemory, granted: Callable[[int], int]) -> None:
        self._memory = memory
        self._granted = granted
        self._page: int | None = None  # its address

    @property
    def connected(self) -> bool:
        return self._page is not None

    def connect(self, address: int) -> None:
        self._page = address

    def disconnect(self) -> None:
        self._page = None

    def waiting(self) -> int:
        """How many requests there are to answer. Raises BrokenRingError."""
        if self._page is None:
            return 0
        produced, answered = _INDICES.unpack(self._memory.read(self._page, _INDICES.size))
        count = produced - answered & MASK64
        if count > SLOTS:
            raise BrokenRingError
        return int(count)

    def requests(self) -> Iterator[Request]:
        """Those that wait now, one by one: each is to be answered before the next is taken. Raises BrokenRingError."""
        for _ in range(self.waiting()):
            yield self.first()

    def first(self) -> Request:
        """The oldest request; there must be one."""
        return Request(*_REQUEST.unpack(self._memory.read(self._slot(), _REQUEST.size)))

    def answer(self, request: Request, status: Status, moved: int = 0) -> None:
        """Answer the oldest request."""
        assert self._page is not None
        at = self._slot()
        self._memory.write(at, _REQUEST.pack(status & MASK64, request.place, request.buffer, moved))
        _, answered = _INDICES.unpack(self._memory.read(self._page, _INDICES.size))
        self._memory.write(self._page + _ANSWERED, _WORD.pack(answered + 1 & MASK64))

    def _slot(self) -> int:
        assert self._page is not None
        _, answered = _INDICES.unpack(self._memory.read(self._page, _INDICES.size))
        return int(self._page + _SLOTS_AT + answered % SLOTS * _REQUEST.size)

    # -- buffers ---------------------------------------------------------------------------------------
    def load(self, request: Request) -> bytes | Status:
        """What the guest put into a request's buffer, or why it cannot be had."""
        at = self._buffer(request, READABLE)
        return at if isinstance(at, Status) else self._memory.read(at, request.bytes)

    def store(self, request: Request, data: bytes) -> Status:
        """Put `data`, no longer than the request's bytes, into its buffer."""
        at = self._buffer(request, WRITABLE)
        if isinstance(at, Status):
            return at
        self._memory.write(at, data)
        return Status.OK

    def _buffer(self, request: Request, right: int) -> int | Status:
        number, offset = divmod(request.buffer, PAGE)
        if number >= GRANTS or offset + request.bytes > PAGE:
            return Status.INVALID
        grant = self._granted(number)
        if not grant & right:
            return Status.DENIED
        try:
            self._memory.read(grant & ~(PAGE - 1), PAGE)
        except AccessFault:
            return Status.DENIED
        return (grant & ~(PAGE - 1)) + offset

    def save(self) -> State:
        return {"page": self._page}

    def load_state(self, state: State) -> None:
        self._page = state["page"]
