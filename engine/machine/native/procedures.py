"""Whole functions of the machine as native code: page walks, trap entry, returns, CSR access.

They are written once, in a plain part of Python (engine.machine.mmu and the privileged half of
engine.machine.hart say so in their docstrings), and mean here what they mean there:

    parameters, locals    64-bit words; the first parameter is the hart
    h.field               a field of HartState         h.name(...)    another such function, or a primitive
    NAME, Class.NAME      constants, read once from the function's module
    raise Trap(c, v)      the caller returns at once; cause and value stand in `trap_cause`, `trap_value`
    raise IllegalInstruction, VirtualInstruction    the caller returns at once: ILLEGAL, VIRTUAL
    raise Refused         REFUSED: nothing may have been changed before it; Python does it all

A native procedure returns its result and how it ended.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping
from types import FunctionType, MappingProxyType
from typing import Any

from engine.machine.native import floats
from engine.machine.native.layout import KEY_AT, field
from engine.machine.native.lowering import (
    EITHER,
    SIGNED,
    TRUTH,
    UNSIGNED,
    Code,
    NotLowerable,
    Scope,
    Value,
    constant,
)
from engine.machine.state import HartState

DONE, TRAPPED, REFUSED, ILLEGAL, VIRTUAL = range(5)
_RAISED = {"Refused": REFUSED, "IllegalInstruction": ILLEGAL, "VirtualInstruction": VIRTUAL}
RESULT = "{ i64, i64 }"
_FIELDS: dict[str, str] = {
    name: f"i{8 * size}" for name, *_ in HartState._fields_ if (size := getattr(HartState, name).size) <= 8
}
#: A primitive of procedures: writes its code and returns its value, if it has one.
Primitive = Callable[["ProcedureScope", list[str]], Value | None]


class Refused(Exception):  # noqa: N818 (a fact about a case)
    """Only Python can do this."""


class Procedures:
    """The native form of some functions and of all that they call.

    `h.name(...)` means the function `methods[name]`, the native one `symbols[name]`, or a primitive of the machine's
    words. prefix: of all symbols. inline: functions that become part of whatever calls them.
    """

    def __init__(
        self, methods: dict[str, Callable[..., Any]], symbols: Mapping[str, str] = MappingProxyType({}), prefix: str = "",
        inline: Collection[Callable[..., Any]] = (),
    ) -> None:  # fmt: skip
        self.prefix = prefix
        self.inline = inline
        self.methods = methods
        self.symbols = symbols
        self.texts: dict[str, str] = {}
        self._failed: set[str] = set()

    def need(self, function: Callable[..., Any], constants: tuple[Any, ...] = ()) -> str:
        """The symbol of a function, which is compiled unless it was before. `constants` are the objects that stand
        for its parameters after the hart, if they do: None for one that stays a parameter."""
        assert isinstance(function, FunctionType)
        names = "".join(f":{constant}" for constant in map(_name, constants)).rstrip(":")
        symbol = f'@"{self.prefix}{function.__module__}.{function.__qualname__}{names}"'
        if symbol in self._failed:
            raise NotLowerable(symbol)
        if symbol not in self.texts:
            self.texts[symbol] = ""  # it may call itself
            try:
                self.texts[symbol] = self._text(symbol, function, constants)
            except NotLowerable:
                self._failed.add(symbol)
                raise
        return symbol

    def _text(self, symbol: str, function: FunctionType, constants: tuple[Any, ...]) -> str:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        assert isinstance(tree, ast.FunctionDef)
        parameters = [argument.arg for argument in tree.args.args]
        if parameters[0] not in _HARTS:
            parameters.insert(0, "")
        fixed = {
            name: constant
            for name, constant in zip(parameters[1:], constants, strict=False)
            if constant is not None
        }
        for argument, default in zip(reversed(tree.args.args), reversed(tree.args.defaults), strict=False):
            if parameters.index(argument.arg) > len(constants):
                fixed[argument.arg] = ast.literal_eval(default)
        code = Code()
        scope = ProcedureScope(code, self, function, parameters, fixed)
        try:
            scope.run(tree.body)
        except NotLowerable as problem:
            raise NotLowerable(f"{function.__qualname__}: {problem}") from None
        code.end(f"ret {RESULT} zeroinitializer")
        free = [index for index, name in enumerate(parameters) if index and name not in fixed]
        arguments = "".join(f", i64 %p{index}" for index in free)
        attributes = "nounwind alwaysinline" if function in self.inline else "#0"
        return code.text(f"define internal {RESULT} {symbol}(ptr nonnull %s{arguments}) {attributes}")


def _name(constant: Any) -> str:
    return "" if constant is None else str(getattr(constant, "name", constant))


class ProcedureScope(Scope):
    """One function. Every local is a variable; what Python keeps in a `for` is one too."""

    def __init__(
        self,
        code: Code,
        procedures: Procedures,
        function: FunctionType,
        parameters: list[str],
        fixed: dict[str, Any],
    ) -> None:
        super().__init__(code)
        self.procedures = procedures
        self.fixed = fixed
        self.names = {**function.__globals__, **fixed}
        self.hart = parameters[0]
        self.loops: list[tuple[str, str]] = []
        for index, name in enumerate(parameters[1:], 1):
            if name not in fixed:
                self._store_local(name, Value(f"%p{index}", UNSIGNED))
        self.primitives |= {"min": self._extreme("ult"), "max": self._extreme("ugt"), "bool": self._bool,
                            "int": self._int}  # fmt: skip

    # -- names ---------------------------------------------------------------------------------------
    def read(self, name: str) -> Value:
        return self._global(ast.parse(name, mode="eval").body)

    def _global(self, node: ast.expr) -> Value:
        """A constant of the function's module, whatever it is called there."""
        try:
            found = eval(compile(ast.Expression(node), "constant", "eval"), self.names)  # noqa: S307
        except NameError as problem:
            raise NotLowerable(str(problem)) from None
        if isinstance(found, bool):
            return Value("true" if found else "false", TRUTH)
        if not isinstance(found, int):
            raise NotLowerable(f"{ast.unparse(node)} is not a number")
        return constant(int(found))

    def _known(self, node: ast.expr) -> bool:
        """Is the expression's value known now: does it name only constants, one of them a fixed parameter?"""
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        return bool(names & self.fixed.keys()) and not names & self.locals.keys() and self.hart not in names

    def _place(self, name: str) -> tuple[str, str]:
        """Address and type of a field of the hart."""
        if name not in _FIELDS:
            raise NotLowerable(f"the hart's state has no field {name}")
        return self.code.op(f"getelementptr i8, ptr %s, i64 {field(name)}"), _FIELDS[name]

    def _is_hart(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == self.hart

    # -- statements ----------------------------------------------------------------------------------
    def statement(self, node: ast.stmt) -> None:
        code = self.code
        match node:
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.If(test=test, body=body, orelse=orelse) if self._known(test):
                self.run(body if self._eval(test) else orelse)
            case ast.If(test=ast.BoolOp(op=ast.And(), values=[first, *_]), orelse=orelse) if (
                self._known(first) and not self._eval(first)
            ):
                self.run(orelse)
            case ast.Expr(value=ast.Call(func=ast.Name(id="setattr"), args=[hart, name, value])) if (
                self._is_hart(hart) and self._known(name)
            ):
                field_name = ast.Attribute(hart, self._eval(name), ast.Store())
                self._assign(field_name, self.number(value))
            case ast.Expr(value=ast.Call() as call):
                self.value(call)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                results = [self.number(value) for value in values]
                for target, result in zip(targets, results, strict=True):
                    self._assign(target, result)
            case ast.Assign(targets=targets, value=value):
                result = self.number(value)
                for target in targets:
                    self._assign(target, result)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, self.number(value))
            case ast.AugAssign(target=target, op=op, value=value):
                read = ast.parse(ast.unparse(target), mode="eval").body
                self._assign(target, self.number(ast.BinOp(read, op, value)))
            case ast.Return(value=None):
                self._return("0", DONE)
            case ast.Return(value=ast.expr() as value):
                self._return_value(value)
            case ast.Raise(exc=ast.Call(func=ast.Name(id="Trap"), args=[cause, value])):
                for name, part in (("trap_cause", cause), ("trap_value", value)):
                    self._assign(ast.Attribute(ast.Name(self.hart, ast.Load()), name, ast.Store()), self.number(part))
                self._return("0", TRAPPED)
            case ast.Raise(exc=ast.Name(id=name)) if name in _RAISED:
                self._return("0", _RAISED[name])
            case ast.While(test=test, body=body, orelse=[]):
                again, done = code.name("again"), code.name("done")
                code.label(again)
                on = code.name("on")
                code.end(f"br i1 {self.truth(test)}, label %{on}, label %{done}")
                code.label(on)
                self._loop(body, again, done)
                code.end(f"br label %{again}")
                code.label(done)
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=bounds), body=body):
                # Unrolled: the level of a page walk is a constant in each round.
                done = code.name("done")
                for number in range(*(self._eval(bound) for bound in bounds)):
                    following = code.name("next")
                    self._store_local(name, constant(number))
                    self._loop(body, following, done)
                    code.label(following)
                code.label(done)
            case ast.Break():
                code.end(f"br label %{self.loops[-1][1]}")
            case ast.Continue():
                code.end(f"br label %{self.loops[-1][0]}")
            case _:
                super().statement(node)

    def _eval(self, node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), "constant", "eval"), self.names)  # noqa: S307

    def _loop(self, body: list[ast.stmt], again: str, done: str) -> None:
        self.loops.append((again, done))
        self.run(body)
        self.loops.pop()

    def _assign(self, target: ast.expr, value: Value) -> None:
        match target:
            case ast.Name(id=name):
                self._store_local(name, value)
            case ast.Attribute(value=hart, attr=name) if self._is_hart(hart):
                place, kind = self._place(name)
                text = value.text if kind == "i64" else self.code.op(f"trunc i64 {value.text} to {kind}")
                self.code.do(f"store {kind} {text}, ptr {place}")
            case _:
                raise NotLowerable(ast.unparse(target))

    def _store_local(self, name: str, value: Value) -> None:
        # Locals are words; a signed constant is one modulo 2**64.
        super()._store_local(name, Value(value.text, UNSIGNED))

    def _return(self, value: str, status: int) -> None:
        code = self.code
        result = code.op(f"insertvalue {RESULT} undef, i64 {value}, 0")
        result = code.op(f"insertvalue {RESULT} {result}, i64 {status}, 1")
        code.end(f"ret {RESULT} {result}")

    def _return_value(self, node: ast.expr) -> None:
        self._return(self.number(node).text if not _is_nothing(node) else "0", DONE)

    # -- expressions ---------------------------------------------------------------------------------
    def value(self, node: ast.expr) -> Value | None:
        code = self.code
        if self._known(node) and not isinstance(node, ast.Call):
            return self._global(node)
        match node:
            case ast.Call(func=ast.Name(id="getattr"), args=[hart, name]) if self._is_hart(hart):
                return self.value(ast.Attribute(hart, self._eval(name), ast.Load()))
            case ast.Attribute(value=hart, attr=name) if self._is_hart(hart):
                if name not in _FIELDS:
                    return self._method(name, [])
                place, kind = self._place(name)
                loaded = code.op(f"load {kind}, ptr {place}")
                return Value(loaded if kind == "i64" else code.op(f"zext {kind} {loaded} to i64"), UNSIGNED)
            case ast.Attribute():
                return self._global(node)
            case ast.Call(func=ast.Attribute(value=hart, attr=name), args=args) if self._is_hart(hart):
                return self._method(name, [self.number(arg).text for arg in args])
            case ast.Call(func=ast.Name() | ast.Attribute() as name, args=args) if isinstance(
                found := self._function(name), FunctionType
            ):
                rest = args[1:] if args and self._is_hart(args[0]) else args
                constants = tuple(self._eval(arg) if self._object(arg) else None for arg in rest)
                numbers = [
                    self.number(arg).text for arg, known in zip(rest, constants, strict=True) if known is None
                ]
                return self._call(self.procedures.need(found, constants), numbers)
            case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as op], comparators=[right]):
                number, found = self.number(left).text, "false"
                for member in self._eval(right):
                    found = code.op(f"or i1 {found}, {code.op(f'icmp eq i64 {number}, {constant(member).text}')}")
                return Value(code.op(f"xor i1 {found}, {'true' if isinstance(op, ast.NotIn) else 'false'}"), TRUTH)
            case ast.BoolOp(op=op, values=[first, *rest]):
                return self._short_circuit(isinstance(op, ast.And), first, rest)
            case _:
                return super().value(node)

    def _function(self, node: ast.expr) -> Any:
        try:
            return eval(compile(ast.Expression(node), "function", "eval"), self.names)  # noqa: S307
        except (NameError, AttributeError):
            return None

    def _object(self, node: ast.expr) -> bool:
        """Is the argument an object that the function called is to be compiled for?"""
        return self._known(node) and not isinstance(self._eval(node), int)

    def _method(self, name: str, arguments: list[str]) -> Value | None:
        function = self.procedures.methods.get(name)
        if function is not None:
            return self._call(self.procedures.need(function), arguments)
        if name in self.procedures.symbols:
            return self._call(self.procedures.symbols[name], arguments)
        primitive = _PRIMITIVES.get(name)
        if primitive is None:
            raise NotLowerable(f"h.{name}")
        return primitive(self, arguments)

    def _short_circuit(self, conjunction: bool, first: ast.expr, rest: list[ast.expr]) -> Value:
        """Later parts are evaluated only if they decide: they may raise, or ask what has no answer otherwise."""
        code = self.code
        place = code.allocate("i1")
        done = code.name("decided")
        for part in (first, *rest):
            held = self.truth(part)
            code.do(f"store i1 {held}, ptr {place}")
            on = code.name("and" if conjunction else "or")
            code.end(f"br i1 {held}, label %{on if conjunction else done}, label %{done if conjunction else on}")
            code.label(on)
        code.label(done)
        return Value(code.op(f"load i1, ptr {place}"), TRUTH)

    def _call(self, symbol: str, arguments: list[str]) -> Value:
        """A call; if it does not end as DONE, this function ends likewise."""
        code = self.code
        listed = "".join(f", i64 {argument}" for argument in arguments)
        result = code.op(f"call {RESULT} {symbol}(ptr %s{listed})")
        status = code.op(f"extractvalue {RESULT} {result}, 1")
        done, other = code.branch(code.op(f"icmp eq i64 {status}, {DONE}"), likely=True)
        code.label(other)
        code.end(f"ret {RESULT} {result}")
        code.label(done)
        return Value(code.op(f"extractvalue {RESULT} {result}, 0"), UNSIGNED)

    def _extreme(self, comparison: str) -> Callable[[list[ast.expr]], Value]:
        def lower(args: list[ast.expr]) -> Value:
            found = self.number(args[0])
            for arg in args[1:]:
                other = self.number(arg)
                if SIGNED in (found.kind, other.kind):
                    raise NotLowerable("min and max are of unsigned words")
                first = self.code.op(f"icmp {comparison} i64 {found.text}, {other.text}")
                found = Value(self.code.op(f"select i1 {first}, i64 {found.text}, i64 {other.text}"), EITHER)
            return found

        return lower

    def _bool(self, args: list[ast.expr]) -> Value:
        return Value(self.truth(args[0]), TRUTH)

    def _int(self, args: list[ast.expr]) -> Value:
        return self.number(args[0])


def _is_nothing(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


# -- words that are no field of the hart -------------------------------------------------------------
def _peek(scope: ProcedureScope, arguments: list[str]) -> Value:
    """peek(address, bytes): bytes is a constant."""
    code, bits = scope.code, 8 * int(arguments[1])
    value = code.op(f"load i{bits}, ptr {_pointer(code, arguments[0])}, align 1")
    return Value(value if bits == 64 else code.op(f"zext i{bits} {value} to i64"), UNSIGNED)


def _poke(scope: ProcedureScope, arguments: list[str]) -> None:
    """poke(address, bytes, value): bytes is a constant."""
    code, bits = scope.code, 8 * int(arguments[1])
    value = arguments[2] if bits == 64 else code.op(f"trunc i64 {arguments[2]} to i{bits}")
    code.do(f"store i{bits} {value}, ptr {_pointer(code, arguments[0])}, align 1")


def _pointer(code: Code, address: str) -> str:
    return code.op(f"inttoptr i64 {address} to ptr")


def _sized(scope: ProcedureScope, size: str, each: Callable[[int], None]) -> None:
    """`each(bytes)` writes the code for the size that there turns out to be."""
    code = scope.code
    done = code.name("done")
    labels = {width: code.name(f"bytes{width}_") for width in (1, 2, 4, 8)}
    cases = " ".join(f"i64 {width}, label %{label}" for width, label in labels.items() if width < 8)
    code.end(f"switch i64 {size}, label %{labels[8]} [ {cases} ]")
    for width, label in labels.items():
        code.label(label)
        each(width)
        code.end(f"br label %{done}")
    code.label(done)


def _peek_sized(scope: ProcedureScope, arguments: list[str]) -> Value:
    code = scope.code
    place = code.allocate()

    def load(width: int) -> None:
        code.do(f"store i64 {_peek(scope, [arguments[0], str(width)]).text}, ptr {place}")

    _sized(scope, arguments[1], load)
    return Value(code.op(f"load i64, ptr {place}"), UNSIGNED)


def _poke_sized(scope: ProcedureScope, arguments: list[str]) -> None:
    _sized(scope, arguments[1], lambda width: _poke(scope, [arguments[0], str(width), arguments[2]]))


def _empty(scope: ProcedureScope, arguments: list[str]) -> None:
    """empty(address): both TLBs of a context."""
    code = scope.code
    code.do(f"call void @llvm.memset.p0.i64(ptr {_pointer(code, arguments[0])}, i8 -1, i64 {KEY_AT}, i1 false)")


def _nothing(_scope: ProcedureScope, _arguments: list[str]) -> None:
    """What Python has to be told and native code sees by itself."""


def _settle_floats(scope: ProcedureScope, _arguments: list[str]) -> None:
    """What native code has to be told and Python sees by itself."""
    floats.settle(scope.code)


_PRIMITIVES: dict[str, Primitive] = {
    "peek": _peek, "poke": _poke, "peek_sized": _peek_sized, "poke_sized": _poke_sized, "empty": _empty,
    "look_at_interrupts": _nothing, "settle_floats": _settle_floats,
}  # fmt: skip
_HARTS = ("h", "w", "self", "state")
