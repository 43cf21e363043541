"""What Python asks of native code: to run a hart until Python has something to do, and where an address leads that native
code has left to Python.
"""

from __future__ import annotations

from typing import Any

from engine.machine import privileged
from engine.machine.native.layout import EXIT, LIMIT, TRAP
from engine.machine.privileged import MACHINE
from engine.trace.record import Cause

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


def proceed(h: Any, anew: bool) -> int:
    """Run a hart. anew: `limit` has yet to be set. Returns one of the reasons of `layout`; a trap is counted as a
    step already."""
    if anew and not prepare(h):
        return LIMIT
    if h.steps >= h.limit:
        return LIMIT
    reason: int = h.run()
    if h.steps >= h.limit:
        return LIMIT
    if reason == TRAP:
        h.steps = h.steps + 1
        h.unretired = h.unretired + 1
        if h.trap_cause == Cause.BREAKPOINT:
            h.trap_value = h.pc
        if h.monitored and privileged.trap_target(h, h.trap_cause, False) == MACHINE:
            return EXIT
    return reason
