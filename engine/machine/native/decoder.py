"""The decoder as native code: from the bits at an operation to its handler and operands, on first execution.

Rows that share a mask share one switch, as in engine.isa.decoder; rows whose fields lie alike share the code
that takes them apart.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache

from engine.isa.formats import Row
from engine.machine.native import layout
from engine.machine.native.layout import field
from engine.machine.native.lowering import Code, statements, tail, threaded

_WIDE = 3
_OPS = field("ops")


def writes_integer(row: Row) -> bool:
    """Does the row assign to rd, an integer register?"""
    return _assigns(row, "rd")


def writes_float(row: Row) -> bool:
    """Does the row assign to rd, a floating-point register?"""
    return _assigns(row, "frd")


@cache
def _assigns(row: Row, name: str) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
        for statement in statements(row.semantics)
        for node in ast.walk(statement)
    )


def _extract(code: Code, row: Row, word: str) -> None:
    """Store every operand of `row` in its place of the operation."""
    for name, place in layout.places(row).items():
        value = _operand(code, row, name, word)
        if name == "rd" and writes_integer(row):
            value = code.op(f"select i1 {code.op(f'icmp eq i32 {value}, 0')}, i32 {layout.SINK}, i32 {value}")
        at = code.op(f"getelementptr i8, ptr %op, i64 {place}")
        if place == layout.IMM:
            code.do(f"store i32 {value}, ptr {at}")
        else:
            code.do(f"store i8 {code.op(f'trunc i32 {value} to i8')}, ptr {at}")


def _operand(code: Code, row: Row, name: str, word: str) -> str:
    if name in row.implied:
        return str(row.implied[name])
    value = "0"
    for piece in row.pieces:
        if piece.field == name:
            part = code.op(f"lshr i32 {word}, {piece.word_low}") if piece.word_low else word
            part = code.op(f"and i32 {part}, {(1 << piece.width) - 1}")
            part = code.op(f"shl i32 {part}, {piece.field_low}") if piece.field_low else part
            value = part if value == "0" else code.op(f"or i32 {value}, {part}")
    plus = next(piece.plus for piece in row.pieces if piece.field == name)
    if plus:
        value = code.op(f"add i32 {value}, {plus}")
    if name == "imm" and row.limits("imm").low < 0 and row.immediate_bits < 32:
        spare = 32 - row.immediate_bits
        value = code.op(f"ashr i32 {code.op(f'shl i32 {value}, {spare}')}, {spare}")
    return value


def _reserved(code: Code, row: Row, word: str) -> list[str]:
    """A condition for each reserved value of a field."""
    return [
        code.op(f"icmp eq i32 {_operand(code, row, name, word)}, {value}")
        for name, values in row.excluded.items()
        for value in sorted(values)
    ]


def _shape(row: Row) -> tuple[object, ...]:
    pieces = tuple(piece for piece in row.pieces if piece.field in layout.PLACES)
    signed = bool(row.immediate_bits) and row.limits("imm").low < 0
    return pieces, tuple(row.implied.items()), signed, writes_integer(row), row.length


def decoder(rows: Sequence[Row]) -> str:
    """`decode`, of the handlers' type: fills in the operation and goes on in its handler. `decode_word`: fills in an
    operation for a word, all but the handler, which it returns."""
    return f"{_decode()}\n{_decode_word(rows)}"


def _decode() -> str:
    code = Code()
    begin = code.op(f"load ptr, ptr {code.op(f'getelementptr i8, ptr %s, i64 {_OPS}')}")
    offset = code.op(f"sub i64 {code.op('ptrtoint ptr %op to i64')}, {code.op(f'ptrtoint ptr {begin} to i64')}")
    content = code.op(f"getelementptr i8, ptr {begin}, i64 {layout.CONTENT_AT}")
    at = code.op(f"getelementptr i8, ptr {content}, i64 {code.op(f'lshr i64 {offset}, 3')}")
    low = code.op(f"zext i16 {code.op(f'load i16, ptr {at}')} to i32")
    wide = code.op(f"icmp eq i32 {code.op(f'and i32 {low}, {_WIDE}')}, {_WIDE}")
    last = code.op(f"icmp eq i64 {offset}, {layout.OPS_BYTES - layout.OPERATION_BYTES}")
    straddles, whole = code.branch(code.op(f"and i1 {wide}, {last}"), likely=False)
    code.label(whole)
    # Behind the content lies more of the code page: reading it for a narrow instruction does no harm.
    after = code.op(f"getelementptr i8, ptr {at}, i64 2")
    high = code.op(f"zext i16 {code.op(f'load i16, ptr {after}')} to i32")
    word = code.op(f"or i32 {low}, {code.op(f'shl i32 {high}, 16')}")
    handler = code.op(f"call ptr @decode_word(ptr %op, i32 {word})")
    code.do(f"store ptr {handler}, ptr %op")
    tail(code, handler, "%op", "%budget")
    code.label(straddles)
    code.do("store ptr @straddle, ptr %op")
    tail(code, "@straddle", "%op", "%budget")
    return threaded(code, "@decode", visible=True)


def _decode_word(rows: Sequence[Row]) -> str:
    code = Code()
    wide = code.op(f"icmp eq i32 {code.op(f'and i32 %word, {_WIDE}')}, {_WIDE}")
    low = code.op("and i32 %word, 65535")
    code.end(f"br i1 {wide}, label %wide_rows, label %narrow_rows")
    shapes: dict[tuple[object, ...], int] = {}
    arrivals: dict[int, list[tuple[int, str]]] = {}
    for length, name, word in ((4, "wide_rows", "%word"), (2, "narrow_rows", low)):
        code.label(name)
        groups: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            if row.length == length:
                groups.setdefault(row.mask, []).append(index)
        for mask, indices in sorted(groups.items(), key=lambda item: -item[0].bit_count()):
            masked = code.op(f"and i32 {word}, {_i32(mask)}")
            following = code.name("next")
            cases = " ".join(f"i32 {_i32(rows[index].match)}, label %row{index}" for index in indices)
            code.end(f"switch i32 {masked}, label %{following} [ {cases} ]")
            for index in indices:
                code.label(f"row{index}")
                for reserved in _reserved(code, rows[index], word):
                    yes, no = code.branch(reserved, likely=False)
                    code.label(yes)
                    code.end(f"br label %{following}")
                    code.label(no)
                shape = shapes.setdefault(_shape(rows[index]), len(shapes))
                arrivals.setdefault(shape, []).append((index, f"is{index}"))
                code.end(f"br label %is{index}")
                code.label(f"is{index}")
                code.end(f"br label %shape{shape}")
            code.label(following)
        code.end("br label %none")
    for shape, found in arrivals.items():
        code.label(f"shape{shape}")
        phi = ", ".join(f"[ {index}, %{label} ]" for index, label in found)
        chosen_row = code.op(f"phi i64 {phi}")
        _extract(code, rows[found[0][0]], "%word" if rows[found[0][0]].length == 4 else low)
        chosen = code.op(f"getelementptr ptr, ptr @handlers, i64 {chosen_row}")
        code.end(f"ret ptr {code.op(f'load ptr, ptr {chosen}')}")
    code.label("none")
    code.end("ret ptr @slow")
    return code.text("define internal ptr @decode_word(ptr nonnull %op, i32 %word) #1")


def _i32(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value
