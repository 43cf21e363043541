"""`pip install .` into an empty virtual environment gives a `ringside` that serves its page from any
folder."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.checks import ROOT
from tests.support.server import TRACEBACK, Server


def run(*command: str | Path, folder: Path) -> str:
    """Standard output of a command that must end well."""
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, folder=folder)
    (built,) = folder.glob("ringside-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a virtual environment that holds the wheel and what it depends on, nothing
    else."""
    environment = tmp_path_factory.mktemp("installed") / "with space"
    venv.create(environment, with_pip=True)
    programs = environment / "bin"
    run(
        programs / "python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        wheel,
        folder=wheel.parent,
    )
    return programs


def test_the_wheel_holds_every_file_that_the_product_reads(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    tracked = run("git", "ls-files", "-z", "engine", "webapp", "static", "templates", folder=ROOT).split("\0")
    expected = {
        f"webapp/{name}" if name.startswith(("static/", "templates/")) else name for name in tracked if name
    }
    assert {"webapp/cli.py", "webapp/static/vendor/vendor.json"} <= expected
    assert expected - packed == set()
    assert {name.partition("/")[0] for name in packed - expected} <= {"engine", "webapp"} | {
        f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    }


def test_the_installed_program_explains_itself(installed: Path, tmp_path: Path) -> None:
    assert "serve" in run(installed / "ringside", "--help", folder=tmp_path)


def test_the_installed_program_serves_the_page_from_any_folder(installed: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Server(tmp_path / "data", [installed / "ringside"], elsewhere) as server:
        with urllib.request.urlopen(server.url) as answer:
            assert answer.status == 200
            assert b"<!doctype html>" in answer.read().lower()
        with urllib.request.urlopen(f"{server.url}/static/vendor/uplot/uPlot.esm.js") as answer:
            assert answer.read() == (ROOT / "static/vendor/uplot/uPlot.esm.js").read_bytes()
            assert "javascript" in answer.headers["Content-Type"]
    assert TRACEBACK not in server.log()
