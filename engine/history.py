"""Going back and forth in time. One mechanism for all of it: restore the nearest checkpoint, run again.

    begin ●───●────────●──────●────●──●─●○─ ─ ─ ─ ─ end     ● checkpoint   ○ now   ▲ stamped input
          │      ▲          ▲      ▲          ▲
          └ base: taken at the last change of structure

A world is a function of its state and its inputs. So the history is a few checkpoints and every input with
the position at which it took effect; whatever lies between is computed again when somebody asks.

Invariants
- `checkpoints` ascend by position; the first is the base, at `begin`. `begin <= position <= end`.
- The state at a position has had every input that is stamped with that position or an earlier one, and no
  other.
- Running from a past position meets the same inputs again. A new input there drops everything after it.
- Checkpoints are thinned so that their distances grow with the distance from now: going back is cheap nearby
  and never impossible. `MAX_CHECKPOINTS` and `memory_bytes` bound them.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from engine.hypervisor.migration import Plan
from engine.trace.record import RECORD
from engine.trace.rings import Records, Trace
from engine.world import Ran, World

#: Between checkpoints on the way forward: steps, of which a trap that is recorded costs as many as TRAP_STEPS, since
#: most of those leave native code. To compute it again takes some 0.1 s.
INTERVAL_STEPS = 100_000_000
TRAP_STEPS = 5_000
#: So that an interval with many traps does not become much longer.
STRETCH_STEPS = 2_000_000
MAX_CHECKPOINTS = 24
MEMORY_BYTES = 96 << 20
#: Between two questions to the caller whether to go on.
SLICE_STEPS = 500_000
#: Checkpoints left behind before a past position that was asked for, so that the next step back finds one
#: near.
APPROACH_STEPS = (8_192, 1_024)
MAX_FUTURE_RECORDS = 4_000

#: Told how far a long replay is (0 to 1); returns False to give it up where it is.
Progress = Callable[[float], bool]


class Input(msgspec.Struct, frozen=True):
    """What came from outside: `migrate` began (and `cancel` ended) its migration, `data` was typed on the guest's
    console, or (if empty) `power` was switched."""

    position: int
    guest: int
    data: bytes = b""
    power: str = ""
    migrate: Plan | None = None
    cancel: bool = False

    def apply(self, world: World) -> None:
        if self.migrate is not None:
            world.migrate(self.guest, self.migrate)
        elif self.cancel:
            world.cancel_migration(self.guest)
        elif self.data:
            world.receive(self.guest, self.data)
        else:
            world.power(self.guest, self.power)


class Checkpoint(msgspec.Struct):
    """A world's state at `position`, after the first `inputs` inputs of the log."""

    position: int
    inputs: int
    state: dict[str, Any]
    own_bytes: int = 0  # an upper bound of what would be freed with it

    def __lt__(self, other: Checkpoint) -> bool:
        return self.position < other.position


@dataclass(slots=True)
class Player:
    """A world that runs along a log of inputs; `applied` of them have taken effect."""

    world: World
    inputs: list[Input]
    applied: int

    def run(self, steps: int, stop_after_traps: int | None = None) -> Ran:
        """As `World.run`; every input takes effect at its position, also those at the one where this ends."""
        world = self.world
        done = traps = virtual_ns = 0
        while True:
            while self.applied < len(self.inputs) and self.inputs[self.applied].position <= world.position:
                self.inputs[self.applied].apply(world)
                self.applied += 1
            if done >= steps or (stop_after_traps is not None and traps >= stop_after_traps):
                break
            limit = steps - done
            if self.applied < len(self.inputs):
                limit = min(limit, self.inputs[self.applied].position - world.position)
            ran = world.run(limit, None if stop_after_traps is None else stop_after_traps - traps)
            if not ran.steps:
                break
            done += ran.steps
            traps += ran.traps
            virtual_ns += ran.virtual_ns
        return Ran(done, traps, world.idle, virtual_ns)

    def restore(self, point: Checkpoint) -> None:
        self.world.load(point.state)
        self.applied = point.inputs


class History:
    """The past (and, after going back, the future) of `world`."""

    def __init__(self, world: World, memory_bytes: int = MEMORY_BYTES) -> None:
        self.world = world
        self.memory_bytes = memory_bytes
        self.rebase()

    def rebase(self) -> None:
        """Forget past and future: history begins here. After every change of structure."""
        self._now = Player(self.world, [], 0)
        self.checkpoints: list[Checkpoint] = []
        self.end = self.world.position
        self._future = np.empty(0, RECORD)
        self._checkpoint()

    @property
    def begin(self) -> int:
        return self.checkpoints[0].position

    # -- forward -------------------------------------------------------------------------------------
    def run(self, steps: int, stop_after_traps: int | None = None) -> Ran:
        """As `World.run`, meeting stamped inputs and leaving checkpoints on the way."""
        done = traps = virtual_ns = 0
        while True:
            if self._since_checkpoint >= INTERVAL_STEPS:
                self._checkpoint()
            limit = min(steps - done, STRETCH_STEPS)
            ran = self._now.run(limit, None if stop_after_traps is None else stop_after_traps - traps)
            self._since_checkpoint += ran.steps + TRAP_STEPS * ran.traps
            done += ran.steps
            traps += ran.traps
            virtual_ns += ran.virtual_ns
            stopped = stop_after_traps is not None and traps >= stop_after_traps
            if done >= steps or stopped or not ran.steps:
                break
        self.end = max(self.end, self.world.position)
        return Ran(done, traps, self.world.idle, virtual_ns)

    def submit(
        self, guest: int, *, data: bytes = b"", power: str = "", migrate: Plan | None = None, cancel: bool = False
    ) -> None:
        """Let an input take effect now. What was known of the time after now is dropped. Raises LabError, and nothing
        has changed, where the world refuses it."""
        item = Input(self.world.position, guest, data, power, migrate, cancel)
        item.apply(self.world)
        self.drop_future()
        self._now.inputs.append(item)
        self._now.applied += 1

    def drop_future(self) -> None:
        """Now becomes the end of history."""
        position = self.world.position
        del self._now.inputs[self._now.applied :]
        self.checkpoints = [point for point in self.checkpoints if point.position <= position]
        self.end = position
        self._future = np.empty(0, RECORD)

    # -- anywhere ------------------------------------------------------------------------------------
    def seek(self, position: int, progress: Progress | None = None) -> bool:
        """Go to `position` (begin .. end). False when `progress` gave up; the world is then somewhere on the
        way.
        """
        assert self.begin <= position <= self.end
        point = self._before(position)
        if position < self.world.position:
            self._keep_future()
        if not point.position <= self.world.position <= position:
            self._now.restore(point)
            self._since_checkpoint = 0
        origin = self.world.position
        stops = sorted({position, *(position - near for near in APPROACH_STEPS if position - near > origin)})
        for stop in stops:
            while self.world.position < stop:
                if progress is not None and not progress(
                    (self.world.position - origin) / (position - origin)
                ):
                    return False
                if not self.run(min(SLICE_STEPS, stop - self.world.position)).steps:
                    break
            if stop != position:
                self._checkpoint()
        self._now.run(0)
        return True

    def scratch(self, position: int, blank: World, progress: Progress | None = None) -> Player | None:
        """`blank` (a world of the same structure) brought to `position`, this history undisturbed. None when
        given up.
        """
        assert self.begin <= position <= self.end
        point = self._before(position)
        player = Player(blank, self._now.inputs, 0)
        player.restore(point)
        while blank.position < position:
            done = (blank.position - point.position) / (position - point.position)
            if progress is not None and not progress(done):
                return None
            if not player.run(min(SLICE_STEPS, position - blank.position)).steps:
                break
        player.run(0)
        return player

    # -- older records -------------------------------------------------------------------------------
    def oldest_record(self, guest: int, max_steps: int) -> int:
        """The sequence of the oldest record that `trace_with` can give without running more than `max_steps`
        at once.
        """
        oldest, later = self.world.trace.first(guest), self.world.position
        for point in reversed(self.checkpoints[: bisect_right(self.checkpoints, later, key=_position)]):
            if later - point.position > max_steps:
                break
            oldest, later = min(oldest, _trace_at(point, guest).first(guest)), point.position
        return oldest

    def trace_with(
        self, guest: int, sequence: int, blank: Callable[[], World], progress: Progress | None = None
    ) -> Trace | None:
        """A trace that ends with record `sequence` of `guest` or holds it: the present one, or that of a
        blank world run from the nearest checkpoint before. None when given up.
        """
        if sequence >= self.world.trace.first(guest):
            return self.world.trace
        past = self.checkpoints[: bisect_right(self.checkpoints, self.world.position, key=_position)]
        before = [point for point in past if _trace_at(point, guest).total(guest) < sequence]
        player = Player(blank(), self._now.inputs, 0)
        player.restore(before[-1] if before else past[0])
        trace, end = player.world.trace, self.world.position
        begin = player.world.position
        while (missing := sequence - trace.total(guest)) > 0 and player.world.position < end:
            if progress is not None and not progress((player.world.position - begin) / (end - begin)):
                return None
            steps = min(SLICE_STEPS, end - player.world.position)
            if not player.run(steps, stop_after_traps=missing).steps:
                break
        return trace

    def records(
        self, begin: int, end: int, blank: World, limit: int, progress: Progress | None = None
    ) -> Records | None:
        """Every record at positions from `begin` to before `end`, in the order in which they were written; once it
        is more than `limit`, some of the later ones may be missing. None when given up."""
        assert self.begin <= begin <= end <= self.end
        player = self.scratch(begin, blank, progress)
        if player is None:
            return None
        found: list[bytes] = []
        blank.trace.sink = found.append
        while blank.position < end and len(found) <= limit:
            if progress is not None and not progress((blank.position - begin) / (end - begin)):
                return None
            if not player.run(min(SLICE_STEPS, end - blank.position)).steps:
                break
        return np.frombuffer(b"".join(found), RECORD)

    def replay_steps(self, position: int) -> int:
        """How many steps `scratch` would have to run."""
        return position - self._before(position).position

    def before_instruction(self, guest: int, blank: World, progress: Progress | None = None) -> int | None:
        """The position just before the latest instruction that `guest` retired, None when there is none in
        this history.

        Its instruction count never falls along the history while its power is untouched, so the place is
        found
        by widening the window to the past and then narrowing it, on a scratch world. A count that was reset
        inside the window only makes the answer come from this side of the reset.
        """
        count = self.world.guest(guest).instructions
        high, width = self.world.position, 1
        while True:
            low = max(self.begin, high - width)
            player = self.scratch(low, blank, progress)
            if player is None:
                return None
            if blank.guest(guest).instructions != count:
                break
            if low == self.begin:
                return None
            high, width = low, width * 8
        state, applied = blank.save(), player.applied
        while high - low > 1:
            middle = (low + high) // 2
            player.run(middle - low)
            if blank.guest(guest).instructions != count:
                low, state, applied = middle, blank.save(), player.applied
            else:
                high = middle
                blank.load(state)
                player.applied = applied
        return low

    def future(self) -> Records:
        """Records known from before going back, of the time after now; ascending by position, sampled when
        many.
        """
        return self._future[self._future["position"] >= self.world.position]

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        """The present, the base, the checkpoint before now, and the log of inputs."""
        near = self._before(self.world.position)
        kept = [self.checkpoints[0]] if near is self.checkpoints[0] else [self.checkpoints[0], near]
        present = Checkpoint(self.world.position, self._now.applied, self.world.save())
        return {
            "end": self.end,
            "inputs": [msgspec.to_builtins(item, builtin_types=(bytes,)) for item in self._now.inputs],
            "checkpoints": [[point.position, point.inputs, point.state] for point in (*kept, present)],
        }

    @classmethod
    def load(cls, saved: dict[str, Any], world: World, memory_bytes: int = MEMORY_BYTES) -> History:
        """The history of `save`, with `world` (blank, of the same structure) brought to its present.

        Raises whatever the mistakes in a damaged `saved` lead to; the caller turns them into one refusal.
        """
        inputs = msgspec.convert(saved["inputs"], list[Input])
        points = [Checkpoint(position, count, state) for position, count, state in saved["checkpoints"]]
        self = cls.__new__(cls)
        self.world, self.memory_bytes = world, memory_bytes
        self._now = Player(world, inputs, 0)
        self._now.restore(points[-1])
        self.checkpoints = points[:-1]
        self._since_checkpoint = 0
        self.end = saved["end"]
        self._future = np.empty(0, RECORD)
        places = [point.position for point in points]
        stamps = [item.position for item in inputs]
        if places != sorted(places) or stamps != sorted(stamps) or world.position != places[-1]:
            raise ValueError("the positions of its history are out of order")
        if not places[-1] <= self.end or not all(0 <= point.inputs <= len(inputs) for point in points):
            raise ValueError("its history does not fit its log of inputs")
        return self

    # -- checkpoints ---------------------------------------------------------------------------------
    def checkpoint_before(self, position: int) -> int:
        """The latest position before one, which is not the history's begin, that is reached without running."""
        return self._before(position - 1).position

    def _before(self, position: int) -> Checkpoint:
        """The last checkpoint at or before `position`."""
        return self.checkpoints[bisect_right(self.checkpoints, position, key=_position) - 1]

    def _checkpoint(self) -> None:
        self._since_checkpoint = 0
        position = self.world.position
        before = self._before(position) if self.checkpoints else None
        if before is not None and before.position == position:
            return
        point = Checkpoint(position, self._now.applied, self.world.save())
        point.own_bytes = _not_shared(point.state, before.state if before is not None else None)
        insort(self.checkpoints, point)
        self._thin()

    def _thin(self) -> None:
        points, now = self.checkpoints, self.world.position

        def worth(index: int) -> float:
            gap = points[index + 1].position - points[index - 1].position
            return gap / (abs(points[index].position - now) + 1)

        while len(points) > 2 and (
            len(points) > MAX_CHECKPOINTS or sum(point.own_bytes for point in points) > self.memory_bytes
        ):
            index = min(range(1, len(points) - 1), key=worth)
            del points[index]
            points[index].own_bytes = _not_shared(points[index].state, points[index - 1].state)

    def _keep_future(self) -> None:
        latest = self.world.trace.latest(MAX_FUTURE_RECORDS)
        later = self._future[self._future["position"] > self.world.position]
        self._future = sampled(np.concatenate((latest, later)), MAX_FUTURE_RECORDS)


def _position(point: Checkpoint) -> int:
    return point.position


def _trace_at(point: Checkpoint, guest: int) -> Trace:
    """One guest's trace as it was at a checkpoint."""
    trace = Trace()
    for number, ring in point.state["trace"]["guests"]:
        if number == guest:
            trace.load_guest(guest, ring)
    return trace


def sampled(records: Records, limit: int) -> Records:
    """At most `limit` of `records`, evenly spread, always with the last one."""
    if len(records) <= limit:
        return records
    return records[np.linspace(0, len(records) - 1, limit).astype(np.intp)]


def _not_shared(state: Any, before: Any) -> int:
    """Bytes that a state holds and the one `before` it does not hold in the same place. What two states share,
    they share as the same object."""
    if state is before:
        return 0
    if isinstance(state, bytes):
        return len(state)
    if isinstance(state, dict):
        others = before if isinstance(before, dict) else {}
        if _is_memory(state):
            return sum(len(page) for number, page in state.items() if others.get(number) is not page)
        return sum(_not_shared(item, others.get(key)) for key, item in state.items())
    if isinstance(state, (list, tuple)) and state and not isinstance(state[-1], (int, str)):
        earlier = before if isinstance(before, (list, tuple)) else ()
        return sum(
            _not_shared(item, earlier[index] if index < len(earlier) else None) for index, item in enumerate(state)
        )
    return 0


def _is_memory(state: dict[Any, Any]) -> bool:
    """Page number -> content? There may be a hundred thousand of them."""
    number = next(iter(state), None)
    return isinstance(number, int) and isinstance(state[number], bytes)


def held_bytes(state: Any) -> int:
    """How much memory the byte strings in a state take, shared ones counted once."""
    return sum(_byte_strings(state).values())


def _byte_strings(state: Any) -> dict[int, int]:
    """Identity and size of every byte string in a state."""
    found: dict[int, int] = {}
    waiting = [state]
    for value in waiting:
        if isinstance(value, bytes):
            found[id(value)] = len(value)
        elif isinstance(value, dict):
            found |= {id(item): len(item) for item in value.values() if type(item) is bytes}
            waiting += [item for item in value.values() if type(item) is not bytes]
        elif isinstance(value, (list, tuple)) and value and not isinstance(value[-1], (int, str)):
            waiting += value
    return found
