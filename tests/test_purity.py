"""The engine is a function of its inputs: no clock, no chance, no network, no environment.

Virtual time is retired instructions and everything from outside is a stamped input; one `time.time()` in the
engine would break replay, step-back and grading. `engine/worker.py`, `engine/headless.py` (a
terminal) and `engine/door.py` (gdb's port, for both) talk to the outside; `build.py` files are developers' scripts that no lab runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checks import ROOT

IMPURE = {
    "asyncio", "datetime", "multiprocessing", "random", "secrets", "select", "selectors", "signal", "socket",
    "subprocess", "threading", "time", "urllib", "uuid",
}  # fmt: skip
OUTSIDE = {"engine/door.py", "engine/headless.py", "engine/worker.py"}
#: Compiles beside the guests; that no guest can tell is what tests/fuzz tests.
THREADS = {"engine/machine/native/jit.py", "engine/machine/native/objects.py"}
PURE = [
    path
    for path in sorted((ROOT / "engine").rglob("*.py"))
    if path.relative_to(ROOT).as_posix() not in OUTSIDE and path.name != "build.py"
]


def imported_modules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every absolute import in a syntax tree, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


def test_the_engine_was_found() -> None:
    assert any(path.name == "lab.py" for path in PURE)


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_pure_module_imports_nothing_impure(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    impure = IMPURE - {"threading"} if name in THREADS else IMPURE
    found = [(line, name) for line, name in imported_modules(ast.parse(path.read_bytes())) if name in impure]
    assert not found, f"{path.relative_to(ROOT)} imports {found}"


def test_an_import_inside_a_function_is_seen() -> None:
    tree = ast.parse("def f():\n    from time import time\n    import os, socket\n    from . import random\n")
    assert list(imported_modules(tree)) == [(2, "time"), (3, "os"), (3, "socket")]
