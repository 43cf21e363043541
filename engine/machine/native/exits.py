"""VM exits under trap-and-emulate, taken without leaving native code: CSR accesses, sret, fences, and traps that the
guest's own kernel handles.

Here the hart of a procedure is the *virtual* hart, which is a HartState too, so the architecture's own procedures
and the very rows of engine.isa.table act on it; `host` is the address of the hart that carries it, where the
registers, the clock and the record buffer are. What is done is what engine.hypervisor.trap_and_emulate does in
Python, which stays the definition; that is asked whenever anything is unusual: REFUSED before anything was changed.
Refused are timers, wfi, calls to the firmware, page faults, and a shadow space that does not exist.

A virtual hart has no clock of its own: while an exit is taken, its `steps`, `extra` and `unretired` are such that its
clock is the board's and what it retired is the vCPU's instructions; otherwise they are 0.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from engine.isa.csrs import CSR_NUMBERS, Status
from engine.isa.formats import Row
from engine.isa.table import ROWS
from engine.machine import privileged
from engine.machine.native.layout import field
from engine.machine.native.lowering import UNSIGNED, Code, Scope, Value, statements
from engine.machine.native.procedures import DONE, REFUSED, RESULT, Procedures, Refused
from engine.machine.native.traps import MASK32, RECORD_BYTES, follow_streak, write_record
from engine.machine.privileged import MACHINE, USER
from engine.trace.record import Action, Cause, Disposition, Kind, Level

#: What `space` says of a hart whose loads and fetches need two spaces (MPRV).
SPLIT = 4
SATP, SRET = CSR_NUMBERS["satp"], 0x10200073
PC, STEPS, EXTRA, UNRETIRED, HOST_SATP, STATUS, LEAVE = (
    field(name) for name in ("pc", "steps", "extra", "unretired", "satp", "mstatus", "leave")
)
RECORD_AT, RECORD_COUNT, RECORD_LIMIT, RECORD_IDS, POSITION_BASE, STARTED, EXIT_ROUTE = (
    field(name)
    for name in ("record_at", "record_count", "record_limit", "record_ids", "position_base", "time_started",
                 "exit_route")
)  # fmt: skip
#: Where the path ids begin in `exit_route`.
PATHS_SHIFT = 32
FLOATS = Status.FS | Status.SD
#: A row of the table of spaces: root, `space`, host satp. Its first word is the number of rows.
SPACE_WORDS, SPACE_BYTES = 3, 24


# -- which shadow space holds ------------------------------------------------------------------------
def space(h: Any) -> int:
    """What besides satp decides which shadow space a virtual hart needs: its privilege and, in S and U mode with
    paging, SUM and MXR. MACHINE without translation, SPLIT where every access must exit."""
    found: int = h.privilege | h.mstatus & (Status.SUM | Status.MXR)
    if h.satp >> 60:
        if privileged.data_privilege(h) != h.privilege:
            found = SPLIT
        elif h.privilege == MACHINE:
            found = MACHINE
    else:
        found = MACHINE
    return found


def is_translated(found: int) -> bool:
    """Does satp belong to the key of this `space`?"""
    return found != SPLIT and found != MACHINE


def space_satp(h: Any) -> int:
    """The host satp of the shadow space that the virtual hart needs now; 0 if it has yet to be made."""
    wanted = space(h)
    root = h.satp if is_translated(wanted) else 0
    row = h.spaces_at + 8
    end = row + SPACE_BYTES * h.peek(h.spaces_at, 8)
    while row < end:
        if h.peek(row, 8) == root and h.peek(row + 8, 8) == wanted:
            satp: int = h.peek(row + 16, 8)
            return satp
        row += SPACE_BYTES
    return 0


# -- exits -------------------------------------------------------------------------------------------
def take_exit(h: Any, host: int, cause: int, value: int) -> int:
    """A VM exit at the host hart's pc. Returns whether that hart translates differently now. Ends as ILLEGAL when the
    trap is an illegal instruction of the guest's own, for `reflect`."""
    if h.peek(host + RECORD_COUNT, 8) >= h.peek(host + RECORD_LIMIT, 8):
        raise Refused
    _catch_up(h, host)
    if cause == Cause.ILLEGAL_INSTRUCTION:
        switched: int = _emulate(h, host, value)
        return switched
    if cause == Cause.ECALL_U:
        kind = Kind.HYPERCALL if h.privilege else Kind.SYSCALL
        return _inject(h, host, cause, value, Cause.ECALL_U + h.privilege, kind)
    raise Refused


def reflect(h: Any, host: int, cause: int, value: int) -> int:
    """The guest takes the illegal-instruction trap; see `take_exit`."""
    return _inject(h, host, cause, value, cause, Kind.EXCEPTION)


def _catch_up(h: Any, host: int) -> None:
    h.pc = h.peek(host + PC, 8)
    h.steps = h.peek(host + STEPS, 8)
    h.extra = h.peek(host + EXTRA, 8) - h.peek(host + STARTED, 8)
    h.unretired = h.peek(host + UNRETIRED, 8) - h.instructions_base
    if h.peek(host + STATUS, 8) & Status.SD:
        h.mstatus = h.mstatus | FLOATS


def _emulate(h: Any, host: int, word: int) -> int:
    """An instruction that U mode may not execute: the virtual hart does."""
    privilege = h.privilege
    status = h.mstatus
    root = h.satp
    at = h.pc
    number = word >> 20
    register = word >> 15 & 31
    rd = word >> 7 & 31
    way = word >> 12 & 7
    source = register if way & 4 else h.peek(host + 8 * register, 8)
    result = h.emulate(word, source)
    satp = h.peek(host + HOST_SATP, 8)
    if h.privilege != privilege or h.mstatus != status or h.satp != root:
        satp = space_satp(h)
        if not satp:
            h.privilege = privilege
            h.mstatus = status
            h.satp = root
            raise Refused
    action = Action.SFENCE
    a = source
    b = 0
    h.pc = at + 4
    if word == SRET:
        h.pc = result
        action = Action.SRET
        a = result
        b = h.privilege
    elif way:
        if rd:
            h.poke(host + 8 * rd, 8, result)
        if way & 3 != 1 and not register:
            action = Action.CSR_READ
            a = number
            b = result if rd else 0
        elif number == SATP:
            action = Action.ADDRESS_SPACE
            a = h.satp
            b = 1
        else:
            action = Action.CSR_WRITE
            a = number
            b = source
    h.unretired = h.unretired - 1
    h.instructions_base = h.instructions_base + 1
    return _resume(
        h, host, satp, privilege, at, Kind.VM_EXIT, Disposition.EMULATED, action, a, b, Cause.ILLEGAL_INSTRUCTION, word
    )


def _inject(h: Any, host: int, cause: int, value: int, own_cause: int, kind: int) -> int:
    """The guest's handler runs next, for the trap that its hart takes by itself."""
    to = privileged.trap_target(h, own_cause, False)
    if (to == MACHINE and h.monitored) or h.mstatus & Status.MPRV:
        raise Refused
    origin = h.privilege
    h.privilege = to
    satp = space_satp(h)
    h.privilege = origin
    if not satp:
        raise Refused
    follow_streak(h, own_cause)
    at = h.pc
    privileged.enter_trap(h, to, own_cause, value, False)
    return _resume(
        h, host, satp, origin, at, kind, Disposition.INJECTED, Action.INJECT_EXCEPTION, own_cause, h.pc, cause, value
    )


def _resume(
    h: Any, host: int, satp: int, origin: int, at: int, kind: int, disposition: int, action: int, a: int, b: int,
    cause: int, value: int,
) -> int:  # fmt: skip
    """Write the record, charge the switch, and let the host hart go on where the virtual one is. Returns whether it
    translates differently now."""
    steps = h.peek(host + STEPS, 8)
    extra = h.peek(host + EXTRA, 8)
    route = h.peek(host + EXIT_ROUTE, 8)
    cost = route & MASK32
    path = route >> (PATHS_SHIFT + (0 if origin == USER else 16) + (0 if h.privilege == USER else 8)) & 0xFF
    count = h.peek(host + RECORD_COUNT, 8)
    executed = h.retired - h.reported
    h.reported = h.retired
    write_record(
        h, h.peek(host + RECORD_AT, 8) + count * RECORD_BYTES, steps + extra,
        h.peek(host + POSITION_BASE, 8) + steps - 1, at, value, a, b, min(executed, MASK32), cost,
        value if cause == Cause.ILLEGAL_INSTRUCTION else 0, h.peek(host + RECORD_IDS, 8), kind, cause, path,
        disposition, action, Level.USER if origin == USER else Level.KERNEL_DEPRIVILEGED,
        Level.USER if h.privilege == USER else Level.KERNEL_DEPRIVILEGED,
    )  # fmt: skip
    h.poke(host + RECORD_COUNT, 8, count + 1)
    h.poke(host + EXTRA, 8, extra + cost)
    h.poke(host + PC, 8, h.pc)
    h.poke(host + STATUS, 8, h.peek(host + STATUS, 8) & ~FLOATS | h.mstatus & FLOATS)
    if privileged.pending_interrupt(h):
        h.poke(host + LEAVE, 1, 1)
    before = h.peek(host + HOST_SATP, 8)
    h.poke(host + HOST_SATP, 8, satp)
    return 1 if satp != before else 0


# -- the instructions --------------------------------------------------------------------------------
class EmulatedScope(Scope):
    """A privileged row on the virtual hart: operands from the encoding `%word`, the value of rs1 or uimm in `%source`.
    The result is what it writes to rd, or where it jumps."""

    def __init__(self, code: Code, procedures: Procedures) -> None:
        super().__init__(code)
        self.procedures = procedures
        self.result = "0"
        self.primitives |= {
            "csr_read": self._csr("read"), "csr_write": self._csr("write"), "csr_set": self._csr("set"),
            "csr_clear": self._csr("clear"), "sret": self._sret, "sfence_vma": self._fence,
        }  # fmt: skip

    def read(self, name: str) -> Value:
        if name in ("rs1", "uimm"):
            return Value("%source", UNSIGNED)
        place = {"csr": 20, "rs1_index": 15, "rd_index": 7}.get(name)
        if place is None:
            return super().read(name)
        shifted = self.code.op(f"lshr i64 %word, {place}")
        return Value(self.code.op(f"and i64 {shifted}, {0xFFF if name == 'csr' else 31}"), UNSIGNED)

    def write(self, name: str, value: Value) -> bool:
        if name == "rd":
            self.result = value.text
        return name == "rd"

    def _call(self, function: str, *arguments: str) -> str:
        code = self.code
        listed = "".join(f", i64 {argument}" for argument in arguments)
        result = code.op(f"call {RESULT} {function}(ptr %s{listed})")
        ended = code.op(f"icmp eq i64 {code.op(f'extractvalue {RESULT} {result}, 1')}, {DONE}")
        done, other = code.branch(ended, likely=True)
        code.label(other)
        code.end(f"ret {RESULT} {result}")
        code.label(done)
        return code.op(f"extractvalue {RESULT} {result}, 0")

    def _csr(self, how: str) -> Callable[[list[ast.expr]], Value]:
        def lower(args: list[ast.expr]) -> Value:
            code = self.code
            number, *arguments = (self.number(arg).text for arg in args)
            at = code.op(f"getelementptr ptr, ptr @csr_{how}, i64 {number}")
            function = code.op(f"load ptr, ptr {at}")
            there, none = code.branch(code.op(f"icmp ne ptr {function}, null"), likely=True)
            code.label(none)
            code.end(f"ret {RESULT} {_REFUSED}")
            code.label(there)
            return Value(self._call(function, *arguments), UNSIGNED)

        return lower

    def _sret(self, _args: list[ast.expr]) -> None:
        self.result = self._call(self.procedures.need(privileged.sret))

    def _fence(self, _args: list[ast.expr]) -> None:
        self._call(self.procedures.need(privileged.check_fence))


_REFUSED = f"{{ i64 0, i64 {REFUSED} }}"
EMULATE = "@exit.emulate"
_PRIVILEGED = {"csr_read", "sret", "sfence_vma"}


def _is_emulated(row: Row) -> bool:
    names = {node.id for part in statements(row.semantics) for node in ast.walk(part) if isinstance(node, ast.Name)}
    return not names.isdisjoint(_PRIVILEGED)


def emulator(procedures: Procedures) -> str:
    """The function EMULATE(virtual hart, word, source): the instruction on the virtual hart, whose pc stays as it
    is. REFUSED where Python has to execute it."""
    code = Code()
    for row in filter(_is_emulated, ROWS):
        bits = code.op(f"and i64 %word, {row.mask}")
        this, other = code.branch(code.op(f"icmp eq i64 {bits}, {row.match}"))
        code.label(this)
        scope = EmulatedScope(code, procedures)
        scope.run(statements(row.semantics))
        result = code.op(f"insertvalue {RESULT} undef, i64 {scope.result}, 0")
        code.end(f"ret {RESULT} {code.op(f'insertvalue {RESULT} {result}, i64 {DONE}, 1')}")
        code.label(other)
    code.end(f"ret {RESULT} {_REFUSED}")
    return code.text(f"define internal {RESULT} {EMULATE}(ptr nonnull %s, i64 %word, i64 %source) #1")
