"""Every refusal and notice that the server can send has a sentence in the page's catalogue, twice."""

from __future__ import annotations

import re

import pytest

from tests.support.checks import ROOT

SOURCES = [*sorted((ROOT / "webapp").glob("*.py")), ROOT / "engine" / "worker.py"]
CATALOGUE = "".join(path.read_text() for path in (ROOT / "static" / "js").glob("*messages.js"))
SENT = {
    f"{kind}.{key}"
    for source in SOURCES
    for kind, pattern in (
        ("error", r'(?:LabError|Problem)\(\s*"([a-z-]+)"'),
        ("notice", r'NoticeEvent\(\s*"\w+",\s*"([a-z-]+)"'),
    )
    for key in re.findall(pattern, source.read_text())
}


def test_the_keys_are_found() -> None:
    assert {
        "error.bad-message",
        "error.internal",
        "notice.server-stopping",
        "notice.worker-restarted",
    } <= SENT


@pytest.mark.parametrize("key", sorted(SENT))
def test_it_has_a_sentence_in_both_languages(key: str) -> None:
    found = re.search(rf"'{re.escape(key)}': \[(['\"])(.+?)\1, (['\"])(.+?)\3\]", CATALOGUE)
    assert found, f"{key} is not in the catalogue"
    assert re.search("[가-힣]", found[4])
