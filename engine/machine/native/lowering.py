"""Restricted Python to LLVM IR: how a row's semantics become native code.

The same lines that the reference tier compiles to Python (engine.isa.table documents them) are walked here
and written as LLVM IR. Every value is a 64-bit integer or a truth value; what Python would compute with more
bits is the same modulo 2**64, because every use masks it. A value remembers whether Python would see it as
signed (`s(x)`, `sx(x, n)`, immediates): that decides between the signed and the unsigned form of comparisons,
right shifts and extensions.

A `Scope` says what names and primitives mean in one kind of code: an interpreter handler, whose operands come
from a decoded operation, or a compiled region, whose operands are constants. What a scope does not know
raises NotLowerable, and the instruction is left to the reference tier.
"""

from __future__ import annotations

import ast
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from engine.bits import MASK64, SIGN64

UNSIGNED, SIGNED, EITHER, TRUTH = "u", "s", "n", "b"


class NotLowerable(Exception):  # noqa: N818 (not an error: a fact about a row)
    """This construct has no native form."""


class Value(NamedTuple):
    """An LLVM operand: a constant or the name of a result. kind: how Python would read it."""

    text: str
    kind: str


def constant(value: int, kind: str = EITHER) -> Value:
    value &= MASK64
    return Value(str((value ^ SIGN64) - SIGN64), SIGNED if kind == EITHER and value >> 63 else kind)


@cache
def statements(semantics: str) -> tuple[ast.stmt, ...]:
    """A row's semantics as syntax trees, parsed once."""
    return tuple(ast.parse(semantics).body)


class Code:
    """The body of one LLVM function while it is being written, block after block."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.allocations: list[str] = []
        self._next = 0
        self.open = True  # does the current block still lack its last instruction?

    def name(self, prefix: str = "v") -> str:
        self._next += 1
        return f"{prefix}{self._next}"

    def op(self, text: str) -> str:
        """Write one instruction; returns the name of its result."""
        result = f"%{self.name()}"
        self.lines.append(f"  {result} = {text}")
        return result

    def do(self, text: str) -> None:
        """Write one instruction without a result."""
        self.lines.append(f"  {text}")

    def end(self, text: str) -> None:
        """Write the last instruction of a block. What follows needs a `label`."""
        if self.open:
            self.lines.append(f"  {text}")
            self.open = False

    def label(self, name: str) -> None:
        if self.open:
            self.lines.append(f"  br label %{name}")
        self.lines.append(f"{name}:")
        self.open = True

    def allocate(self, kind: str = "i64") -> str:
        """A variable of the function; optimization makes it a register."""
        result = f"%{self.name('a')}"
        self.allocations.append(f"  {result} = alloca {kind}")
        return result

    def branch(self, condition: str, likely: bool | None = None) -> tuple[str, str]:
        """End the block with a conditional branch; returns the labels where it holds and where not."""
        yes, no = self.name("yes"), self.name("no")
        weights = "" if likely is None else f", !prof !{0 if likely else 1}"
        self.end(f"br i1 {condition}, label %{yes}, label %{no}{weights}")
        return yes, no

    def text(self, header: str) -> str:
        """The function, given the line that defines it."""
        return "\n".join([f"{header} {{", "entry:", *self.allocations, *self.lines, "}"])


#: How the functions that execute guests' instructions call each other: handlers, what stands between them, regions. They
#: keep no register for who called them, and hold their arguments in registers that a procedure they call keeps. LLVM has
#: this convention for two architectures.
_CONVENTION = "preserve_nonecc" if platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64") else "ccc"


def threaded(code: Code, name: str, attributes: str = "#1", visible: bool = False) -> str:
    """Such a function, of the type `i64 (state, operation, budget)`: %s, %op, %budget."""
    linkage = "" if visible else "internal "
    return code.text(f"define {linkage}{_CONVENTION} i64 {name}(ptr nonnull %s, ptr %op, i64 %budget) {attributes}")


def declared(name: str) -> str:
    """Such a function of another module."""
    return f"declare {_CONVENTION} i64 {name}(ptr, ptr, i64)"


def call_threaded(code: Code, function: str, operation: str, budget: str, kind: str = "call") -> str:
    return code.op(f"{kind} {_CONVENTION} i64 {function}(ptr %s, ptr {operation}, i64 {budget})")


def tail(code: Code, function: str, operation: str, budget: str) -> None:
    """End the block by going on in another such function."""
    code.end(f"ret i64 {call_threaded(code, function, operation, budget, 'musttail call')}")


def tail_far(code: Code, address: str, budget: str, function: str = "@far") -> None:
    """End the block by going on at a virtual address, which stands where others have the operation."""
    tail(code, function, code.op(f"inttoptr i64 {address} to ptr"), budget)


#: The functions of LLVM that lowered code calls, and the metadata that `Code.branch` and the two below refer to;
#: once in
#: each module.
DECLARATIONS = "\n".join(
    f"declare {kind} @llvm.{name}.{kind}({kind}{flag})"
    for kind in ("i32", "i64")
    for name, flag in (("ctlz", ", i1"), ("cttz", ", i1"), ("ctpop", ""), ("bswap", ""))
)
METADATA = DECLARATIONS + """
!0 = !{!"branch_weights", i32 2000, i32 1}
!1 = !{!"branch_weights", i32 1, i32 2000}
!2 = distinct !{!2}
!3 = distinct !{!3, !2}
!4 = distinct !{!4, !2}
!5 = !{!3}
!6 = !{!4}"""
#: Appended to a load or store: a guest's RAM and what we keep about the machine are never the same bytes.
IN_RAM = ", !alias.scope !5, !noalias !6"
IN_MACHINE = ", !alias.scope !6, !noalias !5"

_WORD_BITS = ast.Constant(64)
_BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitAnd: "and", ast.BitOr: "or",
           ast.BitXor: "xor", ast.LShift: "shl", ast.FloorDiv: "udiv"}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("eq", "eq"), ast.NotEq: ("ne", "ne"), ast.Lt: ("ult", "slt"), ast.LtE: ("ule", "sle"),
    ast.Gt: ("ugt", "sgt"), ast.GtE: ("uge", "sge"),
}  # fmt: skip


@dataclass
class Scope:
    """What names and primitives mean. `primitives` maps a name to what writes its code."""

    code: Code

    def __post_init__(self) -> None:
        self.locals: dict[str, str] = {}
        self.primitives: dict[str, Callable[[list[ast.expr]], Value | None]] = {
            "s": self._signed, "sx": self._sign_extend, "zx": self._zero_extend, "select": self._select,
            "mulh": self._high(True, True), "mulhsu": self._high(True, False),
            "mulhu": self._high(False, False),
            "div": self._divide("sdiv"), "rem": self._divide("srem"),
            "divu": self._divide("udiv"), "remu": self._divide("urem"),
            "clz": self._count("ctlz", ", i1 false"), "ctz": self._count("cttz", ", i1 false"),
            "cpop": self._count("ctpop", ""), "rev8": lambda args: self._count("bswap", "")([*args, _WORD_BITS]),
        }  # fmt: skip

    # -- what a kind of code defines -----------------------------------------------------------------
    def read(self, name: str) -> Value:
        """The value of a name that is not a local."""
        raise NotLowerable(name)

    def write(self, name: str, value: Value) -> bool:  # noqa: ARG002 (of the scopes below)
        """Assign to a name that is not a local; False: it is one."""
        return False

    # -- statements ----------------------------------------------------------------------------------
    def run(self, body: tuple[ast.stmt, ...] | list[ast.stmt]) -> None:
        for statement in body:
            if not self.code.open:
                return
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                result = self.number(value)
                if not self.write(name, result):
                    self._store_local(name, result)
            case ast.Expr(value=ast.Call(func=ast.Name(id=name), args=args)):
                self.call(name, args)
            case ast.If(test=test, body=body, orelse=orelse):
                yes, no = self.code.branch(self.truth(test))
                done = self.code.name("done")
                self.code.label(yes)
                self.run(body)
                self.code.end(f"br label %{done}")
                self.code.label(no)
                self.run(orelse)
                self.code.label(done)
            case ast.Pass():
                pass
            case _:
                raise NotLowerable(ast.dump(node))

    def _store_local(self, name: str, value: Value) -> None:
        # A local keeps the kind of its first value; `old` and its like are assigned once.
        key = self.locals.get(name)
        if key is None:
            key = self.locals[name] = f"{self.code.allocate()}:{value.kind}"
        self.code.do(f"store i64 {value.text}, ptr {key.partition(':')[0]}")

    # -- expressions ---------------------------------------------------------------------------------
    def number(self, node: ast.expr) -> Value:
        value = self.value(node)
        if value is None:
            raise NotLowerable(ast.dump(node))
        if value.kind == TRUTH:
            return Value(self.code.op(f"zext i1 {value.text} to i64"), UNSIGNED)
        return value

    def truth(self, node: ast.expr) -> str:
        value = self.value(node)
        if value is None:
            raise NotLowerable(ast.dump(node))
        return value.text if value.kind == TRUTH else self.code.op(f"icmp ne i64 {value.text}, 0")

    def value(self, node: ast.expr) -> Value | None:
        code = self.code
        match node:
            case ast.Constant(value=bool(value)):
                return Value("true" if value else "false", TRUTH)
            case ast.Constant(value=int(value)):
                return constant(value)
            case ast.Name(id=name):
                if name in self.locals:
                    place, _, kind = self.locals[name].partition(":")
                    return Value(code.op(f"load i64, ptr {place}"), kind)
                return self.read(name)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(value))):
                return constant(-value)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Value(code.op(f"sub i64 0, {self.number(operand).text}"), SIGNED)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                inner = self.number(operand)
                return Value(code.op(f"xor i64 {inner.text}, -1"), inner.kind)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Value(code.op(f"xor i1 {self.truth(operand)}, true"), TRUTH)
            case ast.BoolOp(op=op, values=values):
                found = self.truth(values[0])
                for part in values[1:]:
                    kind = "and" if isinstance(op, ast.And) else "or"
                    found = code.op(f"{kind} i1 {found}, {self.truth(part)}")
                return Value(found, TRUTH)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                a, b = self.number(left), self.number(right)
                signed = SIGNED in (a.kind, b.kind)
                if signed and UNSIGNED in (a.kind, b.kind) and not isinstance(op, ast.Eq | ast.NotEq):
                    raise NotLowerable(f"signed against unsigned: {ast.unparse(node)}")
                return Value(code.op(f"icmp {_COMPARE[type(op)][signed]} i64 {a.text}, {b.text}"), TRUTH)
            case ast.BinOp(left=left, op=ast.RShift(), right=right):
                a, b = self.number(left), self.number(right)
                kind = "ashr" if a.kind == SIGNED else "lshr"
                return Value(code.op(f"{kind} i64 {a.text}, {b.text}"), a.kind)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                a, b = self.number(left), self.number(right)
                kind = SIGNED if SIGNED in (a.kind, b.kind) else UNSIGNED
                if isinstance(op, ast.LShift):
                    kind = a.kind
                return Value(code.op(f"{_BINARY[type(op)]} i64 {a.text}, {b.text}"), kind)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._choose(test, body, orelse)
            case ast.Call(func=ast.Name(id=name), args=args):
                return self.call(name, args)
            case _:
                raise NotLowerable(ast.dump(node))

    def call(self, name: str, args: list[ast.expr]) -> Value | None:
        primitive = self.primitives.get(name)
        if primitive is None:
            raise NotLowerable(name)
        return primitive(args)

    def _choose(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> Value:
        """Only the chosen side is evaluated, as in Python."""
        code = self.code
        place = code.allocate()
        yes, no = code.branch(self.truth(test))
        done = code.name("done")
        code.label(yes)
        a = self.number(body)
        code.do(f"store i64 {a.text}, ptr {place}")
        code.end(f"br label %{done}")
        code.label(no)
        b = self.number(orelse)
        code.do(f"store i64 {b.text}, ptr {place}")
        code.label(done)
        return Value(code.op(f"load i64, ptr {place}"), _common(a, b))

    # -- pure primitives -----------------------------------------------------------------------------
    def _signed(self, args: list[ast.expr]) -> Value:
        return Value(self.number(args[0]).text, SIGNED)

    def _sign_extend(self, args: list[ast.expr]) -> Value:
        value, bits = self.number(args[0]), ast.literal_eval(args[1])
        narrow = self.code.op(f"trunc i64 {value.text} to i{bits}") if bits < 64 else ""
        return Value(self.code.op(f"sext i{bits} {narrow} to i64") if narrow else value.text, SIGNED)

    def _zero_extend(self, args: list[ast.expr]) -> Value:
        value, bits = self.number(args[0]), ast.literal_eval(args[1])
        if bits == 64:
            return Value(value.text, UNSIGNED)
        return Value(self.code.op(f"and i64 {value.text}, {(1 << bits) - 1}"), UNSIGNED)

    def _select(self, args: list[ast.expr]) -> Value:
        condition = self.truth(args[0])
        a, b = self.number(args[1]), self.number(args[2])
        return Value(self.code.op(f"select i1 {condition}, i64 {a.text}, i64 {b.text}"), _common(a, b))

    def _high(self, a_signed: bool, b_signed: bool) -> Callable[[list[ast.expr]], Value]:
        def lower(args: list[ast.expr]) -> Value:
            code = self.code
            a, b = self.number(args[0]), self.number(args[1])
            wide = [
                code.op(f"{'sext' if signed else 'zext'} i64 {value.text} to i128")
                for value, signed in ((a, a_signed), (b, b_signed))
            ]
            product = code.op(f"mul i128 {wide[0]}, {wide[1]}")
            return Value(code.op(f"trunc i128 {code.op(f'lshr i128 {product}, 64')} to i64"), SIGNED)

        return lower

    def _count(self, intrinsic: str, flag: str) -> Callable[[list[ast.expr]], Value]:
        """A function of the bits of a word: LLVM has each."""

        def lower(args: list[ast.expr]) -> Value:
            code, kind = self.code, f"i{ast.literal_eval(args[1])}"
            value = self.number(args[0]).text
            if kind != "i64":
                value = code.op(f"trunc i64 {value} to {kind}")
            result = code.op(f"call {kind} @llvm.{intrinsic}.{kind}({kind} {value}{flag})")
            return Value(result if kind == "i64" else code.op(f"zext {kind} {result} to i64"), UNSIGNED)

        return lower

    def _divide(self, operation: str) -> Callable[[list[ast.expr]], Value]:
        """Section 7.2: no trap; division by zero and overflow give what the manual's table says."""
        signed, remainder = operation[0] == "s", operation.endswith("rem")

        def lower(args: list[ast.expr]) -> Value:
            code, bits = self.code, ast.literal_eval(args[2])
            a, b = (self.number(arg).text for arg in args[:2])
            if bits < 64:
                a, b = (code.op(f"trunc i64 {value} to i{bits}") for value in (a, b))
            kind = f"i{bits}"
            by_zero = code.op(f"icmp eq {kind} {b}, 0")
            unsafe = by_zero
            if signed:
                lowest = code.op(f"icmp eq {kind} {a}, {-(1 << bits - 1)}")
                overflow = code.op(f"and i1 {lowest}, {code.op(f'icmp eq {kind} {b}, -1')}")
                unsafe = code.op(f"or i1 {by_zero}, {overflow}")
            divisor = code.op(f"select i1 {unsafe}, {kind} 1, {kind} {b}")
            # Dividing the lowest number by 1 instead of -1 gives what the overflow has to: itself, rest 0.
            result = code.op(f"{operation} {kind} {a}, {divisor}")
            result = code.op(f"select i1 {by_zero}, {kind} {a if remainder else -1}, {kind} {result}")
            if bits < 64:
                result = code.op(f"{'sext' if signed else 'zext'} {kind} {result} to i64")
            return Value(result, SIGNED if signed else UNSIGNED)

        return lower


def _common(a: Value, b: Value) -> str:
    kinds = {a.kind, b.kind} - {EITHER}
    return kinds.pop() if len(kinds) == 1 else UNSIGNED
