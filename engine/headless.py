"""`ringside run`, `asm` and `disasm`: guests in a terminal, for scripts, graders and tests.

The guest's console is standard output; everything Ringside itself says goes to standard error. A run is
deterministic: the same image, options and `--input` give the same output, statistics and trace.
`add_commands` adds the commands to an `argparse` parser; each sets `func`, which takes the parsed arguments
and returns the exit status.
"""

from __future__ import annotations

import argparse
import mmap
import os
import select
import shlex
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, get_args

from engine import guests, snapshot
from engine.commands import LabError, ProfileId
from engine.debugger import Debugger
from engine.document import GuestRow, HostRow, ImageRow
from engine.door import Door
from engine.gdb import Stub
from engine.hypervisor.costs import DEFAULT_COSTS, Costs
from engine.hypervisor.stacks import BARE_METAL, EVERY_TECHNIQUE, STACKS, SWITCHES, Configuration
from engine.images import Images, builtin_rows, digest
from engine.isa.assembler import AssemblyError, assemble
from engine.isa.decoder import length_of
from engine.isa.disassembler import disassemble
from engine.isa.program import Program, instructions
from engine.library import Library
from engine.machine.loader import Content, LoadedImage, check_fits, inspect, with_disk, with_firmware, with_initrd
from engine.machine.native import objects
from engine.machine.state import NEVER
from engine.machine.tiers import Tier
from engine.snapshot import About, Machine, Snapshot
from engine.terminal import check_writable, file_name, plain_text, read_file
from engine.trace.chrome import ChromeSink
from engine.trace.export import JsonLinesSink
from engine.trace.record import PATHS, Disposition, Kind, Level, cause_name
from engine.trace.rings import Trace
from engine.world import Scrollback

if TYPE_CHECKING:
    from engine.hypervisor.host import Host

HOST = GUEST = 1
#: Steps between two looks at what the guest printed and does. They double while it does nothing but compute.
SLICE_STEPS = 50_000
MAX_SLICE_STEPS = 1_600_000
#: Steps for each trap above which a guest only computes.
COMPUTES_STEPS = 10_000
#: A guest that polls never sleeps: so long after one line of --input it gets the next.
PATIENCE_STEPS = 1_000_000
DEFAULT_MEMORY_MIB = 64
LINUX_MEMORY_MIB = 256
#: A guest that sleeps so long, with its console open, waits for input; the clock skips what it sleeps.
WAITS_NS = 200_000_000
#: It has slept so long without a word, and there is no more input: nothing will come of it.
SLEPT_NS = 120_000_000_000
#: Where OpenSBI for a machine that describes itself is: Debian's package, and the copy that comes with QEMU.
OPENSBI = (
    "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin",
    "/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin",
)
#: A VM's host has room for the hypervisor and its shadow tables; memory that nobody touches costs nothing.
HOST_MEMORY_FACTOR = 2
GDB_ADDRESS = "127.0.0.1"
QUIT_PREFIX, QUIT_KEY = 0x01, ord("x")


class Status(IntEnum):
    """Exit statuses of `ringside run` that are not the guest's own."""

    WAITS = 123
    LIMIT = 124
    DIED = 125
    REFUSED = 126
    QUIT = 130


STATUS_HELP = {
    Status.WAITS: "the guest waits for input, and there is no more",
    Status.LIMIT: "--max-instructions was reached",
    Status.DIED: "the guest is dead: it faults for ever or jumped to nowhere",
    Status.REFUSED: "the image, a file or an option cannot be used; nothing ran",
    Status.QUIT: "you ended it (Ctrl-A x, or Ctrl-C)",
}

RUN_EPILOG = f"""\
exit status:
  0 to 255  the guest's own (test finisher, SBI system reset, tohost; above 255 counts as 255)
{chr(10).join(f"  {status.value:<8}  {text}" for status, text in STATUS_HELP.items())}

at a terminal:
  what you type goes to the guest; Ctrl-A x ends the run, Ctrl-A Ctrl-A types a Ctrl-A.
  A guest that sleeps does so in real time there; with --input or without a terminal it wakes at once.

examples:
  ringside run ringos                                    the teaching kernel, in a VM
  ringside run ringos --on bare-metal --append ''        the same on the bare machine, with its shell
  ringside run kernel.elf --harts 2 --memory 128M --max-instructions 5000000
  ringside run program.s --trace traps.jsonl --stats     assemble, run, keep every trap
  printf 'ps\\npoweroff\\n' | ringside run ringos --append '' --input -
  ringside run ringos --max-instructions 90000 --snapshot-out booted.ringside
  ringside run --snapshot-in booted.ringside             go on exactly there
  ringside run kernel.elf --gdb 1234                     wait for gdb on port 1234 of this machine
  ringside images add debian                             fetch Debian's kernel and BusyBox, once; then
  ringside run debian --on bare-metal                    Linux, with a shell
  ringside run debian --disk disk.raw                    the same with a disk, /dev/vda
  ringside run --kernel Image --initrd initrd --append console=ttyS0 --on bare-metal --firmware opensbi
"""


def add_commands(subparsers: Any, library: Path | None = None) -> None:
    """Add run, asm and disasm to what `ArgumentParser.add_subparsers` returned. `library` is the folder of
    the images that were added (engine.library).
    """
    raw = argparse.RawDescriptionHelpFormatter
    run = subparsers.add_parser(
        "run",
        help="run a guest in this terminal",
        description="Run a guest with its console on standard output and end with the guest's "
        "own exit status.",
        epilog=RUN_EPILOG,
        formatter_class=raw,
    )
    run.add_argument(
        "image",
        metavar="IMAGE",
        nargs="?",
        type=file_name,
        help="an ELF file, RISC-V Image or flat binary; assembly (.s); a guest that comes with Ringside ("
        + ", ".join(guest.name for guest in guests.guests())
        + "); or an image that `ringside images add` has added",
    )
    run.add_argument("--kernel", type=file_name, metavar="FILE", help="the image, as QEMU is told: instead of IMAGE")
    run.add_argument("--initrd", type=file_name, metavar="FILE", help="the kernel's initial RAM disk")
    run.add_argument(
        "--disk",
        type=file_name,
        metavar="FILE",
        help="the plain content of a disk (/dev/vda); what the guest writes is forgotten in the end",
    )
    run.add_argument(
        "--firmware",
        type=file_name,
        metavar="FILE",
        help="what starts in M mode below the kernel, with --on bare-metal: opensbi, or a file "
        "(default: the built-in firmware)",
    )
    run.add_argument(
        "--on",
        choices=(*STACKS, *EVERY_TECHNIQUE),
        help="on a host with this stack, or with kvm and this technique (default: trap-and-emulate)",
    )
    run.add_argument(
        "--technique", choices=EVERY_TECHNIQUE, help="how the stack virtualizes (default: as it usually does)"
    )
    run.add_argument(
        "--switch", choices=tuple(SWITCHES), action="append", help="something its hardware has or lacks; repeatable"
    )
    run.add_argument(
        "--costs", choices=get_args(ProfileId), help=f"what switches cost in cycles (default: {DEFAULT_COSTS.profile})"
    )
    run.add_argument(
        "--harts", type=_count(1, 4), metavar="N", help="harts, or virtual CPUs (1 to 4; default 1)"
    )
    run.add_argument(
        "--memory",
        type=_memory_mib,
        metavar="SIZE",
        help="the guest's memory, e.g. 64M or 1G "
        "(default: what the guest asks for; else 64M, or 256M with --initrd)",
    )
    run.add_argument(
        "--input",
        type=file_name,
        metavar="FILE",
        help="what the guest reads from its console, given line by line as it reads; - is standard input",
    )
    run.add_argument(
        "--tier",
        choices=[tier.value for tier in Tier],
        default=Tier.JIT.value,
        help="what executes: all do the same; reference is slow plain Python, interpreter is native, jit compiles hot "
        "code besides (default)",
    )
    run.add_argument("--append", type=plain_text, metavar="ARGS", help="the kernel's arguments (bootargs)")
    run.add_argument(
        "--max-instructions",
        type=_count(1, 1 << 62),
        metavar="N",
        help="stop after so many guest instructions",
    )
    run.add_argument(
        "--trace",
        type=file_name,
        metavar="FILE",
        help="write every trap to FILE as JSON lines; to FILE.json for ui.perfetto.dev and other trace viewers",
    )
    run.add_argument(
        "--stats", action="store_true", help="at the end, count instructions and traps on standard error"
    )
    run.add_argument(
        "--gdb",
        type=_count(0, 65535),
        metavar="PORT",
        help="halt the guest at its first instruction and wait for gdb on 127.0.0.1:PORT (0: any free port)",
    )
    run.add_argument("--snapshot-out", type=file_name, metavar="FILE", help="when the run ends, keep the whole machine in FILE")
    run.add_argument(
        "--snapshot-in",
        type=file_name,
        metavar="FILE",
        help="instead of IMAGE: go on from a snapshot, also from one that the page saved",
    )
    run.set_defaults(func=_reporting(run_command, Status.REFUSED), library=library)

    asm = subparsers.add_parser(
        "asm",
        help="assemble a program",
        description="Assemble RISC-V assembly into an ELF file that `ringside run` and QEMU start.",
        epilog="examples:\n  ringside asm hello.s\n  ringside asm hello.s -o /tmp/hello.elf --listing\n",
        formatter_class=raw,
    )
    asm.add_argument("file", type=file_name, metavar="FILE", help="the source; - is standard input")
    asm.add_argument(
        "-o", "--output", type=file_name, metavar="OUT", help="the ELF file (default: FILE with the suffix .elf)"
    )
    asm.add_argument("--listing", action="store_true", help="print addresses and encodings beside the source")
    asm.set_defaults(func=_reporting(asm_command, 1))

    disasm = subparsers.add_parser(
        "disasm",
        help="disassemble an image",
        description="Disassemble the executable segments of an ELF file, or all of an Image or flat binary.",
        epilog="examples:\n  ringside disasm hello.elf\n  ringside disasm ringos | less\n",
        formatter_class=raw,
    )
    disasm.add_argument("file", type=file_name, metavar="FILE", help="the image, or a guest that comes with Ringside")
    disasm.set_defaults(func=_reporting(disasm_command, 1), library=library)


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text.replace("_", ""))
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high}")
        return number

    return parse


def _memory_mib(text: str) -> int:
    factor = {"M": 1, "G": 1024}.get(text[-1:].upper())
    digits = text[:-1] if factor else text
    mib = int(digits) * (factor or 1) if digits.isdecimal() and len(digits) < 6 else 0
    if not 4 <= mib <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size from 4M to 1G")
    return mib


def _say(text: str) -> None:
    sys.stderr.write(f"ringside: {text}\n")


class _MisuseError(Exception):
    """Options that cannot be used together, said as it is said to the person."""


def _reporting(
    command: Callable[[argparse.Namespace], int], refused: int
) -> Callable[[argparse.Namespace], int]:
    """`command`, with a refusal said in a sentence and ended by the status `refused`."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            return command(arguments)
        except LabError as error:
            _say_problem(error)
            return refused
        except _MisuseError as error:
            _say(str(error))
            return refused
        except BrokenPipeError:
            raise
        except OSError as error:
            _say(f"{error.filename or 'output'}: {error.strerror}")
            return refused
        except KeyboardInterrupt:
            return Status.QUIT

    return run


def _say_problem(error: LabError) -> None:
    if isinstance(error, AssemblyError):
        for line, column, message in error.errors:
            sys.stderr.write(f"{error.problem.params['source']}:{line}:{column}: {message}\n")
    else:
        _say(error.problem.message)


def _is_builtin(name: str) -> bool:
    """A file of that name has to be given as ./name."""
    return any(guest.name == name for guest in guests.guests())


class _Chosen(NamedTuple):
    """The image of a command, and what is used unless the person says otherwise. `files`: what it was made from,
    None when it comes with Ringside or was added."""

    image: LoadedImage
    row: ImageRow
    files: Mapping[str, Content] | None = None
    memory_mib: int = DEFAULT_MEMORY_MIB
    arguments: str = ""


def _load(name: str, library: Path | None) -> _Chosen:
    """A guest that comes with Ringside, a file, or an image that was added, in this order."""
    if _is_builtin(name):
        guest = guests.guest(name)
        row = builtin_rows()[name]
        return _Chosen(inspect(guests.load_image(name), name), row, None, guest.memory_mib, guest.arguments)
    try:
        content = read_file(name)
    except FileNotFoundError:
        return _added(name, library)
    short = Path(name).name
    if name.lower().endswith(".s"):
        content = _assemble(name, content).elf()
    image = inspect(content, short)
    row = ImageRow(digest(content), short[:40], False, len(content), DEFAULT_MEMORY_MIB, image.kind)
    return _Chosen(image, row, {"kernel": content})


def _added(name: str, folder: Path | None) -> _Chosen:
    library = Library(folder)
    row = next((row for row in library.rows() if row.name == name), None)
    image = library.loaded(row.id) if row is not None else None
    if row is None or image is None:
        names = ", ".join(guest.name for guest in guests.guests())
        added = ", ".join(row.name for row in library.rows()) or "none"
        raise LabError(
            "no-such-image",
            f"There is no file {name}, and no such guest comes with Ringside (it has {names}) "
            f"or was added (ringside images list: {added}).",
            image=name,
        )
    return _Chosen(image, row, None, row.default_memory_mib, row.arguments)


def _chosen(arguments: argparse.Namespace) -> _Chosen:
    """The image that `run` is to run, with all that goes with it."""
    if (arguments.image is None) == (arguments.kernel is None):
        raise _MisuseError("say what to run: IMAGE or --kernel FILE, one of the two")
    if arguments.firmware is not None and arguments.on != BARE_METAL:
        raise _MisuseError("firmware owns the machine below the kernel: --firmware needs --on bare-metal")
    chosen = _load(arguments.image or arguments.kernel, arguments.library)
    if arguments.initrd is not None:
        initrd = read_file(arguments.initrd)
        chosen = chosen._replace(
            image=with_initrd(chosen.image, initrd),
            files=_with(arguments, chosen, "initrd", initrd),
            memory_mib=max(chosen.memory_mib, LINUX_MEMORY_MIB),
        )
    if arguments.disk is not None:
        disk = _mapped(arguments.disk)
        image = with_disk(chosen.image, disk, arguments.disk)
        chosen = chosen._replace(image=image, files=_with(arguments, chosen, "disk", disk))
    if arguments.firmware is not None:
        path = _firmware(arguments.firmware)
        firmware = read_file(str(path))
        image = with_firmware(chosen.image, inspect(firmware, path.name))
        chosen = chosen._replace(image=image, files=_with(arguments, chosen, "firmware", firmware))
    return chosen


def _with(arguments: argparse.Namespace, chosen: _Chosen, name: str, content: Content) -> dict[str, Content]:
    """The files of an image and one more."""
    if chosen.files is not None:
        return {**chosen.files, name: content}
    if chosen.row.builtin:
        return {"kernel": guests.load_image(chosen.row.id), name: content}
    if arguments.snapshot_out is not None:
        raise _MisuseError(f"--snapshot-out cannot keep an added image with another {name}: name the kernel's file")
    return {}


def _mapped(path: str) -> Content:
    """A file's content, read as far as somebody looks at it."""
    with open(path, "rb") as file:
        if not file.seek(0, os.SEEK_END):
            return b""
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _firmware(name: str) -> Path:
    path = next((place for place in OPENSBI if Path(place).is_file()), None) if name == "opensbi" else name
    if path is None:
        raise _MisuseError(
            "OpenSBI is not installed here. On Debian: apt-get install opensbi. Or name a file: --firmware"
        )
    return Path(path)


def _assemble(name: str, content: bytes) -> Program:
    try:
        source = content.decode()
    except UnicodeDecodeError as error:
        raise LabError(
            "source-encoding",
            f"{name} is not UTF-8 text: byte {error.start} cannot be read.",
            name=name,
            offset=error.start,
        ) from None
    return assemble(source, name)


# -- asm and disasm --------------------------------------------------------------------------------
def asm_command(arguments: argparse.Namespace) -> int:
    program = _assemble(arguments.file, read_file(arguments.file))
    output = arguments.output or (
        "out.elf" if arguments.file == "-" else str(Path(arguments.file).with_suffix(".elf"))
    )
    Path(output).write_bytes(program.elf())
    if arguments.listing:
        sys.stdout.write(program.listing())
    return 0


def disasm_command(arguments: argparse.Namespace) -> int:
    image = _load(arguments.file, arguments.library).image
    for segment in image.segments:
        if segment.executable:
            sys.stdout.writelines(_disassembly(image, segment.address, segment.data))
    return 0


def _disassembly(image: LoadedImage, address: int, data: Content) -> Iterator[str]:
    for at, word in instructions(bytes(data)):
        pc = address + at
        found = image.symbols.lookup(pc)
        if found is not None and found[1] == 0:
            yield f"\n{found[0]}:\n"
        yield f"{pc:16x}:  {f'{word:0{2 * length_of(word)}x}':8}  {disassemble(word, pc)}\n"


# -- run -------------------------------------------------------------------------------------------
class _Script:
    """--input: one line at a time, when the guest has read the one before and sleeps (or polls)."""

    def __init__(self, data: bytes) -> None:
        self._lines = data.splitlines(keepends=True)
        self._lines.reverse()

    def next(self) -> bytes:
        return self._lines.pop() if self._lines else b""


class _Terminal:
    """Keys typed at a terminal. `quit` is set by Ctrl-A x."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._prefix = False
        self.quit = False

    def read(self, wait_ns: int) -> bytes:
        """What was typed since the last call; waits for a key so long, for ever if that is NEVER."""
        ready, _, _ = select.select([self._descriptor], [], [], None if wait_ns >= NEVER else wait_ns / 1e9)
        if not ready:
            return b""
        typed = os.read(self._descriptor, 4096)
        if not typed:
            self.quit = True
        return bytes(self._keys(typed))

    def _keys(self, typed: bytes) -> Iterator[int]:
        for key in typed:
            if self._prefix:
                self._prefix = False
                if key in (QUIT_KEY, QUIT_KEY - 32):
                    self.quit = True
                else:
                    yield key
            elif key == QUIT_PREFIX:
                self._prefix = True
            else:
                yield key


@contextmanager
def _raw_terminal(descriptor: int) -> Iterator[None]:
    """Every key goes to the guest as it is typed; output is still processed."""
    before = termios.tcgetattr(descriptor)
    raw = termios.tcgetattr(descriptor)
    raw[0] &= ~(termios.ICRNL | termios.IXON)
    raw[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
    termios.tcsetattr(descriptor, termios.TCSADRAIN, raw)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class _Run:
    """One guest on one host until it ends."""

    def __init__(
        self, host: Host, output: BinaryIO, console: bytearray, max_instructions: int | None
    ) -> None:
        self._host = host
        self._guest = host.guest(GUEST)
        self._output = output
        self._console = console
        self._max_instructions = max_instructions
        self._quiet_steps = 0
        self._slept_ns = 0
        self._slice_steps = SLICE_STEPS

    def _slice(self) -> int:
        """Run on a little; for how many ns the guest then sleeps (0: it is awake; NEVER: until there is
        input)."""
        steps = self._slice_steps
        if self._max_instructions is not None:
            steps = min(steps, self._max_instructions - self._guest.instructions)
        host = self._host
        recorded = host.trace.written
        done = host.run(steps, until=min(NEVER, host.busy_from + WAITS_NS))
        self._quiet_steps += done
        computes = done >= COMPUTES_STEPS * (host.trace.written - recorded) and done == steps and not self._console
        self._slice_steps = min(2 * steps, MAX_SLICE_STEPS) if computes else SLICE_STEPS
        if self._console:
            self._output.write(self._console)
            self._output.flush()
            self._console.clear()
            self._slept_ns = 0
        sleeps = NEVER if host.idle else host.busy_from - host.time
        self._slept_ns += sleeps
        return sleeps

    def _ended(self) -> int | None:
        guest = self._guest
        if guest.exit_status is not None:
            return min(int(guest.exit_status), 255)
        if guest.failure is not None:
            _say(f"the guest died: {guest.failure.message}")
            return Status.DIED
        if self._limited:
            _say(f"stopped after {guest.instructions} instructions (--max-instructions)")
            return Status.LIMIT
        return None

    @property
    def _limited(self) -> bool:
        return self._max_instructions is not None and self._guest.instructions >= self._max_instructions

    def with_script(self, script: _Script) -> int:
        while (status := self._ended()) is None:
            sleeps = self._slice()
            if not (self._listens(sleeps) or self._polls()):
                continue
            line = script.next()
            if line:
                self._guest.receive(line)
                self._quiet_steps = self._slept_ns = 0
            elif self._slept_ns >= SLEPT_NS and not (self._guest.ended or self._limited):
                _say("the guest waits for input, and there is no more")
                return Status.WAITS
        return status

    def _listens(self, sleeps_ns: int) -> bool:
        """Does the guest do nothing but wait for input?"""
        return sleeps_ns >= NEVER or (sleeps_ns >= WAITS_NS and self._guest.board.uart.listening)

    def _polls(self) -> bool:
        """A guest that polls its console never sleeps. A kernel that has an initial RAM disk does not poll,
        and takes long to start."""
        return self._quiet_steps >= PATIENCE_STEPS and not self._guest.image.initrd

    def with_terminal(self, terminal: _Terminal) -> int:
        sleeps = 0
        while (status := self._ended()) is None:
            began = time.monotonic_ns()
            keys = terminal.read(sleeps)
            if terminal.quit:
                return Status.QUIT
            if keys:
                if sleeps:
                    elapsed = min(time.monotonic_ns() - began, sleeps)
                    self._host.advance(self._host.time + elapsed)
                self._guest.receive(keys)
            sleeps = self._slice()
        return status


def run_command(arguments: argparse.Namespace) -> int:
    console = bytearray()
    trace = Trace()

    def show(_guest: int, data: bytes) -> None:
        console.extend(data)

    script = _Script(read_file(arguments.input) if arguments.input is not None else b"")
    objects.keep_in(objects.folder_in(os.environ))
    if arguments.snapshot_out is not None:
        check_writable(arguments.snapshot_out)
    if arguments.snapshot_in is not None:
        about, files, host = _go_on(arguments, trace, show)
    elif arguments.gdb is not None:
        return _run_with_gdb(arguments, script)
    else:
        about, files, host = _begin(arguments, trace, show)
    with ExitStack() as cleanup:
        if arguments.trace is not None:
            trace.sink = cleanup.enter_context(_sink(arguments.trace))
        run = _Run(host, sys.stdout.buffer, console, arguments.max_instructions)
        if arguments.input is None and sys.stdin.isatty():
            cleanup.enter_context(_raw_terminal(sys.stdin.fileno()))
            status = run.with_terminal(_Terminal(sys.stdin.fileno()))
        else:
            status = run.with_script(script)
    if arguments.snapshot_out is not None:
        Path(arguments.snapshot_out).write_bytes(_snapshot(about, files, host, trace))
    if arguments.stats:
        sys.stderr.writelines(_statistics(host, trace))
    return status


@contextmanager
def _sink(path: str) -> Iterator[Callable[[bytes], None]]:
    """Where records are written, in the format that the file's name asks for."""
    with open(path, "w", encoding="utf-8") as stream:
        if not path.endswith(".json"):
            yield JsonLinesSink(stream)
            return
        sink = ChromeSink(stream)
        try:
            yield sink
        finally:
            sink.close()


def _plan(arguments: argparse.Namespace) -> tuple[About, _Chosen, HostRow]:
    """What is to run: the guest, its image, and the host for it."""
    chosen = _chosen(arguments)
    memory = arguments.memory or chosen.memory_mib
    check_fits(chosen.image, memory << 20)
    bootargs = arguments.append if arguments.append is not None else chosen.arguments
    on, harts = _configuration(arguments), arguments.harts or 1
    host_memory = memory if on.technique is None else HOST_MEMORY_FACTOR * memory
    guest = GuestRow(GUEST, "guest", HOST, chosen.row.id, harts, memory, bootargs)
    host = HostRow(HOST, "host", 0.0, 0.0, harts, host_memory, on.stack, on.technique, on.switches)
    return About(guest, chosen.row, on.stack, on.technique, on.switches), chosen, host


def _costs(arguments: argparse.Namespace) -> Costs:
    return DEFAULT_COSTS if arguments.costs is None else Costs(arguments.costs)


def _configuration(arguments: argparse.Namespace) -> Configuration:
    """What --on, --technique and --switch ask for. Raises LabError."""
    stack, technique = arguments.on, arguments.technique
    if stack in EVERY_TECHNIQUE:
        if technique is not None:
            raise _MisuseError("say the technique once: --on or --technique")
        stack, technique = None, stack
    return Configuration.of(stack, technique, tuple(arguments.switch or ()))


_Begun = tuple[About, Mapping[str, Content] | None, "Host"]


def _begin(arguments: argparse.Namespace, trace: Trace, show: Callable[[int, bytes], None]) -> _Begun:
    """A host on which a guest is about to start from its image; what the guest is, and the image's files."""
    from engine.hypervisor.host import Host

    about, chosen, row = _plan(arguments)
    host = Host(
        HOST, row.harts, row.memory_mib, row.configuration, trace, show,
        tier=Tier(arguments.tier), costs=_costs(arguments),
    )  # fmt: skip
    guest = about.guest
    host.add_guest(GUEST, chosen.image, guest.vcpus, guest.memory_mib, guest.arguments)
    return about, chosen.files, host


def _go_on(arguments: argparse.Namespace, trace: Trace, show: Callable[[int, bytes], None]) -> _Begun:
    """As `_begin`, from a snapshot."""
    decided = (
        "image", "kernel", "initrd", "disk", "firmware", "on", "technique", "switch", "costs", "harts", "memory", "append",
        "gdb",
    )  # fmt: skip
    for name in decided:
        if getattr(arguments, name) is not None:
            given = "an image" if name == "image" else f"--{name}"
            raise _MisuseError(f"a snapshot is a whole machine: --snapshot-in cannot be used with {given}")
    found = snapshot.read(read_file(arguments.snapshot_in))
    host = snapshot.resume(found, Images(Library(arguments.library)), GUEST, trace, show, Tier(arguments.tier))
    return found.about, found.image, host


def _snapshot(about: About, files: Mapping[str, Content] | None, host: Host, trace: Trace) -> bytes:
    machine = Machine(len(host.harts), host.memory_mib, GUEST, host.save(), trace.save_guest(GUEST), host.routes.costs)
    kept = {"trace": Trace().save_guest(GUEST), "console": Scrollback().save()}
    state = {"machine": host.export_guest(GUEST), "kept": kept}
    image = None if files is None else {name: bytes(content) for name, content in files.items()}
    return snapshot.write(Snapshot(about, state, image, machine))


def _run_with_gdb(arguments: argparse.Namespace, script: _Script) -> int:
    for name in ("trace", "max_instructions", "snapshot_out"):
        if getattr(arguments, name) is not None:
            option = name.replace("_", "-")
            raise _MisuseError(f"gdb goes back and forth in time: --gdb cannot be used with --{option}")
    about, chosen, host = _plan(arguments)
    debugger = Debugger.alone(host, about.guest, chosen.image, _print, Tier(arguments.tier), _costs(arguments))
    status = _Door(debugger, script).serve(arguments.gdb, arguments.image or arguments.kernel)
    if arguments.stats:
        sys.stderr.writelines(_statistics(debugger.host, debugger.world.trace))
    return status


# -- run --gdb -------------------------------------------------------------------------------------
def _print(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


class _Door:
    """A port on which one gdb at a time debugs the guest. Who comes while another is there is turned away.

    A client that hangs up leaves the guest halted for the next one; one that detaches lets it go on.
    """

    def __init__(self, debugger: Debugger, script: _Script) -> None:
        self._debugger = debugger
        self._stub = Stub(debugger)
        self._script = script
        self._quiet_from = 0  # position at which the guest got its latest line

    def serve(self, port: int, image: str) -> int:
        """Until the guest ends or is killed; the command's exit status."""
        try:
            door = Door(self._stub, GDB_ADDRESS, port)
        except OSError as error:
            _say(
                f"cannot listen on {GDB_ADDRESS} port {port}: {error.strerror}; choose another one, "
                "or --gdb 0 for any that is free"
            )
            return Status.REFUSED
        with closing(door):
            _say(
                "the guest is halted at its first instruction. Connect with:\n"
                f"    gdb-multiarch -ex 'set architecture riscv:rv64' "
                f"-ex 'target remote :{door.port}'{self._symbols(image)}"
            )
            while not self._stub.finished:
                self._turn(door)
                if self._stub.detached and self._debugger.waits and not self._feed():
                    _say("the guest waits for input, and there is no more")
                    return Status.WAITS
        return self._status()

    @staticmethod
    def _symbols(image: str) -> str:
        """The file with the guest's symbols, as gdb takes it."""
        path = guests.image_path(image) if _is_builtin(image) else Path(image)
        return "" if path.suffix == ".s" else f" {shlex.quote(str(path))}"

    def _turn(self, door: Door) -> None:
        """What clients said, then a little of the guest."""
        running = self._stub.running
        if running and (self._stub.waits or self._polls()):
            running = self._feed() or not self._stub.waits
        select.select(door.readers(), door.writers(), [], 0 if running else None)
        door.exchange()
        if self._stub.running:
            door.say(self._stub.advance())

    def _polls(self) -> bool:
        return self._debugger.world.position - self._quiet_from >= PATIENCE_STEPS

    def _feed(self) -> bool:
        """Give the guest its next line; False when there is none or it has ended."""
        line = b"" if self._debugger.guest.ended else self._script.next()
        self._quiet_from = self._debugger.world.position
        if line:
            self._debugger.receive(line)
        return bool(line)

    def _status(self) -> int:
        guest = self._debugger.guest
        if self._stub.killed:
            return Status.QUIT
        if guest.failure is not None:
            _say(f"the guest died: {guest.failure.message}")
            return Status.DIED
        return min(guest.exit_status or 0, 255)


def _statistics(host: Host, trace: Trace) -> Iterator[str]:
    guest = host.guest(GUEST)
    counters = trace.counters(GUEST)
    yield f"{guest.instructions:>14,}  instructions\n"
    yield f"{host.time / 1e6:>14,.3f}  ms of virtual time\n"
    yield f"{trace.total(GUEST):>14,}  traps, of which {guest.exits:,} VM exits\n"
    for (kind, cause, path, disposition), count in sorted(counters.items(), key=lambda item: -item[1]):
        stations = " > ".join(_words(level) for level in PATHS[path])
        yield (
            f"{count:>14,}  {_words(Kind(kind))}: {cause_name(cause)}, "
            f"{_words(Disposition(disposition))}; {stations}\n"
        )


def _words(member: Kind | Level | Disposition) -> str:
    return member.name.lower().replace("_", " ")
