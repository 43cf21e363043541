"""ringos and hello print the same on QEMU, on our bare metal and in our VM: an unmodified kernel cannot tell.

`crash breakpoint` is left out: it prints tval, which is 0 on QEMU and the pc with us, and both are allowed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from engine.guests.build import IMAGES
from tests.support.qemu import run_qemu
from tests.support.run import CONFIGURATIONS, run_guest

RINGOS = IMAGES / "ringos.elf"
PROMPT = "ringos$ "
SESSIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "workloads": tuple(
        (PROMPT, f"work {work}\r")
        for work in ("compute 500", "syscall 50", "pagefault 20", "switch 10", "io 70")
    ),
    "crashes": tuple(
        (PROMPT, f"crash {kind}\r") for kind in ("null", "store", "jump", "illegal", "stack", "pointers")
    ),
    "shell": (
        (PROMPT, "echo one; echo two\r"),
        (PROMPT, "nonsense\r"),
        (PROMPT, "primes 50\r"),
        (PROMPT, "half a line\x03"),
        ("^C\r\n" + PROMPT, "cat\r"),
        ("cat\r\n", "a lime\x7f\x7f\x7fine\r"),
        ("\r\na line\r\n", "of text\x15done\r"),
        ("\r\ndone\r\n", "\x04"),
        (PROMPT, "help\r"),
    ),
}


@cache
def on_qemu(name: str) -> tuple[str, int | None]:
    result = run_qemu(RINGOS, [*SESSIONS[name], (PROMPT, "poweroff 7\r")])
    return result.after("ringos:"), result.status


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("name", SESSIONS)
def test_ringos_shows_what_it_shows_on_qemu(name: str, configuration: str) -> None:
    outcome = run_guest(RINGOS.read_bytes(), [*SESSIONS[name], (PROMPT, "poweroff 7\r")], configuration=configuration)
    assert (outcome.output, outcome.status) == on_qemu(name)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_hello_shows_what_it_shows_on_qemu(configuration: str) -> None:
    hello: Path = IMAGES / "hello.elf"
    theirs = run_qemu(hello)
    ours = run_guest(hello.read_bytes(), configuration=configuration)
    assert theirs.output.endswith(ours.output)
    assert "Hello" in ours.output
    assert (ours.status, ours.failure) == (theirs.status, None)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_same_session_is_the_same_trace(configuration: str) -> None:
    first, second = (
        run_guest(RINGOS.read_bytes(), [*SESSIONS["shell"]], configuration=configuration, steps=400_000) for _ in range(2)
    )
    assert first == second
