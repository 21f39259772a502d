"""docs/protocol.md, byte for byte."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.agent import messages as m
from ktls.errors import AgentProtocolError

IN4 = struct.pack("=H", 2) + struct.pack("!H", 443) + bytes([192, 0, 2, 7]) + bytes(20)


def raw(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "magic": b"KTLS", "version": 1, "kind": 1, "flags": 0, "filler": 6, "address_length": 16,
        "name_length": None, "address": IN4, "name": b"db.example",
    }  # fmt: skip
    fields.update(changes)
    name = fields.pop("name")
    assert isinstance(name, bytes)
    if fields["name_length"] is None:
        fields["name_length"] = len(name)
    return struct.pack("=4sBBHIHH28s", *fields.values()) + name


def test_a_request_of_the_shim_is_read_field_by_field() -> None:
    assert m.parse_request(raw(flags=1), 2) == m.Request(
        m.RequestKind.CONNECT, True, 6, ("192.0.2.7", 443), "db.example"
    )


def test_an_ipv4_mapped_address_is_the_ipv4_address() -> None:
    mapped = struct.pack("=H", 10) + struct.pack("!HI", 443, 0) + bytes(10) + b"\xff\xff\xc0\x00\x02\x07" + bytes(4)
    assert m.parse_request(raw(address=mapped, address_length=28), 2).address == ("192.0.2.7", 443)


def test_without_an_address_the_agent_must_ask_the_socket() -> None:
    assert m.parse_request(raw(address_length=0, name=b""), 2).address is None


def notice(text: bytes = b"/sbin/thing is statically linked", **changes: object) -> bytes:
    fields = {"kind": 3, "filler": 0, "address_length": 0, "address": b"", "name": text}
    return raw(**{**fields, **changes})


@pytest.mark.parametrize("allowed", [False, True])
def test_a_notice_says_which_program_is_not_covered(allowed: bool) -> None:
    said = m.parse_message(notice(flags=2 * allowed), 0)
    assert said == m.Notice("/sbin/thing is statically linked", allowed)
    assert m.pack_notice(said) == notice(flags=2 * allowed)


def test_a_notice_may_hold_any_path() -> None:
    assert m.parse_message(notice(b"/tmp/\xff"), 0) == m.Notice("/tmp/\ufffd", False)


@pytest.mark.parametrize(
    ("data", "descriptors"),
    [
        (notice(), 2),
        (notice(flags=1), 0),
        (notice(filler=1), 0),
        (notice(address_length=16), 0),
        (notice(name_length=3), 0),
        (notice(b"x" * 469), 0),
        (notice()[:43], 0),
    ],
)
def test_a_malformed_notice_is_an_error(data: bytes, descriptors: int) -> None:
    with pytest.raises(AgentProtocolError):
        m.parse_message(data, descriptors)


@pytest.mark.parametrize("name", [b"a b", b"a\0b", "bücher.example".encode(), b"a\nb"])
def test_what_cannot_be_a_host_name_is_no_name(name: bytes) -> None:
    assert m.parse_request(raw(name=name), 2).name is None


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        raw()[:43],
        raw() + b"x",
        raw()[:-1],
        raw(magic=b"KTLX"),
        raw(version=2),
        raw(kind=0),
        raw(kind=3),
        raw(flags=2),
        raw(flags=1, kind=2),
        raw(filler=5000),
        raw(address_length=15),
        raw(address_length=28),
        raw(name=b"x" * 254),
        raw(name_length=65535, name=b""),
        raw() + bytes(600),
    ],
)
def test_a_malformed_request_is_refused(bad: bytes) -> None:
    with pytest.raises(AgentProtocolError):
        m.parse_request(bad, 2)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_request_without_exactly_two_descriptors_is_refused(count: int) -> None:
    with pytest.raises(AgentProtocolError):
        m.parse_request(raw(), count)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_request_or_an_error(data: bytes) -> None:
    with contextlib.suppress(AgentProtocolError):
        m.parse_request(data, 2)


requests = st.builds(
    m.Request,
    kind=st.sampled_from(m.RequestKind),
    in_progress=st.just(False),
    filler=st.integers(0, 100),
    address=st.none()
    | st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 65535))
    | st.tuples(st.ip_addresses(v=6).map(lambda a: m.plain_address(str(a))), st.integers(0, 65535)),
    name=st.none() | st.from_regex(r"[a-z]{1,20}\.example", fullmatch=True),
)


@given(requests)
def test_a_request_survives_packing(request: m.Request) -> None:
    assert m.parse_request(m.pack_request(request), 2) == request


@pytest.mark.parametrize("code", m.VerdictCode)
def test_a_verdict_is_eight_bytes_and_survives(code: m.VerdictCode) -> None:
    packed = m.pack_verdict(code, 13)
    assert len(packed) == 8
    assert packed[2:4] == b"\0\0"
    assert m.parse_verdict(packed) == (code, 13)


@pytest.mark.parametrize("bad", [b"", b"VX\0\0\0\0\0\0", b"XT\0\0\0\0\0\0", b"VT\0\0\0\0\0"])
def test_a_malformed_verdict_is_refused(bad: bytes) -> None:
    with pytest.raises(AgentProtocolError):
        m.parse_verdict(bad)


@pytest.mark.parametrize("outcome", m.Outcome)
@pytest.mark.parametrize("flags", ["", "s", "spk"])
def test_a_gate_name_survives(outcome: m.Outcome, flags: str) -> None:
    name = m.GateName(outcome, 110, flags, 0xDEADBEEF)
    assert m.parse_gate_name(name.pack()) == name
    assert name.pack().startswith(b"\0ktls/")


@pytest.mark.parametrize(
    "bad", [b"", b"/tmp/x", b"\0ktls/Q/0/-/0", b"\0ktls/K/x/-/0", b"\0other/K/0/-/0", b"\0ktls/K\xff"]
)
def test_what_is_no_gate_name_is_refused(bad: bytes) -> None:
    with pytest.raises(AgentProtocolError):
        m.parse_gate_name(bad)


@pytest.mark.parametrize("update", m.UpdateRequest)
def test_a_leash_message_is_four_bytes(update: m.UpdateRequest) -> None:
    assert m.parse_update(b"U" + bytes([update, 0, 0])) is update


@pytest.mark.parametrize("bad", [b"X\0\0\0", b"U\3\0\0", b"U\0\1\0", b"U\0\0", b"", b"U\0\0\0\0"])
def test_another_message_on_the_leash_is_refused(bad: bytes) -> None:
    with pytest.raises(AgentProtocolError):
        m.parse_update(bad)
