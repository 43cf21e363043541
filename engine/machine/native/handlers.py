"""The interpreter tier: one native function for each row, and the decoder that chooses among them.

Every handler has the type `i64 (state, operation, budget)` and ends in a tail call of the next operation's
handler, so the processor's branch predictor sees one indirect jump for each handler and nothing is spilled in
between. `budget` is the number of steps left before `limit`: it is exact after every instruction. A TLB miss, a
trap or a CSR is a call of a native procedure (engine.machine.native.procedures); what even that refuses (a device,
a trap for a monitor) the handler leaves undone: it stores the pc and returns SLOW.

The registers are read and written in the hart's state. Nothing else in this process is touched but RAM
through the TLB and the code page that is being executed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from engine.isa.csrs import CSRS, Csr
from engine.isa.formats import Row
from engine.isa.table import ROWS
from engine.machine import csrfile, privileged
from engine.machine.native import access, entry, exits, floats, layout, traps
from engine.machine.native.decoder import decoder, writes_integer
from engine.machine.native.layout import field
from engine.machine.native.lowering import (
    IN_MACHINE,
    IN_RAM,
    METADATA,
    SIGNED,
    UNSIGNED,
    Code,
    NotLowerable,
    Value,
    call_threaded,
    tail,
    tail_far,
    threaded,
)
from engine.machine.native.procedures import DONE, ILLEGAL, RESULT, TRAPPED, VIRTUAL, Procedures
from engine.machine.privileged import SUPERVISOR
from engine.machine.state import MAX_HOT, NO_RESERVATION
from engine.trace.record import Cause

Primitive = Callable[[list[ast.expr]], Value | None]
#: Registers of machine mode that firmware uses at every trap.
_OFTEN = ("mstatus", "mepc", "mcause", "mtval", "mscratch", "mie", "mip")
#: The properties of a hart that depend on its steps.
CLOCKS = {"clock": traps.clock, "retired": traps.retired, "time_ticks": traps.time_ticks}
PROCEDURES = Procedures({
    "has_entry": access.has_entry, "read_entry": access.read_entry, "write_entry": access.write_entry,
    "use_context": access.use_context, "refresh": access.refresh, **CLOCKS,
}, inline=(privileged.pending_interrupt, privileged.enter_trap))  # fmt: skip
EXITS = Procedures({
    "has_entry": exits.has_entry, "read_entry": exits.read_entry, "write_entry": exits.write_entry,
    "timer_changed": exits.timer_changed, **CLOCKS,
}, {"emulate": exits.EMULATE, "stored_bytes": exits.STORED_BYTES}, "exit:")  # fmt: skip


def load_field(code: Code, name: str, kind: str = "i64") -> str:
    return code.op(f"load {kind}, ptr {code.op(f'getelementptr i8, ptr %s, i64 {field(name)}')}{IN_MACHINE}")


def store_field(code: Code, name: str, value: str, kind: str = "i64") -> None:
    code.do(f"store {kind} {value}, ptr {code.op(f'getelementptr i8, ptr %s, i64 {field(name)}')}{IN_MACHINE}")


class MachineScope(floats.FloatScope):
    """Loads, stores and atomics through the TLB: common to handlers and compiled regions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.primitives |= {
            "load": self._load, "store": self._store, "amo_load": self._amo_load,
            "load_reserved": self._load_reserved, "store_conditional": self._store_conditional,
            "fence_i": lambda _args: None,
        }  # fmt: skip

    def state(self, name: str) -> str:
        return load_field(self.code, name)

    def context(self) -> str:
        """Address of the TLBs in use."""
        return load_field(self.code, "tlb_at", "ptr")

    def probe(self, address: str, size: int, table: int) -> str:
        """Host address of `size` aligned bytes that the TLB holds; otherwise control goes to `bail`."""
        code = self.code
        found, entry = self.lookup(address, size, table)
        hit = code.name("hit")
        code.end(f"br i1 {found}, label %{hit}, label %{self.bail()}, !prof !0")
        code.label(hit)
        return self.translated(address, entry)

    def translated(self, address: str, entry: str) -> str:
        """Host address of what a TLB entry holds."""
        code = self.code
        added = code.op(f"getelementptr i8, ptr {entry}, i64 {layout.ADDEND}")
        addend = code.op(f"load i64, ptr {added}{IN_MACHINE}")
        return code.op(f"add i64 {address}, {addend}")

    def lookup(self, address: str, size: int, table: int) -> tuple[str, str]:
        """Does a TLB (layout.READS or WRITES) hold `size` aligned bytes at an address, and in which entry?"""
        code = self.code
        key = code.op(f"and i64 {address}, {-4096 | size - 1}")
        index = code.op(f"lshr i64 {address}, {12 - layout.ENTRY_SHIFT}")
        index = code.op(f"and i64 {index}, {(layout.DATA_ENTRIES - 1) << layout.ENTRY_SHIFT}")
        entry = code.op(f"getelementptr i8, ptr {self.context()}, i64 {index}")
        entry = code.op(f"getelementptr i8, ptr {entry}, i64 {table}") if table else entry
        return code.op(f"icmp eq i64 {code.op(f'load i64, ptr {entry}{IN_MACHINE}')}, {key}"), entry

    def _size(self, node: ast.expr) -> int:
        size: int = ast.literal_eval(node)
        return size

    def _read(self, host: str, size: int) -> Value:
        code = self.code
        value = code.op(f"load i{8 * size}, ptr {code.op(f'inttoptr i64 {host} to ptr')}{IN_RAM}")
        return Value(value if size == 8 else code.op(f"zext i{8 * size} {value} to i64"), UNSIGNED)

    def _write(self, host: str, size: int, value: str) -> None:
        code = self.code
        if size < 8:
            value = code.op(f"trunc i64 {value} to i{8 * size}")
        code.do(f"store i{8 * size} {value}, ptr {code.op(f'inttoptr i64 {host} to ptr')}{IN_RAM}")

    def _load(self, args: list[ast.expr]) -> Value:
        size = self._size(args[1])
        return self._read(self.probe(self.number(args[0]).text, size, layout.READS), size)

    def _store(self, args: list[ast.expr]) -> None:
        size = self._size(args[1])
        address, value = self.number(args[0]).text, self.number(args[2]).text
        self._write(self.probe(address, size, layout.WRITES), size, value)

    def _amo_load(self, args: list[ast.expr]) -> Value:
        size = self._size(args[1])
        return self._read(self.probe(self.number(args[0]).text, size, layout.WRITES), size)

    def _physical(self, host: str) -> str:
        """Any one-to-one image of the physical address does, but the reference tier shares the field."""
        code = self.code
        memory = load_field(code, "memory_at", "ptr")
        ram = code.op(f"load i64, ptr {memory}")
        base = code.op(f"load i64, ptr {code.op(f'getelementptr i8, ptr {memory}, i64 8')}")
        return code.op(f"add i64 {code.op(f'sub i64 {host}, {ram}')}, {base}")

    def _load_reserved(self, args: list[ast.expr]) -> Value:
        size = self._size(args[1])
        host = self.probe(self.number(args[0]).text, size, layout.READS)
        store_field(self.code, "reservation", self._physical(host))
        return self._read(host, size)

    def _store_conditional(self, args: list[ast.expr]) -> Value:
        code, size = self.code, self._size(args[1])
        value = self.number(args[2]).text
        host = self.probe(self.number(args[0]).text, size, layout.WRITES)
        held = code.op(f"icmp eq i64 {load_field(code, 'reservation')}, {self._physical(host)}")
        store_field(code, "reservation", str(NO_RESERVATION - (1 << 64)))
        yes, no = code.branch(held)
        code.label(yes)
        self._write(host, size, value)
        code.label(no)
        return Value(code.op(f"select i1 {held}, i64 0, i64 1"), UNSIGNED)


class HandlerScope(MachineScope):
    """A handler: operands come from the operation, registers from the state."""

    def __init__(self, row: Row, code: Code) -> None:
        super().__init__(code)
        self.row = row
        self.places = layout.places(row)
        self.pending: Callable[[], None] | None = None
        self.bailed = self.traps = self.stores = False
        self.attention: str | None = None
        self.primitives |= {
            "jump": self._jump,
            "ecall": self._checked(privileged.ecall, steps=True),
            "sfence_order": self._checked(privileged.check_fence_order),
            "sfence_vma": self._checked(privileged.check_fence),
            "hfence_vvma": self._checked(privileged.check_guest_fence, "0"),
            "hfence_gvma": self._checked(privileged.check_guest_fence, "1"),
            "csr_read": self._csr_read,
            "csr_write": self._csr_change("write"), "csr_set": self._csr_change("set"),
            "csr_clear": self._csr_change("clear"),
            "sret": self._return(privileged.sret), "mret": self._return(privileged.mret), "wfi": self._wait,
        }  # fmt: skip

    def bail(self) -> str:
        self.bailed = True
        return "bail"

    # -- floating point ------------------------------------------------------------------------------
    def read_float(self, name: str) -> str:
        return self.code.op(f"load i64, ptr {self._float_register(self.places[name])}")

    def write_float(self, value: str) -> None:
        self.code.do(f"store i64 {value}, ptr {self._float_register(layout.RD)}")

    def _float_register(self, place: int) -> str:
        code = self.code
        words = code.op(f"getelementptr i8, ptr %s, i64 {field('f_words')}")
        return code.op(f"getelementptr i64, ptr {words}, i64 {self._byte(place)}")

    def enter_floats(self, ready: str) -> None:
        self._unless(ready, privileged.check_floats)

    def leave_floats(self, ready: str) -> None:
        self._unless(ready, privileged.dirty_floats)

    def _unless(self, condition: str, function: Callable[..., Any]) -> None:
        """Call a procedure where a condition that mostly holds does not."""
        code = self.code
        on, otherwise = code.branch(condition, likely=True)
        code.label(otherwise)
        self.procedure(PROCEDURES.need(function))
        code.end(f"br label %{on}")
        code.label(on)

    # -- calls of procedures -------------------------------------------------------------------------
    def procedure(self, symbol: str, *arguments: str) -> str:
        """Call one and go on with its result; a trap of it is this instruction's."""
        code = self.code
        listed = "".join(f", i64 {argument}" for argument in arguments)
        result = code.op(f"call {RESULT} {symbol}(ptr %s{listed})")
        status = code.op(f"extractvalue {RESULT} {result}, 1")
        self.bailed = self.traps = True
        done, other = code.branch(code.op(f"icmp eq i64 {status}, {DONE}"), likely=True)
        code.label(other)
        labels = ((TRAPPED, "trapped"), (ILLEGAL, "illegal"), (VIRTUAL, "virtual"))
        cases = " ".join(f"i64 {ended}, label %{label}" for ended, label in labels)
        code.end(f"switch i64 {status}, label %bail [ {cases} ]")
        code.label(done)
        return code.op(f"extractvalue {RESULT} {result}, 0")

    def _attend(self, condition: str = "true") -> None:
        """Where the condition holds, interrupts and the place of the next instruction are looked at after this one. It is
        counted as one that a jump reached, but not after a store: what the TLB missed says nothing of where to begin."""
        if self.attention is None:
            self.attention = self.code.allocate("i1")
            self.code.allocations.append(f"  store i1 false, ptr {self.attention}")
        self.code.do(f"store i1 {condition}, ptr {self.attention}")

    def _checked(self, function: Callable[..., Any], *arguments: str, steps: bool = False) -> Primitive:
        def lower(_args: list[ast.expr]) -> None:
            if steps:
                know_steps(self.code, "%budget")
            self.procedure(PROCEDURES.need(function), *arguments)

        return lower

    def _csr_read(self, args: list[ast.expr]) -> Value:
        return Value(self._csr_call("read", self.number(args[0]).text), UNSIGNED)

    def _csr_change(self, how: str) -> Primitive:
        def lower(args: list[ast.expr]) -> None:
            number, value = (self.number(arg).text for arg in args)
            self._csr_call(how, number, value)
            quiet = self.code.op(f"load i8, ptr {self.code.op(f'getelementptr i8, ptr @csr_quiet, i64 {number}')}")
            self._attend(self.code.op(f"icmp eq i8 {quiet}, 0"))

        return lower

    def _csr_call(self, how: str, number: str, *arguments: str) -> str:
        code = self.code
        know_steps(code, "%budget")
        at = code.op(f"getelementptr ptr, ptr @csr_{how}, i64 {number}")
        function = code.op(f"load ptr, ptr {at}")
        there, none = code.branch(code.op(f"icmp ne ptr {function}, null"), likely=True)
        code.label(none)
        code.end(f"br label %{self.bail()}")
        code.label(there)
        return self.procedure(function, *arguments)

    def _return(self, function: Callable[..., Any]) -> Primitive:
        def lower(_args: list[ast.expr]) -> None:
            code = self.code
            target = self.procedure(PROCEDURES.need(function))
            self.procedure(PROCEDURES.need(access.change_mode))
            tail_far(code, target, code.op("sub i64 %budget, 1"), "@attend_far")

        return lower

    def _wait(self, _args: list[ast.expr]) -> None:
        code = self.code
        self.procedure(PROCEDURES.need(privileged.check_wfi))
        store_field(code, "waiting", "1", "i8")
        following = code.op(f"getelementptr i8, ptr %op, i64 {self.row.length * 8}")
        tail(code, "@over", following, code.op("sub i64 %budget, 1"))

    # -- what the TLB does not hold ------------------------------------------------------------------
    def _load(self, args: list[ast.expr]) -> Value:
        code, size = self.code, self._size(args[1])
        address = self.number(args[0]).text
        place = code.allocate()
        found, entry = self.lookup(address, size, layout.READS)
        hit, miss = code.branch(found, likely=True)
        done = code.name("loaded")
        code.label(miss)
        slow = self.procedure(PROCEDURES.need(access.load_slow), address, str(size))
        code.do(f"store i64 {slow}, ptr {place}")
        code.end(f"br label %{done}")
        code.label(hit)
        code.do(f"store i64 {self._read(self.translated(address, entry), size).text}, ptr {place}")
        code.label(done)
        return Value(code.op(f"load i64, ptr {place}"), UNSIGNED)

    def _store(self, args: list[ast.expr]) -> None:
        code, size = self.code, self._size(args[1])
        address, value = self.number(args[0]).text, self.number(args[2]).text
        found, entry = self.lookup(address, size, layout.WRITES)
        hit, miss = code.branch(found, likely=True)
        done = code.name("stored")
        code.label(miss)
        self.procedure(PROCEDURES.need(access.store_slow), address, str(size), value)
        self.stores = True
        self._attend()
        code.end(f"br label %{done}")
        code.label(hit)
        self._write(self.translated(address, entry), size, value)
        code.label(done)

    def probe(self, address: str, size: int, table: int) -> str:
        """As a region's, for atomics; but a miss is looked up here."""
        code = self.code
        place = code.allocate()
        found, entry = self.lookup(address, size, table)
        hit, miss = code.branch(found, likely=True)
        done = code.name("found")
        code.label(miss)
        misaligned, aligned = code.branch(
            code.op(f"icmp ne i64 {code.op(f'and i64 {address}, {size - 1}')}, 0"), likely=False
        )
        code.label(misaligned)
        code.end(f"br label %{self.bail()}")
        code.label(aligned)
        function = access.readable if table == layout.READS else access.writable
        code.do(f"store i64 {self.procedure(PROCEDURES.need(function), address, str(size))}, ptr {place}")
        if table == layout.WRITES:
            self.stores = True
            self._attend()
        code.end(f"br label %{done}")
        code.label(hit)
        code.do(f"store i64 {self.translated(address, entry)}, ptr {place}")
        code.label(done)
        return code.op(f"load i64, ptr {place}")

    def _byte(self, place: int) -> str:
        code = self.code
        value = code.op(f"load i8, ptr {code.op(f'getelementptr i8, ptr %op, i64 {place}')}")
        return code.op(f"zext i8 {value} to i64")

    def read(self, name: str) -> Value:
        code = self.code
        if name == "pc":
            return Value(program_counter(code, "%op"), UNSIGNED)
        if name == "ilen":
            return Value(str(self.row.length), UNSIGNED)
        if name.endswith("_index") and (place := self.places.get(name.removesuffix("_index"))):
            number = self._byte(place)
            if name == "rd_index":
                number = code.op(f"select i1 {code.op(f'icmp eq i64 {number}, {layout.SINK}')}, i64 0, i64 {number}")
            return Value(number, UNSIGNED)
        if name == "uimm" and name in self.places:
            return Value(self._byte(self.places[name]), UNSIGNED)
        if name in ("rs1", "rs2") and name in self.places:
            return Value(code.op(f"load i64, ptr {self._register(self._byte(self.places[name]))}"), UNSIGNED)
        if name in self.places and self.places[name] == layout.IMM:
            value = code.op(f"load i32, ptr {code.op(f'getelementptr i8, ptr %op, i64 {layout.IMM}')}")
            return Value(code.op(f"sext i32 {value} to i64"), SIGNED if name == "imm" else UNSIGNED)
        return super().read(name)

    def _register(self, index: str) -> str:
        return self.code.op(f"getelementptr i64, ptr %s, i64 {index}")

    def write(self, name: str, value: Value) -> bool:
        if name == "rd":
            self.code.do(f"store i64 {value.text}, ptr {self._register(self._byte(layout.RD))}")
            return True
        return super().write(name, value)

    def run(self, body: tuple[ast.stmt, ...] | list[ast.stmt]) -> None:
        super().run(body)
        if self.pending is not None and self.code.open:
            finish, self.pending = self.pending, None
            finish()

    def _jump(self, args: list[ast.expr]) -> None:
        code = self.code
        if ast.unparse(args[0]) == "pc + imm":
            immediate = self.read("imm").text
            distance = code.op(f"shl i64 {immediate}, 3")
            target = code.op(f"getelementptr i8, ptr %op, i64 {distance}")
            worth = code.op(f"icmp slt i64 {immediate}, 0")
            if writes_integer(self.row):
                calls = code.op(f"icmp ne i64 {self._byte(layout.RD)}, {layout.SINK}")
                worth = code.op(f"or i1 {worth}, {calls}")

            def finish() -> None:
                begin = load_field(code, "ops")
                offset = code.op(f"sub i64 {code.op(f'ptrtoint ptr {target} to i64')}, {begin}")
                near, far = code.branch(code.op(f"icmp ult i64 {offset}, {layout.OPS_BYTES}"), likely=True)
                code.label(near)
                follow(code, target, worth)
                code.label(far)
                self._far(program_counter(code, target))
        else:
            address = self.number(args[0]).text

            def finish() -> None:
                distance = code.op(f"xor i64 {address}, {load_field(code, 'page_pc')}")
                near, far = code.branch(code.op(f"icmp ult i64 {distance}, 4096"))
                code.label(near)
                begin = load_field(code, "ops", "ptr")
                target = code.op(f"getelementptr i8, ptr {begin}, i64 {code.op(f'shl i64 {distance}, 3')}")
                follow(code, target, "true")
                code.label(far)
                self._far(address)

        self.pending = finish

    def _far(self, address: str) -> None:
        tail_far(self.code, address, self.code.op("sub i64 %budget, 1"))


def know_steps(code: Code, budget: str) -> None:
    """For procedures that look at the clock: so many steps are left."""
    store_field(code, "steps", code.op(f"sub i64 {load_field(code, 'limit')}, {budget}"))


def program_counter(code: Code, operation: str) -> str:
    """The virtual address of an operation of the current page."""
    offset = code.op(f"sub i64 {code.op(f'ptrtoint ptr {operation} to i64')}, {load_field(code, 'ops')}")
    return code.op(f"add i64 {load_field(code, 'page_pc')}, {code.op(f'ashr i64 {offset}, 3')}")


def follow(code: Code, operation: str, worth: str | None = None) -> None:
    """This instruction is done: go on with `operation` unless the budget is used up. `worth`: see `_count`."""
    _go_on(code, operation, code.op("sub i64 %budget, 1"), worth)


def _go_on(code: Code, operation: str, left: str, worth: str | None) -> None:
    over, on = code.branch(code.op(f"icmp eq i64 {left}, 0"), likely=False)
    code.label(on)
    if worth is not None:
        _count(code, operation, left, worth)
    tail(code, code.op(f"load ptr, ptr {operation}"), operation, left)
    code.label(over)
    tail(code, "@over", operation, left)


def _count(code: Code, operation: str, left: str, worth: str) -> None:
    """Count that a jump reached `operation` if it is `worth` counting: it went backwards, or it is a call, a return or
    another indirect one. Where the count wraps, the operation is hot."""
    begin, offset = _within_page(code, operation)
    heat = code.op(f"getelementptr i8, ptr {begin}, i64 {layout.HEAT_AT}")
    heat = code.op(f"getelementptr i8, ptr {heat}, i64 {code.op(f'lshr i64 {offset}, 3')}")
    count = code.op(f"add i16 {code.op(f'load i16, ptr {heat}')}, {code.op(f'zext i1 {worth} to i16')}")
    code.do(f"store i16 {count}, ptr {heat}")
    hot, cool = code.branch(code.op(f"icmp eq i16 {count}, 0"), likely=False)
    code.label(hot)
    code.do(f"store i16 1, ptr {heat}")
    tail(code, "@report", operation, left)
    code.label(cool)


def _within_page(code: Code, operation: str) -> tuple[str, str]:
    """The present code page, and the operation's offset in it."""
    begin = load_field(code, "ops")
    offset = code.op(f"sub i64 {code.op(f'ptrtoint ptr {operation} to i64')}, {begin}")
    return code.op(f"inttoptr i64 {begin} to ptr"), offset


def _report() -> str:
    """Tell Python that this operation is hot, if there is room, and go on with it."""
    code = Code()
    count = load_field(code, "hot_count")
    room, on = code.branch(code.op(f"icmp ult i64 {count}, {MAX_HOT}"), likely=True)
    code.label(room)
    begin, offset = _within_page(code, "%op")
    pair = code.op(f"getelementptr [2 x i64], ptr %s, i64 {count}")
    pair = code.op(f"getelementptr i8, ptr {pair}, i64 {field('hot')}")
    code.do(f"store ptr {begin}, ptr {pair}")
    code.do(f"store i64 {offset}, ptr {code.op(f'getelementptr i8, ptr {pair}, i64 8')}")
    store_field(code, "hot_count", code.op(f"add i64 {count}, 1"))
    code.label(on)
    tail(code, code.op("load ptr, ptr %op"), "%op", "%budget")
    return threaded(code, "@report")


def _plain() -> str:
    """Execute this operation, and as many as follow, as if no region began at it."""
    code = Code()
    begin, offset = _within_page(code, "%op")
    place = code.op(f"getelementptr i8, ptr {begin}, i64 {layout.PLAIN_AT}")
    place = code.op(f"getelementptr i8, ptr {place}, i64 {code.op(f'lshr i64 {offset}, 1')}")
    replaced = code.op(f"load ptr, ptr {place}")
    present = code.op("load ptr, ptr %op")
    chosen = code.op(f"select i1 {code.op(f'icmp eq ptr {replaced}, null')}, ptr {present}, ptr {replaced}")
    over, on = code.branch(code.op("icmp eq i64 %budget, 0"), likely=False)
    code.label(on)
    tail(code, chosen, "%op", "%budget")
    code.label(over)
    tail(code, "@over", "%op", "%budget")
    return threaded(code, "@plain", visible=True)


def handler(row: Row) -> str | None:
    """The native function of a row; None: the reference tier executes it."""
    code = Code()
    try:
        scope = HandlerScope(row, code)
        scope.lower(row)
    except NotLowerable:
        return None
    if code.open:
        following = code.op(f"getelementptr i8, ptr %op, i64 {row.length * 8}")
        if scope.attention is not None:
            look, on = code.branch(code.op(f"load i1, ptr {scope.attention}"), likely=False)
            code.label(look)
            attend = "@attend_store" if scope.stores else "@attend"
            tail(code, attend, following, code.op("sub i64 %budget, 1"))
            code.label(on)
        follow(code, following)
    if scope.traps:
        for label, function in (("trapped", "@trap"), ("illegal", "@illegal"), ("virtual", "@virtual")):
            code.label(label)
            tail(code, function, "%op", "%budget")
    if scope.bailed:
        code.label("bail")
        tail(code, "@slow", "%op", "%budget")
    return threaded(code, symbol(row), "#0")


_NAMES: dict[tuple[str, int], str] = {}


def symbol(row: Row) -> str:
    """Rows that do the same in the same length share a handler: many compressed ones do."""
    key = (row.semantics, row.length)
    return f'@"op.{_NAMES.setdefault(key, row.mnemonic)}"'


def _leave(name: str, reason: int) -> str:
    """Come back to Python at `operation`."""
    code = Code()
    store_field(code, "pc", program_counter(code, "%op"))
    know_steps(code, "%budget")
    code.end(f"ret i64 {reason}")
    return threaded(code, f"@{name}", visible=True)


def _far(name: str, worth: str | None) -> str:
    """Go on at the address that stands in the operation's place, which may be in any page. `worth`: see `_count`."""
    code = Code()
    target = code.op("ptrtoint ptr %op to i64")
    page = code.op(f"and i64 {target}, -4096")
    index = code.op(f"lshr i64 {target}, 8")
    index = code.op(f"and i64 {index}, {(layout.FETCH_ENTRIES - 1) << 4}")
    entry = code.op(f"getelementptr i8, ptr {load_field(code, 'tlb_at', 'ptr')}, i64 {index}")
    entry = code.op(f"getelementptr i8, ptr {entry}, i64 {layout.DATA_BYTES}")
    found = code.op(f"icmp eq i64 {code.op(f'load i64, ptr {entry}')}, {page}")
    hit, miss = code.branch(found, likely=True)
    code.label(hit)
    ops = code.op(f"load ptr, ptr {code.op(f'getelementptr i8, ptr {entry}, i64 8')}")
    store_field(code, "ops", ops, "ptr")
    store_field(code, "page_pc", page)
    offset = code.op(f"shl i64 {code.op(f'and i64 {target}, 4094')}, 3")
    operation = code.op(f"getelementptr i8, ptr {ops}, i64 {offset}")
    _go_on(code, operation, "%budget", worth)
    code.label(miss)
    tail(code, "@far_miss", "%op", "%budget")
    return threaded(code, f"@{name}", visible=worth is not None)


def _far_miss() -> str:
    """As @far, for a page that the fetch TLB does not have."""
    code = Code()
    target = code.op("ptrtoint ptr %op to i64")
    store_field(code, "pc", target)
    result = code.op(f"call {RESULT} {PROCEDURES.need(access.fetch_slow)}(ptr %s, i64 {target})")
    status = code.op(f"icmp eq i64 {code.op(f'extractvalue {RESULT} {result}, 1')}, {DONE}")
    known = code.op(f"icmp ne i64 {code.op(f'extractvalue {RESULT} {result}, 0')}, 0")
    again, unknown = code.branch(code.op(f"and i1 {status}, {known}"), likely=True)
    code.label(again)
    tail(code, "@far", "%op", "%budget")
    code.label(unknown)
    raised = code.op(f"icmp eq i64 {code.op(f'extractvalue {RESULT} {result}, 1')}, {TRAPPED}")
    left = code.op("icmp ne i64 %budget, 0")
    trapped, absent = code.branch(code.op(f"and i1 {raised}, {left}"))
    code.label(trapped)
    tail(code, "@trap_at_pc", "%op", "%budget")
    code.label(absent)
    know_steps(code, "%budget")
    code.end(f"ret i64 {layout.FETCH}")
    return threaded(code, "@far_miss")


def _straddle() -> str:
    """An instruction whose second half is in the next page, whatever page that is now."""
    code = Code()
    begin = load_field(code, "ops", "ptr")
    following = code.op(f"add i64 {load_field(code, 'page_pc')}, 4096")
    result = code.op(f"call {RESULT} {PROCEDURES.need(access.fetch_page)}(ptr %s, i64 {following})")
    status = code.op(f"icmp eq i64 {code.op(f'extractvalue {RESULT} {result}, 1')}, {DONE}")
    page = code.op(f"extractvalue {RESULT} {result}, 0")
    known = code.op(f"icmp ne i64 {page}, 0")
    found, unknown = code.branch(code.op(f"and i1 {status}, {known}"), likely=True)
    code.label(unknown)
    tail(code, "@slow", "%op", "%budget")
    code.label(found)
    high = code.op(f"inttoptr i64 {code.op(f'add i64 {page}, {layout.CONTENT_AT}')} to ptr")
    high = code.op(f"zext i16 {code.op(f'load i16, ptr {high}')} to i32")
    key = code.op(f"or i32 {high}, 65536")
    place = code.op(f"getelementptr i8, ptr {begin}, i64 {layout.STRADDLE_AT}")
    handler_at = code.op(f"getelementptr i8, ptr {place}, i64 8")
    same, other = code.branch(code.op(f"icmp eq i32 {code.op(f'load i32, ptr {place}')}, {key}"), likely=True)
    code.label(other)
    low = code.op(f"getelementptr i8, ptr {begin}, i64 {layout.CONTENT_AT + 4094}")
    low = code.op(f"zext i16 {code.op(f'load i16, ptr {low}')} to i32")
    word = code.op(f"or i32 {low}, {code.op(f'shl i32 {high}, 16')}")
    code.do(f"store ptr {code.op(f'call ptr @decode_word(ptr %op, i32 {word})')}, ptr {handler_at}")
    code.do(f"store i32 {key}, ptr {place}")
    code.label(same)
    tail(code, code.op(f"load ptr, ptr {handler_at}"), "%op", "%budget")
    return threaded(code, "@straddle")


def _next_page() -> str:
    """The operation behind a page's last: it is no instruction and costs no step."""
    code = Code()
    tail_far(code, program_counter(code, "%op"), "%budget")
    return threaded(code, "@next_page", visible=True)


def _attend(name: str) -> str:
    """Go on at `operation`, but by way of what its page is now, and only if no interrupt is to be taken."""
    code = Code()
    tail_far(code, program_counter(code, "%op"), "%budget", f"@{name}_far")
    return threaded(code, f"@{name}")


def _attend_far(name: str, far: str) -> str:
    """As @attend, with the address that stands in the operation's place."""
    code = Code()
    result = code.op(f"call {RESULT} {PROCEDURES.need(privileged.pending_interrupt)}(ptr %s)")
    pending = code.op(f"icmp ne i64 {code.op(f'extractvalue {RESULT} {result}, 0')}, 0")
    leave, on = code.branch(pending, likely=False)
    code.label(on)
    tail(code, far, "%op", "%budget")
    code.label(leave)
    store_field(code, "pc", code.op("ptrtoint ptr %op to i64"))
    know_steps(code, "%budget")
    code.end(f"ret i64 {layout.LIMIT}")
    return threaded(code, f"@{name}_far")


def _trap() -> str:
    """Take the trap in `trap_cause` and `trap_value` at `operation`; leave it to Python where that has to do it."""
    code = Code()
    store_field(code, "pc", program_counter(code, "%op"))
    tail(code, "@trap_at_pc", "%op", "%budget")
    return threaded(code, "@trap")


def _encoding_trap(name: str, cause: Cause) -> str:
    """Take a trap whose value is the encoding of the instruction at `operation`."""
    code = Code()
    begin, offset = _within_page(code, "%op")
    content = code.op(f"getelementptr i8, ptr {begin}, i64 {layout.CONTENT_AT}")
    at = code.op(f"lshr i64 {offset}, 3")
    # What goes over the page's end is for somebody who can look there.
    inside, over = code.branch(code.op(f"icmp ule i64 {at}, 4092"), likely=True)
    code.label(over)
    tail(code, "@slow", "%op", "%budget")
    code.label(inside)
    at = code.op(f"getelementptr i8, ptr {content}, i64 {at}")
    word = code.op(f"load i32, ptr {at}, align 2")
    wide = code.op(f"icmp eq i32 {code.op(f'and i32 {word}, 3')}, 3")
    word = code.op(f"select i1 {wide}, i32 {word}, i32 {code.op(f'and i32 {word}, 65535')}")
    store_field(code, "trap_cause", str(int(cause)))
    store_field(code, "trap_value", code.op(f"zext i32 {word} to i64"))
    tail(code, "@trap", "%op", "%budget")
    return threaded(code, f"@{name}")


def _trap_at_pc() -> str:
    """Whose trap is it? The way that real guests go most often is kept short."""
    code = Code()
    virtual = load_field(code, "virtual_at", "ptr")
    exit_, own = code.branch(code.op(f"icmp ne ptr {virtual}, null"))
    code.label(exit_)
    tail(code, "@take_exit", "%op", "%budget")
    code.label(own)
    assisted = code.op(f"icmp ne i64 {load_field(code, 'guest_ram_at')}, 0")
    of_stage = code.op(f"icmp uge i64 {load_field(code, 'trap_cause')}, {int(Cause.INSTRUCTION_GUEST_PAGE_FAULT)}")
    stage, plain = code.branch(code.op(f"and i1 {assisted}, {of_stage}"))
    code.label(stage)
    tail(code, "@take_stage_fault", "%op", "%budget")
    code.label(plain)
    tail(code, "@take_trap", "%op", "%budget")
    return threaded(code, "@trap_at_pc", "#0")


def _take(name: str, take: Callable[[Code, str, str], str], succeed: Callable[[Code], None]) -> str:
    """Take the trap in `trap_cause` and `trap_value` at `pc`: take(code, cause, value) gives how that ended. If it is
    refused, Python finds the hart as it was."""
    code = Code()
    before, unretired = code.op(f"sub i64 {load_field(code, 'limit')}, %budget"), load_field(code, "unretired")
    store_field(code, "steps", code.op(f"add i64 {before}, 1"))
    store_field(code, "unretired", code.op(f"add i64 {unretired}, 1"))
    status = take(code, load_field(code, "trap_cause"), load_field(code, "trap_value"))
    taken, refused = code.branch(code.op(f"icmp eq i64 {status}, {DONE}"), likely=True)
    code.label(refused)
    store_field(code, "steps", before)
    store_field(code, "unretired", unretired)
    code.end(f"ret i64 {layout.TRAP}")
    code.label(taken)
    succeed(code)
    return threaded(code, f"@{name}")


def _taken() -> str:
    def procedure(symbol: str, *more: str) -> Callable[[Code, str, str], str]:
        def take(code: Code, cause: str, value: str) -> str:
            listed = "".join(f", i64 {argument}" for argument in (cause, value, *more))
            return code.op(f"extractvalue {RESULT} {code.op(f'call {RESULT} {symbol}(ptr %s{listed})')}, 1")

        return take

    def resume(code: Code) -> None:
        tail(code, "@resume", "%op", "%budget")

    def go_on(code: Code) -> None:
        full = code.op(f"icmp uge i64 {load_field(code, 'record_count')}, {load_field(code, 'record_limit')}")
        leave, on = code.branch(full, likely=False)
        code.label(on)
        tail_far(code, load_field(code, "pc"), code.op("sub i64 %budget, 1"))
        code.label(leave)
        code.end(f"ret i64 {layout.LIMIT}")

    return "\n".join([
        _take("take_exit", lambda code, *trap: _exit(code, load_field(code, "virtual_at", "ptr"), *trap), resume),
        _take("take_stage_fault", procedure(EXITS.need(exits.fill_second_stage)), resume),
        _take("take_trap", procedure(PROCEDURES.need(traps.take_trap), "0"), go_on),
    ])  # fmt: skip


def _exit(code: Code, virtual: str, cause: str, value: str) -> str:
    """Take a VM exit; returns how that ended."""
    host = code.op("ptrtoint ptr %s to i64")
    arguments = f"(ptr {virtual}, i64 {host}, i64 {cause}, i64 {value})"
    place = code.allocate(RESULT)
    result = code.op(f"call {RESULT} {EXITS.need(exits.take_exit)}{arguments}")
    code.do(f"store {RESULT} {result}, ptr {place}")
    ended = code.op(f"extractvalue {RESULT} {result}, 1")
    for status, function in ((ILLEGAL, exits.reflect_illegal), (TRAPPED, exits.reflect_fault)):
        own, on = code.branch(code.op(f"icmp eq i64 {ended}, {status}"), likely=False)
        code.label(own)
        reflected = code.op(f"call {RESULT} {EXITS.need(function)}{arguments}")
        code.do(f"store {RESULT} {reflected}, ptr {place}")
        code.label(on)
    for name in ("steps", "extra", "unretired"):
        code.do(f"store i64 0, ptr {code.op(f'getelementptr i8, ptr {virtual}, i64 {field(name)}')}")
    return _switched(code, code.op(f"load {RESULT}, ptr {place}"), "%s")


def _switched(code: Code, result: str, host: str) -> str:
    """An exit is over: if the host hart goes on in another address space or mode, it chooses its context. Returns how the
    exit ended."""
    switched, done = code.branch(code.op(f"icmp eq i64 {code.op(f'extractvalue {RESULT} {result}, 0')}, 1"))
    code.label(switched)
    code.op(f"call {RESULT} {PROCEDURES.need(access.choose_anew)}(ptr {host})")
    code.label(done)
    return code.op(f"extractvalue {RESULT} {result}, 1")


def _resume_for_python() -> str:
    """i64 resume_exit(virtual hart, host): exits.resume, and the host hart's context. Returns how it ended."""
    code = Code()
    host = code.op("ptrtoint ptr %host to i64")
    result = code.op(f"call {RESULT} {EXITS.need(exits.resume)}(ptr %s, i64 {host})")
    code.end(f"ret i64 {_switched(code, result, '%host')}")
    return code.text("define i64 @resume_exit(ptr nonnull %s, ptr nonnull %host)")


def _resume() -> str:
    """Go on after a VM exit: it took time, so `limit` is nearer."""
    code = Code()
    steps = load_field(code, "steps")
    clock = code.op(f"add i64 {steps}, {load_field(code, 'extra')}")
    time = code.op(f"call i64 @llvm.usub.sat.i64(i64 {load_field(code, 'horizon')}, i64 {clock})")
    left = code.op(f"call i64 @llvm.usub.sat.i64(i64 {load_field(code, 'last_step')}, i64 {steps})")
    left = code.op(f"call i64 @llvm.umin.i64(i64 {left}, i64 {time})")
    store_field(code, "limit", code.op(f"add i64 {steps}, {left}"))
    full = code.op(f"icmp uge i64 {load_field(code, 'record_count')}, {load_field(code, 'record_limit')}")
    asked = code.op(f"icmp ne i8 {load_field(code, 'leave', 'i8')}, 0")
    leave, on = code.branch(code.op(f"or i1 {full}, {asked}"), likely=False)
    code.label(on)
    tail_far(code, load_field(code, "pc"), left)
    code.label(leave)
    code.end(f"ret i64 {layout.LIMIT}")
    return threaded(code, "@resume")


def _csr_tables() -> str:
    """For each way of access a function for each CSR number: null where the reference tier does it. One that cannot
    write all that a write concerns finds out whether it is allowed."""
    lines = []
    for how, function in (
        ("read", csrfile.access_read), ("write", csrfile.access_write), ("set", csrfile.access_set),
        ("clear", csrfile.access_clear),
    ):  # fmt: skip
        found = ["ptr null"] * 4096
        for row in CSRS.values():
            if is_native(row) and not (row.read_only and how != "read"):
                try:
                    symbol = PROCEDURES.need(function, (row,))
                except NotLowerable:
                    if how == "read":
                        raise
                    symbol = PROCEDURES.need(traps.change_in_python, (row,))
                found[row.number] = f"ptr {symbol}"
        lines.append(f"@csr_{how} = internal constant [4096 x ptr] [{', '.join(found)}]")
    quiet = ", ".join(f"i8 {int(number in CSRS and csrfile.is_quiet(CSRS[number]))}" for number in range(4096))
    return "\n".join([*lines, f"@csr_quiet = internal constant [4096 x i8] [{quiet}]"])


def is_native(row: Csr) -> bool:
    """Is the register accessed in native code?"""
    return bool((row.privilege <= SUPERVISOR or row.name in _OFTEN) and (row.storage or row.rule == "counter"))


def _for_python(name: str, symbol: str, result: int, *arguments: str) -> str:
    """i64 name(state, words): a procedure's result (0), or how it ended (1)."""
    words = "".join(f", i64 %{argument}" for argument in arguments)
    code = Code()
    ended = code.op(f"call {RESULT} {symbol}(ptr %s{words})")
    code.end(f"ret i64 {code.op(f'extractvalue {RESULT} {ended}, {result}')}")
    return code.text(f"define i64 @{name}(ptr nonnull %s{words})")


def _run() -> str:
    """i64 run(state): from `pc` until `limit` or something that Python has to do."""
    code = Code()
    stale = code.op(f"lshr i64 {load_field(code, 'stale')}, {load_field(code, 'context')}")
    dirty, clean = code.branch(code.op(f"trunc i64 {stale} to i1"), likely=False)
    code.label(dirty)
    code.op(f"call {RESULT} {PROCEDURES.need(access.clean)}(ptr %s)")
    code.label(clean)
    left = code.op(f"sub i64 {load_field(code, 'limit')}, {load_field(code, 'steps')}")
    host = floats.entered(code)
    reason = call_threaded(code, "@far", load_field(code, "pc", "ptr"), left)
    floats.left(code, host)
    code.end(f"ret i64 {reason}")
    return code.text("define i64 @run(ptr nonnull %s)")


def module() -> str:
    """The whole interpreter as LLVM IR: `run`, `decode`, `slow`, `over`, `far`, `plain`, `next_page`, what else Python
    calls, and a handler for each row."""
    native: dict[str, str | None] = {}
    for row in ROWS:
        native.setdefault(symbol(row), handler(row))
    handlers = [symbol(row) if native[symbol(row)] else "@slow" for row in ROWS]
    table = ", ".join(f"ptr {name}" for name in handlers)
    return "\n".join([
        f"@handlers = constant [{len(ROWS)} x ptr] [{table}]",
        *filter(None, native.values()), _trap(), _trap_at_pc(), _taken(), _resume(),
        _encoding_trap("illegal", Cause.ILLEGAL_INSTRUCTION), _encoding_trap("virtual", Cause.VIRTUAL_INSTRUCTION),
        _attend("attend"), _attend_far("attend", "@far"), _attend("attend_store"),
        _attend_far("attend_store", "@far_on"), _csr_tables(),
        _for_python("refresh", PROCEDURES.need(access.choose_anew), 1),
        _for_python("enter_trap", PROCEDURES.need(privileged.enter_trap), 1, "to", "cause", "value", "interrupt"),
        _for_python("translate", PROCEDURES.need(entry.translate), 1, "address", "access"),
        _for_python("number_records", PROCEDURES.need(traps.number_records), 0, "sequence", "rows"),
        _for_python("walk", EXITS.need(exits.walk), 1, "address", "access"), _resume_for_python(),
        _for_python("put_leaf", EXITS.need(exits.put_leaf), 1, "offset", "space", "address", "index", "leaf"),
        _for_python("table_stored", EXITS.need(exits.table_stored), 1, "target", "size"),
        _leave("slow", layout.SLOW), _leave("over", layout.LIMIT), _far("far", "true"),
        _far("far_on", None), _far_miss(), _next_page(), _straddle(),
        _plain(), _report(), _run(), decoder(ROWS),
        exits.emulator(EXITS), exits.stored_bytes(), *PROCEDURES.texts.values(), *EXITS.texts.values(),
        "declare i64 @llvm.usub.sat.i64(i64, i64)", "declare i64 @llvm.umin.i64(i64, i64)",
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
        "attributes #0 = { nounwind }", "attributes #1 = { nounwind noinline }", METADATA,
    ])  # fmt: skip
