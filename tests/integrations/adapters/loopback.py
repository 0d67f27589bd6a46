"""A server on 127.0.0.1 that speaks the providers' protocols, records what it is sent and is as strict as they are."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from .protocols import Body, Chat, Gemini, Messages, Responses

# Path prefixes of the families that speak like OpenAI, and the roles that they take.
_WITHOUT_DEVELOPER = ("system", "user", "assistant", "tool")
_ROUTES: list[tuple[str, Any]] = [
    ("/v1/chat/completions", Chat()),
    ("/deepseek/v1/chat/completions", Chat(_WITHOUT_DEVELOPER)),
    ("/compatible-mode/v1/chat/completions", Chat(_WITHOUT_DEVELOPER)),
    ("/local/v1/chat/completions", Chat(_WITHOUT_DEVELOPER)),
    ("/v1/responses", Responses()),
    ("/v1/messages", Messages()),
    ("/v1beta/models/", Gemini()),
]


@dataclass(frozen=True)
class Received:
    """One request and how it was answered."""

    path: str
    body: Body
    status: int

    @property
    def text(self) -> str:
        """The body as JSON, characters unescaped."""
        return json.dumps(self.body, ensure_ascii=False, sort_keys=True)


@dataclass
class Loopback:
    """The server, as a context manager.

    ``context_tokens`` is the size of the model's context, at four characters a token: longer requests get a 400.
    """

    context_tokens: int = 1_000_000
    received: list[Received] = field(default_factory=list)

    def __enter__(self) -> Loopback:
        loopback = self

        class Handler(_Handler):
            owner = loopback

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    # A connection per request: clients that cache connections across event loops would trip over a closed loop.
    protocol_version = "HTTP/1.0"
    owner: Loopback

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        protocol = next((protocol for prefix, protocol in _ROUTES if path.startswith(prefix)), None)
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        if protocol is None:
            self._finish(path, body, 404, {"error": {"message": f"no route {path}"}})
            return
        problem = self._problem(protocol, body, len(raw))
        if problem is not None:
            self._finish(path, body, 400, protocol.error(problem))
        elif body.get("stream") or ":streamGenerateContent" in path:
            self._stream(path, body, protocol)
        else:
            self._finish(path, body, 200, protocol.answer(body))

    def _problem(self, protocol: Any, body: Body, size: int) -> str | None:
        if size > 4 * self.owner.context_tokens:
            return f"maximum context length is {self.owner.context_tokens} tokens; your request has {size // 4}"
        try:
            return str(protocol.problem(body) or "") or None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return f"malformed request: {type(error).__name__}: {error}"

    def _finish(self, path: str, body: Body, status: int, reply: Body) -> None:
        self.owner.received.append(Received(path, body, status))
        payload = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _stream(self, path: str, body: Body, protocol: Any) -> None:
        self.owner.received.append(Received(path, body, 200))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for name, data in protocol.events(body):
            text = data if isinstance(data, str) else json.dumps(data)
            self.wfile.write(f"{f'event: {name}{chr(10)}' if name else ''}data: {text}\n\n".encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are recorded, not printed."""
