"""The WebSocket of the live view: the newest frame to whoever is ready for one, and no queue.

The client says in JSON what it wants, ``{"watch": ["<universe>", "<estimator>"]}``, and ``{"drawn":
k}`` once it is done with k frames. It is sent the newest frame at once, and then each time
that there is a newer one, as long as less than two are on their way: what came meanwhile is
passed over. A frame is one binary message (``wire/live``).
"""

import asyncio
import contextlib

import orjson
from aiohttp import WSMsgType, web

from stream_calib.adapters.http.live import Key, LiveView

ON_THEIR_WAY = 2
MESSAGE_BYTES_MAX = 1000
HEARTBEAT_S = 20.0
SEND_S = 30.0  # a frame that takes longer ends the connection


class _Viewer:
    # What one client watches and how far it is.

    def __init__(self) -> None:
        self.key: Key | None = None
        self.generation = 0
        self.on_their_way = 0

    def hear(self, message: object) -> bool:
        match message:
            case {"watch": [str(universe), str(estimator)]}:
                self.key, self.generation = (universe, estimator), 0
            case {"drawn": int(count)} if count >= 0:
                self.on_their_way = max(0, self.on_their_way - count)
            case _:
                return False
        return True


async def serve_frames(
    view: LiveView, request: web.BaseRequest, sockets: set[web.WebSocketResponse]
) -> web.WebSocketResponse:
    """Carry frames to a client until it leaves; it is among ``sockets`` meanwhile."""
    socket = web.WebSocketResponse(
        heartbeat=HEARTBEAT_S,
        compress=False,
        max_msg_size=MESSAGE_BYTES_MAX,
        writer_limit=1,  # what is not sent yet is waited for, so that there is nothing behind it
    )
    await socket.prepare(request)
    sockets.add(socket)
    viewer, listener = _Viewer(), view.listen()
    assert request.transport is not None
    sending = asyncio.create_task(_send(view, socket, request.transport, viewer, listener))
    try:
        async for message in socket:
            if message.type is not WSMsgType.TEXT or not viewer.hear(_parsed(message.data)):
                view.observer.refused("message")
                await socket.close(code=1003, message=b"not understood")
                break
            listener.set()
    finally:
        sockets.discard(socket)
        view.leave(listener)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await sending
    return socket


async def _send(
    view: LiveView,
    socket: web.WebSocketResponse,
    transport: asyncio.WriteTransport,
    viewer: _Viewer,
    listener: asyncio.Event,
) -> None:
    while True:
        await listener.wait()
        listener.clear()
        if viewer.key is None or viewer.on_their_way >= ON_THEIR_WAY:
            continue
        newest = view.frame(viewer.key)
        if newest is None or newest[0] == viewer.generation:
            continue
        generation, frame = newest
        passed_over = generation - viewer.generation - 1 if viewer.generation else 0
        viewer.generation = generation
        viewer.on_their_way += 1
        try:
            async with asyncio.timeout(SEND_S):
                await socket.send_bytes(frame.value)
        except TimeoutError:
            transport.abort()
            return
        view.observer.viewed(len(frame.value), passed_over)


def _parsed(text: str) -> object:
    try:
        message: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return message
