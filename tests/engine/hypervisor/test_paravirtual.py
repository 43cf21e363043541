"""Paravirtualization: the same work by hypercalls, that nobody can tell how it was executed, and who is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from engine.commands import GuestClone, GuestCreate, GuestMove, HostCreate, LabError, LabSeek, SnapshotTake
from engine.guests import load_image
from engine.guests.build import ROOT
from engine.hypervisor import hypercalls
from engine.hypervisor.host import Host
from engine.hypervisor.hypercalls import CALLS, Number
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.vm_guest import VmGuest
from engine.lab import Lab
from engine.machine.loader import PARAVIRTUAL_NOTE, RAM_BASE, inspect, with_disk
from engine.machine.memory import PAGE
from engine.trace.record import PATHS, Action, Disposition, Kind, Level
from engine.trace.rings import Trace
from tests.support.labs import console, host_create, run_to, type_line
from tests.support.machine import ASSISTED, BARE, PARAVIRTUAL, VM, WORK, Machine, carry_around
from tests.support.qemu import run_qemu

HEADER = ROOT / "ringos/pv/hypercalls.h"
WORKLOADS = ("compute 300", "syscall 40", "pagefault 100", "switch 20", "io 200", "timer 5")
COMPLAINT = "ringos: this kernel is made for a hypervisor, and there is none below it\n"


def paravirtual(arguments: str = WORK) -> Machine:
    return Machine(load_image("ringos-pv"), PARAVIRTUAL, arguments=arguments)


@pytest.fixture(scope="module")
def worked() -> Machine:
    machine = paravirtual()
    machine.run()
    return machine


def test_the_guests_header_is_the_table() -> None:
    assert HEADER.read_text() == hypercalls.header()


def test_a_call_that_can_be_refused_says_with_what() -> None:
    assert [row.number for row in CALLS] == list(Number)
    assert all(row.meaning and len(row.arguments) <= 2 for row in CALLS)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_workload_prints_what_it_prints_under_the_other_techniques(workload: str) -> None:
    arguments = f"run=work {workload};crash illegal;crash pointers;ps;poweroff 3"
    machines = [paravirtual(arguments)]
    machines += [Machine(load_image("ringos"), stack, arguments=arguments) for stack in (VM, ASSISTED, BARE)]
    for machine in machines:
        machine.run()
        assert machine.guest.exit_status == 3
    assert {machine.output.replace(b"-pv", b"") for machine in machines} == {machines[1].output}
    assert machines[0].guest.exits < machines[1].guest.exits / 3


def test_blocks_go_to_the_disk_and_back_under_every_technique(tmp_path: Path) -> None:
    """By virtio's queue and by the ring, and on QEMU: the same blocks in the same places."""
    said, disks = set(), set()
    for name, stack in (("ringos-pv", PARAVIRTUAL), ("ringos", VM), ("ringos", ASSISTED), ("ringos", BARE)):
        image = with_disk(inspect(load_image(name), name), bytes(1 << 16), "disk")
        shown = bytearray()
        host = Host(1, 1, 64, Configuration.parse(stack), Trace(), lambda _g, data, to=shown: to.extend(data))
        host.add_guest(1, image, 1, 16, "run=work disk 40;poweroff 5")
        host.run(3_000_000)
        assert host.guests[1].exit_status == 5
        said.add(bytes(shown))
        disk = host.guests[1].fitting.disk
        assert disk is not None
        disks.add(disk.read(0, 1 << 16))
    assert len(said) == len(disks) == 1
    [text], [content] = said, disks
    assert len({content[block : block + PAGE] for block in range(0, 1 << 16, PAGE)}) == 16
    kernel, raw = tmp_path / "image.elf", tmp_path / "disk.raw"
    kernel.write_bytes(load_image("ringos"))
    raw.write_bytes(bytes(1 << 16))
    options = (
        "-global", "virtio-mmio.force-legacy=false", "-drive", f"file={raw},format=raw,if=none,id=d",
        "-device", "virtio-blk-device,drive=d",
    )  # fmt: skip
    result = run_qemu(kernel, arguments="run=work disk 40;poweroff 5", options=options)
    assert text.decode().splitlines()[1] in result.output
    assert raw.read_bytes() == content


def test_a_guest_without_a_disk_says_so() -> None:
    for image, stack in (("ringos-pv", PARAVIRTUAL), ("ringos", VM)):
        machine = Machine(load_image(image), stack, arguments="run=work disk 1;poweroff 5")
        machine.run()
        assert b"work: disk: no disk" in machine.output
        assert machine.guest.exit_status == 5


@pytest.mark.parametrize("kind", ["null", "store", "jump", "illegal", "breakpoint", "stack"])
def test_a_program_that_faults_dies_as_on_the_machine(kind: str) -> None:
    arguments = f"run=crash {kind};echo still here;poweroff 4"
    machines = paravirtual(arguments), Machine(load_image("ringos"), BARE, arguments=arguments)
    for machine in machines:
        machine.run()
        assert machine.guest.exit_status == 4
    assert machines[0].output == machines[1].output
    assert b"killed" in machines[0].output


def test_the_trace_accounts_for_every_instruction_and_every_switch(worked: Machine) -> None:
    records = worked.trace.records(1, limit=1 << 16)
    assert int(records["executed"].sum()) == worked.guest.instructions
    assert len(records) == worked.guest.exits
    assert np.all(np.diff(records["position"].astype(np.int64)) > 0)
    assert worked.host.time == worked.host.position + int(records["cost"].sum())


def test_no_privileged_instruction_is_executed_and_none_emulated(worked: Machine) -> None:
    records = worked.trace.records(1, limit=1 << 16)
    kernel = records[records["from_level"] == Level.KERNEL_DEPRIVILEGED]
    assert not np.any(records["kind"] == Kind.VM_EXIT)
    assert not np.any(records["kind"] == Kind.MMIO)
    assert set(kernel["kind"]) <= {Kind.HYPERCALL, Kind.PAGE_FAULT, Kind.INTERRUPT}
    image = ROOT / "images/ringos-pv.elf"
    code = subprocess.run(
        ["riscv64-linux-gnu-objdump", "-d", "-M", "no-aliases", image], capture_output=True, text=True, check=True
    ).stdout
    mnemonics = {line.split("\t")[2].strip() for line in code.splitlines() if line.count("\t") > 1}
    assert "ecall" in mnemonics
    assert not {"sret", "mret", "wfi", "sfence.vma"} & mnemonics
    others = [line for line in code.splitlines() if "\tcsr" in line and "time" not in line]
    assert others == []


def test_a_batch_is_one_exit(worked: Machine) -> None:
    """A page fault of a program: into the kernel, and out again with the entry that it wrote."""
    records = worked.trace.records(1, limit=1 << 16)
    returns = records[records["action"] == Action.HYPERCALL_RETURN]
    assert int(returns["b"].max()) >= 2
    faults = np.flatnonzero((records["kind"] == Kind.PAGE_FAULT) & (records["action"] == Action.INJECT_EXCEPTION))
    assert len(faults) > 5
    after = records[faults + 1]
    assert set(after["action"]) <= {Action.HYPERCALL_RETURN, Action.MULTICALL}  # another process may be next
    out_again = after[after["action"] == Action.HYPERCALL_RETURN]
    assert len(out_again) >= 0.8 * len(faults)
    assert int(out_again["b"].min()) >= 2
    printed = records[(records["action"] == Action.HYPERCALL_RETURN) & (records["disposition"] == Disposition.FORWARDED)]
    assert {PATHS[path] for path in printed["path"].tolist()} == {
        (Level.KERNEL_DEPRIVILEGED, Level.HYPERVISOR, Level.DEVICE_MODEL, Level.HYPERVISOR, Level.USER)
    }


def test_no_tier_and_no_slice_can_be_told() -> None:
    """Native code and the reference tier, in one go and in pieces: the same trace."""
    hashes = set()
    for tier, slice_steps in (("native", 1 << 20), ("reference", 1 << 20), ("native", 77)):
        machine = paravirtual()
        if tier == "reference":
            for hart in machine.host.harts:
                hart.use_native(None)
        machine.run(60_000 if slice_steps < 100 else 3_000_000, slice_steps)
        if slice_steps < 100:
            machine.run(3_000_000)
        hashes.add((machine.trace.hash(), machine.output))
    assert len(hashes) == 1


@pytest.mark.parametrize("at", [500, 14_003, 31_000, 80_001])
def test_a_checkpoint_goes_on_as_if_nothing_had_been(worked: Machine, at: int) -> None:
    first = paravirtual()
    first.run(at, at)
    state, printed, records = first.host.save(), first.output, first.trace.save()
    first.run()
    second = paravirtual()
    second.run(200_000)
    second.host.load(state)
    second.output, second.trace = printed, second.trace
    second.trace.load(records)
    second.run()
    assert (first.output, first.trace.hash()) == (worked.output, worked.trace.hash())
    assert (second.output, second.trace.hash(), second.host.time) == (first.output, first.trace.hash(), first.host.time)
    assert second.host.frames.save() == first.host.frames.save()


@pytest.mark.parametrize("steps_between", [61, 5003])
def test_a_guest_that_moves_ends_as_if_it_stayed(worked: Machine, steps_between: int) -> None:
    """Its tables are made anew, with other frames, on each host, and its time goes on."""
    hosts, shown = carry_around(load_image("ringos-pv"), (PARAVIRTUAL, PARAVIRTUAL), WORK, steps_between)
    assert shown == worked.output
    assert hosts[0].guests[1].exit_status == 3
    hosts[0].remove_guest(1)
    assert [host.frames.used for host in hosts] == [0, 0]


def lab_with(arguments: str | None = None) -> tuple[Lab, int]:
    lab = Lab.new("test")
    for _ in range(2):
        lab.apply(host_create(PARAVIRTUAL))
    guest = lab.apply(GuestCreate(1, "ringos-pv", arguments=arguments))["guest"]
    return lab, guest


def test_typing_cloning_moving_and_going_on_from_a_snapshot() -> None:
    lab, guest = lab_with()
    run_to(lab, 40_000)
    type_line(lab, guest, "work pagefault 20; echo one")
    lab.run(20_000)
    clone = lab.apply(GuestClone(guest))["guest"]
    moved = lab.apply(GuestClone(guest))["guest"]
    lab.apply(GuestMove(moved, 2))
    image = lab.apply(SnapshotTake(guest, "moment"))["image"]
    again = lab.apply(GuestCreate(2, image))["guest"]
    lab.run(400_000)
    for number in (guest, clone, moved, again):
        type_line(lab, number, f"echo this is {number}; ps; poweroff {number}")
    lab.run(1_000_000)
    texts = {number: console(lab, number) for number in (guest, clone, moved, again)}
    assert b"work pagefault 20: 20 page faults, checksum 0x" in texts[guest]
    for number, text in texts.items():
        assert f"this is {number}\r\n".encode() in text
        assert lab.keyframe()["status"][str(number)]["exit_status"] == number


def test_going_back_goes_back() -> None:
    lab, guest = lab_with("run=demo")
    run_to(lab, 50_000)
    there = lab.trace_hash()
    run_to(lab, 90_000)
    type_line(lab, guest, "x")
    run_to(lab, 130_000)
    end = lab.trace_hash()
    lab.apply(LabSeek(50_000))
    assert (lab.position, lab.trace_hash()) == (50_000, there)
    run_to(lab, 130_000)
    assert lab.trace_hash() == end


def test_a_paravirtual_kernel_without_a_hypervisor_says_so_and_stops() -> None:
    machine = Machine(load_image("ringos-pv"), BARE)
    machine.run()
    assert machine.output.decode().replace("\r\n", "\n") == COMPLAINT
    assert machine.guest.exit_status == 1


def test_it_says_so_on_qemu(tmp_path: Path) -> None:
    image = tmp_path / "image.elf"
    image.write_bytes(load_image("ringos-pv"))
    assert COMPLAINT in run_qemu(image).output.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("image", "stack", "key"),
    [
        ("ringos", PARAVIRTUAL, "needs-paravirtual-kernel"),
        ("hello", PARAVIRTUAL, "needs-paravirtual-kernel"),
        ("ringos-pv", VM, "paravirtual-kernel"),
        ("ringos-pv", ASSISTED, "paravirtual-kernel"),
    ],
)
def test_a_kernel_under_the_wrong_technique_is_refused_before_it_starts(image: str, stack: str, key: str) -> None:
    host = Host(1, 1, 64, Configuration.parse(stack), Trace(), lambda _guest, _data: None)
    used = host.memory_used_mib, host.frames.used, host.frames.promised
    with pytest.raises(LabError) as refusal:
        host.add_guest(1, inspect(load_image(image), image), 1, 16, "")
    assert refusal.value.problem.key == key
    assert (host.memory_used_mib, host.frames.used, host.frames.promised) == used


def test_moving_to_another_technique_is_refused() -> None:
    lab, guest = lab_with("run=demo")
    other = lab.apply(HostCreate())["host"]
    with pytest.raises(LabError) as refusal:
        lab.apply(GuestMove(guest, other))
    assert refusal.value.problem.key == "paravirtual-kernel"


def test_the_note_is_read_whatever_the_file_says() -> None:
    content = load_image("ringos-pv")
    assert inspect(content, "a").paravirtual
    assert not inspect(load_image("ringos"), "a").paravirtual
    at = content.index(PARAVIRTUAL_NOTE[0])
    for changed in (b"\xff" * 12, b"\0" * 12, b"\x09\0\0\0\xff\xff\xff\xff\x02\0\0\0"):
        assert not inspect(content[: at - 12] + changed + content[at:], "a").paravirtual or changed[0] == 9


def test_the_walk_shows_the_guests_table_and_the_harts(worked: Machine) -> None:
    machine = paravirtual("run=work syscall 100000")
    machine.run(200_000)
    guest = machine.guest
    assert isinstance(guest, VmGuest)
    for _ in range(2000):
        machine.host.run(11)
        walk = guest.walk(0, guest.pc)
        if guest.level == Level.USER:
            break
    assert [len(walk["guest"]), len(walk["shadow"]), walk["second"]] == [3, 3, []]
    assert walk["hpa"] == RAM_BASE + guest.vm.ram.map[walk["gpa"] >> 12] * PAGE | walk["gpa"] & 0xFFF


def test_the_readme_has_the_calls_as_they_are() -> None:
    assert hypercalls.reference() in (ROOT.parents[1] / "README.md").read_text()
