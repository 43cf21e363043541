"""Comparisons: figures are of the work alone, come from the trace, repeat exactly, and do not depend on the tier."""

from __future__ import annotations

import itertools
import re
from functools import cache

import msgspec
import numpy as np
import pytest

from engine import compare, guests
from engine.commands import LabError
from engine.compare import WORKLOADS, Measure, Task, Together, difference, measure, plan
from engine.hypervisor.costs import DEFAULT_COSTS, Costs, Routes
from engine.hypervisor.stacks import DEFAULT_STACK, GENERATIONS, STACKS, Configuration
from engine.images import builtin_rows
from engine.machine.tiers import Tier
from engine.trace.record import RECORD, Cause, Disposition, Kind, Level

TRAP_AND_EMULATE = Configuration.parse("trap-and-emulate")
HARDWARE_ASSIST = Configuration.parse("hardware-assist")
BARE_METAL = Configuration.parse("bare-metal")


def _on(_fraction: float) -> bool:
    return True


def _no_clock() -> float:
    return 0.0


def run(where: Configuration, name: str, count: int, tier: Tier = Tier.JIT) -> Measure:
    found = measure(Task(where, name, count), _on, _no_clock, tier)
    assert found.problem is None
    return found


def test_the_workloads_are_those_of_ringos() -> None:
    source = guests.source_text("ringos", "user/workload.c")
    assert re.findall(r'\[[A-Z]+\] = \{"(\w+)"', source) == list(WORKLOADS)


def test_the_mark_is_a_system_call_that_no_program_makes_elsewhere() -> None:
    address = compare.mark_address()
    for symbols in guests.program_symbols("ringos").values():
        at = {name: start for start, _, name in symbols}
        assert at["mark"] + compare.MARK_OFFSET == address
        calls = re.findall(r"ROW\(\d+, (\w+)\)", guests.source_text("ringos", "common/abi.h"))
        assert calls
        assert address not in {at[name] + compare.MARK_OFFSET for name in calls if name in at}


@cache
def on_the_bare_machine(name: str) -> Measure:
    return run(BARE_METAL, name, 20)


@pytest.mark.parametrize(
    "where",
    [
        way for way in compare.configurations()
        if way.technique is None or way.stack == DEFAULT_STACK or way.technique == STACKS[way.stack].techniques[0]
    ],
    ids=str,
)  # fmt: skip
def test_every_workload_prints_the_same_under_every_technique_and_on_every_stack(where: Configuration) -> None:
    for name in WORKLOADS:
        there, here = run(where, name, 20), on_the_bare_machine(name)
        assert there.said.startswith(f"work {name} 20: 20 ")
        assert (there.output, there.said) == (here.output, here.said)


@pytest.mark.parametrize("where", [TRAP_AND_EMULATE, HARDWARE_ASSIST], ids=str)
def test_figures_repeat_and_are_those_of_the_definition(where: Configuration) -> None:
    runs = [run(where, "pagefault", 30, tier) for tier in (Tier.JIT, Tier.JIT, Tier.REFERENCE)]
    assert all(one.walk_references > one.tlb_misses > 0 for one in runs)
    first, *others = (msgspec.structs.replace(one, tlb_misses=0, walk_references=0) for one in runs)
    assert all(one == first for one in others)


@pytest.mark.parametrize("where", [BARE_METAL, TRAP_AND_EMULATE, HARDWARE_ASSIST], ids=str)
@pytest.mark.parametrize("name", ["syscall", "switch", "io"])
def test_a_unit_of_work_is_what_a_longer_run_has_more_of(where: Configuration, name: str) -> None:
    """Two whole runs whose counts have as many digits differ by units of work, and where the timer falls."""
    wholes = []
    for count in (100, 300):
        machine = compare._Machine(Task(where, name, count), Tier.JIT)
        while not machine.done:
            machine.advance()
        exits = sum(
            times
            for (_, _, path, _), times in machine.trace.counters(compare.GUEST).items()
            if Level.HYPERVISOR in compare.PATHS[path]
        )
        wholes.append((machine.guest.instructions, exits))
    more_instructions, more_exits = (after - before for before, after in zip(*wholes, strict=True))
    for count, share in ((100, 1 / 2), (300, 3 / 2)):
        part = run(where, name, count).work
        assert part.instructions == pytest.approx(more_instructions * share, rel=0.02)
        assert part.exits == pytest.approx(more_exits * share, rel=0.02, abs=2)


@pytest.mark.parametrize("where", ["kvm/trap-and-emulate", "xen/hardware-assist", "vmware/trap-and-emulate"])
@pytest.mark.parametrize("table", ["", "dall-x86-2016", "dall-arm-2016+exit:5+entry:7"])
def test_modelled_cycles_are_the_tables_for_every_crossing(where: str, table: str) -> None:
    (task,) = plan(["io:50"], [where], table)
    found = measure(task, _on, _no_clock)
    routes = Routes(task.configuration, task.costs)
    for row in found.work.rows:
        path = tuple(Level[station.upper()] for station in row.path)
        assert row.cycles == row.crossed * sum(leg.cycles for leg in routes.legs(path))
    assert found.work.cycles == sum(crossing.cycles for crossing in found.crossings) > 0
    assert found.output == run(BARE_METAL, "io", 50).output
    if "exit:5" in table:
        out = [crossing for crossing in found.crossings if crossing.source in ("user", "kernel", "kernel_deprivileged")]
        assert sum(crossing.cycles for crossing in out) == 5 * sum(crossing.count for crossing in out)


def test_costs_change_time_and_not_what_happens() -> None:
    one, other = (measure(plan(["syscall:50"], ["kvm"], table)[0], _on, _no_clock) for table in ("", "dall-arm-2016"))
    assert one.work.exits == other.work.exits
    assert one.work.instructions == other.work.instructions
    assert one.start.virtual_ns != other.start.virtual_ns


@pytest.mark.parametrize("text", ["dall-arm-2016", "dall-x86-2016+entry:0+exit:1000", compare.costs_text(DEFAULT_COSTS)])
def test_a_table_of_costs_is_a_text(text: str) -> None:
    assert compare.costs_text(compare.costs(text)) == text
    assert compare.costs("") == DEFAULT_COSTS == Costs()


def test_a_null_system_call_is_seven_exits_under_trap_and_emulate_and_none_with_assistance() -> None:
    assert run(TRAP_AND_EMULATE, "syscall", 100).work.exits == 700
    assert run(HARDWARE_ASSIST, "syscall", 100).work.exits == 0
    bare = run(BARE_METAL, "syscall", 100)
    assert (bare.work.exits, bare.work.cycles, bare.overhead_pages) == (0, 0, 0)
    assert bare.work.traps == 100


def test_what_shadow_tables_take_is_counted() -> None:
    shadow, assisted = run(TRAP_AND_EMULATE, "syscall", 10), run(HARDWARE_ASSIST, "syscall", 10)
    assert shadow.guest_pages == assisted.guest_pages
    assert shadow.overhead_pages > assisted.overhead_pages > 0


def test_starting_is_a_part_of_its_own() -> None:
    few, many = (run(TRAP_AND_EMULATE, "syscall", count) for count in (10, 90))
    assert few.start.virtual_ns == many.start.virtual_ns > 0
    assert few.start.exits == many.start.exits > 100


def test_wall_time_is_taken_from_mark_to_mark_by_the_clock_that_is_given() -> None:
    seconds = itertools.count()
    found = measure(Task(BARE_METAL, "syscall", 10), _on, lambda: float(next(seconds)))
    assert found.wall_s == 1.0, "one slice, one second by this clock, which is too long to time it again"
    readings = [0, 0, 0, 0.07, 0.07, 0.09, 0.09, 0.12]
    again = measure(Task(BARE_METAL, "syscall", 10), _on, iter(readings).__next__)
    assert again.wall_s == pytest.approx(0.02), "the least of three"


def test_a_guest_without_that_workload_is_a_problem_and_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(Task(BARE_METAL, "juggle", 3), _on, _no_clock)
    assert found.problem is not None
    assert found.problem.key == "compare-unfinished"
    monkeypatch.setattr(compare, "_image", lambda _: compare.inspect(guests.load_image("hello"), "hello"))
    hello = measure(Task(TRAP_AND_EMULATE, "syscall", 3), _on, _no_clock)
    assert hello.problem is not None
    assert "hello" in builtin_rows()


def test_a_guest_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "MAX_STEPS", 300_000)
    found = measure(Task(BARE_METAL, "compute", compare.MAX_COUNT), _on, _no_clock)
    assert found.problem is not None


def test_it_can_be_cancelled_at_any_report() -> None:
    for at in range(3):
        reports = iter([True] * at + [False])
        with pytest.raises(LabError, match="Cancelled"):
            measure(Task(TRAP_AND_EMULATE, "switch", 300), lambda _, reports=reports: next(reports), _no_clock)


@pytest.mark.parametrize(
    ("workloads", "configurations", "key"),
    [
        (["sycall"], ["bare-metal"], "compare-workload"),
        (["syscall:0"], ["bare-metal"], "compare-count"),
        (["syscall:many"], ["bare-metal"], "compare-count"),
        (["syscall:100001"], ["bare-metal"], "compare-count"),
        (["syscall"], ["bare-metall"], "no-such-configuration"),
        (["syscall"], ["bare-metal/trap-and-emulate"], "technique-not-on-stack"),
        (["syscall"], ["bare-metal+warp-drive"], "no-such-switch"),
        (["syscall"], ["bare-metal", "costs:free"], "compare-costs"),
        (["syscall"], ["bare-metal", "costs:dall-x86-2016+leap:4"], "compare-costs"),
        (["syscall"], ["bare-metal", "costs:dall-x86-2016+exit:cheap"], "compare-costs"),
        (["syscall"], [], "compare-size"),
        ([f"syscall:{count}" for count in range(1, 258)], ["bare-metal"], "compare-size"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_says_why(workloads: list[str], configurations: list[str], key: str) -> None:
    ways = [way for way in configurations if not way.startswith("costs:")]
    table = "".join(way.removeprefix("costs:") for way in configurations if way.startswith("costs:"))
    with pytest.raises(LabError) as refused:
        plan(workloads, ways, table)
    assert refused.value.problem.key == key
    if key == "compare-workload":
        assert "compute, syscall, pagefault" in refused.value.problem.message


def test_a_plan_has_each_pair_once() -> None:
    found = plan(["io:7", "syscall", "io:7"], ["bare-metal", "hardware-assist", "bare-metal"])
    assert [(task.workload, task.count, task.configuration) for task in found] == [
        ("io", 7, BARE_METAL), ("io", 7, HARDWARE_ASSIST), ("syscall", 1000, BARE_METAL), ("syscall", 1000, HARDWARE_ASSIST),
    ]  # fmt: skip
    assert [Configuration.parse(str(task.configuration)) for task in found] == [task.configuration for task in found]


# -- what README says of the figures -------------------------------------------------------------------
@cache
def unit(where: str, name: str) -> tuple[float, float, float]:
    """Of one unit of the usual work: exits, modelled cycles, changes from one level to another."""
    (task,) = plan([name], [where])
    found = measure(task, _on, _no_clock)
    assert found.problem is None
    return found.work.exits / task.count, found.work.cycles / task.count, found.switches / task.count


def exits(where: str, name: str) -> float:
    return unit(where, name)[0]


def cycles(where: str, name: str) -> float:
    return unit(where, name)[1]


FIRST_GENERATION = str(Configuration.of("kvm", "hardware-assist", GENERATIONS[0]))
TRAPPING = [name for name in WORKLOADS if name != "compute"]


@pytest.mark.parametrize("name", TRAPPING)
def test_hardware_assist_exits_less_than_trap_and_emulate_on_everything(name: str) -> None:
    assert exits("kvm/hardware-assist", name) < exits("kvm/trap-and-emulate", name) / 3


@pytest.mark.parametrize("name", TRAPPING)
def test_binary_translation_costs_less_than_trap_and_emulate_on_kernel_work(name: str) -> None:
    share = 0.8 if name == "packet" else 0.7
    assert exits("kvm/binary-translation", name) < share * exits("kvm/trap-and-emulate", name)
    assert cycles("kvm/binary-translation", name) < share * cycles("kvm/trap-and-emulate", name)


@pytest.mark.parametrize("name", TRAPPING)
def test_paravirtualization_costs_less_than_trap_and_emulate_and_binary_translation(name: str) -> None:
    """But for a system call, which takes two exits either way."""
    ours = cycles("kvm/paravirtual", name)
    assert ours < cycles("kvm/trap-and-emulate", name) / 3
    assert ours < cycles("kvm/binary-translation", name) * (1.01 if name == "syscall" else 0.7)


def test_batches_beat_every_technique_on_page_tables_but_a_second_stage() -> None:
    assert exits("kvm/paravirtual", "pagefault") < exits(FIRST_GENERATION, "pagefault") / 1.9
    assert exits("kvm/paravirtual", "pagefault") < exits("kvm/binary-translation", "pagefault") / 1.9
    assert exits("kvm/hardware-assist", "pagefault") < exits("kvm/paravirtual", "pagefault") / 50


def test_type_2_pays_more_changes_of_level_for_a_device_than_type_1_but_not_than_a_driver_domain() -> None:
    for name in ("io", "disk", "packet"):
        for technique in ("trap-and-emulate", "hardware-assist"):
            kvm, vmware, xen = (unit(f"{stack}/{technique}", name)[2] for stack in ("kvm", "vmware", "xen"))
            assert vmware - kvm > 4
            assert vmware == pytest.approx(xen, rel=0.01)
        assert exits("cloud", name) < (1.1 if name == "packet" else 0.1), "who waits for a packet gives the hart away"


def test_type_2_on_a_framework_pays_for_timers_and_not_for_devices() -> None:
    """Its VMM is a process as kvm's device model is."""
    assert cycles("parallels/hardware-assist", "io") == pytest.approx(cycles("kvm/hardware-assist", "io"), rel=0.01)
    assert cycles("parallels/hardware-assist", "timer") > 1.5 * cycles("kvm/hardware-assist", "timer")


def test_the_first_generation_of_hardware_assist_beats_translation_but_where_page_tables_change() -> None:
    assert exits(FIRST_GENERATION, "pagefault") == pytest.approx(exits("kvm/binary-translation", "pagefault"), rel=0.1)
    for name in ("syscall", "switch", "io", "timer", "disk", "packet"):
        assert exits(FIRST_GENERATION, name) < exits("kvm/binary-translation", name) / 2


def test_two_of_five_exits_of_a_translated_page_fault_are_its_own_calls_of_the_vmm() -> None:
    """Without them the first generation of hardware would lose to it."""
    part = measure(plan(["pagefault"], ["kvm/binary-translation"])[0], _on, _no_clock).work
    calls = sum(row.count for row in part.rows if row.cause == Cause.ECALL_U and row.path[0] == "kernel_deprivileged")
    assert 0.4 < calls / part.exits < 0.5
    assert (part.exits - calls) / 1_000 < 0.7 * exits(FIRST_GENERATION, "pagefault")


def test_devices_by_hypercalls_beat_registers_under_hardware_assist_but_not_for_a_block() -> None:
    """One hypercall for a byte instead of two accesses, an event for a packet instead of an interrupt that takes three;
    but a request of the disk is one exit either way, and there are system calls to pay for."""
    for name in ("io", "packet"):
        assert cycles("kvm/paravirtual", name) < cycles("kvm/hardware-assist", name)
    assert (exits("kvm/paravirtual", "packet"), exits("kvm/hardware-assist", "packet")) == (4, 6)
    assert cycles("kvm/paravirtual", "disk") > 2 * cycles("kvm/hardware-assist", "disk")
    served = "kvm/hardware-assist+in-kernel-devices"
    assert cycles(served, "disk") < 0.7 * cycles("kvm/hardware-assist", "disk")


def test_fewer_exits_are_not_fewer_instructions() -> None:
    for technique, more in (("paravirtual", 1.1), ("binary-translation", 1.2)):
        ours, bare = (run(Configuration.parse(way), "pagefault", 1_000) for way in (f"kvm/{technique}", "bare-metal"))
        assert ours.work.instructions > more * bare.work.instructions


def test_a_miss_of_the_tlb_costs_three_references_through_shadow_tables_and_fourteen_through_two_stages() -> None:
    shadow, two_stages = (
        measure(plan(["pagefault"], [f"kvm/hardware-assist{switch}"])[0], _on, _no_clock)
        for switch in ("+shadow-paging", "")
    )
    assert shadow.walk_references / shadow.tlb_misses == pytest.approx(3, abs=0.1)
    assert two_stages.walk_references / two_stages.tlb_misses > 14
    assert two_stages.walk_references > 3 * shadow.walk_references


# -- lock-step -----------------------------------------------------------------------------------------
def test_two_techniques_part_at_the_first_system_call() -> None:
    found = difference(Together(TRAP_AND_EMULATE, HARDWARE_ASSIST, "syscall", 20, 0), _on)
    left, right = (np.frombuffer(side, RECORD) for side in (found.left, found.right))
    assert found.same == 0
    assert left[0]["pc"] == right[0]["pc"]
    assert left[0]["kind"] == right[0]["kind"] == Kind.SYSCALL
    assert (left[0]["disposition"], right[0]["disposition"]) == (Disposition.INJECTED, Disposition.HARDWARE)
    assert (found.apart, found.console) == (None, True)
    assert found.seen > 20
    later = difference(Together(TRAP_AND_EMULATE, HARDWARE_ASSIST, "syscall", 20, 5), _on)
    assert later.stretch == 5
    assert [len(np.frombuffer(side, RECORD)) for side in (later.left, later.right)] == [7, 1]


def test_the_same_configuration_never_parts() -> None:
    found = difference(Together(HARDWARE_ASSIST, HARDWARE_ASSIST, "pagefault", 20, 0), _on)
    assert (found.stretch, found.left, found.right, found.apart, found.console) == (None, b"", b"", None, True)


def test_guests_that_see_different_things_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the two does less work."""
    made = iter((20, 15))
    original = compare._Machine.__init__

    def with_other_count(self: compare._Machine, task: Task, tier: Tier) -> None:
        original(self, Task(task.configuration, task.workload, next(made)), tier)

    monkeypatch.setattr(compare._Machine, "__init__", with_other_count)
    found = difference(Together(BARE_METAL, HARDWARE_ASSIST, "syscall", 20, 0), _on)
    assert found.apart is not None
    assert not found.console
    assert found.seen == 16  # getpid's own pid, and the fifteen of the one that did less


def test_lock_step_can_be_cancelled() -> None:
    with pytest.raises(LabError, match="Cancelled"):
        difference(Together(BARE_METAL, HARDWARE_ASSIST, "syscall", 20, 0), lambda _: False)
