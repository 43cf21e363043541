"""Where exits go on each stack, what that costs, and a host's own processes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest

from engine.commands import (
    CostsQuery,
    CostsSet,
    GuestCreate,
    HostLoad,
    LabError,
    LabUndo,
    ProfileId,
    TraceDetailQuery,
)
from engine.guests import load_image
from engine.hypervisor.costs import COSTS, CROSSINGS, DEFAULT_COSTS, Costs, Routes
from engine.hypervisor.host import LOAD_PERIOD_NS, Host
from engine.hypervisor.stacks import HYPERVISORS, STACKS, Configuration, Exit
from engine.lab import Lab
from engine.machine.loader import inspect
from engine.machine.tiers import Tier
from engine.trace.record import PATHS, ROUTES, Action, Disposition, Level
from engine.trace.rings import Trace
from tests.support.labs import guests_of, lab_of, run_to

WORK = "run=work syscall 5;work pagefault 5;work io 5;poweroff 3"
U, K, V = Level.USER, Level.KERNEL, Level.KERNEL_DEPRIVILEGED
H, HOST, DEVICE, DOMAIN, VMM = (
    Level.HYPERVISOR, Level.HOST_KERNEL, Level.DEVICE_MODEL, Level.DRIVER_DOMAIN, Level.VMM,
)  # fmt: skip
EVERY = [str(Configuration.of(stack, technique)) for stack in HYPERVISORS for technique in STACKS[stack].techniques]


def _host(
    configuration: str, arguments: str, tier: Tier = Tier.JIT, costs: Costs = DEFAULT_COSTS, load_percent: int = 0
) -> tuple[Host, bytearray]:
    shown = bytearray()
    trace = Trace(capacity=1 << 15)
    host = Host(
        1, 1, 64, Configuration.parse(configuration), trace, lambda _guest, data: shown.extend(data), tier=tier,
        costs=costs, load_percent=load_percent,
    )  # fmt: skip
    image = "ringos-pv" if host.configuration.technique == "paravirtual" else "ringos"
    host.add_guest(1, inspect(load_image(image), image), 1, 16, arguments)
    return host, shown


def _records(host: Host) -> np.ndarray[Any, np.dtype[np.void]]:
    records: np.ndarray[Any, np.dtype[np.void]] = host.trace.records(1, limit=1 << 15)
    assert host.trace.first(1) == 1
    return records


def _stations(records: np.ndarray[Any, np.dtype[np.void]], *actions: Action) -> set[tuple[Level, ...]]:
    """What lies between leaving the guest and going on, of the records with these actions that go on."""
    chosen = records[np.isin(records["action"], actions)]
    return {PATHS[record["path"]][1:-1] for record in chosen}


# -- data ------------------------------------------------------------------------------------------------
def test_every_route_of_every_stack_has_its_paths() -> None:
    for name in HYPERVISORS:
        for technique in STACKS[name].techniques:
            routes = Routes(Configuration.of(name, technique), DEFAULT_COSTS)
            for kind in Exit:
                assert routes.configuration.route(kind) in ROUTES
                for kernel in (K, V):
                    packed = routes.packed(kind, kernel)
                    for index, (origin, to) in enumerate((a, b) for a in (U, kernel) for b in (U, kernel)):
                        assert packed >> 32 + 8 * index & 0xFF == routes.ways[kind, origin, to].path


@pytest.mark.parametrize("profile", get_args(ProfileId))
def test_a_path_costs_the_sum_of_its_crossings_each_with_a_source(profile: ProfileId) -> None:
    for name in HYPERVISORS:
        routes = Routes(Configuration.of(name), Costs(profile))
        for path in PATHS:
            legs = routes.legs(path)
            assert all(leg.row.source and leg.row.profile == profile and leg.cycles > 0 for leg in legs)
            assert [(leg.begin, leg.end) for leg in legs] == [leg for leg in pairwise(path) if leg in CROSSINGS]


def test_what_was_published_comes_out_again() -> None:
    """C. Dall et al., ISCA 2016, table 2: a hypercall is the whole round trip, I/O latency that to the driver domain."""

    def cycles(profile: ProfileId, stack: str, kind: Exit) -> int:
        return Routes(Configuration.parse(f"{stack}/hardware-assist"), Costs(profile)).ways[kind, K, K].cycles

    hypercalls = [cycles(profile, stack, Exit.HYPERCALL) for profile in ("dall-arm-2016", "dall-x86-2016")
                  for stack in ("kvm", "xen")]  # fmt: skip
    assert hypercalls == [6_500, 376, 1_300, 1_228]
    for profile, out, back in (("dall-arm-2016", 16_491, 15_650), ("dall-x86-2016", 11_262, 10_050)):
        process = 2 * 576
        assert cycles(profile, "xen", Exit.DEVICE) == out + back + process


def test_figures_that_nobody_compared_say_so() -> None:
    assert {row.source.split(",")[0] for row in COSTS if row.verified} == {"linux-kernel mailing list"}
    assert all(row.note for row in COSTS if row.crossing not in ("exit", "entry"))


# -- where exits go --------------------------------------------------------------------------------------
DEVICES = (Action.MMIO_READ, Action.MMIO_WRITE)
FILLS = (Action.SHADOW_FILL, Action.DIRTY, Action.SECOND_STAGE_FILL, Action.DIRECT_FILL)
#: A paravirtual guest has no devices; what it asks a back end for is forwarded.
HYPERCALLS = (Action.HYPERCALL, Action.MULTICALL, Action.HYPERCALL_RETURN)
TAKEN = {
    "kvm": ((H, DEVICE, H), (H,), (H,)),
    "xen": ((H, DOMAIN, DEVICE, DOMAIN, H), (H,), (H,)),
    "vmware": ((H, HOST, DEVICE, HOST, H), (H,), (H,)),
    "parallels": ((HOST, VMM, HOST), (HOST,), (HOST, VMM, HOST)),
    "cloud": ((Level.HARDWARE,), (H,), (H,)),
}


@pytest.mark.parametrize("configuration", EVERY)
def test_exits_take_the_way_of_their_stack(configuration: str) -> None:
    host, shown = _host(configuration, WORK)
    host.run(3_000_000)
    assert host.guest(1).exit_status == 3
    records = _records(host)
    devices, fills, calls = TAKEN[host.configuration.stack]
    if host.configuration.technique == "paravirtual":
        forwarded = records["disposition"] == Disposition.FORWARDED
        assert _stations(records[forwarded], *HYPERCALLS) == {devices}
        assert _stations(records[~forwarded], *HYPERCALLS) == {calls}
    else:
        assert _stations(records, *DEVICES) == {devices}
        assert _stations(records, Action.SBI_CALL) == {calls}
    assert _stations(records, *FILLS) == {fills}
    exits = [PATHS[record["path"]][1] != Level.HARDWARE for record in records]
    assert host.guest(1).exits == sum(exits)
    for record in records:
        assert record["cost"] in (0, sum(leg.cycles for leg in host.routes.legs(PATHS[record["path"]])))
    if host.configuration.stack == "cloud":
        cards = records[np.isin(records["action"], DEVICES)]
        assert set(cards["disposition"]) == {Disposition.HARDWARE}
        assert not cards["cost"].any()
    assert b"io" in shown


def test_a_type_2_host_pays_more_crossings_for_each_device_access_than_a_type_1() -> None:
    def crossings(stack: str) -> int:
        path = Routes(Configuration.parse(f"{stack}/hardware-assist"), DEFAULT_COSTS).ways[Exit.DEVICE, K, K].path
        return len(PATHS[path]) - 1

    assert crossings("cloud") < crossings("kvm") == crossings("parallels") < crossings("vmware") == crossings("xen")


@pytest.mark.parametrize("configuration", ["parallels/trap-and-emulate", "vmware/trap-and-emulate"])
def test_native_code_takes_the_same_ways_as_the_reference(configuration: str) -> None:
    costs = Costs("dall-arm-2016", {"exit": 777})
    hashes = set()
    for tier in (Tier.REFERENCE, Tier.JIT):
        host, _ = _host(configuration, "run=work syscall 100;poweroff 3", tier, costs, load_percent=20)
        host.run(120_000)
        hashes.add(host.trace.hash())
    assert len(hashes) == 1


def test_a_kernel_can_serve_devices_itself_but_the_console() -> None:
    host, _ = _host("kvm/hardware-assist+in-kernel-devices", WORK)
    routes = host.routes
    assert PATHS[routes.ways[Exit.KERNEL_DEVICE, K, K].path] == (K, H, K)
    host.run(3_000_000)
    seen = _stations(_records(host), *DEVICES)
    assert (H, DEVICE, H) in seen  # the UART
    with pytest.raises(LabError, match="means nothing"):
        Configuration.parse("xen+in-kernel-devices")


# -- a host's own processes ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("configuration", "calls"), [("vmware/hardware-assist", 20_000), ("parallels/trap-and-emulate", 2_000)]
)
def test_a_type_2_host_s_processes_take_what_they_are_given(configuration: str, calls: int) -> None:
    work = f"run=work syscall {calls};poweroff 3"
    alone, _ = _host(configuration, work)
    alone.run(30_000_000)
    beside, _ = _host(configuration, work, load_percent=40)
    beside.run(30_000_000)
    assert alone.guest(1).exit_status == beside.guest(1).exit_status == 3
    records = _records(beside)
    preempted = records[(records["action"] == Action.PREEMPT) & (records["a"] == 0)]
    periods = beside.time // LOAD_PERIOD_NS
    assert periods >= 3
    assert periods - 1 <= len(preempted) <= periods + 1
    assert beside.time == pytest.approx(alone.time / 0.6, rel=0.15)
    assert beside.guest(1).instructions >= alone.guest(1).instructions


def test_no_guest_no_processes() -> None:
    lab = lab_of([], configuration="vmware")
    lab.apply(HostLoad(1, 50))
    assert lab.run(1000).idle
    kvm = lab_of([], configuration="kvm")
    with pytest.raises(LabError, match="no operating system of its own"):
        kvm.apply(HostLoad(1, 50))


def test_a_loaded_host_is_the_same_however_its_running_is_cut() -> None:
    lab, again = (lab_of(["run=work switch 1000", "run=demo"], configuration="vmware", harts=2) for _ in range(2))
    for one in (lab, again):
        one.apply(HostLoad(1, 30))
    run_to(lab, 300_000)
    for position in range(0, 300_001, 7_919):
        run_to(again, position)
    again = Lab.load(again.save())
    run_to(again, 300_000)
    assert again.trace_hash() == lab.trace_hash()


# -- a lab's costs ---------------------------------------------------------------------------------------
def test_costs_are_changed_kept_and_taken_back() -> None:
    lab = lab_of(["run=work syscall 1000"])
    run_to(lab, 100_000)
    [guest] = guests_of(lab)

    def latest_cost() -> int:
        return int(np.frombuffer(lab.keyframe()["records"], dtype=lab.world.trace.latest(1).dtype)[-1]["cost"])

    assert latest_cost() == 1186 + 937
    lab.apply(CostsSet("dall-arm-2016", {"exit": 10}))
    run_to(lab, 110_000)
    assert latest_cost() == 10 + 3_250
    answer = lab.query(CostsQuery())
    assert (answer["profile"], answer["overrides"]) == ("dall-arm-2016", {"exit": 10})
    assert answer["profiles"] == list(get_args(ProfileId))
    assert {row["crossing"] for row in answer["rows"]} == set(CROSSINGS.values())
    detail = lab.query(TraceDetailQuery(guest, lab.world.trace.total(guest)))
    assert [leg["note"] for leg in detail["crossings"]] == ["overridden", "half"]
    again = Lab.load(lab.save())
    for one in (lab, again):
        run_to(one, 130_000)
    assert again.trace_hash() == lab.trace_hash()
    assert again.document()["costs"] == {"profile": "dall-arm-2016", "overrides": {"exit": 10}}
    lab.apply(LabUndo())
    run_to(lab, 140_000)
    assert latest_cost() == 1186 + 937


def test_a_new_guest_on_an_expensive_host_pays() -> None:
    lab = lab_of([], configuration="parallels/hardware-assist")
    lab.apply(CostsSet("dall-x86-2016", {"to-user-space": 100_000}))
    lab.apply(GuestCreate(1, "ringos", arguments="run=demo"))
    lab.run(20_000)
    costs = lab.world.trace.latest(100)["cost"]
    assert costs.max() == 650 + 100_000 + 576 + 650
