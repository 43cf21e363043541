"""Debian for the tests: fetched once with the product's own command, kept outside of the checkout, never committed.

The folder is `$XDG_CACHE_HOME/ringside-tests` (`~/.cache`): a data folder with a library. Where it is not there and
the registry cannot be reached, the tests that need it fail with the command's own message.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from engine.library import Library
from engine.machine.loader import LoadedImage
from tests.support.checks import ROOT
from webapp.library import library_folder

NAME = "debian"
PROMPT = "~ # "
MEMORY_MIB = 256


@cache
def data_folder() -> Path:
    """A data folder whose library has Debian."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "ringside-tests"
    if not any(row.name == NAME for row in Library(library_folder(folder)).rows()):
        command = [sys.executable, "-m", "webapp.cli", "images", "add", NAME, "--data", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    return folder


@cache
def image() -> tuple[LoadedImage, str]:
    """The image and its boot arguments."""
    library = Library(library_folder(data_folder()))
    row = next(row for row in library.rows() if row.name == NAME)
    loaded = library.loaded(row.id)
    assert loaded is not None
    return loaded, row.arguments
