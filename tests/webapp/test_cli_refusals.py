"""What a person at a terminal may get wrong: every mistake is one sentence on standard error that says what would be
right, a status that is not 0, and never a traceback, a hang or a run whose result has no place."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import compare, terminal
from engine.hypervisor.stacks import SWITCHES
from tests.support.checks import ROOT
from webapp.cli import main

KVM = ("compare", "--workload", "syscall:1", "--configs")
COSTS = (*KVM, "kvm", "--costs")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with files that are not what they should be; commands begin there."""
    dice = random.Random(1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "random").write_bytes(dice.randbytes(5000))
    (tmp_path / "random.s").write_bytes(dice.randbytes(5000))
    (tmp_path / "good.s").write_text("nop\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RINGSIDE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    handler = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "required: COMMAND"),
        (("dance",), "invalid choice: 'dance'"),
        (("run",), "IMAGE or --kernel FILE"),
        (("run", ""), "a file's name is missing"),
        (("run", "nothing"), "There is no file nothing"),
        (("run", "folder"), "folder: Is a directory"),
        (("run", "empty"), "empty is empty"),
        (("run", "random.s"), "not UTF-8 text"),
        (("run", "random"), "the guest died"),
        (("run", "/dev/zero"), "has more than 0 MiB"),
        (("run", "ringos", "--kernel", "random"), "one of the two"),
        (("run", "ringos", "--initrd", "folder"), "Is a directory"),
        (("run", "ringos", "--initrd", "/dev/zero"), "has more than 0 MiB"),
        (("run", "ringos", "--disk", "nothing"), "nothing: No such file"),
        (("run", "ringos", "--disk", "/dev/zero"), "is empty"),
        (("run", "ringos", "--firmware", "random"), "needs --on bare-metal"),
        (("run", "ringos", "--firmware", "empty", "--on", "bare-metal"), "empty is empty"),
        (("run", "ringos", "--input", "folder"), "Is a directory"),
        (("run", "ringos", "--input", "/dev/zero"), "has more than 0 MiB"),
        (("run", "ringos", "--append", "\udcff"), "not UTF-8 text"),
        (("run", "ringos", "--memory", "99999999999999999999G"), "not a size from 4M to 1G"),
        (("run", "ringos", "--memory", "²M"), "not a size from 4M to 1G"),
        (("run", "ringos", "--harts", "5"), "a number from 1 to 4"),
        (("run", "ringos", "--max-instructions", "9" * 5000), "a number from 1 to"),
        (("run", "ringos", "--switch", "wings"), ", ".join(map(repr, SWITCHES))),
        (("run", "ringos", "--switch", "no-vmid"), "means nothing on kvm with trap-and-emulate"),
        (("run", "ringos", "--on", "paravirtual"), "kernels that are made for it"),
        (("run", "ringos-pv", "--on", "kvm"), "which nobody answers here"),
        (("run", "ringos", "--trace", "nowhere/file"), "nowhere/file: No such file"),
        (("run", "ringos", "--trace", "/dev/full", "--max-instructions", "9999"), "No space left"),
        (("run", "ringos", "--snapshot-out", "folder"), "folder: Is a directory"),
        (("run", "ringos", "--snapshot-out", "/dev/full", "--max-instructions", "99"), "No space left"),
        (("run", "--snapshot-in", "random"), "no snapshot of Ringside's"),
        (("run", "--snapshot-in", "empty"), "no snapshot of Ringside's"),
        (("run", "--snapshot-in", "/dev/zero"), "has more than 0 MiB"),
        (("run", "ringos", "--snapshot-in", "random"), "a whole machine"),
        (("run", "ringos", "--gdb", "65536"), "a number from 0 to 65535"),
        (("asm", "folder"), "Is a directory"),
        (("asm", "random"), "not UTF-8 text"),
        (("asm", "good.s", "-o", "nowhere/file"), "No such file"),
        (("disasm", ""), "a file's name is missing"),
        (("disasm", "nothing"), "There is no file nothing"),
        (("images", "add", "mine"), "name its kernel"),
        (("images", "add", "mine", "--kernel", "nothing"), "nothing: No such file"),
        (("images", "add", "mine", "--kernel", "/dev/zero"), "has more than 0 MiB"),
        (("images", "add", "mine", "--kernel", "empty"), "empty"),
        (("images", "add", "ringos", "--kernel", "random"), "comes with Ringside is called ringos"),
        (("images", "add", "MINE", "--kernel", "random"), "1 to 40 small letters"),
        (("images", "add", "mine", "--kernel", "random", "--memory", "9" * 30), "4 to 512 MiB"),
        (("images", "add", "mine", "--kernel", "random", "--title", "\udcff"), "not UTF-8 text"),
        (("images", "add", "mine", "--kernel", "random", "--data", "random"), "random"),
        (("images", "add", "mine", "--deb", "random"), "no Debian package"),
        (("images", "remove", "nothing"), "There is no image nothing"),
        (("serve", "--port", "65536"), "from 0 to 65535"),
        (("serve", "--port", "0", "--data", "random"), "cannot be used"),
        (("compare", "--workload", "juggle"), "compute, syscall, pagefault"),
        (("compare", "--workload", ","), "this one has 0"),
        *(
            (("compare", "--workload", f"syscall:{count}"), "with a count from 1 to 100000")
            for count in ("", "0", "-1", "1e3", "²", "99999999999999999999", "9" * 5000)
        ),
        *(((*KVM, f"kvm+{switch}"), ", ".join(SWITCHES)) for switch in ("", "wings", "no-vmid+", "\udcff")),
        *(((*KVM, text), "no stack (bare-metal, xen") for text in ("kvm/", "/kvm", "kvm/xen", "wings", "+no-vmid", "kvm/x/y")),
        ((*KVM, "bare-metal+no-vmid"), "means nothing on bare-metal"),
        ((*KVM, ""), "this one has 0"),
        *(
            ((*COSTS, text), "adams-agesen-2006, dall-arm-2016, dall-x86-2016; with +CROSSING:CYCLES, up to 10000000")
            for text in (
                "free", "+exit:5", "adams-agesen-2006+", "adams-agesen-2006+exit", "adams-agesen-2006+leap:5",
                "adams-agesen-2006+exit:-5", "adams-agesen-2006+exit:10000001", "adams-agesen-2006+exit:" + "9" * 5000,
            )
        ),
        ((*COSTS, "adams-agesen-2006+exit:10000000"), "did not finish its workload"),
        ((*KVM, "kvm", "--csv", "folder"), "folder: Is a directory"),
        ((*KVM, "kvm", "--csv", "nowhere/file"), "nowhere/file: No such file"),
        ((*KVM, "kvm", "--json", ""), "a file's name is missing"),
        ((*KVM, "kvm", "--json", "/dev/full"), "No space left"),
        ((*KVM, "kvm", "--csv", "-", "--json", "-"), "only one of --csv and --json"),
    ],
    ids=lambda value: " ".join(word[:20] for word in value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_a_mistake_is_one_sentence(
    words: tuple[str, ...], says: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "MAX_FILE_BYTES", 1 << 17)
    monkeypatch.setattr(compare, "MAX_TRAPS", 3_000)
    before = {path.name for path in here.iterdir()}
    try:
        status: object = main(words)
    except SystemExit as ended:
        status = ended.code
    output, errors = capsys.readouterr()
    assert status not in (0, None)
    assert says in errors + output
    assert "Traceback" not in errors
    sentences = re.findall(r"^ringside(?!: stopped after).*", errors, re.MULTILINE)
    assert len(sentences) == 1 or "did not finish" in output
    assert {path.name for path in here.iterdir()} <= before | {"data", "cache"}, "nothing is left behind"


@pytest.mark.parametrize("words", [("images", "list"), (*KVM, "bare-metal"), ("disasm", "hello")])
def test_a_reader_that_has_gone_is_no_mistake(words: tuple[str, ...], here: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "webapp.cli", *words]
    try:
        done = subprocess.run(
            command, stdout=write, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (130, b"")


def test_a_file_that_can_be_written_is_left_as_it_is(here: Path) -> None:
    (here / "kept").write_text("mine")
    terminal.check_writable("kept")
    terminal.check_writable("new")
    assert (here / "kept").read_text() == "mine"
    assert not (here / "new").exists()


def test_a_file_is_read_whole(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal.read_file("random") == (here / "random").read_bytes()
    monkeypatch.setattr(terminal, "MAX_FILE_BYTES", 4999)
    with pytest.raises(OSError, match="has more than"):
        terminal.read_file("random")
