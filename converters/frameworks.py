"""Import Keras on TensorFlow, once and without TensorFlow's start-up messages."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from boardfit.converters.capture import captured_output
from boardfit.errors import ToolMissing


def require_frameworks() -> None:
    """Raise ToolMissing unless TensorFlow and Keras are installed. Cheap: imports nothing."""
    for name in ("tensorflow", "keras"):
        if find_spec(name) is None:
            raise ToolMissing(
                f"reading and building models needs {name}, not installed: pip install 'boardfit[convert]' "
                "on a laptop or server; a board runs the bundle that is built there"
            )


def load_frameworks() -> None:
    """Import Keras with the TensorFlow backend, which every export needs.

    Raises:
        ToolMissing: TensorFlow or Keras is not installed, or Keras already runs on another backend.
    """
    require_frameworks()
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with captured_output():
        import keras
        import tensorflow as tf

        # Makes absl print its one-time warning here, where nobody sees it.
        tf.constant(0.0)
    if keras.backend.backend() != "tensorflow":
        raise ToolMissing(
            f"Keras was imported with the backend {keras.backend.backend()!r}: TFLite and ONNX are exported "
            "from TensorFlow; start again with KERAS_BACKEND=tensorflow"
        )
