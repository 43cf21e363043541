"""Labs that are cut, saved and travelled at random: `python -m tests.fuzz.labs --count 100 --seed 0`.

A case is a lab of up to three hosts with guests that compute, sleep and talk to each other, and inputs at random
positions. It runs once straight ahead, and then again in pieces: of any length, by traps, through a save and a load, by
way of the past. Records and consoles must be the same. Prints the seeds of labs that differ.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import NamedTuple

from engine.commands import ConsoleInput, GuestCreate, GuestPower, HostSharing, ImageAssemble, LabError, LabSeek
from engine.lab import Lab
from tests.fuzz import asked
from tests.support.labs import console, guests_of, host_create

CHATTER = (Path(__file__).parents[1] / "support" / "chatter.s").read_text()
STEPS = 350_000
_RINGOS = ("run=demo", "run=work switch 100", "")


class Input(NamedTuple):
    """What comes from outside once the lab is at `position`, or sleeps before it."""

    position: int
    guest: int
    what: str

    def apply(self, lab: Lab) -> None:
        """Nobody types to a guest that is off."""
        try:
            if self.what == "type":
                lab.apply(ConsoleInput(self.guest, b"ps\r"))
            else:
                lab.apply(GuestPower(self.guest, self.what))  # type: ignore[arg-type]
        except LabError as error:
            if error.problem.key != "guest-not-running":
                raise


class End(NamedTuple):
    """Where a run came to: whatever is seen of it from outside."""

    trace: str
    position: int
    consoles: dict[int, bytes]


def make(seed: int) -> tuple[Lab, list[Input]]:
    """The lab of a case, paused at its begin, and its inputs."""
    dice = random.Random(seed)
    lab = Lab.new("fuzz")
    chatter = lab.apply(ImageAssemble("chatter", CHATTER))["image"]
    for _ in range(dice.randrange(1, 4)):
        bare = dice.random() < 0.5
        stack = "bare-metal" if bare else "trap-and-emulate"
        host = lab.apply(host_create(stack, harts=dice.choice((1, 2, 3)), memory_mib=128))["host"]
        for _ in range(1 if bare else dice.randrange(1, 4)):
            if dice.random() < 0.3:
                lab.apply(GuestCreate(host, "ringos", arguments=dice.choice(_RINGOS)))
            else:
                lab.apply(GuestCreate(host, chatter, memory_mib=4))
        if not bare and dice.random() < 0.5:
            lab.apply(HostSharing(host, True))
    guests = guests_of(lab)
    actions = ("type", "off", "on", "reset")
    count = dice.randrange(6)
    return lab, sorted(Input(dice.randrange(STEPS), dice.choice(guests), dice.choice(actions)) for _ in range(count))


def run(seed: int, cut: int) -> End:
    """Run a case, in one go (`cut` 0) or in the pieces that `cut` chooses."""
    lab, inputs = make(seed)
    dice = random.Random(f"{seed} {cut}")
    while lab.position < STEPS:
        while inputs and inputs[0].position <= lab.position:
            inputs.pop(0).apply(lab)
        limit = min([STEPS, *(item.position for item in inputs)]) - lab.position
        if cut:
            limit = min(limit, dice.choice((1, 7, 300, 5_000, 50_000)))
        if lab.run(limit, dice.choice((None, None, 1, 2)) if cut else None).steps:
            lab = _disturb(lab, dice) if cut else lab
        elif inputs:
            inputs.pop(0).apply(lab)
        else:
            break
    return End(lab.trace_hash(), lab.position, {guest: console(lab, guest) for guest in guests_of(lab)})


def _disturb(lab: Lab, dice: random.Random) -> Lab:
    """What must not matter: another process, a look at the past."""
    if dice.random() < 0.05:
        lab = Lab.load(lab.save())
    if dice.random() < 0.03:
        now = lab.position
        lab.apply(LabSeek(dice.randrange(max(0, now - 60_000), now)))
        lab.apply(LabSeek(now))
    return lab


def main() -> int:
    """The exit status is 1 when a lab differed."""
    count, first = asked("labs", __doc__, 100, 0)
    differing = [
        seed for seed in range(first, first + count) if run(seed, 0) != run(seed, 1)
    ]
    sys.stdout.write("".join(f"seed {seed} differs\n" for seed in differing))
    sys.stdout.write(f"{count} labs, {len(differing)} differ\n")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
