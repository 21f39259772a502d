"""Hidden descriptors follow the visible ones: dup, fork, exec, close, close_range; and questions go to the socket."""

import errno
import socket
import threading

import pytest

from tests.shim.harness import line, output

CONNECT = "s = socket.create_connection(('127.0.0.1', port))\n"
HIDDEN = "print(sorted(int(f) for f in os.listdir('/proc/self/fd') if 1000 <= int(f) < 2000), flush=True)\n"


@pytest.fixture
def opened(agent, preloaded, listener):
    """A program whose connection is open with an outcome; returns (program, request, the peer's socket)."""

    def start(code: str, letter: str = "K", flags: str = "-", **values):
        program = preloaded(CONNECT + code, port=listener.port, **values)
        request = agent.protect()
        request.outcome(letter, flags=flags)
        return program, request, listener.accept()

    return start


def ended(request) -> bool:
    """Whether every copy of the leash is gone."""
    request.gate.settimeout(20)
    try:
        return request.gate.recv(1) == b""
    except ConnectionResetError:
        return True


def held(request) -> bool:
    """Whether somebody still holds the leash, and goes on holding it."""
    request.gate.settimeout(0.3)
    try:
        request.gate.recv(1)
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False
    return False


def test_each_protected_descriptor_has_one_hidden_twin_and_close_takes_both(opened):
    program, request, _ = opened("fd = s.fileno()\n" + HIDDEN + "print(fd, flush=True); s.close()\n" + HIDDEN)
    lines = output(program)
    assert eval(lines[0]) == [1000 + int(lines[1])]
    assert lines[2] == "[]"
    assert ended(request)


@pytest.mark.parametrize(
    "how",
    [
        "os.dup(s.fileno())",
        "os.dup2(s.fileno(), 50)",
        "fcntl.fcntl(s, fcntl.F_DUPFD, 60)",
        "fcntl.fcntl(s, fcntl.F_DUPFD_CLOEXEC, 70)",
    ],
)
def test_a_copy_keeps_the_connection_when_the_first_is_closed(opened, how):
    program, request, peer = opened(
        f"t = {how}\ns.close(); print('closed', flush=True); input(); os.write(t, b'copy'); os.close(t)"
    )
    assert line(program) == "closed"
    assert held(request)
    program.stdin.write("\n")
    program.stdin.flush()
    assert peer.recv(4) == b"copy"
    assert ended(request)
    output(program)


def test_dup2_over_a_protected_descriptor_ends_it(opened):
    program, request, _ = opened("os.dup2(1, s.fileno())\n" + HIDDEN + "input()")
    assert line(program) == "[]"
    assert ended(request)
    program.communicate("\n")


def test_close_range_and_closefrom_close_twins_and_nothing_else_of_ours(opened):
    code = (
        "import ctypes\nctypes.CDLL(None).close_range(3, 2**32 - 1, 0)\n"
        "print(os.listdir('/proc/self/fd'), flush=True); input()"
    )
    program, request, _ = opened(code)
    fds = eval(line(program))
    assert "2000" in fds  # the channel stays: the next connection needs it
    assert ended(request)
    program.communicate("\n")


def test_a_program_that_closes_every_number_it_knows_of_keeps_our_descriptors(opened):
    code = "import resource\nn = resource.getrlimit(resource.RLIMIT_NOFILE)[0]\nprint(n)\n"
    code += (
        "for fd in range(3, 3000):\n    try: os.close(fd)\n    except OSError: pass\nprint(os.listdir('/proc/self/fd'))"
    )
    program, request, _ = opened(code)
    limit, fds = output(program)
    assert limit == "1000"
    assert "2000" in eval(fds)
    assert ended(request)


def test_a_fork_shares_the_connection_until_both_have_closed(opened):
    code = (
        "if os.fork() == 0:\n    input(); s.sendall(b'child'); os._exit(0)\n"
        "s.close(); print('closed', flush=True); os.wait()"
    )
    program, request, peer = opened(code)
    assert line(program) == "closed"
    assert held(request)
    program.stdin.write("\n")
    program.stdin.flush()
    assert peer.recv(5) == b"child"
    assert ended(request)
    output(program)


def test_exec_closes_or_keeps_the_leash_with_the_descriptor(opened):
    program, request, _ = opened("print('x', flush=True); os.execv(sys.executable, [sys.executable, '-c', 'input()'])")
    assert line(program) == "x"
    assert ended(request)  # Python's sockets are close-on-exec
    program.communicate("\n")
    code = (
        "s.set_inheritable(True)\nos.execv(sys.executable, [sys.executable, '-c', "
        "f'import socket; s = socket.socket(fileno={s.fileno()}); print(s.getpeername()[0], flush=True); input()'])"
    )
    program, request, _ = opened(code, "R")
    assert line(program) == "127.0.0.1"
    assert held(request)
    program.communicate("\n")
    assert ended(request)


@pytest.mark.parametrize(
    "call",
    [
        "os.execve(sys.executable, words, {})",
        "os.spawnve(os.P_WAIT, sys.executable, words, {})",
        "os.waitpid(os.posix_spawn(sys.executable, words, {}), 0)",
    ],
)
def test_a_child_with_an_empty_environment_is_covered_all_the_same(preloaded, call):
    inner = "import os; print(sorted(k for k in os.environ if k.startswith(('KTLS', 'LD_PRE'))), flush=True)"
    program = preloaded(f"words = [sys.executable, '-c', {inner!r}]\n{call}")
    assert output(program) == ["['KTLS_AGENT', 'KTLS_FD_BASE', 'LD_PRELOAD']"]


def test_a_child_given_two_ld_preloads_is_covered_all_the_same(preloaded):
    """The dynamic loader takes the last one of a name, getenv() the first."""
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "given = [f'LD_PRELOAD={os.environ[\"LD_PRELOAD\"]}', 'LD_PRELOAD=', *map('='.join, os.environ.items())]\n"
        "texts = lambda words: (ctypes.c_char_p * (len(words) + 1))(*[os.fsencode(word) for word in words], None)\n"
        "libc.execve(b'/bin/cat', texts(['cat', '/proc/self/maps']), texts([*given, 'LD_PRELOAD=']))"
    )
    assert any("libktls.so" in mapped for mapped in output(preloaded(code)))


@pytest.mark.parametrize("length", [0, 15, 4096, 2**63])
def test_a_control_message_of_impossible_length_is_invalid_as_the_kernel_has_it(preloaded, length):
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\na, b = socket.socketpair()\n"
        "control = ctypes.create_string_buffer(struct.pack('@Qiii', length, socket.SOL_SOCKET, socket.SCM_RIGHTS, 0))\n"
        "text = ctypes.create_string_buffer(b'x')\n"
        "iov = ctypes.create_string_buffer(struct.pack('@PQ', ctypes.addressof(text), 1))\n"
        "at = ctypes.addressof\n"
        "header = ctypes.create_string_buffer(struct.pack('@PIPQPQi', 0, 0, at(iov), 1, at(control), 20, 0))\n"
        "print(libc.sendmsg(a.fileno(), header, 0), ctypes.get_errno())"
    )
    assert output(preloaded(code, length=length)) == [f"-1 {errno.EINVAL}"]


@pytest.mark.parametrize("letter", ["K", "R"])
def test_questions_about_the_socket_are_answered_by_the_socket(opened, letter):
    code = (
        "print(s.getpeername() == ('127.0.0.1', port), s.getsockname()[0])\n"
        "s.setsockopt(6, socket.TCP_NODELAY, 1); print(s.getsockopt(6, socket.TCP_NODELAY))\n"
        "s.setsockopt(1, socket.SO_KEEPALIVE, 1); print(s.getsockopt(1, socket.SO_KEEPALIVE))\n"
        "print(s.getsockopt(1, socket.SO_DOMAIN) == socket.AF_INET, s.getsockopt(1, socket.SO_PROTOCOL) == 6)\n"
    )
    program, _, _ = opened(code, letter)
    assert output(program) == ["True 127.0.0.1", "1", "1", "True True"]


def test_options_set_while_gated_reach_the_real_socket_and_stay(agent, preloaded, listener):
    code = (
        "s = socket.socket(); s.setblocking(False); s.connect_ex(('127.0.0.1', port))\n"
        "s.setsockopt(6, socket.TCP_NODELAY, 1); s.setsockopt(1, socket.SO_KEEPALIVE, 1); s.setblocking(True)\n"
        "print('set', flush=True); input(); s.send(b'x')\n"
        "print(s.getsockopt(6, socket.TCP_NODELAY), s.getsockopt(1, socket.SO_KEEPALIVE), s.getblocking())"
    )
    program = preloaded(code, port=listener.port)
    request = agent.protect()
    assert line(program) == "set"
    request.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)  # the agent puts back what it found
    request.outcome("K")
    out, err = program.communicate("\n", timeout=20)
    assert out == "1 1 True\n", err


def test_descriptors_above_the_share_are_refused_not_left_in_clear(agent, preloaded, listener):
    code = "s = socket.socket(); os.dup2(s.fileno(), 1500)\n"
    program = preloaded("s = socket.socket()\ntry: os.dup2(s.fileno(), 1500)\nexcept OSError as e: print(e.errno)")
    assert output(program) == [str(errno.EBADF)]
    del code


def test_unix_and_udp_sockets_are_none_of_our_business(preloaded, agent):
    code = (
        "a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1).decode())\n"
        "u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(('127.0.0.1', 9)); print(u.getpeername()[1])"
    )
    assert output(preloaded(code)) == ["x", "9"]
    assert agent.requests.empty()


def test_fast_open_and_zero_copy_are_turned_into_what_is_safe(agent, preloaded, listener):
    code = (
        "s = socket.socket()\nprint(s.sendto(b'early', socket.MSG_FASTOPEN, ('127.0.0.1', port)))\n"
        "t = socket.socket(); t.setsockopt(6, 30, 1)\n"
        "try: t.connect(('127.0.0.1', 1))\nexcept OSError as e: print(e.errno)\n"
        "try: s.setsockopt(1, 60, 1)\nexcept OSError as e: print(e.errno)"
    )
    program = preloaded(code, port=listener.port)
    request = agent.protect()
    request.outcome("K")
    assert listener.accept().recv(5) == b"early"
    assert output(program) == ["5", str(errno.ECONNREFUSED), str(errno.EOPNOTSUPP)]


def test_more_to_come_is_sent_at_once(opened):
    """MSG_MORE would leave a record open that nothing sends and close() drops."""
    program, _, peer = opened("s.send(b'now', socket.MSG_MORE); input()")
    assert peer.recv(3) == b"now"
    program.communicate("\n")


def test_write_after_shutdown_is_epipe_with_its_signal(opened):
    code = (
        "got = []; signal.signal(signal.SIGPIPE, lambda *a: got.append(1)); s.shutdown(socket.SHUT_WR)\n"
        "for flags in (0, socket.MSG_NOSIGNAL):\n"
        "    try: s.send(b'x', flags)\n    except OSError as e: time.sleep(0); print(e.errno, len(got))"
    )
    program, _, _ = opened(code)
    assert output(program) == [f"{errno.EPIPE} 1", f"{errno.EPIPE} 1"]


def test_end_of_file_without_close_notify_is_told_apart(opened):
    code = "try: print(s.recv(1))\nexcept OSError as e: print(e.errno)"
    program, _, peer = opened(code, flags="s")
    peer.close()
    assert output(program) == [str(errno.ECONNRESET)]
    program, _, peer = opened(code, flags="-")
    peer.close()
    assert output(program) == ["b''"]


@pytest.mark.parametrize(("mark", "seen"), [(127, "b''"), (126, "71"), (125, "104"), (None, "104")])
def test_the_end_of_a_relayed_stream_is_what_the_agent_noted_on_the_socket(opened, mark, seen):
    code = "try: print(s.recv(1))\nexcept OSError as e: print(e.errno)"
    program, request, _ = opened(code, "R", "s")
    if mark is not None:
        request.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, mark)
    request.gate.shutdown(socket.SHUT_WR)
    assert output(program) == [seen]


def test_a_descriptor_is_passed_on_only_when_its_gate_has_opened(agent, preloaded, listener):
    """Who receives it may not have the shim: it gets the socket, never the gate."""
    code = (
        "s = socket.socket(); s.setblocking(False); s.connect_ex(('127.0.0.1', port)); print('gated', flush=True)\n"
        "a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [s.fileno()])\n"
        "_, fds, _, _ = socket.recv_fds(b, 1, 1)\n"
        "t = socket.socket(fileno=fds[0]); print(t.family == socket.AF_INET, t.send(b'passed'))"
    )
    program = preloaded(code, port=listener.port)
    request = agent.protect()
    assert line(program) == "gated"
    request.outcome("K")
    assert output(program) == ["True 6"]
    assert listener.accept().recv(6) == b"passed"


def test_threads_that_open_and_close_at_once_never_meet_each_others_connections(agent, preloaded, listener):
    # A number is free as soon as close() has taken it, and another thread may have it back at once for a new one.
    code = (
        "def work():\n"
        "  try:\n"
        "    for _ in range(400):\n"
        "      with socket.socket() as s: s.connect(('127.0.0.1', port))\n"
        "  except OSError as error: print(error, flush=True)\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n" + HIDDEN
    )

    def serve() -> None:
        while request := agent.requests.get():
            request.verdict("T")
            request.outcome("R")
            request.close()
            listener.accept().close()

    server = threading.Thread(target=serve)
    server.start()
    try:
        assert output(preloaded(code, port=listener.port)) == ["[]"]
    finally:
        agent.requests.put(None)
        server.join()


CLOSED = """
poller = select.epoll()
poller.register(s, select.EPOLLIN | select.EPOLLRDHUP)
fd = s.fileno()
s.send(b"x"); {close}; input()
print([number == fd for number, _ in poller.poll(0.3)])
"""


@pytest.mark.parametrize(
    ("close", "seen"),
    [
        ("s.close()", []),
        ("copy = os.dup(fd); s.close()", [True]),  # as on TCP: the file is still open
        ("os.fork() or (s.close(), os._exit(0)); os.wait()", [True]),
        ("os.fork() or (time.sleep(1), os._exit(0)); s.close()", []),
    ],
    ids=["close", "close after dup", "close in a child", "close with a child that goes on"],
)
def test_closing_ends_registrations_though_the_agent_holds_the_socket_too(opened, close, seen):
    program, _, peer = opened(CLOSED.format(close=close))
    assert peer.recv(1) == b"x"
    peer.sendall(b"more")
    assert program.stdin
    program.stdin.write("\n")
    program.stdin.flush()
    assert line(program) == str(seen)
