"""How Python calls native code: as builtin functions of the interpreter that runs it.

Exits come by the hundred thousand a second, and Python handles one with several native calls. A foreign call by ctypes
converts its arguments through objects of its own (130 ns and 40 for each argument); a builtin takes them from Python's
stack as they are (20 ns and 3). So each entry has a stub here, compiled like everything else, with the signature of
METH_FASTCALL: it turns integers into words, calls, and turns the result back.

    Python's stack ──> stub ──> a function of the interpreter tier, or a procedure that only Python asks for

What may take long releases Python's lock. Integers are taken modulo 2**64; the first argument is the address of a hart's
state, and nobody checks it. Too few or too many arguments, or something that is no integer, is a TypeError.

Python/C API reference manual: "Common Object Structures" (PyMethodDef, METH_FASTCALL: stable since 3.10), "Integer
Objects", "Thread State and the Global Interpreter Lock".
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from engine.machine.native import carried, entry, exits, objects, translated
from engine.machine.native.handlers import CLOCKS
from engine.machine.native.lowering import METADATA
from engine.machine.native.procedures import DONE, RESULT, Procedures

_OPTIMIZATION = 2
_FASTCALL = 0x0080
_API = (
    "PyErr_BadArgument", "PyErr_Occurred", "PyEval_RestoreThread", "PyEval_SaveThread", "PyLong_AsUnsignedLongLongMask",
    "PyLong_FromLongLong",
)  # fmt: skip
_DECLARED = """
declare i32 @PyErr_BadArgument()
declare ptr @PyErr_Occurred()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyEval_SaveThread()
declare i64 @PyLong_AsUnsignedLongLongMask(ptr)
declare ptr @PyLong_FromLongLong(i64)
"""
#: As a method of a hart: `run` of the interpreter tier.
_RUN = f"""
define internal {RESULT} @run_natively(ptr %s) {{
  %reason = call i64 @run(ptr %s)
  %result = insertvalue {RESULT} {{ i64 undef, i64 {DONE} }}, i64 %reason, 0
  ret {RESULT} %result
}}
"""


class Call(NamedTuple):
    """A builtin: so many words after the hart. procedure: what is called; None: the interpreter tier's function of that
    name. constants: what stands for the procedure's parameters after those words. long: Python's lock is released
    meanwhile. ended: it returns how the procedure ended, not its result."""

    name: str
    words: int = 0
    procedure: Callable[..., Any] | None = None
    constants: tuple[Any, ...] = ()
    long: bool = False
    ended: bool = False


CALLS = (
    Call("refresh"), Call("translate", 2), Call("enter_trap", 4), Call("number_records", 2), Call("walk", 2),
    Call("put_leaf", 5), Call("table_stored", 2), Call("resume_exit", 1), Call("proceed", 1, entry.proceed, long=True),
    Call("look", 3, exits.look, ended=True),
    Call("catch_up_for_access", 3, carried.catch_up_for_access), Call("catch_up", 3, carried.catch_up),
    Call("charge", 2, carried.charge), Call("catch_up_deprivileged", 1, carried.catch_up_deprivileged),
    Call("hand_over_deprivileged", 1, carried.hand_over_deprivileged),
    Call("catch_up_translated", 1, translated.catch_up),
    Call("hand_over_translated", 1, translated.hand_over, translated.SHOWN),
    Call("hand_over_after_access", 6, carried.hand_over_after_access), Call("hand_over", 7, carried.hand_over),
)  # fmt: skip


#: What the interpreter tier has to export for them, besides `run`.
OF_INTERPRETER = tuple(call.name for call in CALLS if call.procedure is None)


def _stub(call: Call, procedures: Procedures) -> str:
    words = [f"%word{index}" for index in range(call.words + 1)]
    lines = [
        f"define ptr @call_{call.name}(ptr %self, ptr %arguments, i64 %count) {{",
        f"  %all = icmp eq i64 %count, {len(words)}",
        "  br i1 %all, label %convert, label %wrong",
        "wrong:",
        "  call i32 @PyErr_BadArgument()",
        "  ret ptr null",
        "convert:",
    ]
    for index, word in enumerate(words):
        lines += [
            f"  %at{index} = getelementptr ptr, ptr %arguments, i64 {index}",
            f"  %object{index} = load ptr, ptr %at{index}",
            f"  {word} = call i64 @PyLong_AsUnsignedLongLongMask(ptr %object{index})",
        ]
    lines += [
        "  %raised = call ptr @PyErr_Occurred()",
        "  %integers = icmp eq ptr %raised, null",
        "  br i1 %integers, label %call, label %none",
        "none:",
        "  ret ptr null",
        "call:",
        "  %s = inttoptr i64 %word0 to ptr",
    ]
    if call.long:
        lines.append("  %thread = call ptr @PyEval_SaveThread()")
    listed = "".join(f", i64 {word}" for word in words[1:])
    if call.procedure is None:
        lines.append(f"  %result = call i64 @{call.name}(ptr %s{listed})")
    else:
        symbol = procedures.need(call.procedure, (None,) * call.words + call.constants)
        lines += [
            f"  %ended = call {RESULT} {symbol}(ptr %s{listed})",
            f"  %result = extractvalue {RESULT} %ended, {int(call.ended)}",
        ]
    if call.long:
        lines.append("  call void @PyEval_RestoreThread(ptr %thread)")
    lines += ["  %integer = call ptr @PyLong_FromLongLong(i64 %result)", "  ret ptr %integer", "}"]
    return "\n".join(lines)


def _module() -> str:
    """The stubs as LLVM IR."""
    procedures = Procedures({
        "has_entry": exits.has_entry, "read_entry": exits.read_entry, "write_entry": exits.write_entry, **CLOCKS,
    }, {"run": "@run_natively"}, "call:")  # fmt: skip
    stubs = [_stub(call, procedures) for call in CALLS]
    declared = [
        f"declare i64 @{call.name}(ptr{', i64' * call.words})" for call in CALLS if call.procedure is None
    ]
    return "\n".join([
        _DECLARED, "declare i64 @run(ptr)", *declared, _RUN, *stubs, *procedures.texts.values(),
        "attributes #0 = { nounwind }", METADATA,
    ])  # fmt: skip


class _MethodDefinition(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))


class Builtins:
    """The functions of CALLS. interpreter: addresses of the interpreter tier's. Each function keeps this object, and so
    its code, as long as it lives itself."""

    def __init__(self, interpreter: Mapping[str, int]) -> None:
        image = objects.image_of("calls", _OPTIMIZATION, _module)
        assert image is not None
        imported = {name: _address(name) for name in _API}
        imported |= {name: interpreter[name] for name in OF_INTERPRETER}
        self._code = objects.Linked(
            "calls", image, [f"call_{call.name}" for call in CALLS], imported | {"run": interpreter["run"]}
        )
        self._definitions: list[_MethodDefinition] = []

    def function(self, name: str) -> Any:
        """One of them."""
        address = self._code.addresses[f"call_{name}"]
        definition = _MethodDefinition(name.encode(), address, _FASTCALL, None)
        self._definitions.append(definition)
        make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
            _address("PyCFunction_NewEx")
        )
        return make(ctypes.addressof(definition), self, None)


def in_python(name: str) -> Any:
    """The procedure of a builtin as Python executes it itself: of a hart, not of its address."""
    [call] = [call for call in CALLS if call.name == name]
    assert call.procedure is not None
    procedure, constants = call.procedure, call.constants
    return (lambda *arguments: procedure(*arguments, *constants)) if constants else procedure


class Moves:
    """The procedures of `carried` and `translated`. function: gives one of them by its builtin's name, of Builtins or
    `in_python`; accordingly the first argument is a virtual hart's address or the hart itself."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        self.charge: Callable[[Any, int, int], object] = function("charge")
        self.catch_up_deprivileged: Callable[[Any, int], object] = function("catch_up_deprivileged")
        self.hand_over_deprivileged: Callable[[Any, int], object] = function("hand_over_deprivileged")
        self.catch_up_translated: Callable[[Any, int], object] = function("catch_up_translated")
        self.hand_over_translated: Callable[[Any, int], object] = function("hand_over_translated")
        self.catch_up: Callable[[Any, int, bool, bool], object] = function("catch_up")
        self.catch_up_for_access: Callable[[Any, int, bool, bool], object] = function("catch_up_for_access")
        self.hand_over: Callable[[Any, int, bool, int, int, int, int, int], int] = function("hand_over")
        self.hand_over_after_access: Callable[[Any, int, bool, int, int, int, int], int] = function(
            "hand_over_after_access"
        )


IN_PYTHON = Moves(in_python)


def _address(name: str) -> int:
    """Of a function of Python's."""
    found = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
    assert found is not None
    return found
