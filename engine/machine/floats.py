"""Binary floating point as the F and D extensions define it, in exact integer arithmetic: the definition that the fast
tiers' host arithmetic is compared with.

A number is a word of `bits` bits (32 or 64) in IEEE 754-2019's interchange format. Every function is pure and gives
(result, flags raised). Invariants: a NaN result is the canonical one; tininess is detected after rounding; an operation
is rounded once, from its exact value. Sources: unprivileged specification 20191213, chapters 11 and 12; IEEE 754-2019.
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

from engine.bits import MASK64, signed

#: fflags, from bit 0: inexact, underflow, overflow, division by zero, invalid.
NX, UF, OF, DZ, NV = 1, 2, 4, 8, 16
#: Rounding modes: to nearest even, to zero, down, up, to nearest with ties away from zero.
RNE, RTZ, RDN, RUP, RMM = range(5)

Result = tuple[int, int]


class _Format(NamedTuple):
    """precision: significant bits, the hidden one included. least: exponent of the least normal number."""

    precision: int
    bias: int
    sign: int
    infinity: int
    nan: int

    @property
    def least(self) -> int:
        return 1 - self.bias


_FORMATS = {
    32: _Format(24, 127, 1 << 31, 0x7F80_0000, 0x7FC0_0000),
    64: _Format(53, 1023, 1 << 63, 0x7FF << 52, 0x7FF8 << 48),
}


#: The canonical NaN of single precision, which a number that is not boxed stands for.
NAN32 = _FORMATS[32].nan


class _Number(NamedTuple):
    """(-1)**sign * significand * 2**exponent, or an infinity or a NaN."""

    sign: int
    significand: int
    exponent: int
    infinite: bool = False
    nan: bool = False
    signaling: bool = False

    @property
    def zero(self) -> bool:
        return not (self.significand or self.infinite or self.nan)


def _read(word: int, bits: int) -> _Number:
    form = _FORMATS[bits]
    width = form.precision - 1
    sign, fraction = int(word & form.sign != 0), word & ((1 << width) - 1)
    field = (word & form.infinity) >> width
    if word & form.infinity == form.infinity:
        quiet = fraction >> (width - 1)
        return _Number(sign, 0, 0, not fraction, bool(fraction), bool(fraction) and not quiet)
    if field:
        return _Number(sign, fraction | 1 << width, field - form.bias - width)
    return _Number(sign, fraction, form.least - width)


def _rounds_up(mode: int, sign: int, odd: int, rest: int, half: int) -> bool:
    """Does what `rest` has cut off (of a unit of two halves) take the magnitude to the next number?"""
    if mode == RNE:
        return rest > half or (rest == half and bool(odd))
    if mode == RMM:
        return rest >= half
    return rest > 0 and mode == (RDN if sign else RUP)


def _cut(significand: int, count: int, sign: int, mode: int) -> tuple[int, bool]:
    """`significand` without its low `count` bits, rounded; and whether that lost anything."""
    if count <= 0:
        return significand << -count, False
    kept, rest = significand >> count, significand & ((1 << count) - 1)
    return kept + _rounds_up(mode, sign, kept & 1, rest, 1 << (count - 1)), rest != 0


def _rounded(sign: int, significand: int, exponent: int, bits: int, mode: int) -> Result:
    """The number nearest to (-1)**sign * significand * 2**exponent, which is not zero."""
    form = _FORMATS[bits]
    precision, sign_bit = form.precision, form.sign if sign else 0
    top = exponent + significand.bit_length() - 1
    unit = max(top, form.least) - precision + 1
    kept, inexact = _cut(significand, unit - exponent, sign, mode)
    flags = NX if inexact else 0
    if inexact and top < form.least:
        unbounded, _ = _cut(significand, top - precision + 1 - exponent, sign, mode)
        if top < form.least - 1 or not unbounded >> precision:
            flags |= UF
    # A carry out of the fraction moves into the exponent field, where it belongs.
    magnitude = kept + (unit + precision - 2 + form.bias << (precision - 1))
    if magnitude >= form.infinity:
        to_infinity = mode in {RNE, RMM} or mode == (RDN if sign else RUP)
        return sign_bit | (form.infinity if to_infinity else form.infinity - 1), OF | NX
    return sign_bit | magnitude, flags


def _sum(a: _Number, b: _Number, bits: int, mode: int) -> Result:
    """a + b of finite numbers."""
    exponent = min(a.exponent, b.exponent)
    total = sum((-1) ** number.sign * number.significand << (number.exponent - exponent) for number in (a, b))
    if total == 0:
        negative = a.sign if a.sign == b.sign else mode == RDN
        return _FORMATS[bits].sign if negative else 0, 0
    return _rounded(int(total < 0), abs(total), exponent, bits, mode)


def _nan(bits: int, *operands: _Number) -> Result:
    """What an operation on a NaN gives."""
    return _FORMATS[bits].nan, NV if any(operand.signaling for operand in operands) else 0


def _invalid(bits: int) -> Result:
    return _FORMATS[bits].nan, NV


def _infinity(sign: int, bits: int) -> int:
    form = _FORMATS[bits]
    return form.infinity | (form.sign if sign else 0)


def fadd(a: int, b: int, bits: int, mode: int) -> Result:
    x, y = _read(a, bits), _read(b, bits)
    if x.nan or y.nan:
        return _nan(bits, x, y)
    if x.infinite and y.infinite and x.sign != y.sign:
        return _invalid(bits)
    if x.infinite or y.infinite:
        return _infinity((x if x.infinite else y).sign, bits), 0
    return _sum(x, y, bits, mode)


def fsub(a: int, b: int, bits: int, mode: int) -> Result:
    return fadd(a, b ^ _FORMATS[bits].sign, bits, mode)


def fmul(a: int, b: int, bits: int, mode: int) -> Result:
    x, y = _read(a, bits), _read(b, bits)
    if x.nan or y.nan:
        return _nan(bits, x, y)
    sign = x.sign ^ y.sign
    if x.infinite or y.infinite:
        return _invalid(bits) if x.zero or y.zero else (_infinity(sign, bits), 0)
    product = x.significand * y.significand
    if product == 0:
        return _FORMATS[bits].sign if sign else 0, 0
    return _rounded(sign, product, x.exponent + y.exponent, bits, mode)


def fmadd(a: int, b: int, c: int, bits: int, mode: int) -> Result:
    """a * b + c. Infinity times zero is invalid whatever c is."""
    x, y, z = _read(a, bits), _read(b, bits), _read(c, bits)
    infinite = (x.infinite or y.infinite) and not (x.nan or y.nan)
    if infinite and (x.zero or y.zero):
        return _invalid(bits)
    if x.nan or y.nan or z.nan:
        return _nan(bits, x, y, z)
    sign = x.sign ^ y.sign
    if infinite and z.infinite and sign != z.sign:
        return _invalid(bits)
    if infinite or z.infinite:
        return _infinity(sign if infinite else z.sign, bits), 0
    return _sum(_Number(sign, x.significand * y.significand, x.exponent + y.exponent), z, bits, mode)


def fdiv(a: int, b: int, bits: int, mode: int) -> Result:
    x, y = _read(a, bits), _read(b, bits)
    if x.nan or y.nan:
        return _nan(bits, x, y)
    sign = x.sign ^ y.sign
    if x.infinite:
        return _invalid(bits) if y.infinite else (_infinity(sign, bits), 0)
    if y.infinite:
        return _FORMATS[bits].sign if sign else 0, 0
    if y.zero:
        return _invalid(bits) if x.zero else (_infinity(sign, bits), DZ)
    if x.zero:
        return _FORMATS[bits].sign if sign else 0, 0
    # Enough bits that the quotient has more than any rounding looks at, and one that tells of a remainder.
    shift = 2 * _FORMATS[bits].precision + 3
    quotient, rest = divmod(x.significand << shift, y.significand)
    return _rounded(sign, quotient << 1 | (rest != 0), x.exponent - y.exponent - shift - 1, bits, mode)


def fsqrt(a: int, bits: int, mode: int) -> Result:
    x = _read(a, bits)
    if x.nan:
        return _nan(bits, x)
    if x.zero or (x.infinite and not x.sign):
        return a, 0
    if x.sign:
        return _invalid(bits)
    shift = 2 * _FORMATS[bits].precision + 4
    shift += (x.exponent - shift) & 1
    square = x.significand << shift
    root = isqrt(square)
    return _rounded(0, root << 1 | (root * root != square), (x.exponent - shift) // 2 - 1, bits, mode)


def _order(word: int, bits: int) -> int:
    """An integer that orders the numbers as minimum and maximum do: -0 before +0."""
    sign = _FORMATS[bits].sign
    return ~(word ^ sign) if word & sign else word


def _extreme(a: int, b: int, bits: int, greater: bool) -> Result:
    x, y = _read(a, bits), _read(b, bits)
    flags = NV if x.signaling or y.signaling else 0
    if x.nan or y.nan:
        return _FORMATS[bits].nan if x.nan and y.nan else (b if x.nan else a), flags
    return (a if (_order(a, bits) > _order(b, bits)) == greater else b), flags


def fmin(a: int, b: int, bits: int) -> Result:
    """IEEE 754-2019's minimumNumber."""
    return _extreme(a, b, bits, greater=False)


def fmax(a: int, b: int, bits: int) -> Result:
    """IEEE 754-2019's maximumNumber."""
    return _extreme(a, b, bits, greater=True)


def _compared(a: int, b: int, bits: int, quiet: bool) -> tuple[int | None, int]:
    """-1, 0 or 1 as a is less than, equal to or greater than b, None where unordered; and flags."""
    x, y = _read(a, bits), _read(b, bits)
    if x.nan or y.nan:
        return None, NV if x.signaling or y.signaling or not quiet else 0
    both_zero = not (a | b) & ~_FORMATS[bits].sign
    first, second = (0, 0) if both_zero else (_order(a, bits), _order(b, bits))
    return (first > second) - (first < second), 0


def feq(a: int, b: int, bits: int) -> Result:
    order, flags = _compared(a, b, bits, quiet=True)
    return int(order == 0), flags


def flt(a: int, b: int, bits: int) -> Result:
    order, flags = _compared(a, b, bits, quiet=False)
    return int(order == -1), flags


def fle(a: int, b: int, bits: int) -> Result:
    order, flags = _compared(a, b, bits, quiet=False)
    return int(order is not None and order <= 0), flags


def fclass(a: int, bits: int) -> int:
    """The mask of section 11.9: -infinity, -normal, -subnormal, -0, +0, ... +infinity, signaling NaN, quiet NaN."""
    x, form = _read(a, bits), _FORMATS[bits]
    if x.nan:
        return 1 << (8 if x.signaling else 9)
    magnitude = a & ~form.sign
    kind = 0 if x.infinite else 1 if magnitude >> (form.precision - 1) else 2 if magnitude else 3
    return 1 << (kind if x.sign else 7 - kind)


def fconvert(a: int, source_bits: int, bits: int, mode: int) -> Result:
    """A number of one format in the other."""
    x = _read(a, source_bits)
    if x.nan:
        return _nan(bits, x)
    if x.infinite:
        return _infinity(x.sign, bits), 0
    if x.zero:
        return _FORMATS[bits].sign if x.sign else 0, 0
    return _rounded(x.sign, x.significand, x.exponent, bits, mode)


def from_signed(value: int, bits: int, mode: int) -> Result:
    """A 64-bit word, read as signed, as a number."""
    number = signed(value & MASK64)
    return _rounded(int(number < 0), abs(number), 0, bits, mode) if number else (0, 0)


def from_unsigned(value: int, bits: int, mode: int) -> Result:
    """A 64-bit word, read as unsigned, as a number."""
    number = value & MASK64
    return _rounded(0, number, 0, bits, mode) if number else (0, 0)


def _integer(a: int, bits: int, low: int, high: int, mode: int) -> Result:
    """`a` as the integer from low to high that it rounds to; the nearest of them, and invalid, where there is none."""
    x = _read(a, bits)
    if x.infinite or x.nan:
        return low if x.infinite and x.sign else high, NV
    magnitude, inexact = _cut(x.significand, -x.exponent, x.sign, mode)
    value = -magnitude if x.sign else magnitude
    if not low <= value <= high:
        return low if value < low else high, NV
    return value, NX if inexact else 0


def to_signed(a: int, bits: int, integer_bits: int, mode: int) -> Result:
    return _integer(a, bits, -(1 << (integer_bits - 1)), (1 << (integer_bits - 1)) - 1, mode)


def to_unsigned(a: int, bits: int, integer_bits: int, mode: int) -> Result:
    return _integer(a, bits, 0, (1 << integer_bits) - 1, mode)
