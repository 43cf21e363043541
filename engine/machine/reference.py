"""The reference tier: each row's semantics compiled once to plain Python. The slow path that defines the
others.

An operation is `op(hart, pc) -> next pc`, bound to the operands of one encoding. It raises `Trap` before it
has written anything that the architecture says must not be written. Compiling is a small rewrite of the row's
syntax tree: operands become reads of `x`, primitives become methods of the hart, `rd = v` becomes a masked
write (or nothing for x0).
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from engine.bits import MASK32, MASK64, SIGN64, sign_extend, signed
from engine.isa.decoder import decode, encoding_of
from engine.isa.formats import Row
from engine.isa.table import RAISING, floats_change, uses_floats
from engine.machine import floats
from engine.machine.privileged import check_floats, dirty_floats, rounding_mode
from engine.machine.traps import Trap
from engine.trace.record import Cause

Operation = Callable[[Any, int], int]
_CACHE_LIMIT = 1 << 16
_REGISTERS = {"rs1": "x[rs1]", "rs2": "x[rs2]", "frs1": "f[rs1]", "frs2": "f[rs2]", "frs3": "f[rs3]"}
#: Primitives that end the instruction elsewhere than at pc + ilen: they return the next pc.
_CONTROL = ("mret", "sret")
_SIZED = ("load", "store")


def mulh(a: int, b: int, bits: int) -> int:
    return signed(a) * signed(b) >> bits


def mulhsu(a: int, b: int, bits: int) -> int:
    return signed(a) * b >> bits


def mulhu(a: int, b: int, bits: int) -> int:
    return a * b >> bits


def _narrow(value: int, bits: int) -> int:
    return signed(sign_extend(value, bits))


def div(a: int, b: int, bits: int) -> int:
    """Truncating; -1 for division by zero, the dividend on overflow (section 7.2)."""
    x, y = _narrow(a, bits), _narrow(b, bits)
    if y == 0:
        return -1
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient


def rem(a: int, b: int, bits: int) -> int:
    """The dividend's sign; the dividend itself for division by zero."""
    x, y = _narrow(a, bits), _narrow(b, bits)
    if y == 0:
        return x
    rest = abs(x) % abs(y)
    return -rest if x < 0 else rest


def divu(a: int, b: int, bits: int) -> int:
    mask = (1 << bits) - 1
    return (a & mask) // (b & mask) if b & mask else mask


def remu(a: int, b: int, bits: int) -> int:
    mask = (1 << bits) - 1
    return (a & mask) % (b & mask) if b & mask else a & mask


def clz(x: int, bits: int) -> int:
    return bits - x.bit_length()


def ctz(x: int, bits: int) -> int:
    return (x & -x).bit_length() - 1 if x else bits


def cpop(x: int, _bits: int) -> int:
    return x.bit_count()


def rev8(x: int) -> int:
    return int.from_bytes(x.to_bytes(8, "little"), "big")


def box(x: int) -> int:
    return x & MASK32 | MASK32 << 32


def raised(h: Any, result: floats.Result) -> int:
    """A floating-point result, its flags noted in fcsr."""
    value, flags = result
    h.fcsr |= flags
    return value


def unbox(x: int) -> int:
    return x & MASK32 if x >> 32 == MASK32 else floats.NAN32


class _Lowering(ast.NodeTransformer):
    """Rewrites semantics into the body of an operation. `writes`: whether rd is a real register."""

    def __init__(self, row: Row, writes: bool) -> None:
        self.row = row
        self.writes = writes
        self.jumps = False

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in _REGISTERS:
            return _expression("0" if self.row.implied.get(node.id) == 0 else _REGISTERS[node.id])
        if node.id == "rm":
            return _expression("rounding_mode(h, rm)")
        if node.id == "ilen":
            return ast.Constant(self.row.length)
        if node.id.endswith("_index"):
            return _expression(node.id.removesuffix("_index"))
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.stmt:
        target = node.targets[0]
        assert isinstance(target, ast.Name)
        value = self.visit(node.value)
        if target.id == "frd":
            return _statement("f[rd] = V & M", V=value)
        if target.id != "rd":
            return ast.Assign([target], value)
        if not self.writes:
            return ast.Expr(value)
        return _statement("x[rd] = V & M", V=value)

    def visit_Expr(self, node: ast.Expr) -> Any:
        call = node.value
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        name = call.func.id
        if name == "jump":
            self.jumps = True
            target = self.visit(call.args[0])
            return _statement("next_pc = V & M", V=target)
        if name in _CONTROL:
            self.jumps = True
            return _statement(f"next_pc = h.{name}()")
        return ast.Expr(self.visit(call))

    def visit_Call(self, node: ast.Call) -> ast.expr:
        assert isinstance(node.func, ast.Name)
        name, args = node.func.id, [self.visit(arg) for arg in node.args]
        if name == "s":
            return _expression("((V & M) ^ S) - S", V=args[0])
        if name == "sx":
            bits = ast.literal_eval(args[1])
            return _expression(
                f"((V & {(1 << bits) - 1}) ^ {1 << (bits - 1)}) - {1 << (bits - 1)}", V=args[0]
            )
        if name == "zx":
            return _expression(f"V & {(1 << ast.literal_eval(args[1])) - 1}", V=args[0])
        if name == "select":
            return ast.IfExp(args[0], args[1], args[2])
        if name in _SIZED:
            size = ast.literal_eval(args.pop(1))
            return ast.Call(_expression(f"h.{name}{8 * size}"), args, [])
        if name in RAISING:
            return _expression("raised(h, V)", V=ast.Call(node.func, args, []))
        if name in _FUNCTIONS:
            return ast.Call(node.func, args, [])
        return ast.Call(_expression(f"h.{name}"), args, [])


class _Substitute(ast.NodeTransformer):
    def __init__(self, values: dict[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.values.get(node.id, node)


def _statement(text: str, **values: ast.expr) -> ast.stmt:
    found: ast.stmt = _Substitute(values).visit(ast.parse(text).body[0])
    return found


def _expression(text: str, **values: ast.expr) -> ast.expr:
    statement = _statement(text, **values)
    assert isinstance(statement, ast.Expr)
    return statement.value


#: Primitives that are plain functions; the others are methods of the hart.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        mulh, mulhsu, mulhu, div, rem, divu, remu, clz, ctz, cpop, rev8, box, unbox, raised, floats.fclass,
        check_floats, dirty_floats, rounding_mode,
        *(getattr(floats, name) for name in sorted(RAISING)),
    )
}  # fmt: skip

_TEMPLATE = """
def make(rd, rs1, rs2, rs3, imm, shamt, uimm, csr, rm):
    def op(h, pc):
        x = h.x
    return op
"""
_factories: dict[tuple[str, bool], Callable[..., Operation]] = {}
_operations: dict[int, Operation] = {}


def _factory(row: Row, writes: bool) -> Callable[..., Operation]:
    key = (row.mnemonic, writes)
    factory = _factories.get(key)
    if factory is None:
        lowering = _Lowering(row, writes)
        body = [lowering.visit(statement) for statement in ast.parse(row.semantics).body]
        if uses_floats(row):
            body = [*map(_statement, ("check_floats(h)", "f = h.f")), *body]
        if floats_change(row):
            body.append(_statement("dirty_floats(h)"))
        module = ast.parse(_TEMPLATE)
        operation = module.body[0].body[0]  # type: ignore[attr-defined]
        if lowering.jumps:
            following = _statement(f"next_pc = pc + {row.length}")
            operation.body += [following, *body, ast.Return(_expression("next_pc"))]
        else:
            operation.body += [*body, ast.Return(_expression(f"pc + {row.length}"))]
        names: dict[str, Any] = {"M": MASK64, "S": SIGN64, **_FUNCTIONS}
        exec(compile(ast.fix_missing_locations(module), f"<semantics of {row.mnemonic}>", "exec"), names)  # noqa: S102
        make: Callable[..., Operation] = names["make"]
        factory = _factories[key] = make
    return factory


def operation(word: int) -> Operation:
    """The operation of the instruction at the begin of `word`. An illegal one raises an illegal-instruction
    trap when it is executed."""
    word = encoding_of(word)
    found = _operations.get(word)
    if found is None:
        if len(_operations) >= _CACHE_LIMIT:
            _operations.clear()
        row = decode(word)
        if row is None:
            found = _illegal(word)
        else:
            operands = row.operands(word)
            found = _factory(row, operands.get("rd", 0) != 0)(*(operands.get(name, 0) for name in _ARGUMENTS))
        _operations[word] = found
    return found


_ARGUMENTS = ("rd", "rs1", "rs2", "rs3", "imm", "shamt", "uimm", "csr", "rm")


def _illegal(word: int) -> Operation:
    def op(_hart: Any, _pc: int) -> int:
        raise Trap(Cause.ILLEGAL_INSTRUCTION, word)

    return op
