"""boardfit in a Qt window: the camera's picture, and its answer under it; a thread waits for the answers.

    python embed_pyside6.py model.boardfit synthetic:640x480@30

Needs PySide6-Essentials<6.12: on Python 3.11 6.12.0 aborts after minutes (each call loses a None reference).
"""

import argparse
import threading

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QImage, QPixmap
from PySide6.QtWidgets import QApplication, QLabel, QMainWindow

import boardfit
from boardfit.errors import BoardfitError
from boardfit.runtime import camera


class Window(QMainWindow):
    """Shows the newest answer of a loop, 30 times a second."""

    def __init__(self, running: camera.Loop) -> None:
        super().__init__(windowTitle="boardfit")
        self.running, self.newest, self.picture = running, None, QLabel("waiting for the camera")
        self.picture.setMinimumSize(320, 240)
        self.setCentralWidget(self.picture)
        threading.Thread(target=self.follow, daemon=True).start()
        QTimer(self, interval=33, timeout=self.draw).start()

    def follow(self) -> None:
        """Keep the newest answer; widgets are left to Qt's own thread."""
        for answer in self.running:
            self.newest = answer

    def draw(self) -> None:
        """Draw what has come since the last time."""
        if self.newest is not None:
            (frame, result), self.newest = self.newest, None
            (height, width, _), bgr = frame.image.shape, QImage.Format.Format_BGR888
            image = QImage(frame.image.tobytes(), width, height, 3 * width, bgr)
            room = self.picture.size()
            self.picture.setPixmap(QPixmap(image).scaled(room, Qt.AspectRatioMode.KeepAspectRatio))
            self.statusBar().showMessage("   ".join(f"{a.label} {a.score:.2f}" for a in result.top(3)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Show a camera and its answers in a window.")
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("source", metavar="SOURCE", nargs="?", default="synthetic:640x480@30")
    args, app = parser.parse_args(), QApplication([])
    try:
        with boardfit.load(args.bundle, stream=True) as model, camera.open(args.source) as opened:
            window = Window(camera.loop(opened, model))
            window.show()
            app.exec()
            window.running.close()
    except BoardfitError as error:
        parser.exit(1, f"error: {error}\n")
