"""Regions: several basic blocks of one code page as one native function, with the guest's registers in LLVM values.

A region begins at a hot operation and holds what can be reached from it by direct jumps inside the page, as far as it
has been executed before, up to MAX_INSTRUCTIONS. It has the handlers' type and stands in the place of its first
operation's handler. Invariants, which make it invisible to a guest:

- Whenever control leaves, the hart's state and the budget are those of the interpreter before the operation that
  control goes to. An instruction that cannot be finished here (a TLB miss, a row without native form) was not begun:
  the interpreter executes it.
- The budget is asked for where a loop begins (`heads`), for the longest way to the next such place, so it never runs
  out in between; if it does not suffice, the interpreter goes the rest of the way.
- Nothing is known about a guest but the page's content: addresses come from `page_pc` and the operation that control
  arrived at. So a region belongs to every guest that executes this content.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.isa.csrs import CSRS
from engine.isa.decoder import decode, length_of
from engine.isa.formats import Row
from engine.machine import csrfile
from engine.machine.memory import PAGE
from engine.machine.native import layout
from engine.machine.native.decoder import writes_float, writes_integer
from engine.machine.native.handlers import CLOCKS, MachineScope, is_native, know_steps
from engine.machine.native.lowering import (
    IN_MACHINE,
    METADATA,
    SIGNED,
    UNSIGNED,
    Code,
    NotLowerable,
    Value,
    constant,
    declared,
    statements,
    tail,
    tail_far,
    threaded,
)
from engine.machine.native.procedures import DONE, RESULT, Procedures

MAX_INSTRUCTIONS = 200
MAX_BLOCKS = 64
#: Symbols of the interpreter that a region refers to, and its own.
IMPORTED = ("over", "far", "plain")
SYMBOL = "region"


class Flow(Enum):
    """Where an instruction can send control."""

    ON = auto()  # to the next instruction
    BRANCH = auto()  # to pc + imm or to the next instruction
    JUMP = auto()  # to pc + imm
    INDIRECT = auto()  # anywhere
    LEAVE = auto()  # it is for the interpreter


@dataclass(frozen=True)
class Instruction:
    """One instruction of a page; `slot`: its halfword."""

    slot: int
    row: Row
    operands: Mapping[str, int]

    @property
    def following(self) -> int:
        """Slot of the next instruction."""
        return self.slot + self.row.length // 2

    @property
    def target(self) -> int:
        """Slot of a direct jump's target; below 0 or from layout.SLOTS on, it is in another page."""
        return self.slot + (self.operands["imm"] >> 1)

    @property
    def flow(self) -> Flow:
        return flow_of(self.row, frozenset(self.operands.items())) if "csr" in self.operands else flow_of(self.row)


@dataclass
class Block:
    """Instructions without a jump among them but perhaps the last. It goes on in `following` otherwise."""

    slot: int
    instructions: list[Instruction] = field(default_factory=list)

    @property
    def last(self) -> Instruction:
        return self.instructions[-1]

    @property
    def successors(self) -> list[int]:
        """Slots where control can directly go; they may lie outside the region or the page."""
        match self.last.flow:
            case Flow.ON:
                return [self.last.following]
            case Flow.BRANCH:
                return [self.last.following, self.last.target]
            case Flow.JUMP:
                return [self.last.target]
            case _:
                return []

    @property
    def steps(self) -> int:
        """Instructions that are executed here when control runs through."""
        return len(self.instructions) - (self.last.flow == Flow.LEAVE)


@cache
def flow_of(row: Row, operands: frozenset[tuple[str, int]] = frozenset()) -> Flow:
    """What kind of jump a row is, seen in its semantics; with these operands, if they decide about it."""
    jumps = [
        ast.unparse(node.args[0])
        for statement in statements(row.semantics)
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "jump"
    ]
    if not _lowerable(row, dict(operands)):
        return Flow.LEAVE
    if not jumps:
        return Flow.ON
    if jumps != ["pc + imm"]:
        return Flow.INDIRECT
    return Flow.BRANCH if isinstance(statements(row.semantics)[0], ast.If) else Flow.JUMP


def _lowerable(row: Row, operands: Mapping[str, int]) -> bool:
    names = {*(piece.field for piece in row.pieces), *row.implied}
    scope = RegionScope(Code(), Procedures(CLOCKS), lambda: "0", lambda: "", lambda _target: None)
    try:
        scope.begin(Instruction(0, row, {**dict.fromkeys(names, 8), **operands}))
        scope.lower(row)
    except NotLowerable:
        return False
    return True


def find(content: bytes, entry: int, executed: npt.NDArray[np.bool_]) -> dict[int, Block]:
    """The blocks of the region that begins at a slot, by their slots.

    executed: for each slot, whether the interpreter has executed what begins there. Empty when there is nothing to
    compile.
    """
    found: dict[int, Instruction] = {}
    begins = [entry]
    for begin in begins:
        slot = begin
        while 0 <= slot < layout.SLOTS and slot not in found and executed[slot]:
            if len(found) >= MAX_INSTRUCTIONS or len(begins) > MAX_BLOCKS:
                break
            instruction = _at(content, slot)
            if instruction is None:
                break
            found[slot] = instruction
            if instruction.flow in (Flow.BRANCH, Flow.JUMP):
                begins.append(instruction.target)
                near = 0 <= instruction.target < layout.SLOTS
                if instruction.flow == Flow.BRANCH or (near and instruction.operands["rd"]):
                    begins.append(instruction.following)
                break
            if instruction.flow in (Flow.INDIRECT, Flow.LEAVE):
                break
            slot = instruction.following
    return _blocks(found, begins, entry)


def _at(content: bytes, slot: int) -> Instruction | None:
    at = 2 * slot
    length = length_of(int.from_bytes(content[at : at + 2], "little"))
    if at + length > PAGE:
        return None
    word = int.from_bytes(content[at : at + length], "little")
    row = decode(word)
    return None if row is None else Instruction(slot, row, row.operands(word))


def _blocks(found: dict[int, Instruction], begins: list[int], entry: int) -> dict[int, Block]:
    starts = set(begins)
    blocks: dict[int, Block] = {}
    for begin in starts & found.keys():
        block = Block(begin)
        slot = begin
        while slot in found and (slot == begin or slot not in starts):
            block.instructions.append(found[slot])
            if found[slot].flow != Flow.ON:
                break
            slot = found[slot].following
        if block.steps:
            blocks[begin] = block
    return blocks if entry in blocks else {}


class _Graph:
    """What leads where among the blocks of a region.

    order: the blocks that can be reached from the entry, which is first. returns: where calls in the region come back
    to. heads: for the entry and each block that begins a loop, the most steps from there to the next such block or out.
    """

    def __init__(self, blocks: dict[int, Block], entry: int) -> None:
        self.blocks = blocks
        self.returns = sorted(
            block.last.following
            for block in blocks.values()
            if block.last.flow in (Flow.JUMP, Flow.INDIRECT)
            and block.last.operands["rd"]
            and block.last.following in blocks
        )
        self.order: list[int] = []
        self.heads: dict[int, int] = {entry: 0}
        self._open: set[int] = set()
        self._longest: dict[int, int] = {}
        self._search(entry)
        self.order.reverse()
        self.heads = {slot: self._longest[slot] for slot in self.heads}

    def after(self, slot: int) -> list[int]:
        """Blocks of the region that control can go to from one."""
        block = self.blocks[slot]
        found = self.returns if block.last.flow == Flow.INDIRECT else block.successors
        return [successor for successor in found if successor in self.blocks]

    def _search(self, slot: int) -> None:
        """Depth first. When a block is finished, so are those it leads to, but for heads."""
        self._open.add(slot)
        longest = 0
        for successor in self.after(slot):
            if successor in self._open:
                self.heads[successor] = 0
            elif successor not in self._longest:
                self._search(successor)
            if successor not in self.heads:
                longest = max(longest, self._longest[successor])
        self._open.remove(slot)
        self._longest[slot] = longest + self.blocks[slot].steps
        self.order.append(slot)

    def dirty(self) -> dict[int, frozenset[str]]:
        """For each block, the variables that may differ from the state when it begins."""
        found: dict[int, frozenset[str]] = dict.fromkeys(self.order, frozenset())
        waiting = list(self.order)
        while waiting:
            slot = waiting.pop()
            left = found[slot].union(*(_written(instruction) for instruction in self.blocks[slot].instructions))
            for successor in self.after(slot):
                if not left <= found[successor]:
                    found[successor] |= left
                    waiting.append(successor)
        return found


def _written(instruction: Instruction) -> list[str]:
    number = instruction.operands.get("rd", 0)
    if writes_integer(instruction.row):
        return [_variable("x_words", number)] if number else []
    return [_variable("f_words", number)] if writes_float(instruction.row) else []


def _variable(words: str, number: int = 0) -> str:
    """The variable that stands for a word of the state in a region: it is called by its place."""
    return f"%r{layout.field(words) + 8 * number}"


class RegionScope(MachineScope):
    """Operands are constants, registers are variables of the function.

    procedures: gets those that are called. budget(): the steps that were left before the present instruction. bail():
    label of a block that leaves before it. jump(target): writes a jump to a direct target's slot or, given text, to an
    address.
    """

    def __init__(
        self, code: Code, procedures: Procedures, budget: Callable[[], str], bail: Callable[[], str],
        jump: Callable[[int | str], None],
    ) -> None:  # fmt: skip
        super().__init__(code)
        self.procedures = procedures
        self.budget = budget
        self.bail = bail  # type: ignore[method-assign]
        self._go = jump
        self._pending: int | str | None = None
        self.used: set[str] = set()
        self.written: set[str] = set()
        self.primitives |= {
            "jump": self._jump, "csr_read": self._csr(csrfile.access_read), "csr_write": self._csr(csrfile.access_write),
            "csr_set": self._csr(csrfile.access_set), "csr_clear": self._csr(csrfile.access_clear),
        }  # fmt: skip

    def begin(self, instruction: Instruction) -> None:
        """What is lowered next is this instruction."""
        self.instruction = instruction
        self.locals.clear()

    def context(self) -> str:
        return "%context"

    def read(self, name: str) -> Value:
        operands = self.instruction.operands
        if name == "pc":
            return Value(self.code.op(f"add i64 %page_pc, {2 * self.instruction.slot}"), UNSIGNED)
        if name == "ilen":
            return Value(str(self.instruction.row.length), UNSIGNED)
        if name in ("rs1", "rs2") and name in operands:
            number = operands[name]
            if number == 0:
                return Value("0", UNSIGNED)
            return Value(self._value(_variable("x_words", number)), UNSIGNED)
        if name.endswith("_index"):
            return constant(operands[name.removesuffix("_index")])
        if name in ("imm", "shamt", "rm", "uimm") and name in operands:
            return Value(constant(operands[name]).text, SIGNED if name == "imm" else UNSIGNED)
        return super().read(name)

    def write(self, name: str, value: Value) -> bool:
        if name != "rd":
            return super().write(name, value)
        if number := self.instruction.operands["rd"]:
            self._assign(_variable("x_words", number), value.text)
        return True

    def read_float(self, name: str) -> str:
        return self._value(_variable("f_words", self.instruction.operands[name]))

    def write_float(self, value: str) -> None:
        self._assign(_variable("f_words", self.instruction.operands["rd"]), value)

    def state(self, name: str) -> str:
        """No instruction of a region changes any field that is asked for: those that do are for the interpreter."""
        return self._value(_variable(name))

    def _value(self, variable: str) -> str:
        self.used.add(variable)
        return self.code.op(f"load i64, ptr {variable}")

    def _assign(self, variable: str, value: str) -> None:
        self.used.add(variable)
        self.written.add(variable)
        self.code.do(f"store i64 {value}, ptr {variable}")

    def run(self, body: tuple[ast.stmt, ...] | list[ast.stmt]) -> None:
        super().run(body)
        if self._pending is not None and self.code.open:
            target, self._pending = self._pending, None
            self._go(target)

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.If) and self._is_known(node.test):
            self.run(node.body if self._eval(node.test) else node.orelse)
        else:
            super().statement(node)

    def _choose(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> Value:
        if self._is_known(test):
            return self.number(body if self._eval(test) else orelse)
        return super()._choose(test, body, orelse)

    def _is_known(self, node: ast.expr) -> bool:
        """Is it an operand, which is known here?"""
        return isinstance(node, ast.Name) and (node.id == "uimm" or node.id.endswith("_index"))

    def _eval(self, node: ast.expr) -> int:
        return int(self.number(node).text)

    def _csr(self, access: Callable[..., Any]) -> Callable[[list[ast.expr]], Value]:
        """An access that changes nothing but the register is done here, by the procedure that defines it."""

        def lower(args: list[ast.expr]) -> Value:
            code = self.code
            row = CSRS.get(self.instruction.operands["csr"])
            reads = access == csrfile.access_read
            if row is None or not (is_native(row) and row.rule != "float" if reads else csrfile.is_quiet(row)):
                raise NotLowerable(self.instruction.row.mnemonic)
            if row.rule == "counter":
                know_steps(code, self.budget())
            symbol = self.procedures.need(access, (row,))
            listed = "".join(f", i64 {self.number(arg).text}" for arg in args[1:])
            result = code.op(f"call {RESULT} {symbol}(ptr %s{listed})")
            done = code.name("done")
            status = code.op(f"extractvalue {RESULT} {result}, 1")
            allowed = code.op(f"icmp eq i64 {status}, {DONE}")
            code.end(f"br i1 {allowed}, label %{done}, label %{self.bail()}, !prof !0")
            code.label(done)
            return Value(code.op(f"extractvalue {RESULT} {result}, 0"), UNSIGNED)

        return lower

    def _jump(self, args: list[ast.expr]) -> None:
        if ast.unparse(args[0]) == "pc + imm":
            self._pending = self.instruction.target
        else:
            self._pending = self.number(args[0]).text


class _Writer:
    """Writes the function of one region."""

    def __init__(self, blocks: dict[int, Block], entry: int) -> None:
        self.graph = _Graph(blocks, entry)
        self.blocks = {slot: blocks[slot] for slot in self.graph.order}
        self.entry = entry
        self.code = Code()
        self.procedures = Procedures(CLOCKS)
        self.scope = RegionScope(self.code, self.procedures, self._budget, self._bail, self._jump)
        self._block = blocks[entry]
        self._done = 0  # instructions of the present block before the one that is being written
        self._aside: dict[str, Callable[[], None]] = {}  # blocks that are written last, by label

    def module(self) -> str:
        """The region as LLVM IR."""
        dirty = self.graph.dirty()
        for slot, block in self.blocks.items():
            self.scope.written = set(dirty[slot])
            self.code.label(f"b{slot}")
            self._write(block)
        for label, write in self._aside.items():
            self.code.label(label)
            write()
        self.code.allocations[:0] = self._prologue()
        return "\n".join([
            threaded(self.code, f"@{SYMBOL}", "#0", visible=True), *self.procedures.texts.values(),
            *(declared(f"@{name}") for name in IMPORTED), "attributes #0 = { nounwind }", METADATA,
        ])  # fmt: skip

    def _prologue(self) -> list[str]:
        lines = [
            "  %left = alloca i64",
            "  store i64 %budget, ptr %left",
            f"  %page = getelementptr i8, ptr %op, i64 {-layout.OPERATION_BYTES * self.entry}",
            f"  %page_pc_at = getelementptr i8, ptr %s, i64 {layout.field('page_pc')}",
            f"  %page_pc = load i64, ptr %page_pc_at{IN_MACHINE}",
            f"  %context_at = getelementptr i8, ptr %s, i64 {layout.field('tlb_at')}",
            f"  %context = load ptr, ptr %context_at{IN_MACHINE}",
        ]
        for place in sorted(self.scope.used):
            lines += [
                f"  {place} = alloca i64",
                f"  {place}.at = getelementptr i8, ptr %s, i64 {place[2:]}",
                f"  {place}.in = load i64, ptr {place}.at{IN_MACHINE}",
                f"  store i64 {place}.in, ptr {place}",
            ]
        return lines

    def _write(self, block: Block) -> None:
        code = self.code
        self._block, self._done = block, 0
        left = code.op("load i64, ptr %left")
        if block.slot in self.graph.heads:
            need = self.graph.heads[block.slot]
            enough, short = code.branch(code.op(f"icmp uge i64 {left}, {need}"), likely=True)
            self._aside[short] = self._leaving(block.slot, 0)
            code.label(enough)
        code.do(f"store i64 {code.op(f'sub i64 {left}, {block.steps}')}, ptr %left")
        for instruction in block.instructions:
            if instruction.flow == Flow.LEAVE:
                self._go(instruction.slot)
                return
            self.scope.begin(instruction)
            self.scope.lower(instruction.row)
            self._done += 1
        if code.open:
            self._go(block.last.following)

    def _budget(self) -> str:
        left = self.code.op("load i64, ptr %left")
        return self.code.op(f"add i64 {left}, {self._block.steps - self._done}")

    def _bail(self) -> str:
        slot = self.scope.instruction.slot
        label = f"bail{self._block.slot}.{slot}"
        if label not in self._aside:
            self._aside[label] = self._leaving(slot, self._block.steps - self._done)
        return label

    def _leaving(self, slot: int, unused: int) -> Callable[[], None]:
        """Writes how the interpreter goes on with the instruction at a slot, of whose block `unused` steps that were
        already taken off the budget have not been done."""
        written = frozenset(self.scope.written)

        def write() -> None:
            self._spill(written)
            left = self.code.op("load i64, ptr %left")
            tail(self.code, "@plain", self._operation(slot), self.code.op(f"add i64 {left}, {unused}"))

        return write

    def _jump(self, target: int | str) -> None:
        """The instruction that is being written goes to a slot or to an address."""
        if isinstance(target, int):
            self._go(target)
            return
        code = self.code
        distance = code.op(f"xor i64 {target}, %page_pc")
        for slot in self.graph.returns:
            here, elsewhere = code.branch(code.op(f"icmp eq i64 {distance}, {2 * slot}"))
            code.label(here)
            code.end(f"br label %b{slot}")
            code.label(elsewhere)
        self._spill(self.scope.written)
        near, far = code.branch(code.op(f"icmp ult i64 {distance}, {PAGE}"))
        code.label(near)
        self._chain(code.op(f"getelementptr i8, ptr %page, i64 {code.op(f'shl i64 {distance}, 3')}"))
        code.label(far)
        tail_far(code, target, code.op("load i64, ptr %left"))

    def _go(self, slot: int) -> None:
        """To a slot: in the region, in the page, or in another page."""
        code = self.code
        if slot in self.blocks:
            code.end(f"br label %b{slot}")
            return
        self._spill(self.scope.written)
        if 0 <= slot < layout.SLOTS:
            self._chain(self._operation(slot))
        else:
            tail_far(code, code.op(f"add i64 %page_pc, {2 * slot}"), code.op("load i64, ptr %left"))

    def _operation(self, slot: int) -> str:
        return self.code.op(f"getelementptr i8, ptr %page, i64 {layout.OPERATION_BYTES * slot}")

    def _chain(self, operation: str) -> None:
        code = self.code
        left = code.op("load i64, ptr %left")
        over = code.op(f"icmp eq i64 {left}, 0")
        handler = code.op(f"load ptr, ptr {operation}")
        tail(code, code.op(f"select i1 {over}, ptr @over, ptr {handler}"), operation, left)

    def _spill(self, written: Iterable[str]) -> None:
        for place in sorted(written):
            value = self.code.op(f"load i64, ptr {place}")
            self.code.do(f"store i64 {value}, ptr {place}.at{IN_MACHINE}")


def module(content: bytes, entry: int, executed: npt.NDArray[np.bool_]) -> str | None:
    """LLVM IR of the region that begins at a slot of a page; None: there is nothing to compile.

    The same arguments give the same text. executed: see `find`.
    """
    blocks = find(content, entry, executed)
    return _Writer(blocks, entry).module() if blocks else None
