"""What clients do: each visit is one connection, chosen and filled by a seeded random, checked to its last byte.

Half-closes only where the protocol has them: nginx and redis may cut a reply short when the client has ended its
direction, on plain TCP too, so there it comes after the last reply, and the server's end of file must follow. The sink
(sink.py) answers after the client's end of file.
"""

import hashlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from .links import Broken, Link, Reader, abort

BODY_MOST = 200_000
"""Bytes of an upload or a value."""
SLOW = (2_000, 40_000), (0.0005, 0.005)
"""Of a slow reader: bytes at once, seconds between."""
ENDS = ("close", "half-close", "abort")


@dataclass(frozen=True, slots=True)
class Targets:
    """Where the servers are, and what the web server has.

    Attributes:
        host: their address.
        ports: by name: http, redis, sink.
        files: size and SHA-256 by path.
    """

    host: str
    ports: dict[str, int]
    files: dict[str, tuple[int, str]]


@dataclass(slots=True)
class Visit:
    """One connection, in the middle of it.

    Attributes:
        slot: the client's number: its own uploads and keys.
        requests: answered and found right.
        checked: bytes found right.
        deed: what was done, for the table.
    """

    link: Link
    random: Random
    targets: Targets
    slot: int
    requests: int = 0
    checked: int = 0
    deed: str = ""
    reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = Reader(self.link)

    async def run(self) -> None:
        """Do it. The socket is closed in the end, in whatever way the dice say.

        Raises:
            Broken: what came is wrong.
            OSError: the connection failed, which nothing here explains.
        """
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "http": self._http, "redis": self._redis, "sink": self._sink, "hasty": self._hasty
        }  # fmt: skip
        self.deed = self.random.choices(list(kinds), (45, 35, 10, 10))[0]
        try:
            await kinds[self.deed]()
        finally:
            self.link.sock.close()

    def _note(self, *words: str) -> None:
        self.deed = " ".join((self.deed, *words))

    def _check(self, data: bytes, digest: str, what: str) -> None:
        if hashlib.sha256(data).hexdigest() != digest:
            raise Broken(f"{what}: {len(data)} bytes, and not those that were sent")
        self.requests += 1
        self.checked += len(data)

    async def _arrive(self, server: str) -> None:
        if self.random.random() < 0.2:
            self.link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.random.choice((4096, 32768)))
        await self.link.connect((self.targets.host, self.targets.ports[server]))
        if self.random.random() < 0.2:
            await self._wait(0.2)
        if self.random.random() < 0.15:
            (least, most), (short, long) = SLOW
            self.reader.pace = self.random.randint(least, most), self.random.uniform(short, long)

    async def _wait(self, most: float) -> None:
        await self.link.pause(self.random.uniform(0, most))

    async def _send_in_pieces(self, data: bytes) -> None:
        """Sometimes whole, sometimes in pieces with pauses."""
        if self.random.random() < 0.5:
            await self.link.send(data)
            return
        for _ in range(3):
            cut = self.random.randint(0, len(data))
            await self.link.send(data[:cut])
            data = data[cut:]
            await self._wait(0.02)
        await self.link.send(data)

    # --- the web server ------------------------------------------------------------------------------------------

    async def _http(self) -> None:
        await self._arrive("http")
        steps: tuple[Callable[[], Awaitable[None]], ...] = self._get, self._pipeline, self._put
        for _ in range(self.random.randint(1, 4)):
            await self.random.choice(steps)()
            if self.random.random() < 0.3:
                await self._wait(0.1)
        await self._leave(self._cut_a_response)

    def _path(self) -> str:
        return self.random.choice(list(self.targets.files))

    async def _get(self) -> None:
        path = self._path()
        await self.link.send(_request("GET", path))
        await self._response_is(path)

    async def _pipeline(self) -> None:
        paths = [self._path() for _ in range(self.random.randint(2, 6))]
        await self._send_in_pieces(b"".join(_request("GET", path) for path in paths))
        for path in paths:
            await self._response_is(path)

    async def _put(self) -> None:
        body, path = self._body(), f"/up/{self.slot}-{self.random.randint(0, 1)}"
        await self._send_in_pieces(_request("PUT", path, len(body)) + body)
        await self._response()
        self.requests += 1
        await self.link.send(_request("GET", path))
        self._check(await self._response(), hashlib.sha256(body).hexdigest(), f"GET {path} after PUT")

    async def _cut_a_response(self) -> None:
        path = max(self.targets.files, key=lambda name: self.targets.files[name][0])
        if self.random.random() < 0.3:  # or a request
            body = self._body()
            whole = _request("PUT", f"/up/{self.slot}-0", len(body)) + body
            await self.link.send(whole[: self.random.randint(1, len(whole) - 1)])
        else:
            await self.link.send(_request("GET", path) * self.random.randint(1, 3))
            await self.reader.at_least(self.random.randint(0, self.targets.files[path][0]))

    async def _response_is(self, path: str) -> None:
        self._check(await self._response(), self.targets.files[path][1], f"GET {path}")

    async def _response(self) -> bytes:
        status = await self.reader.line()
        if status.split()[1:2] not in ([b"200"], [b"201"], [b"204"]):
            raise Broken(f"the web server says {status!r}")
        size = 0
        while header := await self.reader.line():
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        return await self.reader.exactly(size)

    def _body(self) -> bytes:
        return self.random.randbytes(self.random.choice((1, 1000, 16384, self.random.randint(1, BODY_MOST))))

    # --- redis ---------------------------------------------------------------------------------------------------

    async def _redis(self) -> None:
        await self._arrive("redis")
        for _ in range(self.random.randint(1, 5)):
            await self._set_and_get(self.random.choice((1, 1, 2, 20)))
            if self.random.random() < 0.2:
                await self._wait(0.1)
        await self._leave(self._cut_a_reply)

    async def _set_and_get(self, times: int) -> None:
        """As one pipeline: every value is read back before the next is written to the same key."""
        values = [self._body() if times < 3 else self.random.randbytes(self.random.randint(1, 2000))
                  for _ in range(times)]  # fmt: skip
        keys = [f"soak:{self.slot}:{self.random.randint(0, 1)}".encode() for _ in values]
        pairs = zip(keys, values, strict=True)
        await self._send_in_pieces(
            b"".join(_command(b"SET", key, value) + _command(b"GET", key) for key, value in pairs)
        )
        for value in values:
            if (reply := await self.reader.line()) != b"+OK":
                raise Broken(f"SET was answered with {reply[:80]!r}")
            self.requests += 1
            self._check(await self._bulk(), hashlib.sha256(value).hexdigest(), "GET")

    async def _bulk(self) -> bytes:
        head = await self.reader.line()
        if not head.startswith(b"$") or head == b"$-1":
            raise Broken(f"GET was answered with {head[:80]!r}")
        data = await self.reader.exactly(int(head[1:]) + 2)
        return data[:-2]

    async def _cut_a_reply(self) -> None:
        key, value = f"soak:{self.slot}:0".encode(), self._body()
        await self.link.send(_command(b"SET", key, value) + _command(b"GET", key) * 3)
        await self.reader.at_least(self.random.randint(0, len(value)))

    # --- the sink, and no manners at all -------------------------------------------------------------------------

    async def _sink(self) -> None:
        """Send, end our direction, and only then get the answer: the digest, and the same again."""
        await self._arrive("sink")
        body = self._body()
        await self._send_in_pieces(body)
        await self._wait(0.02)
        self.link.sock.shutdown(socket.SHUT_WR)
        digest = hashlib.sha256(body).hexdigest()
        if (said := await self.reader.exactly(64)) != digest.encode():
            raise Broken(f"the sink got something else than {len(body)} bytes sent to it: {said!r}")
        self._check(await self.reader.exactly(len(body)), digest, "the sink's answer")
        await self.reader.end()

    async def _hasty(self) -> None:
        """Be gone at once, or soon: in the handshake, perhaps."""
        sock, server = self.link.sock, self.random.choice(list(self.targets.ports))
        sock.setblocking(False)
        sock.connect_ex((self.targets.host, self.targets.ports[server]))
        if self.random.random() < 0.8:
            await self._wait(self.random.choice((0.001, 0.01, 0.1)))
        if self.random.random() < 0.5:
            self._note("abort")
            abort(sock)

    async def _leave(self, cut: Callable[[], Awaitable[None]]) -> None:
        end = self.random.choices(ENDS, (50, 25, 25))[0]
        self._note(end)
        if end == "abort":
            await cut()
            abort(self.link.sock)
        elif end == "half-close":
            self.link.sock.shutdown(socket.SHUT_WR)
            await self.reader.end()


def _request(method: str, path: str, size: int | None = None) -> bytes:
    length = "" if size is None else f"Content-Length: {size}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: soak\r\n{length}\r\n".encode()


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
