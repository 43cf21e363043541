"""The Compare screen has words for every workload and figure there is, and for none that is not."""

from __future__ import annotations

import json
import subprocess

from engine.compare import WORKLOADS
from tests.support.checks import ROOT
from tests.support.provide import require
from webapp.comparisons import FIGURES

_DUMP = """
import { COMPARE_MESSAGES } from './static/js/compare/messages.js';
console.log(JSON.stringify(Object.keys(COMPARE_MESSAGES)));
"""


def _under(keys: list[str], prefix: str) -> set[str]:
    return {key.removeprefix(prefix) for key in keys if key.startswith(prefix) and not key.endswith(".what")}


def test_workloads_and_figures_have_their_words() -> None:
    done = subprocess.run(
        [require("node"), "--input-type=module", "-e", _DUMP], cwd=ROOT, capture_output=True, text=True, check=True
    )
    keys: list[str] = json.loads(done.stdout)
    assert _under(keys, "workload.") == set(WORKLOADS)
    assert _under(keys, "compare.figure.") == {figure.name for figure in FIGURES if not figure.detail}
    named = [f"workload.{name}" for name in WORKLOADS] + [f"compare.figure.{f.name}" for f in FIGURES if not f.detail]
    assert all(f"{key}.what" in keys for key in named)
