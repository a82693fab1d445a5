"""boardfit behind HTTP with FastAPI: answers images that are sent, and tells what a camera saw last.

    python embed_fastapi.py model.boardfit synthetic:640x480@30 --port 8000

Then: curl --data-binary @photo.jpg http://127.0.0.1:8000/answer. Needs fastapi and uvicorn.
"""

import argparse
import asyncio
import threading

import uvicorn
from fastapi import FastAPI, HTTPException, Request

import boardfit
from boardfit.errors import BoardfitError, InputError
from boardfit.runtime import Result, camera, decode_image


def make_app(model: boardfit.Model, running: camera.Loop) -> FastAPI:
    """Return the app: POST /answer takes an image file, GET /newest asks for the camera."""
    app, newest = FastAPI(title="boardfit"), [{}]
    app.get("/newest")(lambda: newest[0] if follower.is_alive() else {"error": "the camera's loop has ended"})

    def as_json(result: Result) -> dict:
        return {"top": [[best.label, best.score] for best in result.top(5)], "size": result.size}

    def follow() -> None:
        for _, result in running:
            newest[0] = as_json(result)

    @app.post("/answer")
    async def answer(request: Request) -> dict:
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > 20_000_000:
                raise HTTPException(413, "expected an image of at most 20 MB")
        try:
            return as_json(await asyncio.to_thread(lambda: model(decode_image(bytes(data)))))
        except InputError as error:
            raise HTTPException(422, str(error)) from error

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer images over HTTP, and tell what a camera saw last.")
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("source", metavar="SOURCE", nargs="?", default="synthetic:640x480@30")
    parser.add_argument("--port", type=int, default=8000, help="of 127.0.0.1 (default: %(default)s)")
    args = parser.parse_args()
    try:
        with camera.open(args.source) as opened, boardfit.load(args.bundle) as served:
            uvicorn.run(make_app(served, camera.loop(opened, served)), port=args.port)
    except BoardfitError as error:
        parser.exit(1, f"error: {error}\n")
