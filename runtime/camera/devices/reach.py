"""Why a stream cannot be opened: FFmpeg knows, but OpenCV does not pass it on."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from boardfit.errors import CameraError

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_TIMEOUT_S = 1.0
_ANSWERS = {
    401: "it wants another user or password",
    403: "it refuses this user",
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


def why_unreachable(url: str) -> str:
    """Ask a stream's server, once and briefly, and say what is wrong in words for people.

    Args:
        url: Of the stream; its user and password are not sent.
    """
    found = _knock(url, "DESCRIBE")
    if isinstance(found, str):
        return found
    if found == 401 and "@" in url:
        return "the server does not take the user and password of the address"
    return _ANSWERS.get(found, "the server answers, but FFmpeg finds no video that it can read")


def _knock(url: str, method: str) -> int | str:
    """Return the status of a server's answer, or why there is none in words for people.

    Args:
        url: Of the stream.
        method: Of RTSP; of HTTP it is always GET.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "the address is malformed"
    if not parts.hostname or not port:
        return "FFmpeg cannot read it"
    try:
        with socket.create_connection((parts.hostname, port), _TIMEOUT_S) as link:
            link.settimeout(_TIMEOUT_S)
            return _ask(link, parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", method)
    except socket.gaierror:
        return f"there is no host {parts.hostname}"
    except ConnectionRefusedError:
        return f"nobody listens on port {port} of {parts.hostname}: is the camera's server on?"
    except TimeoutError:
        return f"{parts.hostname} does not answer: is the camera on, and in this network?"
    except OSError as error:
        return f"{parts.hostname} cannot be reached ({error.strerror or error})"


def _ask(link: socket.socket, scheme: str, host: str, path: str, method: str) -> int:
    """Return the status of the server's answer; 0 for one that is none, or is encrypted."""
    if scheme == "rtsp":
        request = f"{method} rtsp://{host}{path} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    elif scheme == "http":
        request = f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n"
    else:
        return 0
    link.sendall(request.encode("ascii", "replace"))
    words = link.recv(64).split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
