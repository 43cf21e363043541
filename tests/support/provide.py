"""Finds the programs outside Python that the tests need, and installs what is missing where it may.

    python3 tests/support/provide.py chromium playwright-driver node npm qemu cross-gcc dtc gdb

A program is looked for first; as root on a Debian-like system a missing one is installed with apt-get;
otherwise the exact command that mends it is printed and the exit status is 1. Nothing is skipped in silence.
Tests ask for a program's path with `require`.

Invariants: one row per program; the standard library only, because `venv` is asked for before anything is
installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

NODE_OLDEST = 18
"""The first release whose `node --test` and module support the JavaScript tests need."""


class Missing(Exception):  # noqa: N818  (reads as what it says: a program is missing)
    """A program that the tests need is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Program:
    """One thing the tests need: how it is found (a path, or None) and which Debian packages bring it.

    `packages` are what to install, newest release's names first: the first choice whose packages apt knows is
    taken.
    """

    name: str
    purpose: str
    find: Callable[[], str | None]
    packages: tuple[str, ...]
    elsewhere: str = ""

    def advice(self) -> str:
        """The command that brings the program, as one would type it."""
        sudo = "" if _is_root() else "sudo "
        command = f"{sudo}apt-get install -y {' '.join(self.chosen())}"
        return f"{command}    ({self.elsewhere})" if self.elsewhere else command

    def chosen(self) -> list[str]:
        """The packages to install on this release."""
        known = (choice.split() for choice in self.packages if _apt_knows(choice.split()))
        return next(known, self.packages[-1].split())


def _apt_knows(packages: list[str]) -> bool:
    return all(_runs("apt-cache", "show", "--no-all-versions", package) for package in packages)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _runs(path: str, *arguments: str) -> str | None:
    """Standard output of a program that ends well, else None: a stub or a broken install is not a find."""
    try:
        done = subprocess.run(
            [path, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _on_path(*names: str) -> str | None:
    for name in names:
        path = shutil.which(name)
        if path and _runs(path, "--version") is not None:
            return path
    return None


def _find_venv() -> str | None:
    complete = importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")
    return sys.executable if complete else None


def _find_node() -> str | None:
    path = shutil.which("node") or shutil.which("nodejs")
    version = _runs(path, "--version") if path else None
    if not path or not version:
        return None
    return path if int(version.lstrip("v").split(".")[0]) >= NODE_OLDEST else None


def _find_chromium() -> str | None:
    chosen = os.environ.get("CHROMIUM")
    if chosen:
        path = shutil.which(chosen)
        if path is None:
            raise Missing(f"$CHROMIUM is {chosen!r}, which is not a program. Correct it, or unset it.")
        return path
    found = _on_path("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return found or _find_playwrights_chromium()


def _find_playwrights_chromium() -> str | None:
    """The browser that `playwright install chromium` downloaded, the newest first."""
    home = Path(os.path.expanduser("~"))
    own = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    caches = [Path(own)] if own else [home / ".cache/ms-playwright", home / "Library/Caches/ms-playwright"]
    patterns = ("chromium-*/chrome-linux*/chrome", "chromium-*/chrome-mac*/*.app/Contents/MacOS/*")
    for cache in caches:
        for pattern in patterns:
            for path in sorted(cache.glob(pattern), reverse=True):
                if _runs(str(path), "--version") is not None:
                    return str(path)
    return None


def _find_playwrights_driver() -> str | None:
    """The program inside the installed playwright package; it needs a library that a small system lacks."""
    package = importlib.util.find_spec("playwright")
    for place in package.submodule_search_locations or () if package else ():
        driver = str(Path(place) / "driver" / "node")
        if _runs(driver, "--version") is not None:
            return driver
    return None


_PROGRAMS = {
    program.name: program
    for program in (
        Program(
            "venv",
            "Python's venv module",
            _find_venv,
            (f"python{sys.version_info.major}.{sys.version_info.minor}-venv",),
        ),
        Program(
            "chromium",
            "a Chromium browser for the end-to-end tests",
            _find_chromium,
            ("chromium",),
            "or: .venv/bin/python -m playwright install --with-deps chromium",
        ),
        Program(
            "playwright-driver",
            "a Playwright whose driver starts (it needs libatomic)",
            _find_playwrights_driver,
            ("libatomic1",),
        ),
        Program("node", f"node {NODE_OLDEST} or newer for the JavaScript checks", _find_node, ("nodejs",)),
        Program("npm", "npm for the JavaScript checks", lambda: _on_path("npm"), ("npm",)),
        Program(
            "qemu",
            "QEMU for RISC-V, which the machine is compared with",
            lambda: _on_path("qemu-system-riscv64"),
            ("qemu-system-riscv opensbi", "qemu-system-misc"),
        ),
        Program(
            "cross-gcc",
            "the RISC-V compiler that rebuilds the guests",
            lambda: _on_path("riscv64-linux-gnu-gcc"),
            ("gcc-riscv64-linux-gnu",),
        ),
        Program(
            "gdb",
            "the debugger that knows RISC-V, which the debugger's door is tested with",
            lambda: _on_path("gdb-multiarch"),
            ("gdb-multiarch",),
        ),
        Program(
            "dtc",
            "the device-tree compiler, which reads the device trees that boards are given",
            lambda: _on_path("dtc"),
            ("device-tree-compiler",),
        ),
    )
}


def require(name: str) -> str:
    """The path of a program. Raises Missing with the command that installs it."""
    program = _PROGRAMS[name]
    path = program.find()
    if path is None:
        raise Missing(f"{program.purpose} was not found. Install it: {program.advice()}")
    return path


def _missing(names: Iterable[str]) -> list[Program]:
    return [_PROGRAMS[name] for name in names if _PROGRAMS[name].find() is None]


def _apt_install(programs: list[Program]) -> None:
    _apt_get("update", "-q")
    packages = [package for program in programs for package in program.chosen()]
    print(f"Installing with apt-get: {' '.join(packages)} ...", flush=True)
    _apt_get("install", "-y", "-q", "--no-install-recommends", *packages)


def _apt_get(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"apt-get {arguments[0]} failed:\n{done.stdout}{done.stderr}", file=sys.stderr)


def main(names: list[str]) -> int:
    """Provide the named programs; 0 when all are there, else 1 after saying what mends it."""
    unknown = [name for name in names if name not in _PROGRAMS]
    if unknown or not names:
        print(f"usage: provide.py NAME...   NAME is one of: {', '.join(_PROGRAMS)}", file=sys.stderr)
        return 2
    try:
        missing = _missing(names)
        if missing and _is_root() and shutil.which("apt-get"):
            _apt_install(missing)
            missing = _missing(names)
    except Missing as error:
        print(error, file=sys.stderr)
        return 1
    for program in missing:
        print(f"Missing: {program.purpose}. Install it:\n    {program.advice()}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
