"""Debian's unmodified kernel and its BusyBox, fetched from Debian's registry and made into an image.

    apt (its own state)  lists ── download ── unpack the packages ── build the initial RAM disk ── keep
                         └─ signed by Debian's keys, from the mirror that this machine's apt already uses

apt gets a state folder of its own, so that the machine's sources, architectures and installed packages stay
as they are, and it needs no rights: it only downloads. Debian's own signatures vouch for what arrives.
Nothing of it is distributed with Ringside: it is fetched when somebody asks for it, and stays in the server's
data folder.

Everything blocks: the command `ringside images add` runs it, and the server runs that command
(webapp.images).
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.commands import LabError
from engine.linux import deb, initrd, modules
from webapp.library import NewImage

#: The first whose lists are whole: in the hours after a new point release a mirror may hold those of trixie in parts.
SUITES = ("trixie", "forky")
NAME = "debian"
KERNEL, BUSYBOX = "linux-image-riscv64", "busybox-static"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: earlycon: the kernel speaks from its first moment, through SBI, and through the UART's own driver later. Without
#: the tests of its cryptography it is at the shell in half the time.
ARGUMENTS = "console=ttyS0 earlycon=sbi cryptomgr.notests"
MEMORY_MIB = 256
_KERNEL_FILE = re.compile(r"(?:boot/vmlinu[xz]-|usr/lib/modules/(?=[^/]+/vmlinuz$))([^/]+)(?:/vmlinuz)?")

#: Told the stage ("lists", "download", "unpack", "build"), bytes done and bytes in all (0: not known).
Progress = Callable[[str, int, int], None]


def fetch(progress: Progress) -> NewImage:
    """Download and prepare the image. Raises LabError "fetch-..." with what to do about it."""
    for program in ("apt-get", "apt-cache"):
        if shutil.which(program) is None:
            raise LabError(
                "fetch-no-apt",
                "Debian's packages are fetched with apt, which this machine does not have. Fetch a riscv64 "
                "kernel and initial RAM disk elsewhere and add the files: "
                "ringside images add NAME --kernel FILE --initrd FILE",
            )
    if not KEYRING.is_file():
        raise LabError(
            "fetch-no-keys",
            f"Debian's signing keys are not on this machine ({KEYRING}). Install them: "
            "apt-get install debian-archive-keyring",
            path=str(KEYRING),
        )
    with tempfile.TemporaryDirectory(prefix="ringside-debian-") as folder:
        state = _State(Path(folder), progress)
        state.update()
        packages = state.download(*state.kernel(), BUSYBOX)
        return prepare(packages, progress)


def prepare(packages: dict[str, bytes], progress: Progress) -> NewImage:
    """An image from a kernel's package and BusyBox's, given as file name -> content. Raises LabError."""
    total = sum(map(len, packages.values()))
    done = 0
    kernel = busybox = None
    release = ""
    drivers: dict[str, tuple[str, bytes]] = {}
    for name, package in packages.items():
        progress("unpack", done, total)
        for path, content in deb.files(package, name, _wanted):
            found = _KERNEL_FILE.fullmatch(path)
            if found is not None:
                kernel, release = content, found[1]
            elif path.endswith((modules.SUFFIX, modules.PACKED_SUFFIX)):
                drivers[modules.module_name(path)] = (path, content)
            else:
                busybox = content
        done += len(package)
    progress("build", 0, 0)
    if kernel is None or busybox is None:
        missing = "a kernel" if kernel is None else "BusyBox"
        raise LabError(
            "fetch-incomplete",
            f"There is no {missing} in what was fetched ({', '.join(packages)}).",
            missing=missing,
            names=", ".join(packages),
        )
    disk = initrd.build(busybox, release, modules.closure(initrd.WANTED_MODULES, drivers, initrd.RARE_MODULES))
    version, _, debian = release.partition("+deb")
    title = f"Debian {debian.partition('-')[0]}".strip() + f", Linux {version}, BusyBox"
    return NewImage(NAME, title, kernel, disk, arguments=ARGUMENTS, memory_mib=MEMORY_MIB)


def _wanted(path: str) -> bool:
    return _KERNEL_FILE.fullmatch(path) is not None or path.endswith(
        ("bin/busybox", modules.SUFFIX, modules.PACKED_SUFFIX)
    )


class _State:
    """An apt of our own in `folder`."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress
        for name in ("parts", "state/lists/partial", "cache/archives/partial", "packages"):
            (folder / name).mkdir(parents=True)
        (folder / "state" / "status").touch()
        configuration = folder / "apt.conf"
        configuration.write_text(
            f"""\
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "{folder}/parts";
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
APT::Architecture "riscv64";
APT::Architectures {{ "riscv64"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
"""
        )
        self._environment = {**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C.UTF-8"}

    def update(self) -> None:
        """Take the lists of the first of `SUITES` that one of the machine's own mirrors has whole."""
        self._progress("lists", 0, 0)
        reasons = []
        for suite, mirror in itertools.product(SUITES, mirrors()):
            source = f"deb [arch=riscv64 signed-by={KEYRING}] {mirror} {suite} main\n"
            (self._folder / "sources.list").write_text(source)
            done = self._run("apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
            if done.returncode == 0:
                return
            reasons.append(_reason(done.stderr))
        raise _unreachable(reasons[0] if reasons else "apt has no Debian mirror configured")

    def kernel(self) -> list[str]:
        """The packages that Debian's riscv64 kernel and its modules are in now: one, or since forky several."""
        image = self._depends(KERNEL, r"linux-image-\S+")
        if not image:
            raise _unreachable(f"{KERNEL} names no kernel")
        return image + self._depends(image[0], r"linux-(?:binary|modules)-\S+")

    def _depends(self, package: str, kind: str) -> list[str]:
        done = self._run("apt-cache", "depends", "--important", package)
        if done.returncode:
            raise _unreachable(_reason(done.stderr))
        return re.findall(rf"Depends: ({kind})", done.stdout)

    def download(self, *names: str) -> dict[str, bytes]:
        """The packages' files by name."""
        listed = self._run("apt-get", "-q", "--print-uris", "download", *names)
        sizes = [int(size) for size in re.findall(r"^'\S+' \S+ (\d+) ", listed.stdout, re.MULTILINE)]
        total = sum(sizes)
        if len(sizes) != len(names):
            raise _unreachable(_reason(listed.stderr) or "a package has no address")
        home = self._folder / "packages"
        with self._started("apt-get", "-q", "download", *names) as process:
            while process.poll() is None:
                arrived = _bytes_below(home)
                self._progress("download", min(arrived, total), total)
                try:
                    process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
            error = process.stderr.read() if process.stderr is not None else ""
        if process.returncode:
            raise _unreachable(_reason(error))
        self._progress("download", total, total)
        return {path.name: path.read_bytes() for path in sorted(home.glob("*.deb"))}

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self._folder / "packages",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @contextmanager
    def _started(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            command,
            cwd=self._folder / "packages",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()


def mirrors() -> list[str]:
    """The archives that this machine's apt takes packages from, those for security updates last."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = dict.fromkeys(line.strip() for line in done.stdout.splitlines() if line.strip())
    return sorted(found, key=lambda mirror: "security" in mirror)


def _bytes_below(folder: Path) -> int:
    """The size of all files below `folder`, also of those that are still growing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _reason(text: str) -> str:
    """apt's own words for what went wrong: its first error."""
    errors = [line[2:].strip().partition(" [IP:")[0] for line in text.splitlines() if line.startswith(("E:", "W:"))]
    return (errors[0] if errors else text.strip().rpartition("\n")[2]).rstrip(".")


def _unreachable(reason: str) -> LabError:
    return LabError(
        "fetch-failed",
        f"Debian's packages could not be fetched: {reason or 'apt did not say why'}. Look at this machine's "
        "network and its apt sources, then try again; or add files of your own: "
        "ringside images add NAME --kernel FILE --initrd FILE",
        reason=reason,
    )
