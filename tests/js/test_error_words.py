"""The page's sentences for refusals against the assembler's own: same English, every key, no parameter
lost."""

from __future__ import annotations

import json
import re
import subprocess

from engine.isa.diagnostics import MESSAGES
from tests.support.checks import ROOT
from tests.support.provide import require

_DUMP = """
import { ERROR_MESSAGES } from './static/js/error_messages.js';
console.log(JSON.stringify(ERROR_MESSAGES));
"""


def test_the_assemblers_sentences_are_the_pages() -> None:
    done = subprocess.run(
        [require("node"), "--input-type=module", "-e", _DUMP],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    page: dict[str, tuple[str, str]] = json.loads(done.stdout)
    prefix = "error.assembly."
    assert {
        key.removeprefix(prefix): en for key, (en, _) in page.items() if key.startswith(prefix)
    } == MESSAGES
    for key, (english, korean) in page.items():
        assert set(re.findall(r"\{(\w+)", korean)) <= set(re.findall(r"\{(\w+)", english)), key
