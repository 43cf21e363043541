"""Longer runs of the differential tests: `python -m tests.conformance --count 500 --seed 1000 [scenario
...]`.

Prints each difference with the program's name; `--keep FOLDER` writes the source of every program that
differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine.isa.assembler import assemble
from tests.conformance.compare import differences
from tests.conformance.programs import SCENARIOS, case
from tests.conformance.sides import run_in_vm, run_natively, run_on_qemu, run_on_reference


def main() -> int:
    """The exit status is 1 when something differed."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument(
        "scenarios", nargs="*", metavar="scenario", help=f"of {', '.join(SCENARIOS)}; all by default"
    )
    parser.add_argument("--count", type=int, default=100, help="programs for each scenario (100)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--keep", type=Path, help="folder for the sources of programs that differ")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    differing = 0
    for name in arguments.scenarios or SCENARIOS:
        for seed in range(arguments.seed, arguments.seed + arguments.count):
            program_case = case(name, seed)
            program = assemble(program_case.source, program_case.name)
            ours = run_on_reference(program)
            theirs = run_on_qemu(program, SCENARIOS[name].interrupts)
            found = differences(program, theirs, ours)
            found += differences(program, run_natively(program), ours, "the native tiers")
            found += differences(program, run_in_vm(program), ours, "the VM")
            if found:
                differing += 1
                sys.stdout.write(f"{program_case.name}\n  " + "\n  ".join(found) + "\n")
                if arguments.keep:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / f"{program_case.name}.s").write_text(program_case.source)
        sys.stdout.write(f"{name}: {arguments.count} programs\n")
        sys.stdout.flush()
    sys.stdout.write(f"{differing} differ\n")
    return int(differing > 0)


sys.exit(main())
