"""boardfit in an asyncio program: answers as an async iterator, while the event loop stays free.

    python embed_asyncio.py model.boardfit synthetic:640x480@30 --frames 100

SIGTERM and Ctrl-C cancel it, as they do any task.
"""

import argparse
import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import boardfit
from boardfit.errors import BoardfitError
from boardfit.runtime import Result, camera


async def answers(running: camera.Loop) -> AsyncIterator[tuple[camera.Frame, Result]]:
    """Yield frames and answers, the newest first: a thread waits for each, and engines release the GIL."""
    pending = iter(running)
    while (answer := await asyncio.to_thread(next, pending, None)) is not None:
        yield answer


async def watch(bundle: str, source: str, frames: int) -> None:
    """Print the best class of frame after frame; another task stands for the rest of your program."""
    beats = []

    async def rest() -> None:
        while True:
            beats.append(await asyncio.sleep(0.01))

    me, _beside = asyncio.current_task(), asyncio.create_task(rest())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, me.cancel)
    with (
        await asyncio.to_thread(camera.open, source) as opened,
        await asyncio.to_thread(boardfit.load, bundle, stream=True) as model,
        camera.loop(opened, model) as running,  # leaving it, also when cancelled, ends the thread that waits
    ):
        async for frame, result in answers(running):
            print(frame.index, *(f"{each.label} {each.score:.2f}" for each in result.top(1)), flush=True)
            if running.stats.results == frames:
                break
    print(f"{running.stats.results} answers, {len(beats)} rounds of the event loop beside them")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer the newest frame of a camera in an asyncio program.")
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("source", metavar="SOURCE", nargs="?", default="synthetic:640x480@30")
    parser.add_argument("--frames", type=int, default=0, help="end after so many answers (default: never)")
    args = parser.parse_args()
    try:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(watch(args.bundle, args.source, args.frames))
    except BoardfitError as error:
        parser.exit(1, f"error: {error}\n")
