"""Reading and writing: streams of the C library, dprintf()."""

import ctypes
import socket

from tests.contract.calls import call, libc, receive, unread
from tests.contract.row import row
from tests.contract.world import World, outcome

for name in ("fdopen", "fgets"):
    libc[name]
libc.fdopen.restype = libc.fgets.restype = ctypes.c_void_p
libc.fread.restype = libc.fwrite.restype = ctypes.c_size_t
libc.getline.restype = libc.getdelim.restype = ctypes.c_ssize_t
IONBF, IOLBF, IOFBF = 2, 1, 0


def opened(sock: socket.socket, mode: bytes) -> ctypes.c_void_p:
    """fdopen(): the stream owns the socket now."""
    stream = ctypes.c_void_p(libc.fdopen(sock.fileno(), mode))
    assert stream.value
    return stream


def line(stream: ctypes.c_void_p, size: int = 100) -> str | None:
    buffer = ctypes.create_string_buffer(size)
    return buffer.value.decode() if libc.fgets(buffer, size, stream) else None


@row("fdopen(), then fgets() line by line to the end", "the lines; null and feof() at the end")
def lines(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"first\nsecond\n")
    client.sendall(b"no newline")
    client.close()
    stream = opened(server, b"r")
    seen: list = [line(stream) for _ in range(4)]
    seen += [libc.feof(stream) != 0, libc.ferror(stream), libc.fclose(stream), outcome(server.recv, 1)]
    server.detach()
    return seen


@row("getline(), getdelim(), fscanf(), fgetc(), ungetc() on one stream", "as on any")
def scans(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"a long line\nup to:12 words z")
    client.close()
    stream = opened(server, b"r+")
    place, size, number = ctypes.c_char_p(), ctypes.c_size_t(0), ctypes.c_int()
    seen: list = [libc.getline(ctypes.byref(place), ctypes.byref(size), stream), (place.value or b"").decode()]
    seen += [libc.getdelim(ctypes.byref(place), ctypes.byref(size), ord(":"), stream), (place.value or b"").decode()]
    word = ctypes.create_string_buffer(50)
    seen += [libc.fscanf(stream, b"%d %49s", ctypes.byref(number), word), number.value, word.value.decode()]
    seen += [
        libc.fgetc(stream),
        libc.ungetc(ord("q"), stream),
        libc.fgetc(stream),
        libc.fgetc(stream),
        libc.fgetc(stream),
    ]
    return [*seen, libc.feof(stream) != 0]


@row("fread() of more than has come, then of the rest", "waits for all of it; short at the end")
def fread(world: World) -> list:
    client, server = world.ready_pair()
    stream, buffer = opened(server, b"rb"), ctypes.create_string_buffer(70000)
    reading = world.thread(libc.fread, buffer, ctypes.c_size_t(1), ctypes.c_size_t(60000), stream)
    for _ in range(6):
        client.sendall(b"0123456789" * 1000)
    seen = [reading.result(), buffer.raw[:60000] == b"0123456789" * 6000]
    client.sendall(b"rest")
    client.close()
    return [*seen, libc.fread(buffer, 1, 100, stream), libc.feof(stream) != 0, libc.fread(buffer, 1, 100, stream)]


@row("fprintf(), fputs(), putc(): buffered until fflush()", "nothing before it; all of it after")
def buffered(world: World) -> list:
    client, server = world.ready_pair()
    stream = opened(client, b"w")
    seen: list = [
        libc.fprintf(stream, b"%d-%s\n", 7, b"seven"),
        libc.fputs(b"line\n", stream) >= 0,
        libc.fputc(33, stream),
    ]
    seen += [outcome(server.recv, 10, socket.MSG_DONTWAIT), libc.fflush(stream), receive(server, 13).decode()]
    return [*seen, libc.fclose(stream), client.detach() >= 0, server.recv(1).decode()]


@row("setvbuf(): no buffer; one of lines; a large one", "each write; each line; when it is full")
def buffer_modes(world: World) -> list:
    client, server = world.ready_pair()
    stream = opened(client, b"w")
    seen: list = [
        libc.setvbuf(stream, None, IONBF, 0),
        libc.fputs(b"at once", stream) >= 0,
        receive(server, 7).decode(),
    ]
    other, far = world.ready_pair()
    stream = opened(other, b"w")
    seen += [libc.setvbuf(stream, None, IOLBF, 4096), libc.fputs(b"half", stream) >= 0]
    seen += [outcome(far.recv, 10, socket.MSG_DONTWAIT), libc.fputs(b" line\nrest", stream) >= 0]
    seen += [receive(far, 10).decode() if libc.fflush(stream) == 0 else "not flushed", receive(far, 4).decode()]
    return seen


@row("fwrite() of much more than the buffers hold", "all of it, in order")
def fwrite(world: World) -> list:
    client, server = world.ready_pair()
    stream, data = opened(client, b"w"), bytes(range(256)) * 4000
    reading = world.thread(receive, server, len(data))
    written = libc.fwrite(data, ctypes.c_size_t(256), ctypes.c_size_t(4000), stream)
    return [written, libc.fflush(stream), reading.result() == data]


@row("fclose() with something in the buffer", "it is sent, then the end")
def flushed_by_close(world: World) -> list:
    server, peer = world.server_with_peer()
    stream = opened(server, b"w")
    seen = [libc.fputs(b"unflushed", stream) >= 0, libc.fclose(stream), server.detach() >= 0]
    return [*seen, peer.receive(9).decode(), peer.read_to_end()]


@row("fflush() and fclose() after the peer's reset", "EOF, errno EPIPE or ECONNRESET; the descriptor is closed")
def flush_fails(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.reset()
    world.until(lambda: outcome(server.recv, 1) != b"" and outcome(server.send, b"x") == "EPIPE", "the reset")
    stream = opened(server, b"w")
    seen = [libc.fputs(b"lost", stream) >= 0, libc.fflush(stream), libc.ferror(stream) != 0, libc.fclose(stream)]
    return [*seen, outcome(server.recv, 1), server.detach() >= 0]


@row("fdopen() on a socket and on its dup(), for reading and for writing", "two streams, one connection")
def two_streams(world: World) -> list:
    client, server = world.ready_pair()
    copy = server.dup()
    reading, writing = opened(server, b"r"), opened(copy, b"w")
    client.sendall(b"question\n")
    seen: list = [
        line(reading),
        libc.fputs(b"answer\n", writing) >= 0,
        libc.fflush(writing),
        receive(client, 7).decode(),
    ]
    seen += [libc.fclose(writing), copy.detach() >= 0, outcome(client.recv, 1, socket.MSG_DONTWAIT)]
    return [*seen, libc.fclose(reading), server.detach() >= 0, client.recv(1).decode()]


@row('one stream for both ways, "r+", with fflush() between', "each as on TCP")
def both_ways(world: World) -> list:
    client, server = world.ready_pair()
    stream = opened(server, b"r+")
    seen: list = []
    for word in (b"one\n", b"two\n", b"three\n"):
        client.sendall(word)
        seen += [line(stream), libc.fputs(b"got it\n", stream) >= 0, libc.fflush(stream), receive(client, 7).decode()]
    return [*seen, libc.fileno(stream) == server.fileno()]


@row("fdopen() on a socket whose handshake goes on, then fgets()", "waits; the line")
def before_the_handshake(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    stream = opened(server, b"r+")
    reading = world.thread(line, stream)
    if peer.tls:
        peer.tls.handshake()
    peer.send(b"hello\n")
    seen: list = [
        reading.result(),
        libc.fputs(b"you too\n", stream) >= 0,
        libc.fflush(stream),
        peer.receive(8).decode(),
    ]
    return seen


@row("a non-blocking stream: fgets() and fflush() without data, then with", "null, errno EAGAIN; the line")
def nonblocking(world: World) -> list:
    client, server = world.ready_pair()
    server.setblocking(False)
    stream = opened(server, b"r")
    ctypes.set_errno(0)
    seen: list = [line(stream), ctypes.get_errno(), libc.ferror(stream) != 0]
    libc.clearerr(stream)
    client.sendall(b"now\n")
    world.until(lambda: unread(server) == 4, "the line")
    return [*seen, line(stream)]


@row("fseek(), ftell() on a stream; fflush() and fclose() with lines unread", "-1, ESPIPE; 0; 0")
def cannot_seek(world: World) -> list:
    client, server = world.ready_pair()
    stream = opened(server, b"r")
    client.sendall(b"text\nmore\n")
    ctypes.set_errno(0)
    seen: list = [line(stream), libc.fseek(stream, ctypes.c_long(0), 0), ctypes.get_errno()]
    seen += [libc.ftell(stream), ctypes.get_errno(), libc.fflush(stream), line(stream)]
    client.sendall(b"unread\nunread\n")
    return [*seen, line(stream), libc.fclose(stream), server.detach() >= 0]


@row("dprintf() and vdprintf()", "the text, by one write")
def dprintf(world: World) -> list:
    client, server = world.ready_pair()
    sent = call("dprintf", client.fileno(), b"%s=%05d\n", b"value", 42)
    seen: list = [sent, receive(server, 12).decode()]
    return [*seen, call("dprintf", client.fileno(), b"%1000s", b"wide"), receive(server, 1000).strip().decode()]


@row("dprintf() after shutdown(SHUT_WR)", "-1, EPIPE")
def dprintf_after_the_end(world: World) -> list:
    client, server = world.ready_pair()
    client.shutdown(socket.SHUT_WR)
    return [call("dprintf", client.fileno(), b"late"), server.recv(1).decode()]


@row("dprintf() and __dprintf_chk() while the handshake goes on", "the text, once the peer is there")
def dprintf_before_the_handshake(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    printing = world.thread(call, "dprintf", server.fileno(), b"first %d\n", 1)
    if peer.tls:
        peer.tls.handshake()
    seen: list = [printing.result(), peer.receive(8).decode()]
    return [*seen, call("__dprintf_chk", server.fileno(), 1, b"then %d\n", 2), peer.receive(7).decode()]
