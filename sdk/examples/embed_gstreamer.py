"""boardfit on a GStreamer pipeline of one's own: an appsink in this process is the camera.

    apt install python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base
    python embed_gstreamer.py model.boardfit "v4l2src device=/dev/video0"

It is watched and started again like any. camera.open("gst:PIPELINE") runs one in a process of its own.
"""

import argparse

import gi
import numpy as np

import boardfit
from boardfit.errors import BoardfitError, CameraError
from boardfit.runtime import camera
from boardfit.runtime.camera.devices import StreamEnded

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

TAIL = "videoconvert ! video/x-raw,format=BGR ! appsink name=sink max-buffers=1 drop=true sync=false"


class AppSink:
    """A boardfit ``Device``: ``read`` returns the newest picture."""

    def __init__(self, pipeline: str) -> None:
        self.pipeline = Gst.parse_launch(f"{pipeline} ! {TAIL}")
        self.sink = self.pipeline.get_by_name("sink")
        self.pipeline.set_state(Gst.State.PLAYING)

    def read(self) -> np.ndarray:
        """Wait for a picture, HxWx3 uint8 BGR."""
        if (sample := self.sink.emit("try-pull-sample", Gst.SECOND)) is None:
            over = self.sink.get_property("eos")
            raise StreamEnded if over else CameraError("the pipeline gave no picture within a second")
        caps, buffer = sample.get_caps().get_structure(0), sample.get_buffer()
        width, height = caps.get_value("width"), caps.get_value("height")
        rows = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8).reshape(height, -1)
        return rows[:, : 3 * width].reshape(height, width, 3)  # rows are padded to four bytes

    def close(self) -> None:
        """Stop the pipeline."""
        self.pipeline.set_state(Gst.State.NULL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer the newest picture of a GStreamer pipeline.")
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("source", metavar="SOURCE", nargs="?", default="videotestsrc is-live=true")
    args = parser.parse_args()
    Gst.init(None)
    try:
        with boardfit.load(args.bundle) as model, camera.open(lambda: AppSink(args.source)) as opened:
            for frame, result in camera.loop(opened, model):
                print(frame.index, *(f"{best.label} {best.score:.2f}" for best in result.top(1)), flush=True)
    except BoardfitError as error:
        parser.exit(1, f"error: {error}\n")
