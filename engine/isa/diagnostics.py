"""What the assembler says when a source is wrong: every sentence, by key.

The English is for terminals; the page translates by key ("assembly." and the key), with the same parameters.
A sentence says what is wrong and what would be right.
"""

from __future__ import annotations

#: `{...}` are parameters: names, numbers and pieces of the source, nothing that would need a translation.
MESSAGES: dict[str, str] = {
    "character": "`{text}` cannot stand here",
    "string-unterminated": 'this string has no closing `"`',
    "comment-unterminated": "this comment has no closing `*/`",
    "character-constant": "a character constant is one character between apostrophes, such as 'A' or '\\n'",
    "escape": "`{text}` is no escape; right are \\n \\t \\r \\b \\f \\0 \\\\ \\\" \\' \\xHH and octal digits",
    "number": "`{text}` is no number; right are 42, 0x2a, 0b101010 and 052",
    "number-large": "`{text}` does not fit 64 bits",
    "expected-value": "a number, a symbol or `(` is missing here",
    "expected-close": "`)` is missing here",
    "expected-end": "`{text}` is one thing too many; the statement ends before it",
    "nesting": "this takes more than {limit} operations to work out",
    "division": "division by zero",
    "shift": "a shift by {value} has no meaning; right is 0 to 63",
    "unknown-relocation": "`%{text}` is not known; right are %hi, %lo, %pcrel_hi and %pcrel_lo",
    "relocation-place": "`%{text}(...)` must be the whole value, with nothing before it",
    "undefined": "`{name}` is not defined anywhere in this program",
    "undefined-close": "`{name}` is not defined; did you mean `{closest}`?",
    "undefined-backward": "there is no label `{name}:` before this line",
    "undefined-forward": "there is no label `{name}:` after this line",
    "circular": "`{name}` is defined by itself",
    "duplicate": "`{name}` is already defined on line {first}",
    "register-name": "`{name}` is a register and cannot name a place or a value",
    "not-yet": "a number must be known here, and `{name}` has no address yet; right is label - label",
    "address-li": "`li` loads numbers and `{name}` is an address; right is `la`",
    "unknown-mnemonic": "`{name}` is no instruction of this machine",
    "unknown-mnemonic-close": "`{name}` is no instruction; did you mean `{closest}`?",
    "unknown-directive": "the directive `{name}` is not known",
    "unknown-directive-close": "the directive `{name}` is not known; did you mean `{closest}`?",
    "operand-none": "`{mnemonic}` takes no operands",
    "operand-count": "right is {form}",
    "operand-register": "`{text}` must be a register (x0 to x31, a0, sp, t0 ...); right is {form}",
    "operand-float": "`{text}` must be a floating-point register (f0 to f31, fa0, ft0 ...); right is {form}",
    "operand-rounding": "`{text}` is no rounding mode; right are rne, rtz, rdn, rup, rmm and dyn",
    "operand-memory": "`{text}` must be an address such as `8(sp)`; right is {form}",
    "operand-offset": "`{mnemonic}` takes an address without an offset, such as `(a0)`",
    "operand-fence": "`{text}` must be made of the letters i, o, r, w, in this order",
    "operand-csr": "`{text}` is no CSR; right is a name such as mstatus or a number from 0 to 0xfff",
    "operand-csr-close": "`{text}` is no CSR; did you mean `{closest}`?",
    "immediate": "{value} is out of range: `{mnemonic}` takes {low} to {high}",
    "immediate-step": "{value} is not a multiple of {step}, as `{mnemonic}` needs it",
    "register-range": "`{mnemonic}` has no room for `{text}` here; right is {low} to {high}",
    "register-other": "`{mnemonic}` works on `{name}` here, not on `{text}`",
    "reserved": "`{mnemonic}` with {name} = {value} is a reserved encoding",
    "target-odd": "the target 0x{target} is odd, and instructions stand at multiples of 2",
    "branch-far": "the target is {distance} bytes away and `{mnemonic}` reaches {low} to {high}; "
    "right is the opposite branch over a `j`",
    "jump-far": "the target is {distance} bytes away and `{mnemonic}` reaches {low} to {high}; "
    "right is `call` or `tail`",
    "pcrel-far": "0x{target} is more than 2 GiB away from 0x{pc}",
    "high-far": "%hi and %lo reach only the lowest and the highest 2 GiB, not 0x{target}; right is `la`",
    "pcrel-label": "%pcrel_lo needs the label of the instruction that holds the matching %pcrel_hi",
    "directive-form": "right is `{form}`",
    "directive-range": "{value} is out of range: `{name}` takes {low} to {high}",
    "power-of-two": "{value} is no power of two",
    "bss-content": "{section} holds no bytes of its own; only .zero and .space may stand here",
    "org-section": "`.org` sets addresses of .text; this is {section}",
    "org-backward": "the program is at 0x{here} already; `.org` cannot go back to 0x{target}",
    "too-large": "the program would be larger than {limit} MiB",
    "too-many-statements": "the program has more than {limit} statements",
    "instruction-alignment": "an instruction must stand at a multiple of 2, and this is 0x{address}; "
    "put `.balign 2` before it",
    "overlap": "{section} would begin at 0x{address}, beyond the 64-bit address space",
}


class SourceError(Exception):
    """Something wrong in one statement; `column` counts from 1, `key` and `params` make the sentence.

    `line` is None while it is that of the statement at hand; an .equ elsewhere sets its own.
    """

    def __init__(self, column: int, key: str, **params: str | int) -> None:
        super().__init__(MESSAGES[key].format(**params))
        self.line: int | None = None
        self.column = column
        self.key = key
        self.params = params
