"""Figures about Ringside, measured and never judged: `make bench`.

A module `bench_*.py` in this folder has a function `figures()` that returns what it measured. One figure says
how it was measured, so that somebody else can repeat it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measurement: `value` in `unit`; `method` says what was run, how often, and what of it was taken."""

    name: str
    value: float
    unit: str
    method: str

    def shown(self) -> str:
        """The value with three significant digits, as one would write it."""
        digits = f"{self.value:.3g}"
        return f"{float(digits):,.0f}" if abs(self.value) >= 100 else digits
