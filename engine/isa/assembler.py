"""The assembler: a student's source becomes a program, in two passes, from the same rows as every other part.

Pass one reads statements, gives every label its offset and every section its size; then sections get
addresses; pass two encodes. What a statement may look like comes from the instruction table and the
pseudo-instruction table; here are only the directives, `li`, and the meaning of an operand. No linker is
needed: programs are one file.

Invariants: every fault points at a line and a column (both from 1) and says what would be right; a program
that assembles is byte for byte what the GNU assembler and linker make of the same source (without relaxation
and automatic compression: an instruction is compressed where the source says `c.`, whatever `.option` says),
except that `.org` takes an address, not an offset. Limits: CONTENT_LIMIT, BSS_LIMIT,
STATEMENT_LIMIT; nothing here recurses deeper than expressions.OPERATIONS_LIMIT on any input.

Sections lie in the order .text, .rodata, .data, .bss from the base address. A base below 0x80200000 is
firmware's place: such a program starts in M mode. Source: "Using as", chapter 7 (Directives) and 9.38
(RISC-V); RISC-V Assembly Programmer's Manual.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from engine.bits import MASK64, sign_extend, signed
from engine.commands import LabError
from engine.isa.csrs import CSR_NUMBERS
from engine.isa.diagnostics import SourceError
from engine.isa.expressions import (
    OPERATIONS_LIMIT,
    Name,
    Node,
    Parser,
    Relocation,
    Token,
    Value,
    evaluate,
    first_name,
    tokenize,
)
from engine.isa.formats import DYNAMIC, ROUNDING_MODES, Row
from engine.isa.program import Program, Section, instructions
from engine.isa.pseudo import PSEUDOS, Pseudo
from engine.isa.table import BY_MNEMONIC, FLOAT_REGISTERS, REGISTERS

DEFAULT_BASE = 0x8020_0000
CONTENT_LIMIT = 4 << 20
BSS_LIMIT = 512 << 20
STATEMENT_LIMIT = 20_000
ERROR_LIMIT = 20
SECTION_ALIGNMENT = 16
NOP = BY_MNEMONIC["addi"].encode().to_bytes(4, "little")
COMPRESSED_NOP = BY_MNEMONIC["c.nop"].encode().to_bytes(2, "little")


class Diagnostic(NamedTuple):
    """One error. `key` is "assembly." and a key of expressions.MESSAGES; `message` its English sentence,
    filled.
    """

    line: int
    column: int
    message: str
    key: str
    params: dict[str, str | int]


class AssemblyError(LabError):
    """The source has errors: up to ERROR_LIMIT of them, by line. The problem, with key "assembly", is the
    first.

    Its parameters: source (its name), line, column, diagnostic (the first error's own key) and that
    error's own.
    """

    def __init__(self, name: str, diagnostics: Sequence[Diagnostic]) -> None:
        first = diagnostics[0]
        params: dict[str, str | int] = {"source": name, "diagnostic": first.key}
        params |= {"line": first.line, "column": first.column}
        super().__init__("assembly", first.message, **(first.params | params))
        self.diagnostics = tuple(diagnostics)
        self.errors = [(found.line, found.column, found.message) for found in diagnostics]


def assemble(source: str, name: str = "program", base: int = DEFAULT_BASE) -> Program:
    """Assemble a whole program whose .text begins at `base` (an `.org` before the first instruction changes
    that).

    The entry is `_start`, or the begin of .text. Raises AssemblyError.
    """
    return _Assembly(source, name, base).program()


def words_of(statement: str, pc: int = 0) -> list[int]:
    """The encodings of one statement's instructions at address `pc`; targets are absolute addresses. Raises
    AssemblyError.
    """
    return [word for _, word in instructions(_Assembly(statement, "statement", pc).program().sections[0].content)]


# -- statements ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Operand:
    tokens: list[Token]
    column: int
    end: int

    @property
    def text(self) -> str:
        return " ".join(token.text for token in self.tokens)


@dataclass(frozen=True, slots=True)
class _Statement:
    line: int
    column: int
    mnemonic: str
    operands: list[_Operand]


def _expression(operand: _Operand) -> Node:
    """The whole operand as one expression."""
    parser = Parser(operand.tokens, operand.end)
    node = parser.expression()
    parser.finish()
    return node


def _local_name(number: str, instance: int) -> str:
    """The name of the `instance`-th definition of a numeric label: no name in source can be like it."""
    return f"{number}\0{instance}"


def _resolve_local(token: Token, counts: dict[str, int]) -> Token:
    """`1f` or `1b` as the name of the definition it means, when `counts` definitions came before."""
    if token.kind != "local":
        return token
    number, direction = str(int(token.text[:-1])), token.text[-1]
    count = counts.get(number, 0)
    if direction == "b" and count == 0:
        raise SourceError(token.column, "undefined-backward", name=number)
    return Token("name", _local_name(number, count + (direction == "f")), token.column)


@dataclass(slots=True)
class _Area:
    """A section while it grows. `emitters` run in pass two: each gives its bytes, at its offset."""

    name: str
    size: int = 0
    alignment: int = SECTION_ALIGNMENT
    address: int = 0
    emitters: list[tuple[int, _Statement, Callable[[int], bytes]]] = field(default_factory=list)


@dataclass(slots=True)
class _Definition:
    """What a symbol means: a place, or an expression (.equ). `section` is None until pass one has come by."""

    line: int
    expression: Node | None
    section: str | None = None
    offset: int = 0


class _Assembly:
    """One run of the assembler. Use `program()` once."""

    def __init__(self, source: str, name: str, base: int) -> None:
        self.name = name
        self.source = source
        self.base = base
        self.areas = {section: _Area(section) for section in SECTIONS}
        self.here = self.areas[".text"]
        self.definitions: dict[str, _Definition] = {}
        self.exported: set[str] = set()
        self.errors: list[Diagnostic] = []
        self.lines: list[tuple[int, int]] = []
        self.high_parts: dict[int, Relocation] = {}  # by the address of the instruction (pass one notes them)
        self.noted_high_parts: list[tuple[_Area, int, Relocation]] = []
        self.placed = False
        self.values: dict[str, Value] = {}  # of .equ names, as far as worked out
        self.unfolding: list[str] = []  # the .equ names being worked out

    def program(self) -> Program:
        statements = self._statements()
        for statement in statements:
            self._guard(statement, partial(self._first_pass, statement))
        self._check()
        self._place()
        contents = {area.name: self._second_pass(area) for area in self.areas.values()}
        self._check()
        symbols = {}
        for name, definition in self.definitions.items():
            if "\0" not in name:
                try:
                    symbols[name] = self._lookup(Name(1, name), 0).number & MASK64
                except SourceError as fault:
                    self._report(definition.line, fault)
        self._check()
        start = self.definitions.get("_start")
        text = self.areas[".text"]
        return Program(
            name=self.name,
            source=self.source,
            base=text.address,
            entry=symbols["_start"] if start is not None else text.address,
            sections=tuple(
                Section(area.name, area.address, contents[area.name], area.size, area.alignment)
                for area in self.areas.values()
            ),
            symbols=symbols,
            exported=frozenset(self.exported),
            constants=frozenset(name for name, d in self.definitions.items() if d.expression is not None),
            lines=tuple((text.address + offset, line) for offset, line in self.lines),
        )

    # -- errors --------------------------------------------------------------------------------
    def _report(self, line: int, fault: SourceError) -> None:
        line = fault.line or line
        if any(
            (line, fault.column, f"assembly.{fault.key}") == (e.line, e.column, e.key) for e in self.errors
        ):
            return  # both instructions of a pseudo-instruction complain about the same operand
        self.errors.append(Diagnostic(line, fault.column, str(fault), f"assembly.{fault.key}", fault.params))
        if len(self.errors) >= ERROR_LIMIT:
            self._check()

    def _check(self) -> None:
        if self.errors:
            raise AssemblyError(self.name, sorted(self.errors, key=lambda error: error[:2]))

    def _guard(self, statement: _Statement, action: Callable[[], None]) -> None:
        try:
            action()
        except SourceError as fault:
            self._report(statement.line, fault)

    # -- pass zero: lines to statements ---------------------------------------------------------
    def _statements(self) -> list[_Statement]:
        statements: list[_Statement] = []
        local_counts: dict[str, int] = {}
        for number, text in enumerate(self._uncommented().split("\n"), 1):
            try:
                for tokens in _split(tokenize(text), ";"):
                    statements.extend(self._read(number, tokens, local_counts))
            except SourceError as fault:
                self._report(number, fault)
            if len(statements) > STATEMENT_LIMIT:
                self._report(number, SourceError(1, "too-many-statements", limit=STATEMENT_LIMIT))
                self._check()
        return statements

    def _uncommented(self) -> str:
        """The source with block comments blanked out, every other character in its place."""
        source = self.source.replace("\r\n", "\n")
        unterminated = -1

        def blank(match: re.Match[str]) -> str:
            nonlocal unterminated
            text = match[0]
            if not text.startswith("/*"):
                return text
            if not text.endswith("*/") or len(text) < 4:
                unterminated = match.start()
            return re.sub(r"[^\n]", " ", text)

        blanked = _BLOCK_COMMENT.sub(blank, source)
        if unterminated >= 0:
            before = source[:unterminated]
            fault = SourceError(unterminated - before.rfind("\n"), "comment-unterminated")
            self._report(before.count("\n") + 1, fault)
        return blanked

    def _read(self, line: int, tokens: list[Token], local_counts: dict[str, int]) -> Iterable[_Statement]:
        """Labels become statements of their own, named ":"; `name = value` becomes .equ."""
        while len(tokens) >= 2 and tokens[1].kind == ":":
            label = tokens[0]
            if label.kind == "number" and label.text.isdigit():
                number = str(label.value)
                local_counts[number] = local_counts.get(number, 0) + 1
                name = _local_name(number, local_counts[number])
            elif label.kind == "name":
                name = label.text
            else:
                raise SourceError(label.column, "character", text=label.text)
            self._define(name, label, _Definition(line, None))
            yield _Statement(line, label.column, ":", [_Operand([Token("name", name, label.column)], 0, 0)])
            tokens = tokens[2:]
        if not tokens:
            return
        first, rest = tokens[0], [_resolve_local(token, local_counts) for token in tokens[1:]]
        if first.kind != "name":
            raise SourceError(first.column, "character", text=first.text)
        mnemonic = first.text.lower()
        if rest and rest[0].kind == "=":
            mnemonic, rest = ".equ", [first, Token(",", ",", rest[0].column), *rest[1:]]
        end = tokens[-1].column + len(tokens[-1].text)
        operands: list[_Operand] = []
        if rest:
            column = rest[0].column
            for part, stop in _split_operands(rest, end):
                operands.append(_Operand(part, part[0].column if part else column, stop))
                column = stop + 1
        statement = _Statement(line, first.column, mnemonic, operands)
        if mnemonic in EQUATES:
            self._equate(statement)
        yield statement

    def _define(self, name: str, token: Token, definition: _Definition) -> None:
        if name in REGISTER_NUMBERS or name in FLOAT_NUMBERS:
            raise SourceError(token.column, "register-name", name=name)
        if (first := self.definitions.get(name)) is not None:
            raise SourceError(token.column, "duplicate", name=name, first=first.line)
        self.definitions[name] = definition

    def _equate(self, statement: _Statement) -> None:
        if len(statement.operands) != 2 or [t.kind for t in statement.operands[0].tokens] != ["name"]:
            raise SourceError(statement.column, "directive-form", form=".equ name, value")
        token = statement.operands[0].tokens[0]
        self._define(token.text, token, _Definition(statement.line, _expression(statement.operands[1])))

    # -- pass one: offsets and sizes ------------------------------------------------------------
    def _first_pass(self, statement: _Statement) -> None:
        mnemonic = statement.mnemonic
        if mnemonic == ":" or mnemonic in EQUATES:
            definition = self.definitions[statement.operands[0].tokens[0].text]
            definition.section, definition.offset = self.here.name, self.here.size
        elif mnemonic.startswith("."):
            self._directive(statement)
        else:
            for real in self._expand(statement):
                self._instruction(real)

    def _instruction(self, statement: _Statement) -> None:
        area = self.here
        if area.name == ".bss":
            raise SourceError(statement.column, "bss-content", section=area.name)
        place = area.size + (self.base if area.name == ".text" else 0)
        if place & 1:
            raise SourceError(statement.column, "instruction-alignment", address=f"{place:x}")
        row, order = _row_of(statement.mnemonic)
        if area.name == ".text":
            self.lines.append((area.size, statement.line))
        for operand in statement.operands:
            if operand.tokens and (operand.tokens[0].kind, operand.tokens[0].text) == (
                "relocation",
                "pcrel_hi",
            ):
                node = _expression(operand)
                assert isinstance(node, Relocation)
                self.noted_high_parts.append((area, area.size, node))
        self._emit(statement, row.length, partial(self._encode, row, order, statement))

    def _emit(self, statement: _Statement, size: int, emitter: Callable[[int], bytes] | None) -> None:
        """Take `size` bytes here. Without an emitter they are zero."""
        area = self.here
        limit = BSS_LIMIT if area.name == ".bss" else CONTENT_LIMIT
        if area.size + size > limit:
            self._report(statement.line, SourceError(statement.column, "too-large", limit=limit >> 20))
            self._check()
        if emitter is not None:
            if area.name == ".bss":
                raise SourceError(statement.column, "bss-content", section=area.name)
            area.emitters.append((area.size, statement, emitter))
        area.size += size

    def _directive(self, statement: _Statement) -> None:
        handler = _DIRECTIVES.get(statement.mnemonic)
        if handler is None:
            closest = difflib.get_close_matches(statement.mnemonic[:40], _DIRECTIVES, 1)
            if closest:
                raise SourceError(
                    statement.column, "unknown-directive-close", name=statement.mnemonic, closest=closest[0]
                )
            raise SourceError(statement.column, "unknown-directive", name=statement.mnemonic)
        handler(self, statement)

    def _ignore(self, statement: _Statement) -> None:
        """Directives about debugging, types and extensions change nothing here."""

    def _section(self, statement: _Statement) -> None:
        name = statement.mnemonic
        if name == ".section":
            if not statement.operands or not statement.operands[0].tokens:
                raise SourceError(statement.column, "directive-form", form=".section .data")
            name = statement.operands[0].tokens[0].text
        elif statement.operands:
            raise SourceError(statement.operands[0].column, "expected-end", text=statement.operands[0].text)
        self.here = self.areas[_section_of(name, [operand.text for operand in statement.operands[1:]])]

    def _export(self, statement: _Statement) -> None:
        for operand in statement.operands:
            if [token.kind for token in operand.tokens] != ["name"]:
                raise SourceError(operand.column, "directive-form", form=f"{statement.mnemonic} symbol")
            self.exported.add(operand.tokens[0].text)
        if not statement.operands:
            raise SourceError(statement.column, "directive-form", form=f"{statement.mnemonic} symbol")

    def _data(self, statement: _Statement, size: int) -> None:
        if not statement.operands:
            raise SourceError(statement.column, "directive-form", form=f"{statement.mnemonic} value, value")
        for operand in statement.operands:
            self._emit(statement, size, partial(self._datum, statement, operand, _expression(operand), size))

    def _datum(self, statement: _Statement, operand: _Operand, node: Node, size: int, pc: int) -> bytes:
        value = self._value(node, pc)
        low, high = -(1 << (8 * size - 1)), (1 << (8 * size)) - 1
        if size < 8 and not low <= value <= high:
            raise SourceError(
                operand.column, "directive-range", value=value, name=statement.mnemonic, low=low, high=high
            )
        return (value & high).to_bytes(size, "little")

    def _string(self, statement: _Statement, terminator: bytes) -> None:
        if not statement.operands:
            raise SourceError(statement.column, "directive-form", form=f'{statement.mnemonic} "text"')
        for operand in statement.operands:
            if not operand.tokens or any(token.kind != "string" for token in operand.tokens):
                raise SourceError(operand.column, "directive-form", form=f'{statement.mnemonic} "text"')
            data = b"".join(token.data for token in operand.tokens) + terminator
            self._emit(statement, len(data), partial(_constant_bytes, data))

    def _constants(self, statement: _Statement, form: str, least: int, most: int) -> list[int]:
        """The operands' values, which must be known now."""
        if not least <= len(statement.operands) <= most:
            raise SourceError(statement.column, "directive-form", form=f"{statement.mnemonic} {form}")
        return [self._known(_expression(operand), "not-yet") for operand in statement.operands]

    def _known(self, node: Node, otherwise: str) -> int:
        """A number that pass one must know already; `otherwise` is the complaint about an address."""
        try:
            value = evaluate(node, self._lookup_here)
        except SourceError as error:
            if error.key == "not-yet":
                renamed = SourceError(error.column, otherwise, **error.params)
                renamed.line = error.line
                raise renamed from None
            raise
        if value.section is not None:
            raise SourceError(node.column, otherwise, name=first_name(node))
        return value.number

    def _in_range(self, statement: _Statement, position: int, value: int, low: int, high: int) -> int:
        if not low <= value <= high:
            column = statement.operands[position].column
            raise SourceError(
                column, "directive-range", value=value, name=statement.mnemonic, low=low, high=high
            )
        return value

    def _align(self, statement: _Statement, exponent: bool) -> None:
        if len(statement.operands) > 1 and not statement.operands[1].tokens:
            del statement.operands[1:]
        values = self._constants(statement, "4" if exponent else "16", 1, 2)
        boundary = values[0]
        if exponent:
            boundary = 1 << self._in_range(statement, 0, boundary, 0, 16)
        elif boundary:
            self._in_range(statement, 0, boundary, 1, 1 << 16)
            if boundary & (boundary - 1):
                raise SourceError(statement.operands[0].column, "power-of-two", value=boundary)
        area = self.here
        if boundary <= 1:
            return
        area.alignment = max(area.alignment, boundary)
        begin = area.size + (self.base if area.name == ".text" else 0)
        count = -begin % boundary
        if len(values) == 2 and area.name != ".bss":
            fill = bytes([values[1] & 0xFF]) * count
        elif area.name == ".text":
            fill = bytes(count & 1) + COMPRESSED_NOP * (count >> 1 & 1) + NOP * (count >> 2)
        else:
            fill = b""
        self._emit(statement, count, partial(_constant_bytes, fill) if fill else None)

    def _space(self, statement: _Statement) -> None:
        values = self._constants(statement, "16", 1, 2)
        size = self._in_range(statement, 0, values[0], 0, BSS_LIMIT)
        if len(values) == 2 and values[1]:
            self._emit(statement, size, partial(_repeated_bytes, bytes([values[1] & 0xFF]), size))
        else:
            self._emit(statement, size, None)

    def _fill(self, statement: _Statement) -> None:
        values = self._constants(statement, "count, size, value", 1, 3)
        count = self._in_range(statement, 0, values[0], 0, CONTENT_LIMIT)
        size = self._in_range(statement, 1, values[1], 0, 8) if len(values) > 1 else 1
        value = values[2] if len(values) > 2 else 0
        unit = (value & 0xFFFF_FFFF).to_bytes(8, "little")[:size]
        self._emit(statement, count * size, partial(_repeated_bytes, unit, count))

    def _common(self, statement: _Statement) -> None:
        """`.comm name, size, alignment`: room in .bss under a name."""
        if not 2 <= len(statement.operands) <= 3 or [t.kind for t in statement.operands[0].tokens] != [
            "name"
        ]:
            raise SourceError(
                statement.column, "directive-form", form=f"{statement.mnemonic} name, size, alignment"
            )
        token = statement.operands[0].tokens[0]
        rest = _Statement(statement.line, statement.column, statement.mnemonic, statement.operands[1:])
        values = self._constants(rest, "name, size, alignment", 1, 2)
        self._in_range(rest, 0, values[0], 0, BSS_LIMIT)
        boundary = self._in_range(rest, 1, values[1], 1, 1 << 16) if len(values) > 1 else 8
        if boundary & (boundary - 1):
            raise SourceError(rest.operands[1].column, "power-of-two", value=boundary)
        area, before = self.areas[".bss"], self.here
        self.here = area
        area.alignment = max(area.alignment, boundary)
        self._emit(statement, -area.size % boundary, None)
        self._define(token.text, token, _Definition(statement.line, None, area.name, area.size))
        if statement.mnemonic == ".comm":
            self.exported.add(token.text)
        self._emit(statement, values[0], None)
        self.here = before

    def _org(self, statement: _Statement) -> None:
        target = self._constants(statement, "0x80200000", 1, 1)[0] & MASK64
        area = self.here
        if area.name != ".text":
            raise SourceError(statement.column, "org-section", section=area.name)
        if area.size == 0:
            self.base = target
            return
        if target < self.base + area.size:
            column = statement.operands[0].column
            raise SourceError(column, "org-backward", here=f"{self.base + area.size:x}", target=f"{target:x}")
        self._emit(statement, target - self.base - area.size, None)

    # -- instructions ---------------------------------------------------------------------------
    def _expand(self, statement: _Statement) -> list[_Statement]:
        """The statement as real instructions, whose operands are still text."""
        forms = FORMS.get(statement.mnemonic)
        if forms is None:
            closest = difflib.get_close_matches(statement.mnemonic[:40], FORMS, 1)
            if closest:
                name = statement.mnemonic[:40]
                raise SourceError(statement.column, "unknown-mnemonic-close", name=name, closest=closest[0])
            raise SourceError(statement.column, "unknown-mnemonic", name=statement.mnemonic[:40])
        fitting = [form for form in forms if len(form.operands) == len(statement.operands)]
        if not fitting:
            if all(not form.operands for form in forms):
                raise SourceError(statement.operands[0].column, "operand-none", mnemonic=statement.mnemonic)
            raise SourceError(statement.column, "operand-count", form=_usage(statement.mnemonic))
        chosen = next((form for form in fitting if form.accepts(statement.operands)), fitting[0])
        if statement.mnemonic == "li":
            return self._load_immediate(statement)
        if chosen.pseudo is None:
            return [statement]
        bound: dict[str, list[Token]] = {}
        for pattern, operand in zip(chosen.operands, statement.operands, strict=True):
            tokens = operand.tokens
            if not tokens:
                raise SourceError(operand.column, "expected-value")
            if pattern.endswith("(rs)"):
                if not _is_memory(tokens):
                    raise self._wrong(statement, operand, "operand-memory")
                bound["offset"] = tokens[:-3] or [Token("number", "0", operand.column)]
                bound["rs"] = [tokens[-2]]
            else:
                if pattern in REGISTER_PATTERNS | FLOAT_PATTERNS and not _fits(pattern, tokens):
                    raise self._wrong(statement, operand, _complaint(pattern))
                bound[pattern] = tokens
        end = statement.operands[-1].end if statement.operands else statement.column
        return [
            _Statement(
                statement.line,
                statement.column,
                template.mnemonic,
                [_substitute(tokens, bound, statement.column, end) for tokens in template.operands],
            )
            for template in chosen.templates
        ]

    def _wrong(self, statement: _Statement, operand: _Operand, key: str) -> SourceError:
        return SourceError(operand.column, key, text=operand.text[:40], form=_usage(statement.mnemonic))

    def _load_immediate(self, statement: _Statement) -> list[_Statement]:
        """`li`: the shortest of the sequences that the GNU assembler uses for a 64-bit constant."""
        register, operand = statement.operands
        if not _is_register(register.tokens):
            raise self._wrong(statement, register, "operand-register")
        value = self._known(_expression(operand), "address-li")
        statements: list[_Statement] = []
        for mnemonic, operands in load_immediate(register.text, value):
            parts = [
                _Operand([_token(text, operand.column)], operand.column, operand.end) for text in operands
            ]
            statements.append(_Statement(statement.line, statement.column, mnemonic, parts))
        return statements

    # -- places and values ----------------------------------------------------------------------
    def _place(self) -> None:
        address = self.base
        for area in self.areas.values():
            if area.name != ".text":
                address = -(-address // area.alignment) * area.alignment
            area.address = address
            address += area.size
            if address > 1 << 64:
                line = area.emitters[0][1].line if area.emitters else 1
                self._report(line, SourceError(1, "overlap", section=area.name, address=f"{area.address:x}"))
                self._check()
        self.high_parts = {area.address + offset: node for area, offset, node in self.noted_high_parts}
        self.placed = True
        self.values.clear()

    def _lookup_here(self, name: Name) -> Value:
        """A symbol's value in pass one, where `.` is the next free place."""
        if name.name == ".":
            return Value(self.here.size, self.here.name)
        return self._lookup(name, 0)

    def _lookup(self, name: Name, pc: int) -> Value:
        """A symbol's value: an address once sections are placed, else an offset into its section."""
        if name.name == ".":
            return Value(pc)
        definition = self.definitions.get(name.name)
        if definition is None:
            raise self._undefined(name)
        if definition.expression is None:
            if definition.section is None:
                raise SourceError(name.column, "not-yet", name=first_name(name))
            if self.placed:
                return Value(self.areas[definition.section].address + definition.offset)
            return Value(definition.offset, definition.section)
        if name.name in self.values:
            return self.values[name.name]
        if name.name in self.unfolding:
            raise SourceError(name.column, "circular", name=name.name[:40])
        if len(self.unfolding) >= OPERATIONS_LIMIT:
            raise SourceError(name.column, "nesting", limit=OPERATIONS_LIMIT)
        self.unfolding.append(name.name)
        try:
            value = evaluate(definition.expression, partial(self._lookup_in, definition))
        except SourceError as error:
            error.line = error.line or definition.line
            raise
        finally:
            self.unfolding.pop()
        self.values[name.name] = value
        return value

    def _lookup_in(self, definition: _Definition, name: Name) -> Value:
        """A symbol inside an .equ, whose `.` is where the .equ stands."""
        if name.name != ".":
            return self._lookup(name, 0)
        if definition.section is None:
            raise SourceError(name.column, "not-yet", name=".")
        if self.placed:
            return Value(self.areas[definition.section].address + definition.offset)
        return Value(definition.offset, definition.section)

    def _undefined(self, name: Name) -> SourceError:
        number, _, instance = name.name.partition("\0")
        if instance:
            return SourceError(name.column, "undefined-forward", name=number)
        known = (symbol for symbol in itertools.islice(self.definitions, 1000) if "\0" not in symbol)
        closest = difflib.get_close_matches(name.name[:40], known, 1)
        if closest:
            return SourceError(name.column, "undefined-close", name=name.name[:40], closest=closest[0])
        return SourceError(name.column, "undefined", name=name.name[:40])

    def _value(self, node: Node, pc: int) -> int:
        """An expression's value in pass two, where everything has an address."""
        return evaluate(node, lambda name: self._lookup(name, pc)).number

    # -- pass two: bytes ------------------------------------------------------------------------
    def _second_pass(self, area: _Area) -> bytes:
        if area.name == ".bss":
            return b""
        content = bytearray(area.size)
        for offset, statement, emitter in area.emitters:
            try:
                data = emitter(area.address + offset)
            except SourceError as fault:
                self._report(statement.line, fault)
            else:
                content[offset : offset + len(data)] = data
        return bytes(content)

    def _encode(self, row: Row, order: int, statement: _Statement, pc: int) -> bytes:
        fields = {"aq": order >> 1, "rl": order & 1, "rm": DYNAMIC if "rm" in row.syntax else 0}
        for pattern, operand in zip(operand_patterns(row), statement.operands, strict=False):
            if not operand.tokens:
                raise SourceError(operand.column, "expected-value")
            fields.update(self._fields(row, pattern, statement, operand, pc))
        for name, reserved in row.excluded.items():
            if fields[name] in reserved:
                column = statement.operands[0].column
                raise SourceError(column, "reserved", mnemonic=row.mnemonic, name=name, value=fields[name])
        return row.encode(**fields).to_bytes(row.length, "little")

    def _fields(
        self, row: Row, pattern: str, statement: _Statement, operand: _Operand, pc: int
    ) -> dict[str, int]:
        """What one operand puts into the instruction's fields."""
        if pattern in REGISTER_PATTERNS | FLOAT_PATTERNS:
            if not _fits(pattern, operand.tokens):
                raise self._wrong(statement, operand, _complaint(pattern))
            return self._register(row, pattern, operand.tokens[0], operand.column)
        if pattern.endswith(")"):
            if not _is_memory(operand.tokens) or operand.tokens[-2].text not in REGISTER_NUMBERS:
                raise self._wrong(statement, operand, "operand-memory")
            offset_pattern, _, base_pattern = pattern.rstrip(")").partition("(")
            base = self._register(row, base_pattern, operand.tokens[-2], operand.column)
            offset = _Operand(operand.tokens[:-3], operand.column, operand.tokens[-3].column)
            value = self._immediate(offset, pc) if offset.tokens else 0
            if not offset_pattern:
                if value:
                    raise SourceError(operand.column, "operand-offset", mnemonic=statement.mnemonic)
                return base
            return base | {"imm": self._bounded(row, operand, value, "imm")}
        if pattern in {"pred", "succ"}:
            text = operand.text
            if text != "0" and not re.fullmatch("i?o?r?w?", text):
                raise SourceError(operand.column, "operand-fence", text=text[:40])
            return {pattern: sum(FENCE_BITS.get(letter, 0) for letter in text)}
        if pattern == "rm":
            if operand.text not in ROUNDING_NUMBERS:
                raise SourceError(operand.column, "operand-rounding", text=operand.text[:40])
            return {"rm": ROUNDING_NUMBERS[operand.text]}
        if pattern == "csr":
            return {"csr": self._csr(operand, pc)}
        value = self._immediate(operand, pc)
        if pattern == "target":
            return {"imm": self._distance(row, operand, value & MASK64, pc)}
        if pattern == "upper":
            return {"imm": self._upper(row, operand, value)}
        return {pattern: self._bounded(row, operand, value, pattern)}

    def _register(self, row: Row, pattern: str, token: Token, column: int) -> dict[str, int]:
        """The field of a register operand; `sp` in a row's syntax admits nothing else and is no field."""
        if pattern in FLOAT_PATTERNS:
            pattern, names, number = pattern[1:], FLOAT_REGISTERS, FLOAT_NUMBERS[token.text]
        else:
            names, number = REGISTERS, REGISTER_NUMBERS[token.text]
        if pattern in REGISTER_NUMBERS:
            if number != REGISTER_NUMBERS[pattern]:
                raise SourceError(column, "register-other", mnemonic=row.mnemonic, name=pattern, text=token.text)
            return {}
        low, high, _ = row.limits(pattern)
        if not low <= number <= high:
            ends = {"low": names[low], "high": names[high]}
            raise SourceError(column, "register-range", mnemonic=row.mnemonic, text=token.text, **ends)
        return {pattern: number}

    def _upper(self, row: Row, operand: _Operand, value: int) -> int:
        """The immediate of lui, auipc and c.lui, which are written without its twelve zeros and without a
        sign."""
        low, high, _ = row.limits("imm")
        immediate = signed(sign_extend(value << 12, 32))
        if not 0 <= value <= 0xF_FFFF or not low <= immediate <= high:
            params = {"value": value, "low": 0, "high": high >> 12 if row.length == 2 else 0xF_FFFF}
            raise SourceError(operand.column, "immediate", mnemonic=row.mnemonic, **params)
        return immediate

    def _csr(self, operand: _Operand, pc: int) -> int:
        if len(operand.tokens) == 1 and operand.tokens[0].kind == "name":
            name = operand.tokens[0].text
            if name in CSR_NUMBERS:
                return CSR_NUMBERS[name]
            if name not in self.definitions:
                closest = difflib.get_close_matches(name[:40], CSR_NUMBERS, 1)
                if closest:
                    raise SourceError(operand.column, "operand-csr-close", text=name[:40], closest=closest[0])
                raise SourceError(operand.column, "operand-csr", text=name[:40])
        value = self._immediate(operand, pc)
        if not 0 <= value <= 0xFFF:
            raise SourceError(operand.column, "operand-csr", text=operand.text[:40])
        return value

    def _bounded(self, row: Row, operand: _Operand, value: int, field: str) -> int:
        low, high, step = row.limits(field)
        if not low <= value <= high:
            params = {"value": value, "low": low, "high": high}
            raise SourceError(operand.column, "immediate", mnemonic=row.mnemonic, **params)
        if value % step:
            raise SourceError(operand.column, "immediate-step", mnemonic=row.mnemonic, value=value, step=step)
        return value

    def _distance(self, row: Row, operand: _Operand, target: int, pc: int) -> int:
        low, high, _ = row.limits("imm")
        distance = signed((target - pc) & MASK64)
        if target & 1:
            raise SourceError(operand.column, "target-odd", target=f"{target:x}")
        if not low <= distance <= high:
            key = "jump-far" if row.mnemonic in {"jal", "c.j"} else "branch-far"
            params = {"distance": distance, "low": low, "high": high}
            raise SourceError(operand.column, key, mnemonic=row.mnemonic, **params)
        return distance

    def _immediate(self, operand: _Operand, pc: int) -> int:
        node = _expression(operand)
        if not isinstance(node, Relocation):
            return self._value(node, pc)
        if node.function in {"hi", "lo"}:
            value = self._value(node.operand, pc)
            if sign_extend(value + 0x800, 32) != (value + 0x800) & MASK64 and first_name(node):
                raise SourceError(node.operand.column, "high-far", target=f"{value & MASK64:x}")
            return _low_part(value) if node.function == "lo" else _high_part(value)
        if node.function == "pcrel_hi":
            return _high_part(self._reach(node, pc))
        label = self._value(node.operand, pc) & MASK64
        if label not in self.high_parts:
            raise SourceError(node.column, "pcrel-label")
        return _low_part(self._reach(self.high_parts[label], label))

    def _reach(self, node: Relocation, label: int) -> int:
        """The distance from `label`, an instruction with a %pcrel_hi, to what it names."""
        target = self._value(node.operand, label) & MASK64
        distance = signed((target - label) & MASK64)
        if not -(1 << 31) <= distance + 0x800 < 1 << 31:
            raise SourceError(node.operand.column, "pcrel-far", target=f"{target:x}", pc=f"{label:x}")
        return distance


def _constant_bytes(data: bytes, _pc: int) -> bytes:
    return data


def _repeated_bytes(unit: bytes, count: int, _pc: int) -> bytes:
    return unit * count


def _high_part(value: int) -> int:
    return ((value + 0x800) >> 12) & 0xF_FFFF


def _low_part(value: int) -> int:
    return ((value + 0x800) & 0xFFF) - 0x800


def load_immediate(register: str, value: int) -> list[tuple[str, tuple[str, ...]]]:
    """The instructions that put a signed 64-bit `value` into `register`, as the GNU assembler chooses them.

    Source: binutils 2.40, gas/config/tc-riscv.c, load_const (the algorithm, not the text).
    """
    if -0x800 <= value <= 0x7FF:
        return [("addi", (register, "x0", str(value)))]
    return _load_wide(register, value)


def _load_wide(register: str, value: int) -> list[tuple[str, tuple[str, ...]]]:
    low = _low_part(value)
    high = value - low
    if -(1 << 31) <= value < 1 << 31:
        steps: list[tuple[str, tuple[str, ...]]] = []
        if high:
            steps.append(("lui", (register, str((high >> 12) & 0xF_FFFF))))
        if low or not high:
            steps.append(("addiw", (register, register if high else "x0", str(low))))
        return steps
    shift = max(12, (high & -high).bit_length() - 1)
    high = (high + (1 << 63)) % (1 << 64) - (1 << 63)
    steps = [*_load_wide(register, high >> shift), ("slli", (register, register, str(shift)))]
    if low:
        steps.append(("addi", (register, register, str(low))))
    return steps


# -- the tables behind the statements ----------------------------------------------------------------
SECTIONS = (".text", ".rodata", ".data", ".bss")
ORDERINGS = {"aq": 2, "rl": 1, "aqrl": 3}
REGISTER_NUMBERS = {name: number for number, name in enumerate(REGISTERS)} | {
    "fp": 8,
    **{f"x{number}": number for number in range(32)},
}
FLOAT_NUMBERS = {name: number for number, name in enumerate(FLOAT_REGISTERS)} | {
    f"f{number}": number for number in range(32)
}
ROUNDING_NUMBERS = {name: number for number, name in enumerate(ROUNDING_MODES) if name}
EQUATES = frozenset({".equ", ".set", ".equiv", ".eqv"})
FENCE_BITS = {"i": 8, "o": 4, "r": 2, "w": 1}
REGISTER_PATTERNS = frozenset({"rd", "rs", "rt", "rs1", "rs2", "sp"})
FLOAT_PATTERNS = frozenset({"frd", "frs", "frt", "frs1", "frs2", "frs3"})
_BLOCK_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"?|(?:#|//)[^\n]*|/\*(?s:.*?)(?:\*/|\Z)')


class _Template(NamedTuple):
    mnemonic: str
    operands: list[list[Token]]


class _Form(NamedTuple):
    """One way to write a mnemonic: an instruction row (pseudo is None) or a pseudo-instruction with its
    templates.
    """

    usage: str
    operands: tuple[str, ...]
    pseudo: Pseudo | None
    templates: tuple[_Template, ...]

    def accepts(self, operands: list[_Operand]) -> bool:
        """Whether each operand has the shape its pattern wants: a register, an address, or neither."""
        return all(_fits(pattern, operand.tokens) for pattern, operand in zip(self.operands, operands, strict=True))


def _fits(pattern: str, tokens: list[Token]) -> bool:
    """Has an operand the shape that its pattern wants: a register, an address, or neither?"""
    if pattern in REGISTER_PATTERNS:
        return _is_register(tokens)
    if pattern in FLOAT_PATTERNS:
        return len(tokens) == 1 and tokens[0].text in FLOAT_NUMBERS
    if pattern.endswith(")"):
        return _is_memory(tokens)
    return not _is_register(tokens) and not _is_memory(tokens)


def _complaint(pattern: str) -> str:
    return "operand-float" if pattern in FLOAT_PATTERNS else "operand-register"


def _is_register(tokens: list[Token]) -> bool:
    return len(tokens) == 1 and tokens[0].text in REGISTER_NUMBERS


def _is_memory(tokens: list[Token]) -> bool:
    """Ends in `(name)` as an address does: alone, or after something that a `(` cannot continue."""
    return (
        len(tokens) >= 3
        and [tokens[-3].kind, tokens[-2].kind, tokens[-1].kind] == ["(", "name", ")"]
        and (len(tokens) == 3 or tokens[-4].kind in {"number", "name", ")"})
    )


def _token(text: str, column: int) -> Token:
    """A name or a decimal number, as a token at `column`."""
    if text.lstrip("-").isdigit():
        return Token("number", text, column, value=int(text))
    return Token("name", text, column)


def _split(tokens: list[Token], separator: str) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.kind == separator:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _split_operands(tokens: list[Token], end: int) -> list[tuple[list[Token], int]]:
    """The tokens between commas, each with the column where it ends."""
    parts: list[tuple[list[Token], int]] = []
    current: list[Token] = []
    for token in tokens:
        if token.kind == ",":
            parts.append((current, token.column))
            current = []
        else:
            current.append(token)
    parts.append((current, end))
    return parts


def _substitute(tokens: list[Token], bound: dict[str, list[Token]], column: int, end: int) -> _Operand:
    """A template's operand with the user's tokens in place of its variables."""
    out: list[Token] = []
    for token in tokens:
        out.extend(bound.get(token.text) or [Token(token.kind, token.text, column, token.value)])
    return _Operand(out, out[0].column, end)


def operand_patterns(row: Row) -> tuple[str, ...]:
    """A row's operands as its syntax writes them, one by one."""
    return tuple(row.syntax.split(", ")) if row.syntax else ()


def _row_of(mnemonic: str) -> tuple[Row, int]:
    """A mnemonic's row and its ordering bits (aq is 2, rl is 1): `amoadd.w.aqrl` is row amoadd.w with
    both.
    """
    if mnemonic in BY_MNEMONIC:
        return BY_MNEMONIC[mnemonic], 0
    name, _, order = mnemonic.rpartition(".")
    return BY_MNEMONIC[name], ORDERINGS[order]


def _usage(mnemonic: str) -> str:
    """Every way to write a mnemonic, for messages."""
    return " / ".join(dict.fromkeys(form.usage for form in FORMS[mnemonic] if form.operands))


def _forms() -> dict[str, list[_Form]]:
    forms: dict[str, list[_Form]] = {}
    for row in BY_MNEMONIC.values():
        usage = f"`{row.mnemonic} {row.syntax}`"
        orders = ORDERINGS if "aq" in row.fields else ()
        patterns = operand_patterns(row)
        for mnemonic in (row.mnemonic, *(f"{row.mnemonic}.{order}" for order in orders)):
            forms.setdefault(mnemonic, []).append(_Form(usage, patterns, None, ()))
        if patterns[-1:] == ("rm",):
            forms[row.mnemonic].append(_Form(usage, patterns[:-1], None, ()))
    for pseudo in PSEUDOS:
        templates = []
        for text in pseudo.expansion:
            first, *rest = tokenize(text)
            templates.append(_Template(first.text, _split(rest, ",") if rest else []))
        usage = f"`{pseudo.mnemonic} {', '.join(pseudo.operands)}`"
        form = _Form(usage, pseudo.operands, pseudo, tuple(templates))
        forms.setdefault(pseudo.mnemonic, []).append(form)
    return forms


def _section_of(name: str, attributes: list[str]) -> str:
    """Which of the four sections a name belongs to: by its name as linkers do, else by its flags."""
    for section, prefixes in {
        ".text": (".text",),
        ".rodata": (".rodata", ".srodata"),
        ".data": (".data", ".sdata"),
        ".bss": (".bss", ".sbss"),
    }.items():
        if any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes):
            return section
    flags = attributes[0] if attributes else ""
    if any("nobits" in attribute for attribute in attributes[1:]):
        return ".bss"
    if "x" in flags:
        return ".text"
    return ".data" if "w" in flags else ".rodata"


_DIRECTIVES: dict[str, Callable[[_Assembly, _Statement], None]] = {
    **dict.fromkeys((*SECTIONS, ".section"), _Assembly._section),
    **dict.fromkeys((".globl", ".global", ".weak"), _Assembly._export),
    **dict.fromkeys((".byte",), lambda a, s: a._data(s, 1)),
    **dict.fromkeys((".half", ".short", ".2byte"), lambda a, s: a._data(s, 2)),
    **dict.fromkeys((".word", ".long", ".4byte"), lambda a, s: a._data(s, 4)),
    **dict.fromkeys((".dword", ".quad", ".8byte"), lambda a, s: a._data(s, 8)),
    ".ascii": lambda a, s: a._string(s, b""),
    ".asciz": lambda a, s: a._string(s, b"\0"),
    ".string": lambda a, s: a._string(s, b"\0"),
    ".align": lambda a, s: a._align(s, exponent=True),
    ".p2align": lambda a, s: a._align(s, exponent=True),
    ".balign": lambda a, s: a._align(s, exponent=False),
    **dict.fromkeys((".zero", ".space", ".skip"), _Assembly._space),
    ".fill": _Assembly._fill,
    **dict.fromkeys((".comm", ".lcomm"), _Assembly._common),
    ".org": _Assembly._org,
    **dict.fromkeys(
        (".option", ".attribute", ".type", ".size", ".file", ".loc", ".ident", ".local", ".hidden", ".end",
         ".cfi_startproc", ".cfi_endproc", ".cfi_sections"),
        _Assembly._ignore,
    ),
}  # fmt: skip
FORMS = _forms()
