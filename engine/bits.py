"""Leaf helpers on 64-bit machine words. Imports nothing.

A machine word is a Python int in 0 .. 2**64-1 (unsigned). Signed values exist only inside an expression.
"""

from __future__ import annotations

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1
SIGN64 = 1 << 63


def signed(value: int) -> int:
    """The two's-complement reading of a 64-bit word."""
    return value - (1 << 64) if value & SIGN64 else value


def sign_extend(value: int, bits: int) -> int:
    """`value`'s low `bits` bits, sign-extended to a 64-bit word."""
    value &= (1 << bits) - 1
    return (value - (1 << bits)) & MASK64 if value >> (bits - 1) else value
