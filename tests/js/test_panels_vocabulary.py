"""The panels' words against the engine's vocabulary: no enumeration may grow without the page saying it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from engine.trace.record import schema
from tests.support.checks import ROOT
from tests.support.provide import require

_DUMP = """
import { PANEL_MESSAGES } from './static/js/panels/messages.js';
import { ACTIONS } from './static/js/panels/describe.js';
console.log(JSON.stringify({ messages: PANEL_MESSAGES, actions: Object.keys(ACTIONS) }));
"""


@pytest.fixture(scope="module")
def panels() -> dict[str, Any]:
    """{"messages": {key: [English, Korean]}, "actions": [names]} as the page's own modules have them."""
    done = subprocess.run(
        [require("node"), "--input-type=module", "-e", _DUMP],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_every_action_has_its_sentence(panels: dict[str, Any]) -> None:
    assert panels["actions"] == schema()["actions"]


def test_every_name_is_said_in_both_languages(panels: dict[str, Any]) -> None:
    known = schema()
    keys = [f"kind.{name}" for name in known["kinds"]]
    keys += [f"disposition.{name}" for name in known["dispositions"]]
    keys += [f"{prefix}.{level['name']}" for level in known["levels"] for prefix in ("level", "level.short")]
    keys += [f"cause.{code}" for code in known["causes"]]
    assert [key for key in keys if key not in panels["messages"]] == []


def test_causes_have_the_manuals_names(panels: dict[str, Any]) -> None:
    for code, name in schema()["causes"].items():
        assert panels["messages"][f"cause.{code}"][0] == name


def test_every_message_is_in_two_languages_with_the_same_parameters(panels: dict[str, Any]) -> None:
    for key, (english, korean) in panels["messages"].items():
        assert english.strip(), key
        assert korean.strip(), key
        assert _parameters(english) == _parameters(korean), key


def _parameters(text: str) -> set[str]:
    return {part.split("}")[0].split(":")[0].split("|")[0] for part in text.split("{")[1:]}
