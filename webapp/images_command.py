"""`ringside images`: the library of large images (operating systems) that every lab of this machine shares.

    ringside images add debian                          fetch Debian's kernel and BusyBox
    ringside images add NAME --kernel F --initrd F      files of one's own (--disk F: with a disk)
    ringside images list, ringside images remove NAME

A running server notices what is added. `--progress json` writes one JSON object a line on standard output:
that is how the server, which runs this command as a process of its own, learns how far it is (webapp.images).
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from engine.commands import LabError
from engine.library import manifests
from engine.terminal import file_name, plain_text, read_file
from webapp import debian, library
from webapp.debian import Progress
from webapp.library import NewImage

STAGES = {
    "lists": "reading Debian's package lists",
    "download": "downloading",
    "unpack": "unpacking",
    "build": "building the initial RAM disk",
    "keep": "keeping the image",
}
MIB = 1 << 20
_EVERY_SECONDS = 0.1


def add_commands(commands: Any, data: Path) -> None:
    """Add `images` to the program's commands; `data` is the folder used unless --data names another."""
    images = commands.add_parser(
        "images",
        help="add, list and remove operating systems to run",
        description="Operating systems that every lab of this machine can run. A running server notices.",
    )
    actions = images.add_subparsers(title="actions", required=True, metavar="ACTION")
    add = actions.add_parser(
        "add",
        help="add one: debian, or files of your own",
        description="Fetch Debian (its unmodified kernel, BusyBox for a shell), or add files of your own.",
        epilog="examples:\n  ringside images add debian\n"
        "  ringside images add debian --deb linux-image-6.12.deb busybox-static.deb\n"
        "  ringside images add mine --kernel Image --initrd initrd.cpio --append console=ttyS0\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.add_argument("name", metavar="NAME", help="debian, or what to call files of your own")
    add.add_argument("--kernel", type=file_name, metavar="FILE", help="a RISC-V Image, ELF file or flat binary")
    add.add_argument("--initrd", type=file_name, metavar="FILE", help="its initial RAM disk")
    add.add_argument(
        "--firmware", type=file_name, metavar="FILE", help="M-mode firmware below it, such as OpenSBI's fw_dynamic.bin"
    )
    add.add_argument("--disk", type=file_name, metavar="FILE", help="its disk's plain content, which no guest changes")
    add.add_argument("--append", type=plain_text, metavar="ARGS", help=f"its arguments (debian: {debian.ARGUMENTS})")
    add.add_argument(
        "--memory",
        type=int,
        metavar="MIB",
        help=f"MiB of memory that guests get (default: {debian.MEMORY_MIB})",
    )
    add.add_argument("--title", type=plain_text, metavar="TEXT", help="what it is, in a line")
    add.add_argument(
        "--deb",
        type=file_name,
        metavar="FILE",
        nargs="+",
        help="Debian packages of a kernel and busybox-static, instead of fetching",
    )
    add.add_argument("--progress", choices=("text", "json"), default="text", help=argparse.SUPPRESS)
    add.set_defaults(func=_reporting(_add))
    listed = actions.add_parser("list", help="what there is")
    listed.set_defaults(func=_reporting(_list))
    remove = actions.add_parser("remove", help="remove one; labs that use it cannot be opened without it")
    remove.add_argument("name", metavar="NAME")
    remove.set_defaults(func=_reporting(_remove))
    for action in (add, listed, remove):
        action.add_argument(
            "--data", type=Path, default=data, help="the server's data folder (RINGSIDE_DATA; %(default)s)"
        )


class _Reporter:
    """Progress on a terminal's one line, or as JSON lines."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._stage = ""
        self._next = 0.0
        self._wide = sys.stderr.isatty()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage == self._stage and now < self._next and done != total:
            return
        new, self._stage, self._next = stage != self._stage, stage, now + _EVERY_SECONDS
        if self._json:
            self.say({"stage": stage, "done": done, "total": total})
        elif self._wide or new:
            amount = f" {done / MIB:.1f} of {total / MIB:.1f} MiB ({100 * done // total} %)" if total else ""
            end = "" if self._wide else "\n"
            sys.stderr.write(f"{_CLEAR if self._wide else ''}{STAGES[stage]}{amount}{end}")
            sys.stderr.flush()

    def say(self, content: dict[str, Any]) -> None:
        sys.stdout.write(msgspec.json.encode(content).decode() + "\n")
        sys.stdout.flush()

    def finished(self) -> None:
        if self._wide and self._stage and not self._json:
            sys.stderr.write(_CLEAR)


_CLEAR = "\r\x1b[K"


def _add(options: argparse.Namespace) -> None:
    report = _Reporter(options.progress == "json")
    try:
        image = _prepared(options, report)
        report("keep", 0, 0)
        manifest = library.add(library.library_folder(options.data), image)
    except LabError as error:
        report.finished()
        if options.progress != "json":
            raise
        report.say({"error": msgspec.to_builtins(error.problem)})
        sys.exit(1)
    report.finished()
    if options.progress == "json":
        report.say({"added": manifest.name, "title": manifest.title})
    else:
        print(f"{manifest.name}: {manifest.title}. Run it: ringside run {manifest.name}, or on the page.")


def _prepared(options: argparse.Namespace, progress: Progress) -> NewImage:
    files = (options.kernel, options.initrd, options.firmware, options.disk)
    if options.deb:
        if any(files):
            raise LabError("images-options", "Give packages (--deb) or files (--kernel, --initrd), not both.")
        packages = {Path(path).name: read_file(path) for path in options.deb}
        image = debian.prepare(packages, progress)
    elif options.kernel is not None:
        kernel, initrd, firmware, disk = (
            None if path is None else read_file(path) for path in files
        )
        assert kernel is not None
        image = NewImage(options.name, Path(options.kernel).name[:80], kernel, initrd, firmware, disk)
    elif options.name == debian.NAME and not any(files):
        image = debian.fetch(progress)
    else:
        raise LabError("images-options", f"To add {options.name}, name its kernel: --kernel FILE.")
    changes = {
        "name": options.name,
        "title": options.title,
        "arguments": options.append,
        "memory_mib": options.memory,
    }
    return replace(image, **{key: value for key, value in changes.items() if value is not None})


def _list(options: argparse.Namespace) -> None:
    folder = library.library_folder(options.data)
    found = manifests(folder)
    if not found:
        print(f"There is no image in {folder}. Add one: ringside images add debian")
    for manifest in found:
        size = library.size_of(folder, manifest) / MIB
        print(f"{manifest.name:12}  {size:6.1f} MiB  {manifest.memory_mib:4} MiB of memory  {manifest.title}")


def _remove(options: argparse.Namespace) -> None:
    if not library.remove(library.library_folder(options.data), options.name):
        raise LabError("no-such-image", f"There is no image {options.name}.", image=options.name)


def _reporting(action: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    """`action`, with a refusal said in a sentence and ended by status 1; ended by a signal, it cleans up."""

    def run(options: argparse.Namespace) -> int:
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(_TERMINATED))
        try:
            action(options)
        except LabError as error:
            print(f"ringside: {error.problem.message}", file=sys.stderr)
            return 1
        except BrokenPipeError:
            raise
        except OSError as error:
            print(f"ringside: {error.filename or options.data}: {error.strerror}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return _TERMINATED
        return 0

    return run


_TERMINATED = 130
