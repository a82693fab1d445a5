"""Small servers that stand in for network cameras: processes that can be stopped, killed and started again.

Usage: python servers.py mjpeg PORT [USER:PASSWORD]
"""

from __future__ import annotations

import base64
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


def jpeg(index: int) -> bytes:
    noise = np.random.RandomState(index).randint(0, 64, (240, 320, 3)).astype(np.uint8)
    noise[:, (5 * index) % 280 :][:, :40] = 220
    return cv2.imencode(".jpg", noise)[1].tobytes()


PICTURES = [jpeg(index) for index in range(50)]


def handler_for(password: str) -> type[BaseHTTPRequestHandler]:
    expected = f"Basic {base64.b64encode(password.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words) -> None:
            pass

        def do_GET(self) -> None:
            if password and self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for index in range(10**9):
                    data = PICTURES[index % len(PICTURES)]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(head.encode() + data + b"\r\n")
                    time.sleep(1 / 20)
            except OSError:
                pass  # the client went away

    return Handler


if __name__ == "__main__":
    server = ThreadingHTTPServer(
        ("127.0.0.1", int(sys.argv[2])), handler_for(sys.argv[3] if len(sys.argv) > 3 else "")
    )
    print("ready", flush=True)
    server.serve_forever()
