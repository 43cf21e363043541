"""Prints every figure as one table: `python -m tests.bench [MODULE...]`, MODULE without its `bench_`.

A module that cannot be measured says why in the table's place and makes the exit status 1; a figure never
does.
"""

from __future__ import annotations

import importlib
import pkgutil
import platform
import sys
import traceback

import tests.bench
from tests.bench import Figure


def modules(names: list[str]) -> list[str]:
    """The measuring modules, by name without prefix: all, or the ones asked for."""
    found = [
        module.name
        for module in pkgutil.iter_modules(tests.bench.__path__)
        if module.name.startswith("bench_")
    ]
    return [name for name in sorted(found) if not names or name.removeprefix("bench_") in names]


def table(figures: list[Figure]) -> str:
    """The figures as aligned columns."""
    name_width = max(len(figure.name) for figure in figures)
    value_width = max(len(figure.shown()) for figure in figures)
    unit_width = max(len(figure.unit) for figure in figures)
    return "\n".join(
        f"{figure.name:<{name_width}}  {figure.shown():>{value_width}} {figure.unit:<{unit_width}}  "
        f"{figure.method}"
        for figure in figures
    )


def main(names: list[str]) -> int:
    """Measure and print; 1 when a module failed to measure."""
    print(f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}\n")
    status = 0
    for name in modules(names):
        print(f"-- {name.removeprefix('bench_')}", flush=True)
        try:
            print(table(importlib.import_module(f"tests.bench.{name}").figures()), end="\n\n", flush=True)
        except Exception:  # noqa: BLE001  (one failing measurement must not hide the others)
            traceback.print_exc()
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
