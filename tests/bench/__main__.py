"""Prints every figure as one table: `python -m tests.bench [MODULE...]`, MODULE without its `bench_`.

A module that cannot be measured says why in the table's place and makes the exit status 1; a figure never
does.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import sys
import traceback

import tests.bench
from tests.bench import Figure


def modules() -> list[str]:
    """What can be measured: the modules of this folder, without their `bench_`."""
    found = (module.name for module in pkgutil.iter_modules(tests.bench.__path__))
    return sorted(name.removeprefix("bench_") for name in found if name.startswith("bench_"))


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
    """Measure and print; 1 when a module failed to measure, 2 when there is no such module."""
    unknown = [name for name in names if name not in modules()]
    if unknown:
        print(f"No such figures: {', '.join(unknown)}. There are: {', '.join(modules())}", file=sys.stderr)
        return 2
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{os.cpu_count()} cores of {platform.machine()}, {python}\n")
    status = 0
    for name in names or modules():
        print(f"-- {name}", flush=True)
        try:
            print(
                table(importlib.import_module(f"tests.bench.bench_{name}").figures()), end="\n\n", flush=True
            )
        except Exception:  # noqa: BLE001  (one failing measurement must not hide the others)
            traceback.print_exc()
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
