"""Small servers that stand in for network cameras: processes that can be stopped, killed and started again.

Usage: python servers.py mjpeg PORT [USER:PASSWORD [SECONDS]]
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


def handler_for(password: str, gap_s: float) -> type[BaseHTTPRequestHandler]:
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
                    time.sleep(gap_s)
                    data = PICTURES[index % len(PICTURES)]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(head.encode() + data + b"\r\n")
            except OSError:
                pass  # the client went away

    return Handler


if __name__ == "__main__":
    port, password, gap_s = [*sys.argv[2:], *["", "0.05"][len(sys.argv) - 3 :]]
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), handler_for(password, float(gap_s)))
    print("ready", flush=True)
    server.serve_forever()
