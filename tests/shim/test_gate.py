"""The gate: nothing passes before the agent has spoken, and everybody is woken when it has."""

import errno
import socket
import subprocess

import pytest

from tests.shim.harness import line, output

CONNECT = "s = socket.create_connection(('127.0.0.1', port))\n"
NONBLOCKING = "s = socket.socket(); s.setblocking(False); print(s.connect_ex(('127.0.0.1', port)), flush=True)\n"


def test_a_clear_verdict_leaves_the_descriptor_alone(agent, preloaded, listener):
    program = preloaded(CONNECT + "s.sendall(b'x'); print(os.listdir('/proc/self/fd'))", port=listener.port)
    agent.next().verdict("C")
    assert listener.accept().recv(1) == b"x"
    assert not any(1000 <= int(fd) < 2000 for fd in eval(output(program)[0]))


def test_a_denied_connect_fails_with_the_errno_of_the_verdict(agent, preloaded, listener):
    program = preloaded("s = socket.socket(); print(s.connect_ex(('127.0.0.1', port)))", port=listener.port)
    agent.next().verdict("D", errno.EPERM)
    assert output(program) == [str(errno.EPERM)]
    assert listener.accept().recv(1) == b""


def test_without_an_agent_connect_is_refused_and_nothing_is_sent(agent, preloaded, listener):
    agent.stop()
    agent.path.unlink()
    code = (
        "s = socket.socket(); print(s.connect_ex(('127.0.0.1', port)))\n"
        "try: print(s.send(b'secret'))\nexcept OSError as e: print(e.errno)"
    )
    assert output(preloaded(code, port=listener.port)) == [str(errno.ECONNREFUSED), str(errno.EPIPE)]
    assert listener.accept().recv(10) == b""


def test_an_agent_that_hangs_up_instead_of_a_verdict_refuses(agent, preloaded, listener):
    program = preloaded("s = socket.socket(); print(s.connect_ex(('127.0.0.1', port)))", port=listener.port)
    agent.next().close()
    assert output(program) == [str(errno.ECONNREFUSED)]


def test_an_agent_that_dies_under_a_gate_fails_it(agent, preloaded, listener):
    program = preloaded(
        NONBLOCKING + "select.select([], [s], [])\nprint(s.getsockopt(1, socket.SO_ERROR))", port=listener.port
    )
    request = agent.protect()
    assert line(program) == str(errno.EINPROGRESS)
    request.close()
    assert output(program) == [str(errno.ECONNREFUSED)]


@pytest.mark.parametrize("letter", ["K", "R", "C"])
def test_a_blocking_connect_returns_when_the_gate_opens(agent, preloaded, listener, letter):
    code = CONNECT + "print('connected', flush=True); s.sendall(b'after'); print(s.recv(5).decode())"
    program = preloaded(code, port=listener.port)
    request = agent.protect()
    peer = listener.accept()
    peer.settimeout(0.2)
    with pytest.raises(TimeoutError):
        peer.recv(1)
    peer.settimeout(20)
    request.outcome(letter)
    assert line(program) == "connected"
    end = request.gate if letter == "R" else peer
    assert end.recv(5) == b"after"
    end.sendall(b"reply")
    assert output(program) == ["reply"]


def test_a_failed_outcome_is_connects_errno_and_that_of_all_that_follows(agent, preloaded, listener):
    code = (
        "s = socket.socket()\nprint(s.connect_ex(('127.0.0.1', port)))\nprint(s.getsockopt(1, socket.SO_ERROR))\n"
        "for call in (lambda: s.send(b'x'), lambda: s.recv(1), s.getpeername):\n"
        "    try: print(call())\n    except OSError as e: print(e.errno)\n"
    )
    program = preloaded(code, port=listener.port)
    agent.protect().outcome("F", errno.EKEYREJECTED)
    rejected = str(errno.EKEYREJECTED)
    assert output(program) == [rejected, rejected, rejected, rejected, str(errno.ENOTCONN)]


WAITS = {
    "select": "select.select([], [s], [])",
    "poll": "p = select.poll(); p.register(s, select.POLLOUT); print(p.poll(), file=sys.stderr)",
    "epoll": "p = select.epoll(); p.register(s, select.EPOLLOUT); p.poll()",
    "epoll-edge": "p = select.epoll(); p.register(s, select.EPOLLOUT | select.EPOLLET); p.poll()",
    "epoll-oneshot": "p = select.epoll(); p.register(s, select.EPOLLOUT | select.EPOLLONESHOT); p.poll()",
}


@pytest.mark.parametrize("letter", ["K", "R", "F"])
@pytest.mark.parametrize("how", WAITS)
def test_a_waiting_program_is_woken_when_the_gate_opens_and_not_before(agent, preloaded, listener, how, letter):
    code = NONBLOCKING + "try: s.getpeername()\nexcept OSError as e: print(e.errno, flush=True)\n"
    code += WAITS[how] + "\nprint(s.getsockopt(1, socket.SO_ERROR), flush=True)\n"
    program = preloaded(code, port=listener.port)
    request = agent.protect()
    assert (line(program), line(program)) == (str(errno.EINPROGRESS), str(errno.ENOTCONN))
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.3)
    request.outcome(letter, errno.EPROTO if letter == "F" else 0)
    assert output(program) == [str(errno.EPROTO) if letter == "F" else "0"]


@pytest.mark.parametrize("flag", ["0", "select.EPOLLET", "select.EPOLLONESHOT"])
@pytest.mark.parametrize("letter", ["K", "R"])
@pytest.mark.parametrize("registered", ["before connect", "while gated"])
def test_an_epoll_registration_goes_over_to_the_socket_behind_the_gate(
    agent, preloaded, listener, flag, letter, registered
):
    """The program registers once, with data of its own; the events of the open connection come with that data."""
    first = "p = select.epoll(); s = socket.socket(); s.setblocking(False)\n"
    register = f"p.register(s, select.EPOLLIN | {flag})\n"
    connect = "s.connect_ex(('127.0.0.1', port))\n"
    code = first + (register + connect if registered == "before connect" else connect + register)
    code += "print('ready', flush=True)\nevents = p.poll(20)\n"
    code += "print(events == [(s.fileno(), select.EPOLLIN)], s.recv(5).decode())"
    program = preloaded(code, port=listener.port)
    request = agent.protect()
    assert line(program) == "ready"
    peer = listener.accept()
    request.outcome(letter)
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.3)  # an open gate is no data
    (request.gate if letter == "R" else peer).sendall(b"bytes")
    assert output(program) == ["True bytes"]


@pytest.mark.parametrize("letter", ["K", "R", "F"])
def test_a_set_may_be_waited_for_on_another_descriptor_than_it_was_filled_through(agent, preloaded, listener, letter):
    """tokio registers on a copy of the set's descriptor, once, edge-triggered: a lost event is lost for good."""
    code = NONBLOCKING + "p = select.epoll(); copy = select.epoll.fromfd(os.dup(p.fileno()))\n"
    code += "copy.register(s, select.EPOLLOUT | select.EPOLLET); print('ready', flush=True)\n"
    code += "print([fd == s.fileno() for fd, events in p.poll(20) if events & select.EPOLLOUT])"
    program = preloaded(code, port=listener.port)
    request = agent.protect()
    assert [line(program), line(program)][1] == "ready"
    request.outcome(letter, errno.EPROTO if letter == "F" else 0)
    assert output(program) == ["[True]"]


def test_a_registration_changed_through_a_copy_of_the_set_holds_when_the_gate_opens(agent, preloaded, listener):
    code = NONBLOCKING + "p = select.epoll(); copy = select.epoll.fromfd(os.dup(p.fileno()))\n"
    code += "p.register(s, select.EPOLLOUT); copy.modify(s, select.EPOLLIN)\n"
    code += "print('ready', flush=True)\nprint([events == select.EPOLLIN for _, events in p.poll(20)])"
    program = preloaded(code, port=listener.port)
    request = agent.protect()
    assert [line(program), line(program)][1] == "ready"
    peer = listener.accept()
    request.outcome("K")
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.3)  # writable, which the program no longer waits for
    peer.sendall(b"bytes")
    assert output(program) == ["[True]"]


def test_poll_keeps_its_time_limit_while_gated(agent, preloaded, listener):
    code = NONBLOCKING + "p = select.poll(); p.register(s); print(p.poll(100)); print(select.select([s], [s], [], 0.1))"
    program = preloaded(code, port=listener.port)
    agent.protect()
    assert output(program)[1:] == ["[]", "([], [], [])"]


def test_connect_again_says_what_tcp_would(agent, preloaded, listener):
    code = NONBLOCKING + (
        "again = lambda: print(s.connect_ex(('127.0.0.1', port)), flush=True)\nagain()\n"
        "select.select([], [s], [])\nagain(); again()\n"
    )
    program = preloaded(code, port=listener.port)
    request = agent.protect()
    assert (line(program), line(program)) == (str(errno.EINPROGRESS), str(errno.EALREADY))
    request.outcome("K")
    assert output(program)[-1] == str(errno.EISCONN)


def test_sends_wait_for_the_gate_and_go_in_order(agent, preloaded, listener):
    """Accepted at once, answered later: a server that speaks first."""
    code = (
        "l = socket.create_server(('127.0.0.1', 0)); print(l.getsockname()[1], flush=True)\n"
        "s, _ = l.accept(); print('accepted', flush=True); s.sendall(b'one '); s.sendall(b'two'); s.close()"
    )
    program = preloaded(code)
    with socket.create_connection(("127.0.0.1", int(line(program))), timeout=20) as client:
        request = agent.protect()
        assert line(program) == "accepted"
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(20)
        request.outcome("K")
        output(program)
        assert client.recv(7, socket.MSG_WAITALL) == b"one two"


def test_a_nonblocking_program_is_told_to_wait(agent, preloaded, listener):
    code = NONBLOCKING + (
        "for call in (lambda: s.send(b'x'), lambda: s.recv(1)):\n"
        "    try: print(call())\n    except OSError as e: print(e.errno)\n"
    )
    program = preloaded(code, port=listener.port)
    agent.protect()
    assert output(program)[1:] == [str(errno.EAGAIN), str(errno.EAGAIN)]


def test_a_signal_ends_the_wait_unless_its_handler_restarts(agent, preloaded, listener):
    """As connect(2): EINTR after a handler without SA_RESTART; with it, the wait goes on."""
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\nsignal.siginterrupt(signal.SIGALRM, interrupt)\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL); signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
        "s = socket.socket(); a = struct.pack('=HH4s8x', 2, socket.htons(port), bytes([127, 0, 0, 1]))\n"
        "print(libc.connect(s.fileno(), a, 16), ctypes.get_errno())"
    )
    program = preloaded(code, port=listener.port, interrupt=True)
    agent.protect()
    assert output(program) == [f"-1 {errno.EINTR}"]
    program = preloaded(code, port=listener.port, interrupt=False)
    request = agent.protect()
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.6)
    request.outcome("K")
    assert output(program)[0].startswith("0 ")


def test_a_handler_for_faults_does_not_end_a_wait_that_goes_on(agent, preloaded, listener):
    """No wait is ended by SIGSEGV; runtimes and faulthandler handle it, without SA_RESTART."""
    code = (
        "import ctypes, faulthandler\nfaulthandler.enable()\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\nsignal.siginterrupt(signal.SIGALRM, False)\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "s = socket.socket(); a = struct.pack('=HH4s8x', 2, socket.htons(port), bytes([127, 0, 0, 1]))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
        "print(libc.connect(s.fileno(), a, 16), ctypes.get_errno())"
    )
    program = preloaded(code, port=listener.port)
    request = agent.protect()
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.6)
    request.outcome("K")
    assert output(program)[0].startswith("0 ")


@pytest.mark.parametrize("given", [0, -1, 4096, 65536, 2**40])
def test_a_failure_with_an_errno_that_is_none_is_a_protocol_error(agent, preloaded, listener, given):
    """65536 would have been no error at all: a slot keeps sixteen bits of it."""
    program = preloaded(
        "s = socket.socket(); print(s.connect_ex(('127.0.0.1', port)))\n"
        "try: s.send(b'x')\nexcept OSError as e: print(e.errno)",
        port=listener.port,
    )
    agent.protect().outcome("F", given)
    assert output(program) == [str(errno.EPROTO), str(errno.EPROTO)]


@pytest.mark.parametrize("letter", ["?", "Q", "0"])
def test_an_outcome_that_nobody_knows_fails_closed(agent, preloaded, listener, letter):
    program = preloaded("s = socket.socket(); print(s.connect_ex(('127.0.0.1', port)))", port=listener.port)
    agent.protect().outcome(letter)
    assert output(program) == [str(errno.EPROTO)]


def test_so_sndtimeo_bounds_a_connect(agent, preloaded, listener):
    code = (
        "s = socket.socket(); s.setsockopt(1, socket.SO_SNDTIMEO, struct.pack('ll', 0, 200000))\n"
        "print(s.connect_ex(('127.0.0.1', port)))"
    )
    program = preloaded(code, port=listener.port)
    agent.protect()
    assert output(program) == [str(errno.EINPROGRESS)]


def test_the_resolved_name_goes_along(agent, preloaded, listener):
    program = preloaded("s = socket.create_connection(('localhost', port))", port=listener.port)
    request = agent.next()
    assert (request.kind, request.name, len(request.address)) == (1, "localhost", 16)
    request.verdict("C")
    output(program)


def test_an_address_written_as_text_is_no_name(agent, preloaded, listener):
    program = preloaded(CONNECT, port=listener.port)
    request = agent.next()
    assert request.name == ""
    request.verdict("C")
    output(program)
