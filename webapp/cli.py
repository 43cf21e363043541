"""The command `ringside`: `serve`, what the engine does without a page (`run`, `asm`, `disasm`, from
engine.headless), `compare` and `images`.

Invariant: a mistake of the person at the terminal ends in one sentence on standard error and status 2
(usage) or 1, never in a traceback; so does a reader of standard output that has gone, without the sentence.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

#: As if the person had ended it: who reads what a command prints has gone.
NOBODY_READS = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the process's exit status."""
    from engine import headless
    from webapp import compare_command, images_command
    from webapp.config import data_folder
    from webapp.library import library_folder

    data = data_folder(os.environ)
    parser = argparse.ArgumentParser(
        prog="ringside", description="A virtualization playground in the browser."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands)
    headless.add_commands(commands, library_folder(data))
    compare_command.add_commands(commands)
    images_command.add_commands(commands, data)
    options = parser.parse_args(arguments)
    try:
        status: int = options.func(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    return status


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="serve the page",
        description="Serve the page. Labs are kept in the data folder; the same folder brings them back.",
    )
    serve.add_argument("--host", help="address to listen on (HOST; 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on, 0 for any free one (PORT; 8000)")
    serve.add_argument(
        "--data", type=Path, help="folder to keep labs in (RINGSIDE_DATA; ~/.local/share/ringside)"
    )
    serve.add_argument("--workers", type=int, help="engine processes (RINGSIDE_WORKERS; one for each core)")
    serve.set_defaults(func=_serve)


def _serve(options: argparse.Namespace) -> int:
    import gevent
    from gevent.pywsgi import WSGIServer

    from webapp.app import create_app
    from webapp.config import Config, ConfigError
    from webapp.store import StoreError

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = Config.from_environment(
            os.environ, host=options.host, port=options.port, data=options.data, workers=options.workers
        )
        config.check()
        app = create_app(config)
    except (ConfigError, StoreError, FileNotFoundError) as error:
        return _failed(str(error))
    labs = app.extensions["ringside"]
    server = WSGIServer(
        (config.host, config.port), app, log=None, error_log=logging.getLogger("webapp.server")
    )
    try:
        server.start()
    except OSError as error:
        labs.close_store()
        return _failed(_why_not_listening(config.host, config.port, error))
    ended = gevent.event.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, ended.set)
    labs.start()
    shown = f"[{config.host}]" if ":" in config.host else config.host
    print(f"Ringside is at http://{shown}:{server.server_port}", flush=True)
    ended.wait()
    labs.announce_stop()
    server.stop(timeout=1)
    labs.stop()
    return 0


def _why_not_listening(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        other = port + 1 if port < 65535 else 8000
        return (
            f"Port {port} is taken by another program. Choose another one: PORT={other} make serve, "
            f"or ringside serve --port {other}"
        )
    if error.errno == errno.EACCES:
        return f"Port {port} needs privileges that this program does not have. Choose one from 1024 on."
    return f"Cannot listen on {host} port {port}: {error.strerror or error}."


def _failed(message: str) -> int:
    print(f"ringside: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
