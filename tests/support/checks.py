"""The static checks: `make check` runs all, `make test` runs them as tests, pre-commit runs them one by one.

python -m tests.support.checks [NAME...]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The top of the checkout; every check runs there."""

_SCRIPTS = Path(sys.executable).parent
_TSC = ["node", "node_modules/typescript/bin/tsc"]

CHECKS: dict[str, list[str]] = {
    "ruff": [sys.executable, "-m", "ruff", "check", "."],
    "mypy": [sys.executable, "-m", "mypy"],
    "imports": [str(_SCRIPTS / "lint-imports")],
    "tsc-page": [*_TSC, "--checkJs", "--noEmit", "-p", "."],
    "tsc-node": [*_TSC, "--checkJs", "--noEmit", "-p", "tests"],
}
"""Name of a check -> its command line."""


def main(names: list[str]) -> int:
    """Run the named checks, or all; the exit status is how many failed."""
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"No such check: {', '.join(unknown)}. There are: {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or CHECKS:
        print(f"== {name}", flush=True)
        if subprocess.run(CHECKS[name], cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
