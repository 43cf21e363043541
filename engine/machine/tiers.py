"""The three ways in which a machine executes, all with the same result.

    reference    each row as plain Python: the definition; it single-steps and explains, at about 1 M instructions/s
    interpreter  each row as one native function over decoded operations
    jit          the interpreter, and regions of hot code compiled in the background
"""

from __future__ import annotations

from enum import StrEnum

from engine.machine.native.runtime import Native, native


class Tier(StrEnum):
    REFERENCE = "reference"
    INTERPRETER = "interpreter"
    JIT = "jit"


def native_tier(tier: Tier) -> Native | None:
    """This process's native tier; None: the reference."""
    return None if tier == Tier.REFERENCE else native(tier == Tier.JIT)
