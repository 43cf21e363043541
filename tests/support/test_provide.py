"""A missing program is never passed over: it is installed, or the command that mends it is printed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import provide

EVERYTHING = ["chromium", "node", "npm", "qemu", "cross-gcc", "gdb"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on PATH but this folder, an ordinary user and an empty home."""
    folder = tmp_path / "a folder" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CHROMIUM", "PLAYWRIGHT_BROWSERS_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return folder


def install(path: Path, output: str = "1.0", status: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{output}'\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_is_missing_is_named_with_the_command_that_brings_it(
    name: str, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert provide.main([name]) == 1
    assert "sudo apt-get install -y " in capsys.readouterr().err
    with pytest.raises(provide.Missing, match="apt-get install"):
        provide.require(name)


def test_a_program_on_path_is_found(programs: Path) -> None:
    path = install(programs / "chromium")
    assert provide.require("chromium") == str(path)
    assert provide.main(["chromium"]) == 0


def test_a_stub_that_does_not_run_is_not_a_browser(programs: Path) -> None:
    install(programs / "chromium-browser", status=1)
    with pytest.raises(provide.Missing):
        provide.require("chromium")


def test_the_browser_that_playwright_downloaded_is_found(programs: Path, tmp_path: Path) -> None:
    path = install(tmp_path / ".cache/ms-playwright/chromium-1200/chrome-linux/chrome")
    assert provide.require("chromium") == str(path)


def test_a_wrong_choice_of_browser_is_an_error_even_when_another_is_there(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(programs / "chromium")
    monkeypatch.setenv("CHROMIUM", "/nowhere/chrome")
    assert provide.main(["chromium"]) == 1
    assert "/nowhere/chrome" in capsys.readouterr().err


def test_a_node_that_is_too_old_is_missing(programs: Path) -> None:
    install(programs / "node", "v16.20.2")
    with pytest.raises(provide.Missing, match="18"):
        provide.require("node")
    install(programs / "node", "v18.20.4")
    assert provide.require("node") == str(programs / "node")


def test_root_installs_what_is_missing(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    asked = programs / "asked"
    apt_get = programs / "apt-get"
    apt_get.write_text(
        f'#!/bin/sh\necho "$*" >>"{asked}"\n'
        f'[ "$1" = install ] || exit 0\nprintf "#!/bin/sh\\n" >"{programs}/chromium"\n'
        f'/bin/chmod +x "{programs}/chromium"\n'
    )
    apt_get.chmod(0o755)
    assert provide.main(["chromium"]) == 0
    assert asked.read_text().splitlines()[-1].endswith(" chromium")


def test_the_names_of_this_release_are_taken(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert provide.main(["qemu"]) == 1
    assert "qemu-system-misc" in capsys.readouterr().err
    install(programs / "apt-cache", "Package: known")
    assert provide.main(["qemu"]) == 1
    assert "qemu-system-riscv opensbi" in capsys.readouterr().err


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert provide.main(["chromum"]) == 2
    assert "chromium" in capsys.readouterr().err
