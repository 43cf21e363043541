"""The HTTP half of a browser: cookies, the CSRF token of the last page, no redirects followed."""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from http.cookies import SimpleCookie

from tests.support.server import Server


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Browser:
    def __init__(self, server: Server) -> None:
        self._port = server.port
        self._cookies: dict[str, str] = {}
        self.csrf = ""

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        given = {"Accept": "text/html", **({"Cookie": cookies} if cookies else {}), **(headers or {})}
        connection.request(method, path, body, given)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        for line in response.headers.get_all("Set-Cookie") or ():
            self._cookies.update({name: morsel.value for name, morsel in SimpleCookie(line).items()})
        token = re.search(rb'(?:data-csrf|name="csrf" value)="([^"]+)"', answer.body)
        if token:
            self.csrf = token[1].decode()
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.request(
            "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def upload(self, path: str, name: str, content: bytes, **headers: str) -> Answer:
        """POST a file as the page does: multipart, field "file", token in the header."""
        boundary = "ringside-boundary"
        body = (
            (
                f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n"
            ).encode()
            + content
            + f"\r\n--{boundary}--\r\n".encode()
        )
        given = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "X-CSRF-Token": self.csrf,
            "Accept": "*/*",
        }
        return self.request(
            "POST",
            path,
            body,
            {**given, **{name.replace("_", "-"): value for name, value in headers.items()}},
        )
