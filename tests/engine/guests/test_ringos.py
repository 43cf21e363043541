"""ringos on QEMU, which we did not write: what it prints there is what it must print on our own machines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.guests.build import IMAGES
from tests.support.qemu import Result, run_qemu

RINGOS = IMAGES / "ringos.elf"
PROMPT = "ringos$ "
SMALLEST = "6M"
"""With less, QEMU itself would put the device tree where the kernel is."""

WORKLOADS = {
    "compute 1000": "1000 steps",
    "syscall 100": "100 system calls",
    "pagefault 40": "40 page faults",
    "switch 50": "50 messages there and back",
    "io 70": "70 characters",
}

CRASHES = {
    "null": (13, r"load page fault at pc 0x4000[0-9a-f]{4}, address 0x0"),
    "store": (15, r"store page fault at pc 0x4000[0-9a-f]{4}, address 0x80200000"),
    "jump": (12, r"instruction page fault at pc 0x80200000, address 0x80200000"),
    "illegal": (2, r"illegal instruction at pc 0x4000[0-9a-f]{4}, address 0x[0-9a-f]+"),
    "breakpoint": (3, r"breakpoint at pc 0x4000[0-9a-f]{4}, address 0x[0-9a-f]+"),
    "stack": (15, r"store page fault at pc 0x4000[0-9a-f]{4}, address 0x401ef[0-9a-f]{3}"),
}


def session(*lines: str, memory: str = "16M", harts: int = 1, arguments: str = "") -> Result:
    """Type each line at a prompt of its own, then end the machine."""
    script = [(PROMPT, f"{line}\r") for line in (*lines, "poweroff")]
    return run_qemu(RINGOS, script, memory=memory, harts=harts, arguments=arguments)


def answers(result: Result) -> list[str]:
    """What each command printed, prompts and echoes cut off."""
    parts = result.after(PROMPT).split(PROMPT)[1:-1]
    return [part.partition("\n")[2] for part in parts]


@pytest.mark.parametrize(("memory", "mebibytes"), [(SMALLEST, 6), ("16M", 16), ("256M", 256)])
def test_it_boots_to_its_prompt_in_any_memory(memory: str, mebibytes: int) -> None:
    result = session(memory=memory)
    assert result.status == 0
    assert result.after("ringos:").startswith(f"ringos: {mebibytes} MiB of RAM, hart 0\n{PROMPT}poweroff\n")


def test_it_boots_on_whichever_hart_the_firmware_chose() -> None:
    result = session("echo here", harts=4)
    assert result.status == 0
    assert re.search(r"ringos: 16 MiB of RAM, hart [0-3]\n", result.output)
    assert answers(result) == ["here\n"]


def test_workloads_print_one_line_that_depends_on_nothing_but_their_count() -> None:
    first = answers(session(*(f"work {work}" for work in WORKLOADS)))
    again = answers(session("spin &", *(f"work {work}" for work in WORKLOADS), memory="64M"))[1:]
    assert first == again
    for (work, unit), answer in zip(WORKLOADS.items(), first, strict=True):
        assert re.fullmatch(rf"work {work}: {unit}, checksum 0x[0-9a-f]+", answer.splitlines()[-1])
    assert [len(answer.splitlines()) for answer in first] == [1, 1, 1, 1, 3]


def test_compute_checksum_is_that_of_knuths_generator() -> None:
    checksum = 1
    for i in range(1000):
        checksum = ((checksum ^ i) * 6364136223846793005 + 1442695040888963407) % 2**64
    assert answers(session("work compute 1000")) == [
        f"work compute 1000: 1000 steps, checksum {checksum:#x}\n"
    ]


def test_a_crash_ends_the_program_and_nothing_else() -> None:
    results = answers(session(*(f"crash {kind}" for kind in CRASHES), "echo still here"))
    for (kind, (cause, message)), answer in zip(CRASHES.items(), results, strict=False):
        expected = rf"crash \(pid \d+\) killed: {message}\n\[exit {128 + cause}\]\n"
        assert re.fullmatch(expected, answer), (kind, answer)
    assert results[-1] == "still here\n"


def test_bad_pointers_are_errors() -> None:
    (answer,) = answers(session("crash pointers"))
    assert dict(line.removeprefix("crash: ").split(": ") for line in answer.splitlines()) == {
        "write from 0": "bad address",
        "write from the kernel": "bad address",
        "write across the stack's end": "bad address",
        "write around the end of memory": "bad address",
        "receive list into own text": "bad address",
        "receive list into a device": "bad address",
        "spawn of a program named by 0": "bad address",
        "spawn with arguments in the kernel": "bad address",
        "sbrk beyond all": "out of memory",
        "sbrk below the heap": "out of memory",
        "kill of init": "not permitted",
        "system call 999": "no such system call",
    }


def test_exhausted_memory_ends_the_program_that_asked_and_all_of_it_comes_back() -> None:
    greedy = "primes 9000000"
    answer, *others, again = answers(session(greedy, "primes 20", "work switch 3", greedy, memory=SMALLEST))
    message = (
        r"primes \(pid \d+\) killed: out of memory, store page fault at pc 0x[0-9a-f]+, address (0x[0-9a-f]+)"
    )
    first, second = re.search(message, answer), re.search(message, again)
    assert first
    assert second
    assert first[1] == second[1], "it got less memory the second time"
    assert others == ["2 3 5 7 11 13 17 19\n", answers(session("work switch 3"))[0]]


def test_no_page_is_lost_by_programs_that_come_and_go() -> None:
    rounds = 40
    line = "work switch 1; crash stack; work pagefault 20; primes 30000"
    result = session(*[line] * rounds, memory=SMALLEST)
    assert result.status == 0
    assert len({re.sub(r"pid \d+", "pid", answer) for answer in answers(result)}) == 1


def test_control_c_ends_what_is_in_the_foreground_and_spares_the_shell() -> None:
    result = run_qemu(
        RINGOS,
        [
            (PROMPT, "demo & spin\r"),
            ("demo: round 2,", "\x03"),
            ("[exit 159]\r\n" + PROMPT, "kill 3; work io 999999999\r"),
            ("\r\nabc", "\x03"),
            ("[exit 159]\r\n" + PROMPT, "half a line\x03"),
            ("^C\r\n" + PROMPT, "ps\r"),
            (PROMPT, "poweroff\r"),
        ],
    )
    assert result.status == 0
    assert [
        line.split()[-1] for line in result.after("half a line").splitlines() if " sleeping " in line
    ] == ["init", "sh"]


def test_lines_can_be_edited() -> None:
    result = session(
        "nonsense\x15echo one",
        "echho\x7f\x7fo two",
        "\x7f\x08 echo three",
        "echo \x1b[Afo\x1b[1;5Dur",
        "echo 다섯섯\x7f",
        "\x80\x80\x7f\x7fecho 6",
    )
    shown = [answer.splitlines()[-1] for answer in answers(result)]
    assert shown == ["one", "two", "three", "four", "다섯", "6"]


def test_cat_copies_lines_up_to_control_d() -> None:
    result = run_qemu(
        RINGOS,
        [
            (PROMPT, "cat\r"),
            ("cat\r\n", "first\r"),
            ("first\r\nfirst\r\n", "last\x04"),
            ("lastlast", "\x04"),
            (PROMPT, "poweroff\r"),
        ],
    )
    assert result.status == 0


def test_end_of_input_ends_the_shell_and_init_starts_another() -> None:
    result = run_qemu(RINGOS, [(PROMPT, "\x04"), (PROMPT, "ps\r"), (PROMPT, "poweroff\r")])
    assert re.search(r"\d+ +1 +\d+ sleeping sh\n", result.output)
    assert not re.search(r"^ +2 ", result.after("pid parent"), re.MULTILINE)


def test_background_jobs_and_sequences() -> None:
    result = session("crash & ; echo a; echo b", "work compute 10000", "ps")
    lines = re.sub(r" at pc .*", "", result.output).splitlines()
    assert lines.index("[3]") < lines.index("a") < lines.index("b")
    # The job may be preempted before or after the shell prints its number, but both come before its end.
    end = lines.index("[3] exit 141")
    assert max(lines.index("[3]"), lines.index("crash (pid 3) killed: load page fault")) < end
    assert "crash" not in answers(result)[-1]


def test_a_background_job_cannot_read_the_console() -> None:
    result = session("cat &", "echo x")
    assert "cat: not permitted\n" in result.output


def test_spinning_programs_share_the_hart() -> None:
    result = session("spin & ; spin & ; work compute 1000; ps")
    assert len(re.findall(r"runnable spin", result.output)) == 2


def test_kill_ends_a_job_with_its_children() -> None:
    result = run_qemu(
        RINGOS,
        [
            (PROMPT, "work switch 999999999 &\r"),
            (PROMPT, "work compute 5000000; ps\r"),  # by then it is in the middle of its work
            (PROMPT, "kill 3; ps\r"),
            (PROMPT, "kill 1; kill 99\r"),
            (PROMPT, "poweroff\r"),
        ],
    )
    listings = result.output.split("pid parent pages state    name\n")[1:]
    assert listings[0].count(" work\n") == 2
    assert "[3] exit 159" in result.output
    assert "kill: 1: not permitted\n[exit 1]\nkill: 99: no such process\n[exit 1]\n" in result.output


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_poweroff_passes_its_status_on(status: int) -> None:
    assert run_qemu(RINGOS, [(PROMPT, f"poweroff {status}\r")]).status == status


def test_poweroff_refuses_what_is_no_status() -> None:
    assert answers(session("poweroff 256", "poweroff x")) == [
        "poweroff: 256: invalid argument\n[exit 1]\n",
        "poweroff: x: invalid argument\n[exit 1]\n",
    ]


def test_a_panic_says_why_and_ends_the_machine(tmp_path: Path) -> None:
    tree = tmp_path / "virt.dtb"
    run_qemu(RINGOS, options=["-machine", f"dumpdtb={tree}"])
    tree.write_bytes(tree.read_bytes().replace(b"memory@80000000\0", b"nomory@80000000\0"))
    result = run_qemu(RINGOS, options=["-dtb", str(tree)])
    assert not result.timed_out
    assert (
        "ringos: panic: the device tree describes no memory around the kernel\nringos: scause"
        in result.output
    )


def test_reboot_starts_again() -> None:
    result = run_qemu(RINGOS, [(PROMPT, "reboot\r"), ("ringos: 16 MiB", ""), (PROMPT, "poweroff 3\r")])
    assert result.status == 3


def test_boot_arguments_run_commands_before_the_first_prompt() -> None:
    result = session(arguments="quiet run=echo one;work compute 1; echo two")
    assert re.search(r"hart 0\none\nwork compute 1: .*\ntwo\nringos\$ ", result.output)


def test_boot_arguments_that_are_too_long_are_cut_and_it_says_so() -> None:
    result = session(arguments="run=echo " + "x" * 200)
    assert "ringos: boot arguments cut to 127 characters\n" in result.output
    assert "\n" + "x" * 118 + "\n" in result.output


def test_the_demo_goes_on_and_prints_a_line_a_round() -> None:
    result = run_qemu(RINGOS, arguments="run=demo", until="demo: round 3,")
    assert not result.timed_out
    assert re.search(r"hart 0\ndemo: round 1, checksum 0x[0-9a-f]+\ndemo: round 2, checksum", result.output)


def test_help_names_every_program() -> None:
    helped, *tried = answers(session("help"))
    named = {line.split()[0] for line in helped.splitlines()[:-1]}
    programs = {path.stem for path in (IMAGES.parent / "ringos" / "user").glob("*.c")}
    assert named == programs - {"init", "sh", "lib", "workload"}
    assert not tried
