"""Every refusal of the loader has its sentence on the page, in both languages, with the same parameters."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from engine.machine import loader

CATALOGUE = Path(loader.__file__).parents[2] / "static" / "js" / "error_messages.js"


def _raised() -> dict[str, set[str]]:
    """Key -> parameters of every LabError in the loader's source."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(Path(loader.__file__).read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in {"LabError", "self._error"} and isinstance(node.args[0], ast.Constant):
            prefix = "" if called == "LabError" else "elf-"
            parameters = {keyword.arg for keyword in node.keywords if keyword.arg} | {"image"}
            found[f"{prefix}{node.args[0].value}"] = parameters
    return found


def test_the_page_says_every_refusal() -> None:
    text = CATALOGUE.read_text()
    entries = re.findall(r"'error\.([\w-]+)': \['(.*?)', '(.*?)'\],", text)
    sentences = {key: languages for key, *languages in entries}
    raised = _raised()
    assert len(raised) > 20
    assert set(raised) <= set(sentences)
    for key, parameters in raised.items():
        for sentence in sentences[key]:
            assert set(re.findall(r"\{(\w+)", sentence)) <= parameters, key
        english, korean = (set(re.findall(r"\{(\w+)", sentence)) for sentence in sentences[key])
        assert english == korean, key
        assert re.search("[가-힣]", sentences[key][1])
