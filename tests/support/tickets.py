"""Where tickets go: a web hook and a mail server on loopback that keep what they are sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer


@dataclass(slots=True)
class Tickets:
    """The tickets so far, and the site's commands that open one, each with its program."""

    web: list[str] = field(default_factory=list)
    mail: list[str] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)

    def argv(self, way: str) -> list[str]:
        """What follows curl on the line of the policy."""
        address = f"127.0.0.1:{self.ports[way]}"
        if way == "web":
            return ["--silent", "--fail", "--data", "{id} {node}: {reason}", f"http://{address}/tickets"]
        people = ["--mail-from", "fleet@site", "--mail-rcpt", "ops@site"]
        return ["--silent", f"smtp://{address}", *people, "--header", "Subject: {id} {node}: {reason}", "-F", "=see it"]

    def opened(self, way: str) -> list[str]:
        """The tickets that came this way."""
        return {"web": self.web, "mail": self.mail}[way]


@contextmanager
def receiving() -> Iterator[Tickets]:
    tickets = Tickets()

    class Web(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            tickets.web.append(self.rfile.read(int(self.headers["content-length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    class Mail(StreamRequestHandler):
        """As much of SMTP (RFC 5321) as takes a mail."""

        def handle(self) -> None:
            self.say("220 site")
            while (command := self.rfile.readline().decode().strip().upper()) not in {"QUIT", ""}:
                if command == "DATA":
                    self.say("354 go on")
                    tickets.mail.append("".join(iter(lambda: self.rfile.readline().decode(), ".\r\n")))
                self.say("250 yes")
            self.say("221 bye")

        def say(self, answer: str) -> None:
            self.wfile.write(f"{answer}\r\n".encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as web, ThreadingTCPServer(("127.0.0.1", 0), Mail) as mail:
        servers = {"web": web, "mail": mail}
        threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers.values()]
        for thread in threads:
            thread.start()
        tickets.ports = {way: server.server_address[1] for way, server in servers.items()}
        yield tickets
        for server in servers.values():
            server.shutdown()
        for thread in threads:
            thread.join()
