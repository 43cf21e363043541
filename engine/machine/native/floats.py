"""The floating-point primitives of engine.isa.table as LLVM IR: the host's own arithmetic, made to give bit for bit
what engine.machine.floats defines.

While native code runs, the host's MXCSR belongs to the guest: exceptions masked, rounding to nearest, and the flags
that operations raised since `fcsr` was last settled. So raising a flag costs nothing. They get into `fcsr` where native
code comes back to Python (`left`) and before a CSR procedure looks at it (`settle`, Hart.settle_floats): nobody can see
that they come late. Invariants:

- Every operation is a constrained intrinsic with strict exceptions, so LLVM neither drops nor adds nor moves one; and
  none is executed that the guest's instruction does not ask for, but those that raise exactly the flag wanted.
- SSE detects tininess after rounding, as RISC-V does. It differs in NaN results, in infinity * 0 + NaN, in minimum and
  maximum, and in conversions to integers: these are made here.
- What the host cannot do is left to the reference tier: rounding to nearest with ties away (RMM), fused operations on
  a processor without FMA, and all of it on one without SSE 4.1, which is every one that is no x86-64.

Sources: unprivileged specification 20191213, chapters 11 and 12; Intel SDM volume 1, sections 4.9 and 11.5.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from engine.bits import MASK32
from engine.isa.csrs import Status
from engine.isa.formats import Row
from engine.isa.table import floats_change, uses_floats
from engine.machine.floats import NAN32, RDN, RNE, RTZ, RUP
from engine.machine.native.layout import field
from engine.machine.native.lowering import UNSIGNED, Code, NotLowerable, Scope, Value, constant, statements
from engine.machine.native.objects import host_has

AVAILABLE = host_has("sse4.1")
_FUSED = host_has("fma")
_DYNAMIC = 7
_UPPER_ONES = MASK32 << 32
#: MXCSR as native code has it at first, and its fields.
_MXCSR, _MXCSR_FLAGS, _MXCSR_ROUNDING = 0x1F80, 0x3F, 0x6000
#: Rounding field of MXCSR for a RISC-V mode, two bits each.
_ROUNDING_FIELDS, _ROUNDING_SHIFT = 0b10_01_11_00, 13
#: Where each flag is in MXCSR, and where in fcsr: inexact, underflow, overflow, division by zero, invalid.
_FLAGS = ((5, 0), (4, 1), (3, 2), (2, 3), (0, 4))

_TYPES = {32: "float", 64: "double"}
#: Infinity and the bit that makes a NaN quiet, as words.
_FORMATS = {32: (0x7F80_0000, 1 << 22), 64: (0x7FF << 52, 1 << 51)}
#: LLVM writes constants of both formats as the bits of a double.
_NAN = "0x7FF8000000000000"
_STRICT = 'metadata !"fpexcept.strict"'
_ROUNDED = f'metadata !"round.dynamic", {_STRICT}'
_TO_INTEGER = {RNE: "roundeven", RTZ: "trunc", RDN: "floor", RUP: "ceil"}

Primitive = Callable[[list[ast.expr]], Value | None]


# -- MXCSR -------------------------------------------------------------------------------------------
def _read_control(code: Code) -> str:
    place = code.allocate("i32")
    code.do(f"call void @llvm.x86.sse.stmxcsr(ptr {place})")
    return code.op(f"load i32, ptr {place}")


def _write_control(code: Code, value: str) -> None:
    place = code.allocate("i32")
    code.do(f"store i32 {value}, ptr {place}")
    code.do(f"call void @llvm.x86.sse.ldmxcsr(ptr {place})")


def entered(code: Code) -> str:
    """Native code begins: MXCSR becomes the guest's. Returns the host's, for `left`."""
    if not AVAILABLE:
        return ""
    host = _read_control(code)
    _write_control(code, str(_MXCSR))
    return host


def left(code: Code, host: str) -> None:
    """Native code ends: `fcsr` has all flags and MXCSR is the host's again."""
    if AVAILABLE:
        _note(code, _read_control(code))
        _write_control(code, host)


def settle(code: Code) -> None:
    """`fcsr` has all flags and MXCSR none."""
    if AVAILABLE:
        control = _read_control(code)
        _note(code, control)
        _write_control(code, code.op(f"and i32 {control}, {~_MXCSR_FLAGS}"))


def _note(code: Code, control: str) -> None:
    found = "0"
    for place, flag in _FLAGS:
        bit = code.op(f"and i32 {code.op(f'lshr i32 {control}, {place}')}, 1")
        found = code.op(f"or i32 {found}, {code.op(f'shl i32 {bit}, {flag}')}")
    at = code.op(f"getelementptr i8, ptr %s, i64 {field('fcsr')}")
    flags = code.op(f"or i64 {code.op(f'load i64, ptr {at}')}, {code.op(f'zext i32 {found} to i64')}")
    code.do(f"store i64 {flags}, ptr {at}")


class FloatScope(Scope):
    """Rows with floating-point registers. A kind of code says where those are, and what happens while they are off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.primitives |= {
            "box": self._box, "unbox": self._unbox, "fmadd": self._fused, "fclass": self._class,
            "fmin": self._extreme("or", "olt", "ogt"), "fmax": self._extreme("and", "ogt", "olt"),
            "feq": self._compare("fcmp", "oeq"), "flt": self._compare("fcmps", "olt"),
            "fle": self._compare("fcmps", "ole"), "fconvert": self._convert,
            "from_signed": self._from_signed, "from_unsigned": self._from_unsigned,
            "to_signed": self._to_integer(signed=True), "to_unsigned": self._to_integer(signed=False),
            **{name: self._arithmetic(name[1:], count)
               for name, count in (("fadd", 2), ("fsub", 2), ("fmul", 2), ("fdiv", 2), ("fsqrt", 1))},
        }  # fmt: skip

    # -- what a kind of code defines -----------------------------------------------------------------
    def bail(self) -> str:
        """Label of a block that leaves this instruction, of which nothing was done yet, to the reference."""
        raise NotImplementedError

    def state(self, name: str) -> str:
        """The value of a field of the hart's state."""
        raise NotImplementedError

    def read_float(self, name: str) -> str:
        """The floating-point register whose number is the operand `name`."""
        raise NotLowerable(name)

    def write_float(self, value: str) -> None:
        """Write the floating-point register whose number is the operand rd."""
        raise NotLowerable(value)

    def enter_floats(self, ready: str) -> None:
        """Before a row with floating-point registers. ready: may it be executed, with nothing left to be noted?"""
        self._require(ready)

    def leave_floats(self, ready: str) -> None:
        """After a row that changes floating-point state."""

    # -- rows ----------------------------------------------------------------------------------------
    def lower(self, row: Row) -> None:
        """Write a row's code."""
        if not uses_floats(row):
            self.run(statements(row.semantics))
            return
        if not AVAILABLE:
            raise NotLowerable(row.mnemonic)
        ready = self._ready(floats_change(row))
        self.enter_floats(ready)
        self.run(statements(row.semantics))
        if floats_change(row):
            self.leave_floats(ready)

    def _ready(self, dirty: bool) -> str:
        """Is FS on (dirty: Dirty) for the host and, while V=1, for the guest? As privileged.check_floats and
        privileged.dirty_floats have it; SD follows FS."""
        code = self.code
        host, guest = self.state("mstatus"), self.state("vsstatus")
        native = code.op(f"icmp eq i64 {self.state('virtual')}, 0")
        own = code.op(f"select i1 {native}, i64 {host}, i64 {guest}")
        fields = [code.op(f"and i64 {status}, {int(Status.FS)}") for status in (host, own)]
        if dirty:
            return code.op(f"icmp eq i64 {code.op(f'and i64 {fields[0]}, {fields[1]}')}, {int(Status.FS)}")
        on = [code.op(f"icmp ne i64 {status}, 0") for status in fields]
        return code.op(f"and i1 {on[0]}, {on[1]}")

    def read(self, name: str) -> Value:
        if name in ("frs1", "frs2", "frs3"):
            return Value(self.read_float(name[1:]), UNSIGNED)
        return super().read(name)

    def write(self, name: str, value: Value) -> bool:
        if name == "frd":
            self.write_float(value.text)
            return True
        return super().write(name, value)

    def _require(self, condition: str) -> None:
        on = self.code.name("on")
        self.code.end(f"br i1 {condition}, label %{on}, label %{self.bail()}, !prof !0")
        self.code.label(on)

    # -- numbers and words ---------------------------------------------------------------------------
    def _word_of(self, node: ast.expr, bits: int) -> str:
        """An operand as an integer of `bits` bits."""
        word = self.number(node).text
        return word if bits == 64 else self.code.op(f"trunc i64 {word} to i32")

    def _float(self, node: ast.expr, bits: int) -> str:
        return self.code.op(f"bitcast i{bits} {self._word_of(node, bits)} to {_TYPES[bits]}")

    def _result(self, number: str, bits: int) -> Value:
        word = self.code.op(f"bitcast {_TYPES[bits]} {number} to i{bits}")
        return Value(word if bits == 64 else self.code.op(f"zext i32 {word} to i64"), UNSIGNED)

    def _box(self, args: list[ast.expr]) -> Value:
        code = self.code
        low = code.op(f"and i64 {self.number(args[0]).text}, {MASK32}")
        return Value(code.op(f"or i64 {low}, {_UPPER_ONES - (1 << 64)}"), UNSIGNED)

    def _unbox(self, args: list[ast.expr]) -> Value:
        code = self.code
        word = self.number(args[0]).text
        boxed = code.op(f"icmp uge i64 {word}, {_UPPER_ONES - (1 << 64)}")
        low = code.op(f"and i64 {word}, {MASK32}")
        return Value(code.op(f"select i1 {boxed}, i64 {low}, i64 {NAN32}"), UNSIGNED)

    def _call(self, name: str, kinds: str, result: str, arguments: list[tuple[str, str]], metadata: str) -> str:
        """A constrained intrinsic. kinds: the types in its name; arguments: (type, value)."""
        listed = "".join(f"{kind} {value}, " for kind, value in arguments)
        return self.code.op(f"call {result} @llvm.experimental.constrained.{name}.{kinds}({listed}{metadata})")

    def _test(self, how: str, a: str, b: str, bits: int, kind: str = "fcmp") -> str:
        """fcmp: invalid only for signaling NaNs; fcmps: for all."""
        arguments = [(_TYPES[bits], a), (_TYPES[bits], b)]
        return self._call(kind, f"f{bits}", "i1", arguments, f'metadata !"{how}", {_STRICT}')

    def _invalid(self) -> None:
        """Raise NV: the host's 0 / 0."""
        self._call("fdiv", "f64", "double", [("double", "0.0"), ("double", "0.0")], _ROUNDED)

    # -- rounding ------------------------------------------------------------------------------------
    def _mode(self, node: ast.expr) -> str:
        """The operand rm: a constant below 5, or what the instruction or frm says, which may be reserved."""
        code, mode = self.code, self.number(node).text
        dynamic = code.op(f"lshr i64 {self.state('fcsr')}, 5")
        if not mode.isdigit():
            return code.op(f"select i1 {code.op(f'icmp eq i64 {mode}, {_DYNAMIC}')}, i64 {dynamic}, i64 {mode}")
        if int(mode) != _DYNAMIC:
            return mode
        # Where instructions are known, nearly none is executed with another dynamic mode.
        self._require(code.op(f"icmp eq i64 {dynamic}, {RNE}"))
        return str(RNE)

    def _rounded(self, node: ast.expr, bits: int, operation: Callable[[], str]) -> str:
        """What `operation` writes, in the rounding mode of the operand rm."""
        code, kind = self.code, _TYPES[bits]
        mode = self._mode(node)
        if mode == str(RNE):
            return operation()
        place, done = code.allocate(kind), code.name("done")
        nearest, other = code.branch(code.op(f"icmp eq i64 {mode}, {RNE}"), likely=True)
        code.label(other)
        self._require(code.op(f"icmp ule i64 {mode}, {RUP}"))
        control = _read_control(code)
        shift = code.op(f"shl i32 {code.op(f'trunc i64 {mode} to i32')}, 1")
        rounding = code.op(f"and i32 {code.op(f'lshr i32 {_ROUNDING_FIELDS}, {shift}')}, 3")
        rounding = code.op(f"shl i32 {rounding}, {_ROUNDING_SHIFT}")
        _write_control(code, code.op(f"or i32 {control}, {rounding}"))
        code.do(f"store {kind} {operation()}, ptr {place}")
        _write_control(code, code.op(f"and i32 {_read_control(code)}, {~_MXCSR_ROUNDING}"))
        code.end(f"br label %{done}")
        code.label(nearest)
        code.do(f"store {kind} {operation()}, ptr {place}")
        code.label(done)
        return code.op(f"load {kind}, ptr {place}")

    def _integral(self, node: ast.expr, number: str, bits: int) -> str:
        """`number` rounded to an integer in the mode of the operand rm, without a flag but for a signaling NaN."""
        code, kind = self.code, _TYPES[bits]
        mode = self._mode(node)

        def rounded(name: str) -> str:
            return self._call(name, f"f{bits}", kind, [(kind, number)], _STRICT)

        if mode.isdigit() and int(mode) in _TO_INTEGER:
            return rounded(_TO_INTEGER[int(mode)])
        place, done = code.allocate(kind), code.name("done")
        labels = {known: code.name(name) for known, name in _TO_INTEGER.items()}
        cases = " ".join(f"i64 {known}, label %{label}" for known, label in labels.items())
        code.end(f"switch i64 {mode}, label %{self.bail()} [ {cases} ]")
        for known, label in labels.items():
            code.label(label)
            code.do(f"store {kind} {rounded(_TO_INTEGER[known])}, ptr {place}")
            code.end(f"br label %{done}")
        code.label(done)
        return code.op(f"load {kind}, ptr {place}")

    def _canonical(self, number: str, bits: int, of_nan: Callable[[], None] | None = None) -> Value:
        """A result, its NaN made canonical. of_nan: writes what else has to be done then."""
        code, kind = self.code, _TYPES[bits]
        place, done = code.allocate(kind), code.name("done")
        code.do(f"store {kind} {number}, ptr {place}")
        nan, on = code.branch(self._test("uno", number, number, bits), likely=False)
        code.label(nan)
        if of_nan is not None:
            of_nan()
        code.do(f"store {kind} {_NAN}, ptr {place}")
        code.end(f"br label %{done}")
        code.label(on)
        code.label(done)
        return self._result(code.op(f"load {kind}, ptr {place}"), bits)

    def _arithmetic(self, name: str, count: int) -> Primitive:
        def lower(args: list[ast.expr]) -> Value:
            bits: int = ast.literal_eval(args[count])
            operands = [(_TYPES[bits], self._float(arg, bits)) for arg in args[:count]]
            intrinsic = name if name == "sqrt" else f"f{name}"

            def operation() -> str:
                return self._call(intrinsic, f"f{bits}", _TYPES[bits], operands, _ROUNDED)

            return self._canonical(self._rounded(args[count + 1], bits, operation), bits)

        return lower

    def _fused(self, args: list[ast.expr]) -> Value:
        """fmadd(a, b, c, bits, rm). The host does not call infinity * 0 + NaN invalid."""
        if not _FUSED:
            raise NotLowerable("fmadd")
        bits: int = ast.literal_eval(args[3])
        operands = [(_TYPES[bits], self._float(arg, bits)) for arg in args[:3]]

        def operation() -> str:
            return self._call("fma", f"f{bits}", _TYPES[bits], operands, _ROUNDED)

        def of_nan() -> None:
            zero = [self._test("oeq", number, "0.0", bits) for _, number in operands[:2]]
            some, none = self.code.branch(self.code.op(f"or i1 {zero[0]}, {zero[1]}"))
            self.code.label(some)
            self._call("fmul", f"f{bits}", _TYPES[bits], operands[:2], _ROUNDED)
            self.code.label(none)

        return self._canonical(self._rounded(args[4], bits, operation), bits, of_nan)

    def _convert(self, args: list[ast.expr]) -> Value:
        """fconvert(a, from_bits, bits, rm)"""
        source, bits = (int(ast.literal_eval(arg)) for arg in args[1:3])
        kinds, operand = f"f{bits}.f{source}", [(_TYPES[source], self._float(args[0], source))]

        def operation() -> str:
            if bits < source:
                return self._call("fptrunc", kinds, _TYPES[bits], operand, _ROUNDED)
            return self._call("fpext", kinds, _TYPES[bits], operand, _STRICT)

        return self._canonical(self._rounded(args[3], bits, operation), bits)

    def _from_integer(self, word: str, node: ast.expr, bits: int) -> str:
        def operation() -> str:
            return self._call("sitofp", f"f{bits}.i64", _TYPES[bits], [("i64", word)], _ROUNDED)

        return self._rounded(node, bits, operation)

    def _from_signed(self, args: list[ast.expr]) -> Value:
        bits: int = ast.literal_eval(args[1])
        return self._result(self._from_integer(self.number(args[0]).text, args[2], bits), bits)

    def _from_unsigned(self, args: list[ast.expr]) -> Value:
        """An integer beyond the signed ones is halved, its last bit kept for rounding to see; the result is doubled."""
        code, word, bits = self.code, self.number(args[0]).text, int(ast.literal_eval(args[1]))
        great = code.op(f"icmp slt i64 {word}, 0")
        half = code.op(f"or i64 {code.op(f'lshr i64 {word}, 1')}, {code.op(f'and i64 {word}, 1')}")
        small = self._from_integer(code.op(f"select i1 {great}, i64 {half}, i64 {word}"), args[2], bits)
        added = code.op(f"select i1 {great}, {_TYPES[bits]} {small}, {_TYPES[bits]} 0.0")
        operands = [(_TYPES[bits], small), (_TYPES[bits], added)]
        return self._result(self._call("fadd", f"f{bits}", _TYPES[bits], operands, _ROUNDED), bits)

    def _to_integer(self, signed: bool) -> Primitive:
        """to_signed, to_unsigned (a, bits, integer_bits, rm): what does not fit gives the nearest that does, and NV."""

        def lower(args: list[ast.expr]) -> Value:
            code, (bits, width) = self.code, (int(ast.literal_eval(arg)) for arg in args[1:3])
            low, high = (-(1 << width - 1), 1 << width - 1) if signed else (0, 1 << width)
            exact = self._float(args[0], bits)
            whole = self._integral(args[3], exact, bits)
            above = self._test("oge", whole, f"{low}.0", bits)
            fits = code.op(f"and i1 {above}, {self._test('olt', whole, f'{high}.0', bits)}")
            place, done = code.allocate(), code.name("done")
            inside, outside = code.branch(fits, likely=True)
            code.label(inside)
            code.do(f"store i64 {self._fitting(exact, whole, bits, high > 1 << 63)}, ptr {place}")
            code.end(f"br label %{done}")
            code.label(outside)
            self._invalid()
            less = self._test("olt", exact, "0.0", bits)
            nearest = code.op(f"select i1 {less}, i64 {low}, i64 {constant(high - 1).text}")
            code.do(f"store i64 {nearest}, ptr {place}")
            code.label(done)
            return Value(code.op(f"load i64, ptr {place}"), UNSIGNED)

        return lower

    def _fitting(self, exact: str, whole: str, bits: int, beyond: bool) -> str:
        """A number as the integer `whole` that it was rounded to: NX is what cutting `exact` raises. beyond: it may be
        2**63 or more, which is always exact."""
        code, kind = self.code, _TYPES[bits]

        def cut(number: str) -> str:
            return self._call("fptosi", f"i64.f{bits}", "i64", [(kind, number)], _STRICT)

        if not beyond:
            cut(exact)
            return cut(whole)
        place, done = code.allocate(), code.name("done")
        limit = f"{1 << 63}.0"
        near, far = code.branch(self._test("olt", whole, limit, bits), likely=True)
        code.label(near)
        cut(exact)
        code.do(f"store i64 {cut(whole)}, ptr {place}")
        code.end(f"br label %{done}")
        code.label(far)
        rest = cut(self._call("fsub", f"f{bits}", kind, [(kind, whole), (kind, limit)], _ROUNDED))
        code.do(f"store i64 {code.op(f'xor i64 {rest}, {-(1 << 63)}')}, ptr {place}")
        code.label(done)
        return code.op(f"load i64, ptr {place}")

    # -- without rounding ----------------------------------------------------------------------------
    def _compare(self, kind: str, how: str) -> Primitive:
        def lower(args: list[ast.expr]) -> Value:
            bits: int = ast.literal_eval(args[2])
            a, b = (self._float(arg, bits) for arg in args[:2])
            return Value(self.code.op(f"zext i1 {self._test(how, a, b, bits, kind)} to i64"), UNSIGNED)

        return lower

    def _extreme(self, zeros: str, first: str, second: str) -> Primitive:
        """The operand for which `first` holds; of two that are equal, `zeros` combines the words: -0 is less than 0."""

        def lower(args: list[ast.expr]) -> Value:
            code, bits = self.code, int(ast.literal_eval(args[2]))
            kind = f"i{bits}"
            words = [self._word_of(arg, bits) for arg in args[:2]]
            a, b = (code.op(f"bitcast {kind} {word} to {_TYPES[bits]}") for word in words)
            nan_a, nan_b = self._test("uno", a, a, bits), self._test("uno", b, b, bits)
            infinity, quiet = _FORMATS[bits]
            of_nans = code.op(f"select i1 {nan_b}, {kind} {infinity | quiet}, {kind} {words[1]}")
            found = code.op(f"{zeros} {kind} {words[0]}, {words[1]}")
            found = code.op(f"select i1 {nan_b}, {kind} {words[0]}, {kind} {found}")
            found = code.op(f"select i1 {nan_a}, {kind} {of_nans}, {kind} {found}")
            found = code.op(f"select i1 {self._test(second, a, b, bits)}, {kind} {words[1]}, {kind} {found}")
            found = code.op(f"select i1 {self._test(first, a, b, bits)}, {kind} {words[0]}, {kind} {found}")
            return Value(found if bits == 64 else code.op(f"zext i32 {found} to i64"), UNSIGNED)

        return lower

    def _class(self, args: list[ast.expr]) -> Value:
        code, bits = self.code, int(ast.literal_eval(args[1]))
        kind, word = f"i{bits}", self._word_of(args[0], bits)
        infinity, quiet = _FORMATS[bits]
        magnitude = code.op(f"and {kind} {word}, {(1 << bits - 1) - 1}")
        # From the outermost inwards: infinity, normal, subnormal, zero.
        place = "0"
        for limit in (infinity, infinity & -infinity, 1):
            below = code.op(f"icmp ult {kind} {magnitude}, {limit}")
            place = code.op(f"add i64 {place}, {code.op(f'zext i1 {below} to i64')}")
        negative = code.op(f"icmp slt {kind} {word}, 0")
        place = code.op(f"select i1 {negative}, i64 {place}, i64 {code.op(f'sub i64 7, {place}')}")
        is_quiet = code.op(f"icmp ne {kind} {code.op(f'and {kind} {word}, {quiet}')}, 0")
        of_nan = code.op(f"select i1 {is_quiet}, i64 9, i64 8")
        nan = code.op(f"icmp ugt {kind} {magnitude}, {infinity}")
        place = code.op(f"select i1 {nan}, i64 {of_nan}, i64 {place}")
        return Value(code.op(f"shl i64 1, {place}"), UNSIGNED)
