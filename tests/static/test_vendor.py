"""The vendored libraries are what vendor.json says, and vendor.json is what package-lock.json builds."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess

import pytest

from tests.support.checks import ROOT
from tests.support.provide import require

VENDOR = ROOT / "static" / "vendor"
INDEX = json.loads((VENDOR / "vendor.json").read_text())
OURS = {"build.mjs", "vendor.json", "entry.js"}


@pytest.mark.parametrize("library", INDEX, ids=lambda library: str(library["folder"]))
def test_a_library_has_the_recorded_files_and_nothing_else(library: dict[str, dict[str, str]]) -> None:
    folder = VENDOR / str(library["folder"])
    present = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name not in OURS and not re.search(r"\.d\.m?ts$", path.name)
    }
    assert present == library["files"]
    assert "LICENSE" in present


def test_nothing_lies_beside_the_libraries() -> None:
    assert {path.name for path in VENDOR.iterdir()} == {row["folder"] for row in INDEX} | {
        "build.mjs",
        "vendor.json",
    }


def test_every_licence_permits_what_we_do_with_it() -> None:
    licences = {package["licence"] for row in INDEX for package in row["packages"]}
    assert licences <= {"MIT", "OFL-1.1", "Apache-2.0", "BSD-3-Clause", "ISC"}


def test_the_lock_file_records_digests_and_no_addresses() -> None:
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    installed = {name: row for name, row in packages.items() if name}
    assert all("resolved" not in row for row in installed.values())
    assert all(row["integrity"].startswith("sha512-") for row in installed.values())


def test_the_committed_files_are_what_the_lock_file_builds() -> None:
    done = subprocess.run(
        [require("node"), "static/vendor/build.mjs", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_library_needs_eval() -> None:
    """The content security policy forbids it."""
    for path in [*VENDOR.rglob("*.js"), *VENDOR.glob("*/*.mjs")]:
        assert not re.search(r"\beval\(|\bnew Function\b", path.read_text()), path
