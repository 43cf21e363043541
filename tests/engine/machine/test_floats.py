"""The exact arithmetic of floating point against Python's and NumPy's own, and against rational numbers.

The host rounds to nearest even; other modes are held against the exact value. QEMU does the rest, flags included
(tests/conformance).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.machine import floats
from engine.machine.floats import NV, NX, OF, RDN, RMM, RNE, RTZ, RUP, UF

WORDS = {32: st.integers(0, (1 << 32) - 1), 64: st.integers(0, (1 << 64) - 1)}
NEAR = st.integers(0x3F00_0000, 0x4100_0000) | st.integers(0, 0x0100_0000)  # where sums and subnormals are


def value(word: int, bits: int) -> float:
    kind, size = ("<f", 4) if bits == 32 else ("<d", 8)
    number: float = struct.unpack(kind, word.to_bytes(size, "little"))[0]
    return number


def word_of(number: float, bits: int) -> int:
    return int.from_bytes(struct.pack("<f" if bits == 32 else "<d", number), "little")


def same(word: int, number: float, bits: int) -> bool:
    if math.isnan(number):
        return word == (0x7FC0_0000 if bits == 32 else 0x7FF8 << 48)
    return word == word_of(number, bits)


HOST: dict[str, tuple[Callable[[int, int, int, int], floats.Result], Callable[..., float]]] = {
    "add": (floats.fadd, lambda a, b: a + b),
    "subtract": (floats.fsub, lambda a, b: a - b),
    "multiply": (floats.fmul, lambda a, b: a * b),
    "divide": (floats.fdiv, np.divide),
}


@pytest.mark.parametrize("name", HOST)
@given(st.data())
def test_the_host_gets_the_same(name: str, data: st.DataObject) -> None:
    ours, theirs = HOST[name]
    for bits, kind in ((32, np.float32), (64, np.float64)):
        a, b = (data.draw(WORDS[bits] | NEAR if bits == 32 else WORDS[bits]) for _ in range(2))
        with np.errstate(all="ignore"):
            expected = float(theirs(kind(value(a, bits)), kind(value(b, bits))))
        assert same(ours(a, b, bits, RNE)[0], expected, bits)


@given(WORDS[32] | NEAR, WORDS[64])
def test_the_host_s_roots_and_conversions(single: int, double: int) -> None:
    with np.errstate(all="ignore"):
        assert same(floats.fsqrt(single, 32, RNE)[0], float(np.sqrt(np.float32(value(single, 32)))), 32)
        assert same(floats.fsqrt(double, 64, RNE)[0], float(np.sqrt(np.float64(value(double, 64)))), 64)
        narrow = float(np.float64(value(double, 64)).astype(np.float32))
    assert same(floats.fconvert(double, 64, 32, RNE)[0], narrow, 32)
    assert same(floats.fconvert(single, 32, 64, RNE)[0], value(single, 32), 64)


def _neighbours(word: int, bits: int) -> tuple[Fraction | None, Fraction | None]:
    """The numbers below and above a finite one; None: an infinity."""
    number = value(word, bits)
    kind = np.float32 if bits == 32 else np.float64
    with np.errstate(all="ignore"):
        ends = [float(np.nextafter(kind(number), kind(end))) for end in (-math.inf, math.inf)]
    below, above = (None if math.isinf(end) else Fraction(end) for end in ends)
    return below, above


@given(st.sampled_from([32, 64]), st.sampled_from(range(5)), st.data())
def test_a_fused_product_and_sum_is_rounded_once_from_its_exact_value(
    bits: int, mode: int, data: st.DataObject
) -> None:
    a, b, c = (data.draw(WORDS[bits] | NEAR if bits == 32 else WORDS[bits]) for _ in range(3))
    numbers = [value(word, bits) for word in (a, b, c)]
    assume(all(math.isfinite(number) for number in numbers))
    exact = Fraction(numbers[0]) * Fraction(numbers[1]) + Fraction(numbers[2])
    word, flags = floats.fmadd(a, b, c, bits, mode)
    if math.isinf(value(word, bits)):
        assert flags == OF | NX
        return
    result = Fraction(value(word, bits))
    assert (flags & NX != 0) == (result != exact)
    below, above = _neighbours(word, bits)
    match mode:
        case _ if flags & OF:
            pass
        case floats.RTZ:
            assert abs(result) <= abs(exact)
        case floats.RDN:
            assert result <= exact
            assert above is None or exact < above
        case floats.RUP:
            assert result >= exact
            assert below is None or exact > below
        case _:
            distances = [abs(exact - other) for other in (below, above) if other is not None]
            assert all(abs(exact - result) <= distance for distance in distances)


@pytest.mark.parametrize(
    ("mode", "number", "expected"),
    [
        (RNE, 2.5, 2), (RNE, 3.5, 4), (RTZ, -2.7, -2), (RDN, -2.1, -3), (RUP, 2.1, 3), (RMM, 2.5, 3), (RMM, -2.5, -3),
    ],
)  # fmt: skip
def test_rounding_to_an_integer(mode: int, number: float, expected: int) -> None:
    assert floats.to_signed(word_of(number, 64), 64, 64, mode) == (expected, NX)


def test_what_does_not_fit_an_integer_is_invalid_and_nothing_else() -> None:
    nan, minus = 0x7FF8 << 48, word_of(-1.5, 64)
    assert floats.to_signed(nan, 64, 32, RNE) == ((1 << 31) - 1, NV)
    assert floats.to_unsigned(nan | 1 << 63, 64, 64, RNE) == ((1 << 64) - 1, NV)
    assert floats.to_unsigned(minus, 64, 64, RTZ) == (0, NV)
    assert floats.to_unsigned(word_of(-0.5, 64), 64, 64, RTZ) == (0, NX)
    assert floats.to_signed(word_of(-(2.0**31) - 0.5, 64), 64, 32, RTZ) == (-(1 << 31), NX)


def test_tininess_is_looked_for_after_rounding() -> None:
    """The product is just below the least normal number and rounds up to it: no underflow (section 11.2)."""
    nearly_one, least = 0x3F7F_FFFF, 0x0080_0000
    assert floats.fmul(nearly_one, least, 32, RNE) == (0x0080_0000, UF | NX)
    assert floats.fmul(0x3FFF_FFFF, 0x0040_0000, 32, RNE) == (0x0080_0000, UF | NX)
    assert floats.fmul(0x3F80_0001, 0x007F_FFFF, 32, RNE) == (0x0080_0000, NX)
