"""boardfit as a ROS 2 node: sensor_msgs/Image in, vision_msgs/Classification out. NOT RUN on a ROS 2.

    python embed_ros2.py model.boardfit /camera/image_raw

Its test has stand-ins for rclpy and the messages. The queue is one deep: of waiting frames the newest stays.
"""

import argparse

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification, ObjectHypothesis

import boardfit
from boardfit.errors import BoardfitError

CHANNELS = {"bgr8": (0, 1, 2), "rgb8": (2, 1, 0), "mono8": (0, 0, 0)}


def as_bgr(message: Image) -> np.ndarray:
    """Return the picture of a message, HxWx3 uint8 BGR."""
    bgr, rows = CHANNELS[message.encoding], np.frombuffer(message.data, np.uint8).reshape(message.height, -1)
    return rows[:, : len(set(bgr)) * message.width].reshape(message.height, message.width, -1)[..., bgr]


class Classifier(Node):
    """Answers each image with its five best classes, under the image's own header."""

    def __init__(self, model: boardfit.Model, topic: str) -> None:
        super().__init__("boardfit")
        self.model, self.publisher = model, self.create_publisher(Classification, "~/classes", 10)
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(Image, topic, self.answer, qos)

    def answer(self, message: Image) -> None:
        """Publish the answer to an image; what is wrong with one goes to the log."""
        try:
            top = self.model(as_bgr(message)).top(5)
            results = [ObjectHypothesis(class_id=best.label, score=best.score) for best in top]
            self.publisher.publish(Classification(header=message.header, results=results))
        except (BoardfitError, KeyError, ValueError) as error:  # such as another encoding
            self.get_logger().error(f"no answer to an image in {message.encoding}: {error!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Classify the images of a ROS 2 topic.")
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("source", metavar="SOURCE", nargs="?", default="/camera/image_raw")
    args = parser.parse_args(rclpy.utilities.remove_ros_args()[1:])
    try:
        rclpy.init()
        with boardfit.load(args.bundle, stream=True) as loaded:
            rclpy.spin(Classifier(loaded, args.source))
    except (BoardfitError, ExternalShutdownException, KeyboardInterrupt) as error:
        parser.exit(isinstance(error, BoardfitError), f"{error}\n")
