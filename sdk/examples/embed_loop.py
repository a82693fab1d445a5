"""boardfit in a plain loop: the newest frame of a camera, its answer, your own code.

    python embed_loop.py model.boardfit synthetic:640x480@30 --frames 100

The next frame is inferred while the loop's body runs; what comes too fast is dropped and counted.
"""

import argparse
import contextlib

import boardfit
from boardfit.errors import BoardfitError
from boardfit.runtime import camera


def watch(bundle: str, source: str, frames: int) -> None:
    """Print the best class of frame after frame.

    Args:
        bundle: Path of a .boardfit.
        source: A camera, an address, a film, a folder.
        frames: Answers after which to end; 0 for never.
    """
    with camera.open(source) as opened, boardfit.load(bundle, stream=True) as model:
        running = camera.loop(opened, model)
        for frame, result in running:
            best = result.top(1)  # empty where the bundle is no classifier: there see result.named
            print(frame.index, result.size, *(f"{each.label} {each.score:.2f}" for each in best), flush=True)
            if running.stats.results == frames:
                break
        print(f"{running.stats.results} answers, {running.counters['dropped']} frames dropped")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer the newest frame of a camera, over and over.")
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("source", metavar="SOURCE", nargs="?", default="synthetic:640x480@30")
    parser.add_argument("--frames", type=int, default=0, help="end after so many answers (default: never)")
    args = parser.parse_args()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            watch(args.bundle, args.source, args.frames)
    except BoardfitError as error:
        parser.exit(1, f"error: {error}\n")
