"""What an instruction raises instead of completing: the three ways in which it can trap.

Whoever executes an instruction catches them and takes the trap at its pc. They are raised before the
instruction has changed anything that the architecture says must not be changed.
"""

from __future__ import annotations

#: So many traps of a hart in a row without one instruction retired between them: nothing can come of it any more.
TRAP_LOOP = 16


class Trap(Exception):  # noqa: N818 (the architecture's name)
    """A synchronous trap: the architecture's cause and tval."""

    def __init__(self, cause: int, value: int) -> None:
        self.cause = cause
        self.value = value

    def __str__(self) -> str:
        return f"trap {self.cause} ({self.value:#x})"


class IllegalInstruction(Exception):  # noqa: N818 (the architecture's name)
    """The instruction being executed is illegal here; its encoding becomes tval."""


class VirtualInstruction(Exception):  # noqa: N818 (the architecture's name)
    """The instruction would be legal in HS mode but not in this virtual one; its encoding becomes tval
    (privileged specification 1.12, section 8.6.1)."""
