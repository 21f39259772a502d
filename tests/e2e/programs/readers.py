"""A program that knows no TLS and reads a connection to its end in one of many ways.

usage: readers.py HOW PORT|listen:PORT

It sends "?" before it reads and "!" after it has read to the end, and prints one JSON line: what it read, and the
errno that ended it if one did.
"""

import asyncio
import json
import os
import select
import socket
import sys

WAIT = 30  # seconds


def recv(sock):
    while data := sock.recv(65536):
        yield data


def read(sock):
    while data := os.read(sock.fileno(), 65536):
        yield data


def one_byte(sock):
    while data := sock.recv(1):
        yield data


def recvmsg(sock):
    while True:
        data, ancillary, flags, _ = sock.recvmsg(65536, 256)
        assert not ancillary, ancillary
        assert flags == 0, flags
        if not data:
            return
        yield data


def peek(sock):
    while seen := sock.recv(3, socket.MSG_PEEK):
        data = sock.recv(len(seen), socket.MSG_WAITALL)
        assert data == seen, (data, seen)
        yield data


def stdio(sock):
    # libc's own streams: Python's makefile() would read through recv().
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.fdopen.restype = ctypes.c_void_p
    libc.fgetc.argtypes = libc.ferror.argtypes = [ctypes.c_void_p]
    stream = libc.fdopen(os.dup(sock.fileno()), b"r")
    while (byte := libc.fgetc(stream)) >= 0:
        yield bytes([byte])
    if libc.ferror(stream):
        raise OSError(ctypes.get_errno(), "stream error")


def splice(sock):
    reader, writer = os.pipe()
    while count := os_splice(sock.fileno(), writer, 65536):
        yield os.read(reader, count)


def os_splice(source, target, count):
    return os.splice(source, target, count)


def nonblocking(sock, wait):
    sock.setblocking(False)
    while True:
        wait()
        while True:
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                break
            if not data:
                return
            yield data


def poll(sock):
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    yield from nonblocking(sock, lambda: ready(poller.poll(WAIT * 1000)))


def select_(sock):
    yield from nonblocking(sock, lambda: ready(select.select([sock], [], [], WAIT)[0]))


def epoll(sock, flags, rearm=False):
    poller = select.epoll()
    poller.register(sock, select.EPOLLIN | flags)

    def wait():
        if rearm:
            poller.modify(sock, select.EPOLLIN | flags)
        ready(poller.poll(WAIT))

    yield from nonblocking(sock, wait)


def asks_twice(sock):
    """What is readable stays so until it is read, whoever asks how often; the end stays so for good."""
    poller, watcher = select.poll(), select.epoll()
    poller.register(sock, select.POLLIN)
    watcher.register(sock, select.EPOLLIN)
    data = b"?"
    while data:
        for _ in range(2):
            ready(poller.poll(WAIT * 1000))
            ready(select.select([sock], [], [], WAIT)[0])
            ready(watcher.poll(WAIT))
        data = sock.recv(65536)
        yield data
    ready(poller.poll(WAIT * 1000))
    ready(select.select([sock], [], [], WAIT)[0])


def looks_and_asks(sock):
    """What MSG_PEEK has shown, the end too, is readable."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    data = b"?"
    while data:
        sock.recv(1, socket.MSG_PEEK)
        ready(poller.poll(WAIT * 1000))
        ready(select.select([sock], [], [], WAIT)[0])
        data = sock.recv(65536)
        yield data


def ready(events):
    if not events:
        raise TimeoutError(110, "no event")


def asyncio_(sock):
    parts = []

    async def run():
        reader, writer = await asyncio.open_connection(sock=sock)
        while data := await reader.read(65536):
            parts.append(data)
        writer.write(b"!")
        writer.close()

    try:
        asyncio.run(run())
    finally:
        yield from parts


HOW = {
    "recv": recv,
    "read": read,
    "one-byte": one_byte,
    "recvmsg": recvmsg,
    "peek": peek,
    "stdio": stdio,
    "splice": splice,
    "poll": poll,
    "select": select_,
    "asks-twice": asks_twice,
    "looks-and-asks": looks_and_asks,
    "epoll-edge": lambda sock: epoll(sock, select.EPOLLET),
    "epoll-oneshot": lambda sock: epoll(sock, select.EPOLLONESHOT, rearm=True),
    "asyncio": asyncio_,
}


def connect(where):
    if where.startswith("listen:"):
        with socket.create_server(("127.0.0.1", int(where[7:]))) as listener:
            return listener.accept()[0]
    return socket.create_connection(("127.0.0.1", int(where)))


def main():
    sock = connect(sys.argv[2])
    sock.sendall(b"?")
    data, result = b"", {}
    try:
        for part in HOW[sys.argv[1]](sock):
            data += part
    except OSError as error:
        result["errno"] = error.errno
    else:
        if sock.fileno() >= 0:  # asyncio has closed it, and said so itself
            sock.sendall(b"!")
    print(json.dumps({"data": data.decode("latin-1"), **result}), flush=True)


if __name__ == "__main__":
    main()
