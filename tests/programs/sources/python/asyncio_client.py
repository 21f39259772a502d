"""Sends a file and saves what comes back: asyncio_client.py PORT FILE SAVED."""

import asyncio
import sys
from pathlib import Path


async def send(writer: asyncio.StreamWriter, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(65536):
            writer.write(block)
            await writer.drain()
    writer.write_eof()


async def main() -> None:
    port, path, saved = sys.argv[1:]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    sending = asyncio.create_task(send(writer, Path(path)))
    with Path(saved).open("wb") as file:
        while data := await reader.read(65536):
            file.write(data)
    await sending
    writer.close()
    await writer.wait_closed()


asyncio.run(main())
