"""What Python asks of native code besides to run: whether a hart may go on at once after an exit that Python has handled,
and where an address leads that native code has left to Python.
"""

from __future__ import annotations

from typing import Any

from engine.machine import privileged

#: After so many steps at the latest the JIT may put new regions in their places.
STRETCH_STEPS = 1 << 22


def translate(h: Any, address: int, access: int) -> None:
    """privileged.translate, into `physical`."""
    h.physical = privileged.translate(h, address, access)


def prepare(h: Any) -> bool:
    """Set `limit` as Hart.run does before it executes. False: it has something else to do first, or something unusual
    to look at."""
    if h.leave or h.waiting or h.stopped or privileged.pending_interrupt(h):
        return False
    horizon = min(h.next_event, h.until)
    if h.steps >= h.last_step or h.steps + h.extra >= horizon:
        return False
    h.horizon = horizon
    h.limit = min(h.last_step, h.steps + STRETCH_STEPS, horizon - h.extra)
    return True
