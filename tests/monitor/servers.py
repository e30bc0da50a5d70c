"""Small servers on this machine that take alerts: HTTP, and SMTP with and without encryption."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Posted:
    """What an HTTP server was sent."""

    address: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


@contextmanager
def http_server(answers: Sequence[int] = (), *, location: str = "") -> Iterator[Posted]:
    """Answers with these codes in turn, then with 200; what it answered 200 to is in `bodies`."""
    posted, left = Posted(), list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code = left.pop(0) if left else 200
            posted.answers.append(code)
            if code == 200:
                posted.bodies.append(body)
            self.send_response(code)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    posted.address = f"http://127.0.0.1:{server.server_port}/hooks/secret-token"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield posted
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def deaf_server() -> Iterator[int]:
    """Takes connections and never answers; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@dataclass
class Mailed:
    """What an SMTP server was sent."""

    port: int = 0
    mails: list[str] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)


@contextmanager
def smtp_server(certificate: Path | None = None, *, wraps: bool = False, refuses: int = 0) -> Iterator[Mailed]:
    """With a `certificate` it offers STARTTLS, or with `wraps` speaks TLS from the start; `refuses` so many first."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    mailed, left = Mailed(), [refuses]

    def serve(connection: socket.socket) -> None:
        is_encrypted = wraps
        if wraps and context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        connection.sendall(b"220 ready\r\n")
        reader = connection.makefile("rb")
        while line := reader.readline().decode().strip():
            match line.split(" ")[0].upper():
                case "EHLO":
                    offers = ["250-here", "250-AUTH PLAIN"]
                    offers += ["250-STARTTLS"] if context is not None and not is_encrypted else []
                    connection.sendall("\r\n".join([*offers, "250 8BITMIME", ""]).encode())
                case "STARTTLS" if context is not None:
                    connection.sendall(b"220 go on\r\n")
                    connection = context.wrap_socket(connection, server_side=True)
                    reader, is_encrypted = connection.makefile("rb"), True
                case "AUTH":
                    _, user, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
                    mailed.logins.append((user, password))
                    connection.sendall(b"235 welcome\r\n" if password == "right" else b"535 no\r\n")
                case "DATA":
                    connection.sendall(b"354 go on\r\n")
                    mail = b""
                    while (part := reader.readline()) != b".\r\n":
                        mail += part
                    mailed.mails.append(mail.decode())
                    mailed.encrypted.append(is_encrypted)
                    connection.sendall(b"250 taken\r\n")
                case "MAIL" if left[0] > 0:
                    left[0] -= 1
                    connection.sendall(b"451 not now\r\n")
                case "QUIT":
                    connection.sendall(b"221 bye\r\n")
                    break
                case _:
                    connection.sendall(b"250 well\r\n")
        connection.close()

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_quietly, args=(serve, connection), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        mailed.port = listener.getsockname()[1]
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield mailed


def _quietly(serve: Any, connection: socket.socket) -> None:
    try:
        serve(connection)
    except OSError:  # the other side has gone
        connection.close()


def certificate(folder: Path) -> Path:
    """A certificate of localhost and its key, in one file."""
    path = folder / "certificate.pem"
    key = folder / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            str(key),
            "-out",
            str(path),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + key.read_text())
    return path
