"""The application: Flask for pages, Socket.IO for what is live, put together from their parts.

    pywsgi ── HostGuard ── Socket.IO middleware ── Flask
                               │ webapp.sockets      │ webapp.routes
                               └───── webapp.labs ───┘ ── webapp.workers, webapp.store

Decisions
- Websocket is the only transport: long polling would be a second path for everything that is bounded here
  (message size, queue, Origin), and every browser that runs the page has websockets.
- gevent without monkey patching: what waits here waits in gevent's own primitives, the disk has a thread of
  its own.
- Any Host that is a name must be ours: a foreign name that resolves to this machine (DNS rebinding) would
  make a stranger's page same-origin. An address cannot be rebound, so addresses are let through.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from flask_socketio import SocketIO

from webapp import assets, compare_routes, routes, sockets, transport
from webapp.config import FORM_BYTES, Config
from webapp.labs import Labs
from webapp.popek_goldberg import Classification
from webapp.store import Store

UNKNOWN_NAME = (
    "This Ringside is not known as “{name}”. Add the name to RINGSIDE_ALLOWED_HOSTS to use it.\n",
    "이 Ringside는 “{name}”이라는 이름을 모릅니다. 쓰려면 RINGSIDE_ALLOWED_HOSTS에 추가하세요.\n",
)


class HostGuard:
    """WSGI middleware: requests for a host name that is not this server's are refused."""

    def __init__(self, app: Callable[..., Iterable[bytes]], config: Config) -> None:
        self._app = app
        here = socket.gethostname().lower()
        self._names = {"localhost", here, f"{here}.local", config.host.lower(), *config.allowed_hosts}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        name = host_name(environ.get("HTTP_HOST", ""))
        if name in self._names or "*" in self._names or is_address(name):
            return self._app(environ, start_response)
        start_response("421 Misdirected Request", [("Content-Type", "text/plain; charset=utf-8")])
        return [line.format(name=name).encode() for line in UNKNOWN_NAME]


def host_name(host: str) -> str:
    """The name in a Host header, without the port, in lower case."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name.strip("[]").lower()


def is_address(name: str) -> bool:
    """Whether `name` is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def create_app(config: Config) -> Flask:
    """The application, with its labs in `app.extensions["ringside"]` (a `webapp.labs.Labs`, not started).

    Raises StoreError when the data folder cannot be used.
    """
    app = Flask(
        "ringside",
        static_folder=str(assets.static_folder()),
        static_url_path="/static",
        template_folder=str(assets.templates_folder()),
    )
    store = Store(config.data)
    app.config.update(
        RINGSIDE=config,
        SECRET_KEY=store.secret_key(),
        SESSION_COOKIE_NAME="ringside",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=config.max_upload_bytes + FORM_BYTES,
        MAX_FORM_MEMORY_SIZE=FORM_BYTES,
        MAX_FORM_PARTS=10,
    )
    socketio = SocketIO(
        app,
        async_mode="gevent",
        serializer=transport.Packet,
        transports=["websocket"],
        max_http_buffer_size=config.max_message_bytes,
        manage_session=False,
    )
    engineio = socketio.server.eio
    engineio._async = {**engineio._async, "websocket": transport.bounded_websocket(config.max_message_bytes)}
    labs = Labs(config, store)
    labs.audience = sockets.register(socketio, labs, config)
    app.extensions["ringside"] = labs
    app.extensions["popek-goldberg"] = Classification()
    app.register_blueprint(routes.pages)
    app.register_blueprint(compare_routes.comparisons)
    app.wsgi_app = HostGuard(app.wsgi_app, config)  # type: ignore[method-assign]
    return app
