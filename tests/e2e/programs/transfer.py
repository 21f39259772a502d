"""A program that knows no TLS: sends a stream and receives one at the same time, over plain TCP.

usage: transfer.py client|server HOST:PORT SEND_BYTES [blocking|nonblocking|asyncio] [--connections N]

Each end sends SEND_BYTES, ends its direction, and reads to the end of the other's. One JSON line for each connection
on standard output: how many bytes came and their SHA-256, or the errno that ended it. A server says "listening" first.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import selectors
import socket
import sys
import threading

BLOCK = bytes(range(251)) * 261  # 65,511 bytes: no record, segment or page divides it


def stream(total: int):
    """Yield `total` bytes in blocks."""
    while total > 0:
        yield BLOCK[:total]
        total -= len(BLOCK[:total])


def report(received: int, digest: str) -> None:
    print(json.dumps({"received": received, "sha256": digest}), flush=True)


def blocking(sock: socket.socket, total: int) -> None:
    """Two threads, one for each direction."""

    def send() -> None:
        for block in stream(total):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    digest, received = hashlib.sha256(), 0
    while data := sock.recv(65536):
        digest.update(data)
        received += len(data)
    sender.join()
    report(received, digest.hexdigest())


def nonblocking(sock: socket.socket, total: int) -> None:
    """One thread and a selector (epoll); a connect in progress is waited for like any other event."""
    sock.setblocking(False)
    blocks, pending = stream(total), b""
    digest, received, sending, reading = hashlib.sha256(), 0, True, True
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while sending or reading:
            for _, mask in selector.select():
                if mask & selectors.EVENT_WRITE and sending:
                    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if error:
                        raise OSError(error, os.strerror(error))
                    pending = pending or next(blocks, b"")
                    if pending:
                        with contextlib.suppress(BlockingIOError):
                            pending = pending[sock.send(pending) :]
                    else:
                        sock.shutdown(socket.SHUT_WR)
                        sending = False
                if mask & selectors.EVENT_READ and reading:
                    try:
                        data = sock.recv(65536)
                    except BlockingIOError:
                        continue
                    reading = bool(data)
                    digest.update(data)
                    received += len(data)
            if sending or reading:
                selector.modify(sock, selectors.EVENT_READ * reading | selectors.EVENT_WRITE * sending)
    report(received, digest.hexdigest())


async def with_asyncio(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, total: int) -> None:
    async def send() -> None:
        for block in stream(total):
            writer.write(block)
            await writer.drain()
        writer.write_eof()

    async def receive() -> None:
        digest, received = hashlib.sha256(), 0
        while data := await reader.read(65536):
            digest.update(data)
            received += len(data)
        report(received, digest.hexdigest())

    await asyncio.gather(send(), receive())
    writer.close()
    await writer.wait_closed()  # what is still buffered goes first


def run_client(host: str, port: int, total: int, mode: str) -> None:
    if mode == "asyncio":

        async def connect() -> None:
            await with_asyncio(*await asyncio.open_connection(host, port), total)

        asyncio.run(connect())
    elif mode == "blocking":
        with socket.create_connection((host, port)) as sock:
            blocking(sock, total)
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as sock:
            sock.setblocking(False)
            sock.connect_ex((host, port))
            nonblocking(sock, total)


def run_server(host: str, port: int, total: int, mode: str, connections: int) -> None:
    if mode == "asyncio":
        asyncio.run(serve_asyncio(host, port, total, connections))
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        print("listening", flush=True)
        for _ in range(connections):
            sock, _ = listener.accept()
            with sock:
                one_connection(blocking if mode == "blocking" else nonblocking, sock, total)


def one_connection(how, sock: socket.socket, total: int) -> None:
    try:
        how(sock, total)
    except OSError as error:
        print(json.dumps({"errno": error.errno, "error": str(error)}), flush=True)


async def serve_asyncio(host: str, port: int, total: int, connections: int) -> None:
    left, done = connections, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        try:
            await with_asyncio(reader, writer, total)
        except OSError as error:
            print(json.dumps({"errno": error.errno, "error": str(error)}), flush=True)
        left -= 1
        if left == 0:
            done.set()

    async with await asyncio.start_server(serve, host, port):
        print("listening", flush=True)
        await done.wait()


def main() -> int:
    role, address, total, mode = sys.argv[1], sys.argv[2], int(sys.argv[3]), (sys.argv[4:5] or ["blocking"])[0]
    connections = int(sys.argv[sys.argv.index("--connections") + 1]) if "--connections" in sys.argv else 1
    host, _, port = address.rpartition(":")
    try:
        if role == "client":
            run_client(host.strip("[]"), int(port), total, mode)
        else:
            run_server(host.strip("[]"), int(port), total, mode, connections)
    except OSError as error:
        print(json.dumps({"errno": error.errno, "error": str(error)}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
