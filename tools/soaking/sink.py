"""A server that answers only after the client's end of file: `python -m soaking.sink PORT`.

The answer is the SHA-256 of what came, as 64 hex digits, and then all of it again.
"""

import asyncio
import contextlib
import hashlib
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one client. One that is cut off gets nothing."""
    with contextlib.suppress(ConnectionError):
        data = await reader.read()
        writer.write(hashlib.sha256(data).hexdigest().encode() + data)
        await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def main(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
