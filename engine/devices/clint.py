"""CLINT: the core-local interruptor. Software and timer interrupts of every hart, and mtime.

    0x0000 + 4 h   msip[h]       bit 0 is the hart's machine software interrupt
    0x4000 + 8 h   mtimecmp[h]   the machine timer interrupt is pending while mtime >= mtimecmp
    0xbff8         mtime         10 MHz

Privileged architecture 3.2.1 (mtime, mtimecmp); register map: SiFive FU540 manual, chapter 9, which QEMU's
`virt` follows. The registers are 4 bytes wide in the software part and 4 or 8 in the timer part; reserved
ones read 0.

mtimecmp starts at 2**64 - 1 (the manual leaves it open), so that no timer is pending before somebody sets
one.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.bits import MASK64
from engine.devices import Node, State, check_access, hart_interrupts, registers

TICKS_PER_SECOND = 10_000_000
SOFTWARE_SIZE = 0x4000
MTIMECMP = 0x4000
MTIME = 0xBFF8
TIMER_END = 0xC000
MAX_HARTS = 4095


class Clint:
    """`now()` is the board's free-running 10 MHz counter; mtime is that plus what the guest wrote to it.

    `changed(hart)` is called after every write that may change `software(hart)` or `timer(hart)`.
    The hart's `time` CSR reads `time()`.
    """

    def __init__(
        self, harts: int, now: Callable[[], int], changed: Callable[[int], None], base: int = 0x2000000
    ) -> None:
        if not 1 <= harts <= MAX_HARTS:
            raise ValueError(f"a CLINT serves 1 to {MAX_HARTS} harts, not {harts}")
        self.name = "clint"
        self.base = base
        self.size = 0x10000
        self._now = now
        self._changed = changed
        self._msip = [0] * harts
        self._mtimecmp = [MASK64] * harts
        self._offset = 0

    def time(self) -> int:
        """mtime, in ticks."""
        return (self._now() + self._offset) & MASK64

    @property
    def offset(self) -> int:
        """What mtime is ahead of `now()`, modulo 2**64."""
        return self._offset & MASK64

    def software(self, hart: int) -> bool:
        """Is the hart's machine software interrupt pending?"""
        return self._msip[hart] != 0

    def timer(self, hart: int) -> bool:
        """Is the hart's machine timer interrupt pending?"""
        return self.time() >= self._mtimecmp[hart]

    def deadline(self, hart: int) -> int | None:
        """The value of `now()` from which `timer(hart)` holds; None: only a write can bring it about."""
        compare = self._mtimecmp[hart]
        return None if compare == MASK64 else self.reached(compare)

    def reached(self, time: int) -> int:
        """The value of `now()` at which mtime reaches `time`, in ticks."""
        return max(time - self._offset, 0)

    def set_timer(self, hart: int, ticks: int) -> None:
        """mtimecmp[hart] = ticks, as firmware does it for SBI's set_timer."""
        self._mtimecmp[hart] = ticks & MASK64
        self._changed(hart)

    def read(self, offset: int, size: int) -> int:
        if offset < SOFTWARE_SIZE:
            check_access(self.name, offset, size, (4,), SOFTWARE_SIZE)
            hart = offset >> 2
            return self._msip[hart] if hart < len(self._msip) else 0
        check_access(self.name, offset, size, (4, 8), TIMER_END)
        word = self._timer_word(offset & ~7)
        return (word >> (8 * (offset & 7))) & ((1 << (8 * size)) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset < SOFTWARE_SIZE:
            check_access(self.name, offset, size, (4,), SOFTWARE_SIZE)
            hart = offset >> 2
            if hart < len(self._msip):
                self._msip[hart] = value & 1
                self._changed(hart)
            return
        check_access(self.name, offset, size, (4, 8), TIMER_END)
        shift = 8 * (offset & 7)
        mask = ((1 << (8 * size)) - 1) << shift
        word = (self._timer_word(offset & ~7) & ~mask) | ((value << shift) & mask)
        hart = (offset - MTIMECMP) >> 3
        if hart < len(self._mtimecmp):
            self.set_timer(hart, word)
        elif offset & ~7 == MTIME:
            self._offset = word - self._now()
            for each in range(len(self._mtimecmp)):
                self._changed(each)

    def _timer_word(self, offset: int) -> int:
        """The 64-bit register at an aligned offset of the timer part."""
        hart = (offset - MTIMECMP) >> 3
        if hart < len(self._mtimecmp):
            return self._mtimecmp[hart]
        return self.time() if offset == MTIME else 0

    def nodes(self) -> tuple[Node, ...]:
        lines = [(hart_interrupts(hart), line) for hart in range(len(self._msip)) for line in (3, 7)]
        return (
            Node(
                f"clint@{self.base:x}",
                {
                    "compatible": ("sifive,clint0", "riscv,clint0"),
                    "reg": registers(self.base, self.size),
                    "interrupts-extended": tuple(cell for line in lines for cell in line),
                },
            ),
        )

    def save(self) -> State:
        # msgpack has no integers below -2**63, and mtime may lie that far behind now().
        return {"msip": list(self._msip), "mtimecmp": list(self._mtimecmp), "offset": str(self._offset)}

    def load(self, state: State) -> None:
        self._msip = list(state["msip"])
        self._mtimecmp = list(state["mtimecmp"])
        self._offset = int(state["offset"])
