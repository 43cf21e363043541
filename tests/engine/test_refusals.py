"""Every refusal that the engine can utter has its words in the page's catalogue, in both languages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
UTTERED = {"LabError", "Problem"}


def uttered_keys() -> dict[str, str]:
    """Keys given literally to LabError or Problem anywhere in the engine, with one place of each."""
    found = {}
    for path in sorted((ROOT / "engine").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in UTTERED
                and node.args
            ):
                key = node.args[0]
                if isinstance(key, ast.Constant):
                    found[str(key.value)] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def test_every_refusal_has_words() -> None:
    catalogue = (ROOT / "static/js/error_messages.js").read_text(encoding="utf-8")
    known = set(re.findall(r"'error\.([a-z0-9-]+)':", catalogue))
    keys = uttered_keys()
    assert len(keys) > 30
    assert {key: place for key, place in keys.items() if key not in known} == {}
