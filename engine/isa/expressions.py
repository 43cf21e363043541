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

#: Every sentence the assembler can say, by key; `{...}` are the parameters. The page translates by key.
MESSAGES: dict[str, str] = {
    "character": "`{text}` cannot stand here",
    "string-unterminated": 'this string has no closing `"`',
    "comment-unterminated": "this comment has no closing `*/`",
    "character-constant": "a character constant is one character between apostrophes, such as 'A' or '\\n'",
    "escape": '`{text}` is no escape; right are \\n \\t \\r \\0 \\\\ \\" '
    "\\' \\b \\f \\xHH and three octal digits",
    "number": "`{text}` is no number; right are 42, 0x2a, 0b101010 and 052",
    "number-large": "`{text}` does not fit 64 bits",
    "expected-value": "a number, a symbol or `(` is missing here",
    "expected-close": "`)` is missing here",
    "expected-end": "`{text}` is one thing too many; the statement ended before it",
    "expected-comma": "`,` is missing before `{text}`",
    "nesting": "this expression has more than {limit} operations, or takes "
    "more than {limit} definitions to work out",
    "division": "division by zero",
    "shift": "a shift by {value} has no meaning; right is 0 to 63",
    "unknown-relocation": "`%{text}` is not known; right are %hi, %lo, %pcrel_hi, %pcrel_lo",
    "relocation-place": "`%{text}` must stand first in its operand, as in `%{text}(symbol)`",
    "undefined": "`{name}` is not defined anywhere in this program",
    "undefined-close": "`{name}` is not defined; did you mean `{closest}`?",
    "undefined-backward": "there is no label `{name}:` before this line",
    "undefined-forward": "there is no label `{name}:` after this line",
    "circular": "`{name}` is defined by itself",
    "duplicate": "`{name}` is already defined on line {first}",
    "register-name": "`{name}` is a register and cannot name a place or a value",
    "not-yet": "this value must be known here, and `{name}` only gets its address later; {hint}",
    "unknown-mnemonic": "`{name}` is no instruction of this machine; see `ringside asm --help`",
    "unknown-mnemonic-close": "`{name}` is no instruction; did you mean `{closest}`?",
    "unknown-directive": "the directive `{name}` is not known",
    "unknown-directive-close": "the directive `{name}` is not known; did you mean `{closest}`?",
    "operand-count": "`{mnemonic}` takes {form}",
    "operand-register": "operand {position} of `{mnemonic}` must be a register (x0 "
    "to x31, a0, sp, t0 ...), not `{text}`",
    "operand-memory": "operand {position} of `{mnemonic}` must be an address such as {form}, not `{text}`",
    "operand-fence": "operand {position} of `{mnemonic}` must be made of the "
    "letters i, o, r, w in this order, not `{text}`",
    "operand-csr": "`{text}` is no CSR; right is a name such as mstatus or a number from 0 to 0xfff",
    "operand-csr-close": "`{text}` is no CSR; did you mean `{closest}`?",
    "immediate": "{value} is out of range: `{mnemonic}` takes {low} to {high}",
    "branch-odd": "the target 0x{target:x} is not a multiple of 4, and instructions are 4 bytes long",
    "branch-far": "the target is {distance} bytes away and `{mnemonic}` reaches {low} to {high}; {hint}",
    "absolute-far": "`{mnemonic}` cannot reach 0x{target:x} from 0x{pc:x}: more than 2 GiB apart",
    "high-far": "%hi and %lo reach only the lowest and the highest 2 GiB, not 0x{target:x}; use `la`",
    "pcrel-label": "%pcrel_lo needs the label of the instruction that holds the matching %pcrel_hi",
    "directive-form": "right is `{form}`",
    "directive-range": "{value} is out of range: `{name}` takes {low} to {high}",
    "power-of-two": "{value} is no power of two",
    "bss-content": "{section} holds no bytes of its own; only .zero and .space may stand here",
    "org-section": "`.org` sets addresses of .text; this is {section}",
    "org-backward": "the program is at 0x{here:x} already; `.org` cannot go back to 0x{target:x}",
    "too-large": "the program would be larger than {limit} MiB",
    "too-many-statements": "the program has more than {limit} statements",
    "instruction-alignment": "an instruction must stand at a multiple of 4, and this is "
    "0x{address:x}; put `.balign 4` before it",
    "no-code": "the program has no instruction",
    "overlap": "{section} would begin at 0x{address:x}, beyond the 64-bit address space",
}
OPERATIONS_LIMIT = 100


class SourceError(Exception):
    """Something wrong in one statement. `column` counts from 1; `key` and `params` select and fill a
    sentence of MESSAGES.
    """

    def __init__(self, column: int, key: str, **params: str | int) -> None:
        super().__init__(MESSAGES[key].format(**params))
        self.column = column
        self.key = key
        self.params = params


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
      | (?P<local>\d+[fb](?!\w))
      | (?P<badnumber>\d\w*)
      | (?P<relocation>%[A-Za-z_]\w*(?=\s*\())
      | (?P<name>[A-Za-z_.$][\w.$]*)
      | (?P<string>"(?:\\.|[^"\\])*")
      | (?P<character>'(?:\\x[0-9a-fA-F]{1,2}|\\[0-7]{1,3}|\\.|[^\\'])'?)
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
    """The tokens of one line without comments. Raises SourceError at the first character that fits nowhere."""
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
            data = unescape(text.strip("'") if len(text) > 2 and text != "'''" else text[1:], column + 1)
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
        if token is not None and token.kind == "relocation" and self._operations == 0:
            return self._relocation(token)
        left = self._primary()
        while (operator := self.peek()) is not None and _BINDING.get(operator.kind, 0) >= binding:
            self.position += 1
            self._count(operator)
            left = Binary(operator.column, operator.kind, left, self.expression(_BINDING[operator.kind] + 1))
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


def evaluate(node: Node, lookup: Callable[[Name], Value], hint: str) -> Value:
    """The value of `node`, its number signed and within 64 bits.

    Raises SourceError "not-yet" (with `hint`) for an operation on addresses that sections' places would decide.
    """
    match node:
        case Number():
            return Value(signed(node.value & MASK64))
        case Name():
            return lookup(node)
        case Relocation():
            raise SourceError(node.column, "relocation-place", text=node.function)
        case Unary():
            operand = evaluate(node.operand, lookup, hint)
            if node.operator != "+":
                _absolute(node.operand, operand, hint)
            number = {"+": operand.number, "-": -operand.number, "~": ~operand.number}[node.operator]
            return Value(signed(number & MASK64), operand.section)
        case Binary():
            left = evaluate(node.left, lookup, hint)
            right = evaluate(node.right, lookup, hint)
            section = None
            if node.operator == "-" and left.section == right.section:
                pass
            elif node.operator in {"+", "-"} and right.section is None:
                section = left.section
            elif node.operator == "+" and left.section is None:
                section = right.section
            else:
                _absolute(node.left, left, hint)
                _absolute(node.right, right, hint)
            return Value(signed(_apply(node, left.number, right.number) & MASK64), section)


def _absolute(node: Node, value: Value, hint: str) -> None:
    if value.section is not None:
        raise SourceError(node.column, "not-yet", name=first_name(node), hint=hint)


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
