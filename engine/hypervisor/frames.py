"""Host physical memory by the page: who may have a frame. A frame is zeroed when it is handed out.

Guest RAM is promised when a VM is created and taken page by page on first use. What the hypervisor takes for
itself (shadow tables) comes only from what is not promised, so no guest's behaviour can take another's
memory. Guests get frames from the top of RAM down and the hypervisor from the bottom up: so a guest physical
address is never a host physical one by accident.

A frame may be shared: several guests have it in place of frames that were promised to them. Those promises
stay, one for each guest beside the first, so that each can have its copy when it stores there, whatever the
others do.

More than there is may be promised (`reserve`). Then what the hypervisor takes for itself comes from frames that are kept
for it alone, and a promise that no free frame can keep makes somebody else give one up (`evict`). Some frames are spared
for that moment, so that guests can be asked before anything has to be taken away from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from engine.machine.mappings import FramesState
from engine.machine.memory import PAGE, Memory

_ZERO = bytes(PAGE)


class OutOfFramesError(Exception):
    """No frame is free."""


class Frames(FramesState):
    """Frames `first`.. of a host's memory, by page number from the start of RAM. What was given back is taken
    first. Native code takes frames too (engine.machine.native.exits), but none that was given back."""

    def __init__(self, memory: Memory, first: int) -> None:
        super().__init__()
        self.memory = memory
        self.first = first
        self.total = memory.size // PAGE - first
        self.low = first
        self.high = first + self.total
        self._free: list[int] = []
        self._sharers: dict[int, int] = {}  # shared frame -> guests that have it beside the first
        self._guests = 0  # pages that guests have or are promised
        self._kept: list[int] = []  # free, and for the hypervisor alone
        self._spare: list[int] = []  # free, and for guests when no other frame is
        self._spares = 0  # how many these should be
        self.reclaim: list[Callable[[], None]] = []  # caches that can give frames back
        #: Frees frames of guests, but not the one that is named. Raises OutOfFramesError.
        self.evict: Callable[[int | None], None] = _nobody_gives

    @property
    def used(self) -> int:
        return self.total - (self.high - self.low) - len(self._free) - len(self._kept) - len(self._spare)

    def _set_free(self, frames: list[int]) -> None:
        self._free = frames
        self.recycled = len(frames)

    def reserve(self, count: int, spares: int = 0) -> None:
        """From now on `count` frames are the hypervisor's, and guests may have been promised more than is left, of which
        `spares` are spared. 0: no longer; what was promised has to be there again."""
        self._set_free([*self._free, *self._kept, *self._spare])
        self._kept, self._spare, self.reserved, self._spares = [], [], count, spares
        if self._own > count > 0:
            self._empty_caches()
        while self._own + len(self._kept) < count:
            if self.low < self.high:
                self._kept.append(self.low)
                self.low += 1
            else:
                if not self._free:
                    self.evict(None)
                self._set_free(sorted(self._free, reverse=True))
                self._kept.append(self._free.pop())
                self.recycled -= 1
        while len(self._spare) < spares and self.low < self.high:
            self._spare.append(self.low)
            self.low += 1

    def use_spares(self, count: int) -> bool:
        """Let guests have some frames that were spared. False: there are none."""
        taken, self._spare = self._spare[-count:], self._spare[:-count]
        self._set_free([*self._free, *taken])
        return bool(taken)

    @property
    def lacking(self) -> int:
        """How many of the frames that should be spared are not."""
        return self._spares - len(self._spare)

    def promise(self, count: int) -> None:
        """A guest may take so many frames."""
        self._guests += count
        self.promised += count

    def release(self, count: int, frames: Iterable[int]) -> None:
        """A guest to whom `count` frames were promised has gone, and had these."""
        held = 0
        for frame in frames:
            self.give_back(frame)
            held += 1
        self.promised -= count - held
        self._guests -= count

    @property
    def _own(self) -> int:
        """How many frames the hypervisor took for itself."""
        return self.used - (self._guests - self.promised)

    @property
    def overcommitted(self) -> bool:
        """May more be promised than there is?"""
        return self.reserved > 0

    def take_promised(self, keep: int | None = None) -> int:
        """A zeroed frame for a guest to whom it was promised. keep: a frame that nobody is to give up for it. Raises
        OutOfFramesError when nobody can."""
        while not self._free and self.high <= self.low:
            self.evict(keep)
        frame = self._recycled()
        if frame is None:
            self.high = frame = self.high - 1
        self.promised -= 1
        return frame

    def take(self) -> int:
        """A zeroed frame for the hypervisor. Caches are emptied when none is left; raises OutOfFramesError if
        that does not help."""
        self._make_room(1)
        if self.reserved:
            frame = self._kept.pop()
            self.memory.write_bytes(frame * PAGE, _ZERO)
        else:
            recycled = self._recycled()
            if recycled is None:
                recycled, self.low = self.low, self.low + 1
            frame = recycled
        return frame

    def take_row(self, count: int) -> int:
        """The first of `count` zeroed frames in a row, at a multiple of `count`. Raises OutOfFramesError."""
        self._make_room(count)
        free = set(self._kept if self.reserved else self._free)
        for first in sorted(free):
            row = range(first, first + count)
            if first % count == 0 and free.issuperset(row):
                if self.reserved:
                    self._kept = [frame for frame in self._kept if frame not in row]
                else:
                    self._set_free([frame for frame in self._free if frame not in row])
                self.memory.write_bytes(first * PAGE, _ZERO * count)
                return first
        first = -(-self.low // count) * count
        if self.reserved or first + count > self.high:
            raise OutOfFramesError
        self._set_free([*self._free, *range(self.low, first)])
        self.low = first + count
        return first

    @property
    def _room(self) -> int:
        """How many frames the hypervisor can have as it is."""
        return len(self._kept) if self.reserved else self.total - self.used - self.promised

    def _make_room(self, count: int) -> None:
        """See to it that `count` frames are neither taken nor promised."""
        if self._room >= count:
            return
        self._empty_caches()
        if self._room < count:
            raise OutOfFramesError

    def _empty_caches(self) -> None:
        for give in self.reclaim:
            give()
        self._free.sort()  # in which order the caches were made is not part of a snapshot
        self._kept.sort()

    def _recycled(self) -> int | None:
        if not self._free:
            return None
        frame = self._free.pop()
        self.recycled -= 1
        self.memory.write_bytes(frame * PAGE, _ZERO)
        return frame

    def give_back(self, frame: int) -> None:
        """A guest that had the frame has it no more. If others still do, one promise of a copy is void."""
        if self.is_shared(frame):
            self._leave(frame)
            self.promised -= 1
        elif len(self._spare) < self._spares:
            self._spare.append(frame)
        else:
            self._free.append(frame)
            self.recycled += 1

    def give_back_own(self, frame: int) -> None:
        """The hypervisor has no more use for a frame that it took."""
        if self._own + len(self._kept) <= self.reserved:
            self._kept.append(frame)
        else:
            self._free.append(frame)
            self.recycled += 1

    # -- sharing -------------------------------------------------------------------------------------
    def share(self, frame: int) -> None:
        """One more guest has this frame, in place of one that is promised to it and stays promised."""
        self._sharers[frame] = self._sharers.get(frame, 0) + 1

    def exchange(self, frame: int) -> None:
        """A guest has left this frame for a shared one, or for none; one is promised to it from now on."""
        self.give_back(frame)
        self.promised += 1

    @property
    def saved(self) -> int:
        """How many frames more the guests would have without sharing."""
        return sum(self._sharers.values())

    def is_shared(self, frame: int) -> bool:
        return frame in self._sharers

    def copy(self, frame: int) -> int:
        """A frame of its own, with the same content, for a guest that has shared this one until now."""
        own = self.take_promised(keep=frame)
        self.memory.write_bytes(own * PAGE, self.memory.read_bytes(frame * PAGE, PAGE))
        self._leave(frame)
        return own

    def _leave(self, frame: int) -> None:
        left = self._sharers[frame] - 1
        if left:
            self._sharers[frame] = left
        else:
            del self._sharers[frame]

    def save(self) -> dict[str, Any]:
        return {
            "low": self.low,
            "high": self.high,
            "free": list(self._free),
            "promised": self.promised,
            "sharers": sorted(self._sharers.items()),
            "kept": list(self._kept),
            "spare": list(self._spare),
            "reserved": [self.reserved, self._spares],
        }

    def load(self, state: dict[str, Any]) -> None:
        self.low, self.high = state["low"], state["high"]
        self._set_free(list(state["free"]))
        self.promised = state["promised"]
        self._sharers = dict(state["sharers"])
        # a lab may have been saved before these were
        self._kept, self._spare = list(state.get("kept", ())), list(state.get("spare", ()))
        self.reserved, self._spares = state.get("reserved", (0, 0))


def _nobody_gives(_keep: int | None) -> None:
    raise OutOfFramesError
