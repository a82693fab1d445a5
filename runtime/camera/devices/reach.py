"""Why a stream cannot be opened: FFmpeg knows, but OpenCV does not pass it on."""

from __future__ import annotations

import hashlib
import re
import socket
import time
from base64 import b64encode
from urllib.parse import SplitResult, unquote, urlsplit

from boardfit.errors import CameraError
from boardfit.runtime.camera.devices import LoginRefused

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_TIMEOUT_S = 1.0
_MAX_HEAD = 4096
_FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]*))')
# An @ behind what any reader of addresses takes for the host, and a colon before it.
_SLASH_IN_LOGIN = re.compile(r"(?s)\w[\w+.-]*://(?=[^@?#]*:)[^/?#]*[/?#].*@")
_ANSWERS = {
    401: "it wants another user or password",
    403: "it lets this user in not at all, or not now",
    404: "it has no stream of this path",
    454: "it does not know the session",
    503: "it has no picture to give at the moment",
}


def require_answer(url: str, name: str) -> None:
    """Ask an RTSP server for its options, which takes it a millisecond.

    FFmpeg's own attempt takes seconds to fail where a host is down, and sees too late that it is back.

    Args:
        url: Of the stream; its user and password are not sent.
        name: For the message.

    Raises:
        CameraError: It does not answer.
    """
    found = _knock(url, "OPTIONS")
    if isinstance(found, str):
        raise CameraError(f"{name} cannot be opened: {found}")


def unreachable(url: str, name: str) -> CameraError:
    """Ask a stream's server, briefly, and say what is wrong in words for people.

    Args:
        url: Of the stream; its user and password are sent as FFmpeg does, where the server asks for them.
        name: For the message.

    Returns:
        A LoginRefused where the server was sent this very user and password, and answered 401; never of https
        and rtsps, whose servers are not asked.
    """
    found = _knock(url, "DESCRIBE")
    if isinstance(found, str):
        return CameraError(f"{name} cannot be opened: {found}")
    status, sent = found
    why = _ANSWERS.get(status, "the server answers, but FFmpeg finds no video that it can read")
    if status == 401 and sent:
        return LoginRefused(
            f"{name} cannot be opened: the server does not take the user and password of the address"
        )
    return CameraError(f"{name} cannot be opened: {why}")


def _knock(url: str, method: str) -> tuple[int, bool] | str:
    """Return the status of a server's answer and whether it was sent a login, or why there is no answer.

    Args:
        url: Of the stream.
        method: Of RTSP; of HTTP it is always GET.
    """
    found = _answer(url, method)
    if isinstance(found, str) and _SLASH_IN_LOGIN.match(url):
        # Said without the host and the port, which may be parts of the login.
        return "nobody answers: is it on? If its user or password holds a /, write %2F, for ? %3F, for # %23"
    return found


def _answer(url: str, method: str) -> tuple[int, bool] | str:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "the address is malformed"
    if not parts.hostname or not port:
        return "FFmpeg cannot read it"
    method = method if parts.scheme == "rtsp" else "GET"
    try:
        status, head = _ask(parts, port, method)
        login = _login(head, parts, method) if status == 401 and method != "OPTIONS" else ""
        return (_ask(parts, port, method, login)[0] if login else status), bool(login)
    except socket.gaierror:
        return f"there is no host {parts.hostname}"
    except ConnectionRefusedError:
        return f"nobody listens on port {port} of {parts.hostname}: is the camera's server on?"
    except TimeoutError:
        return f"{parts.hostname} does not answer: is the camera on, and in this network?"
    except OSError as error:
        return f"{parts.hostname} cannot be reached ({error.strerror or error})"
    except ValueError:
        return f"{parts.hostname!r} is no name of a host"


def _ask(parts: SplitResult, port: int, method: str, login: str = "") -> tuple[int, str]:
    """Return the status of the server's answer, and its head; 0 for one that is none, or is encrypted."""
    with socket.create_connection((parts.hostname, port), _TIMEOUT_S) as link:
        if parts.scheme not in ("rtsp", "http"):
            return 0, ""
        link.settimeout(_TIMEOUT_S)
        protocol = "RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp"
        if parts.scheme == "http":
            protocol = f"HTTP/1.0\r\nHost: {parts.netloc.rpartition('@')[2]}"
        request = f"{method} {_target(parts)} {protocol}\r\n{login}\r\n"
        link.sendall(request.encode("ascii", "replace"))
        answer = b""
        until = time.monotonic() + _TIMEOUT_S
        while b"\r\n\r\n" not in answer and len(answer) < _MAX_HEAD and (more := link.recv(_MAX_HEAD)):
            answer += more
            link.settimeout(
                max(1e-3, until - time.monotonic())
            )  # of the whole answer: it may come drop by drop
    words = answer.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    return status, answer.partition(b"\r\n\r\n")[0].decode("latin-1")


def _target(parts: SplitResult) -> str:
    """Return what is asked for: of RTSP the address without its user, of HTTP the path."""
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    return f"rtsp://{parts.netloc.rpartition('@')[2]}{path}" if parts.scheme == "rtsp" else path


def _login(head: str, parts: SplitResult, method: str) -> str:
    """Return the line that answers a 401 with the address's user, by RFC 7617 or 7616; empty for none."""
    if parts.username is None:
        return ""
    user, password = unquote(parts.username), unquote(parts.password or "")
    kinds = {}
    for line in head.splitlines():
        name, _, challenge = line.partition(":")
        if name.lower() == "www-authenticate":
            fields = {key.lower(): quoted or bare for key, quoted, bare in _FIELD.findall(challenge)}
            if fields.get("algorithm", "MD5").upper() == "MD5":  # all that FFmpeg knows
                kinds[challenge.split()[0].lower() if challenge.strip() else ""] = fields
    if "digest" in kinds:
        return _digest(kinds["digest"], user, password, method=method, target=_target(parts))
    if "basic" in kinds:
        return f"Authorization: Basic {b64encode(f'{user}:{password}'.encode()).decode()}\r\n"
    return ""


def _digest(fields: dict[str, str], user: str, password: str, *, method: str, target: str) -> str:
    realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
    counted = ":00000001:boardfit:auth" if "auth" in fields.get("qop", "") else ""
    secret, asked = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{target}")
    said = {"username": user, "realm": realm, "nonce": nonce, "uri": target}
    said["response"] = _md5(f"{secret}:{nonce}{counted}:{asked}")
    said |= {"opaque": fields["opaque"]} if "opaque" in fields else {}
    end = ', qop=auth, nc=00000001, cnonce="boardfit"' if counted else ""
    words = ", ".join(f'{key}="{value}"' for key, value in said.items())
    return f"Authorization: Digest {words}{end}\r\n"


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
