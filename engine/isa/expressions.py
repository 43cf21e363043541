"""Tokens and expressions of assembly source: what the assembler computes with.

Source follows the GNU assembler, so that a program means the same here and there: `*` `/` `%` `<<` `>>` bind
tightest, then `|` `&` `^`, then `+` `-`; values are 64-bit two's complement; `>>` shifts in zeros; division
truncates. Invariant: a token and a node know their column (from 1), so that every fault can point at its
cause. Source: "Using as", chapter 6 (Expressions) and section 3.6 (Constants).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from engine.bits import MASK64, signed
from engine.isa.diagnostics import SourceError

#: Operators in one expression, and .equ definitions one may take to work out: what bounds recursion.
OPERATIONS_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Token:
    """`kind`: number, name, local (1f, 1b), relocation (%hi), string, or the operator itself."""

    kind: str
    text: str
    column: int
    value: int = 0
    data: bytes = b""


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\f\v]+)
      | (?P<comment>(?:\#|//).*)
      | (?P<number>0[xX][0-9a-fA-F]+(?!\w) | 0[bB][01]+(?!\w) | \d+(?![\w]))
      | (?P<local>\d{1,9}[fb](?!\w))
      | (?P<badnumber>\d\w*)
      | (?P<relocation>%[A-Za-z_]\w*(?=\s*\())
      | (?P<name>@?[A-Za-z_.$][\w.$]*)
      | (?P<string>"(?:\\.|[^"\\])*")
      | (?P<character>'(?:\\x[0-9a-fA-F]{1,2}|\\[0-7]{1,3}|\\.|[^\\'])')
      | (?P<operator><<|>>|[-+*/%&|^~(),:;=])
    """,
    re.VERBOSE,
)
_ESCAPES = {"n": 10, "t": 9, "r": 13, "0": 0, "\\": 92, '"': 34, "'": 39, "b": 8, "f": 12}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))")


def unescape(text: str, column: int) -> bytes:
    """The bytes between a string's quotes: UTF-8, with C's escapes. `column` is where `text` begins."""
    out = bytearray()
    position = 0
    for match in _ESCAPE.finditer(text):
        out += text[position : match.start()].encode("utf-8", "replace")
        position = match.end()
        if match[1]:
            out.append(int(match[1], 16))
        elif match[2]:
            out.append(int(match[2], 8) & 0xFF)
        elif match[3] in _ESCAPES:
            out.append(_ESCAPES[match[3]])
        else:
            raise SourceError(column + match.start(), "escape", text=match[0])
    return bytes(out + text[position:].encode("utf-8", "replace"))


def _number(text: str, column: int) -> int:
    if len(text) > 70:
        raise SourceError(column, "number-large", text=text[:40] + "...")
    try:
        value = int(text, 0) if text[1:2] in {"x", "X", "b", "B"} else int(text, 8 if text[0] == "0" else 10)
    except ValueError:
        raise SourceError(column, "number", text=text) from None
    if value > MASK64:
        raise SourceError(column, "number-large", text=text)
    return value


def tokenize(line: str) -> list[Token]:
    """The tokens of one line without comments. Raises SourceError at a character that fits nowhere."""
    tokens: list[Token] = []
    position = 0
    while position < len(line):
        column = position + 1
        match = _TOKEN.match(line, position)
        if match is None:
            if line[position] == '"':
                raise SourceError(column, "string-unterminated")
            if line[position] == "'":
                raise SourceError(column, "character-constant")
            raise SourceError(column, "character", text=line[position])
        position = match.end()
        kind, text = str(match.lastgroup), match[0]
        if kind in {"space", "comment"}:
            continue
        if kind == "badnumber":
            raise SourceError(column, "number", text=text[:40])
        if kind == "number":
            tokens.append(Token("number", text, column, value=_number(text, column)))
        elif kind == "character":
            data = unescape(text[1:-1], column + 1)
            if len(data.decode("utf-8", "replace")) != 1:
                raise SourceError(column, "character-constant")
            tokens.append(Token("number", text, column, value=ord(data.decode("utf-8", "replace"))))
        elif kind == "string":
            tokens.append(Token("string", text, column, data=unescape(text[1:-1], column + 1)))
        elif kind == "relocation":
            tokens.append(Token("relocation", text[1:], column))
        else:
            tokens.append(Token(text if kind == "operator" else kind, text, column))
    return tokens


@dataclass(frozen=True, slots=True)
class Number:
    column: int
    value: int


@dataclass(frozen=True, slots=True)
class Name:
    """A symbol; `.` is the address of the statement. A numeric label's name is made unique by the parser."""

    column: int
    name: str


@dataclass(frozen=True, slots=True)
class Unary:
    column: int
    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    column: int
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Relocation:
    """%hi, %lo, %pcrel_hi or %pcrel_lo of an expression; only ever the root of an operand."""

    column: int
    function: str
    operand: Node


Node = Number | Name | Unary | Binary | Relocation
RELOCATIONS = ("hi", "lo", "pcrel_hi", "pcrel_lo")
_BINDING = {"+": 1, "-": 1, "|": 2, "&": 2, "^": 2, "*": 3, "/": 3, "%": 3, "<<": 3, ">>": 3}


@dataclass(frozen=True, slots=True)
class Value:
    """A number, or (while sections have no address yet) an offset from the begin of `section`."""

    number: int
    section: str | None = None


class Parser:
    """Reads the tokens of one operand, which ends at `end_column`. Numeric references (`1f`) were resolved
    before.
    """

    def __init__(self, tokens: list[Token], end_column: int) -> None:
        self.tokens = tokens
        self.position = 0
        self._end = end_column
        self._operations = 0

    @property
    def column(self) -> int:
        """Where the next token begins, or where the operand ends."""
        return self.tokens[self.position].column if self.position < len(self.tokens) else self._end

    def peek(self, ahead: int = 0) -> Token | None:
        index = self.position + ahead
        return self.tokens[index] if index < len(self.tokens) else None

    def accept(self, kind: str) -> Token | None:
        token = self.peek()
        if token is None or token.kind != kind:
            return None
        self.position += 1
        return token

    def finish(self) -> None:
        """Raises SourceError unless everything was read."""
        token = self.peek()
        if token is not None:
            raise SourceError(token.column, "expected-end", text=token.text)

    def expression(self, binding: int = 1) -> Node:
        """An expression whose operators bind at least as tightly as `binding`."""
        token = self.peek()
        if token is not None and token.kind == "relocation" and not self._operations:
            return self._relocation(token)
        left = self._primary()
        while (operator := self.peek()) is not None and _BINDING.get(operator.kind, 0) >= binding:
            self.position += 1
            self._count(operator)
            right = self.expression(_BINDING[operator.kind] + 1)
            left = Binary(left.column, operator.kind, left, right)
        return left

    def _relocation(self, token: Token) -> Node:
        if token.text not in RELOCATIONS:
            raise SourceError(token.column, "unknown-relocation", text=token.text)
        self.position += 1
        return Relocation(token.column, token.text, self._primary())

    def _primary(self) -> Node:
        token = self.peek()
        if token is None:
            raise SourceError(self._end, "expected-value")
        self.position += 1
        if token.kind == "number":
            return Number(token.column, token.value)
        if token.kind == "name":
            return Name(token.column, token.text)
        if token.kind == "relocation":
            raise SourceError(token.column, "relocation-place", text=token.text)
        if token.kind not in {"-", "+", "~", "("}:
            raise SourceError(token.column, "expected-value")
        self._count(token)
        if token.kind == "(":
            inner = self.expression()
            if self.accept(")") is None:
                raise SourceError(self.column, "expected-close")
        else:
            inner = Unary(token.column, token.kind, self._primary())
        return inner

    def _count(self, token: Token) -> None:
        self._operations += 1
        if self._operations > OPERATIONS_LIMIT:
            raise SourceError(token.column, "nesting", limit=OPERATIONS_LIMIT)


def evaluate(node: Node, lookup: Callable[[Name], Value]) -> Value:
    """The value of `node`, its number signed and within 64 bits.

    Raises SourceError "not-yet" for an operation on addresses that sections' places would decide.
    """
    match node:
        case Number():
            return Value(signed(node.value & MASK64))
        case Name():
            return lookup(node)
        case Relocation():
            raise SourceError(node.column, "relocation-place", text=node.function)
        case Unary():
            operand = evaluate(node.operand, lookup)
            if node.operator != "+":
                _absolute(node.operand, operand)
            number = {"+": operand.number, "-": -operand.number, "~": ~operand.number}[node.operator]
            return Value(signed(number & MASK64), operand.section)
        case Binary():
            left = evaluate(node.left, lookup)
            right = evaluate(node.right, lookup)
            section = None
            if node.operator == "-" and left.section == right.section:
                pass
            elif node.operator in {"+", "-"} and right.section is None:
                section = left.section
            elif node.operator == "+" and left.section is None:
                section = right.section
            else:
                _absolute(node.left, left)
                _absolute(node.right, right)
            return Value(signed(_apply(node, left.number, right.number) & MASK64), section)


def _absolute(node: Node, value: Value) -> None:
    if value.section is not None:
        raise SourceError(node.column, "not-yet", name=first_name(node))


def first_name(node: Node) -> str:
    """The first symbol in `node`, for messages and for telling addresses from constants; "" when there is
    none.
    """
    match node:
        case Name():
            return node.name.partition("\0")[0]
        case Unary() | Relocation():
            return first_name(node.operand)
        case Binary():
            return first_name(node.left) or first_name(node.right)
        case _:
            return ""


def _apply(node: Binary, left: int, right: int) -> int:
    match node.operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "&":
            return left & right
        case "|":
            return left | right
        case "^":
            return left ^ right
        case "<<" | ">>":
            if not 0 <= right <= 63:
                raise SourceError(node.right.column, "shift", value=right)
            return left << right if node.operator == "<<" else (left & MASK64) >> right
    if right == 0:
        raise SourceError(node.right.column, "division")
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    return quotient if node.operator == "/" else left - quotient * right
