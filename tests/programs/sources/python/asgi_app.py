"""POST /sum answers with the SHA-256 of the body, GET /stream sends the file of $STREAM in parts, all else its path."""

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        event = await receive()
        yield event.get("body", b"")
        more = event.get("more_body", False)


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    if scope["path"] == "/sum":
        digest = hashlib.sha256()
        async for part in body(receive):
            digest.update(part)
        await send({"type": "http.response.body", "body": digest.hexdigest().encode()})
    elif scope["path"] == "/stream":
        with Path(os.environ["STREAM"]).open("rb") as file:
            while block := file.read(10_000):
                await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body"})
    else:
        await send({"type": "http.response.body", "body": scope["path"].encode()})
