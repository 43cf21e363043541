"""The page's stacks, techniques, switches and costs against the engine's: none may grow without the page showing it."""

from __future__ import annotations

import json
import subprocess
from typing import Any, get_args

import pytest

from engine.commands import CrossingId, ProfileId
from engine.hypervisor.binary_translation import BinaryTranslation
from engine.hypervisor.costs import COSTS
from engine.hypervisor.paravirtual import Paravirtual
from engine.hypervisor.stacks import GENERATIONS, HYPERVISORS, STACKS, SWITCHES, Configuration, Exit
from engine.hypervisor.vm_guest import TECHNIQUES
from engine.trace.record import Level
from tests.support.checks import ROOT
from tests.support.provide import require

_DUMP = """
import { CATALOGUE } from './static/js/i18n.js';
import { STACKS, TECHNIQUES } from './static/js/stacks.js';
console.log(JSON.stringify({ keys: Object.keys(CATALOGUE), stacks: STACKS, techniques: TECHNIQUES }));
"""


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    done = subprocess.run(
        [require("node"), "--input-type=module", "-e", _DUMP], cwd=ROOT, capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_page_has_every_stack_and_technique(page: dict[str, Any]) -> None:
    assert {row["id"] for row in page["stacks"]} == set(STACKS)
    for row in page["techniques"]:
        technique = TECHNIQUES[row["id"]]
        assert (row["guest"] == "virtual") == (technique.kernel_level == Level.KERNEL)
        assert (row["guest"] == "translated") == issubclass(technique, BinaryTranslation)
        assert (row["guest"] == "paravirtual") == issubclass(technique, Paravirtual)
    assert {row["id"] for row in page["techniques"]} == set(TECHNIQUES)


def test_every_station_of_every_stack_is_a_band(page: dict[str, Any]) -> None:
    bands = {row["id"]: set(row["bands"]) for row in page["stacks"]}
    for name in HYPERVISORS:
        for kind in Exit:
            stations = {level.name.lower() for level in Configuration.of(name).route(kind)}
            assert stations <= bands[name], (name, kind)


def test_every_name_has_its_words(page: dict[str, Any]) -> None:
    wanted = [f"switch.{name}{part}" for name in SWITCHES for part in ("", ".detail")]
    wanted += [f"control.generation.{index}{part}" for index in range(len(GENERATIONS)) for part in ("", ".detail")]
    wanted += [f"costs.crossing.{name}" for name in get_args(CrossingId)]
    wanted += [f"costs.profile.{name}" for name in get_args(ProfileId)]
    wanted += [f"costs.note.{row.note}" for row in COSTS if row.note]
    assert [key for key in wanted if key not in page["keys"]] == []
