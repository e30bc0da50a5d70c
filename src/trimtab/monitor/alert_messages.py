"""Where alerts go besides the console: a file in the run, a webhook, e-mail. Only the standard library is needed."""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, Final, final

from trimtab.config import EmailConfig, WebhookConfig
from trimtab.errors import ConfigError
from trimtab.monitor.couriers import Message, RefusedError
from trimtab.runs.printable import printable

_MAY_PASS: Final = (408, 425, 429)
"""Answers of a server to a request that it may take later, besides all from 500 on."""
_LONGEST_TEXT: Final = 1900
"""Discord takes 2,000 characters."""


def to_file(path: Path) -> Callable[[Message], None]:
    """Appends each message to `path` as a line of JSON; what a killed process left of a line is ended first."""

    def deliver(message: Message) -> None:
        with open(path, "a+b") as file:
            is_torn = bool(file.seek(0, os.SEEK_END)) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            line = json.dumps(dict(message), ensure_ascii=True, allow_nan=False).encode() + b"\n"
            file.write((b"\n" if is_torn else b"") + line)

    return deliver


def to_webhook(config: WebhookConfig, environment: Mapping[str, str]) -> Callable[[Message], None]:
    """Posts each message to the address in `environment`. Raises: ConfigError where there is none."""
    address = _address(config, environment)
    opener = urllib.request.build_opener(_NoRedirects)

    def deliver(message: Message) -> None:
        request = urllib.request.Request(
            address,
            data=json.dumps(_body(config.form, message), ensure_ascii=True, allow_nan=False).encode(),
            headers={"Content-Type": "application/json; charset=utf-8", "User-Agent": "trimtab"},
            method="POST",
        )
        try:
            with opener.open(request, timeout=config.timeout_seconds) as answer:
                answer.read(1024)
        except urllib.error.HTTPError as error:
            error.close()
            said = f"the server answered {error.code}"
            if error.code < 500 and error.code not in _MAY_PASS:
                raise RefusedError(said) from None
            raise ConnectionError(said) from None
        except urllib.error.URLError as error:  # its text may have the address in it, which is secret
            raise ConnectionError(_named(error.reason)) from None
        except (OSError, HTTPException) as error:
            raise ConnectionError(_named(error)) from None

    return deliver


def to_email(config: EmailConfig, environment: Mapping[str, str]) -> Callable[[Message], None]:
    """Mails each message. Raises: ConfigError where a password is needed and not in `environment`."""
    password = environment.get(config.password_from, "")
    if config.user is not None and not password:
        raise ConfigError(
            f"alerts.email.password_from: the environment has no {config.password_from}",
            hint=f"set it to the password of {printable(config.user)}; it is kept in no file of the run",
        )

    def deliver(message: Message) -> None:
        context = ssl.create_default_context()
        try:
            with _connected(config, context) as server:
                if config.security == "starttls":
                    server.starttls(context=context)
                if config.user is not None:
                    server.login(config.user, password)
                server.send_message(_mail(config, message))
        except (smtplib.SMTPAuthenticationError, smtplib.SMTPNotSupportedError) as error:
            raise RefusedError(f"{type(error).__name__}: the server takes no such login") from None
        except smtplib.SMTPRecipientsRefused as error:
            if all(code >= 500 for code, _ in error.recipients.values()):
                raise RefusedError("the server refused all recipients") from None
            raise ConnectionError("the server refused all recipients for now") from None

    return deliver


def _connected(config: EmailConfig, context: ssl.SSLContext) -> smtplib.SMTP:
    if config.security == "tls":
        return smtplib.SMTP_SSL(config.host, config.port, timeout=config.timeout_seconds, context=context)
    return smtplib.SMTP(config.host, config.port, timeout=config.timeout_seconds)


@final
class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A webhook that sends us elsewhere is refused: nothing is to go where nobody asked for."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Nothing else is asked for; the answer is an error then."""
        return


def _address(config: WebhookConfig, environment: Mapping[str, str]) -> str:
    address = environment.get(config.address_from, "").strip()
    where = f"alerts.webhook.address_from: the environment's {config.address_from}"
    if not address:
        raise ConfigError(
            f"alerts.webhook.address_from: the environment has no {config.address_from}",
            hint=f"export {config.address_from}=https://…; it is kept in no file of the run",
        )
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or not address.isascii() or " " in address:
        raise ConfigError(f"{where} is no address that begins with https:// or http://")
    return address


def _body(form: str, message: Message) -> dict[str, Any]:
    text = str(message["text"])
    text = text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
    match form:
        case "slack":
            for sign, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):  # so that nobody is called by <!channel>
                text = text.replace(sign, safe)
            return {"text": text}
        case "discord":
            return {"content": text, "allowed_mentions": {"parse": []}}
        case _:
            return dict(message)


def _mail(config: EmailConfig, message: Message) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = config.sender
    mail["To"] = ", ".join(config.recipients)
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = make_msgid(domain=config.sender.rpartition("@")[2].strip("> ") or "localhost")
    mail["Subject"] = f"trimtab {message['run']}: {message['rule']}"
    lines = [str(message["text"]), ""]
    lines += [
        f"{key}: {value}" for key, value in message.items() if key not in ("text", "schema") and value is not None
    ]
    mail.set_content("\n".join(lines) + "\n")
    return mail


def _named(error: object) -> str:
    """What went wrong, without words that may have the address in them."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__ if isinstance(error, Exception) else "it cannot be reached"
