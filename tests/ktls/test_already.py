"""A ClientHello, and what is none."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.already import NEEDED, is_client_hello


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_openssl_begins_with(version):
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = version
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="a.example").do_handshake()
    hello = out.read()
    assert is_client_hello(hello)
    assert is_client_hello(memoryview(hello)[:NEEDED])
    assert not is_client_hello(hello[: NEEDED - 1])


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",  # PostgreSQL's SSLRequest
        bytes.fromhex("150301000202"),  # an alert
        bytes.fromhex("160301004a02"),  # a ServerHello
        bytes.fromhex("160501004a01"),
        bytes.fromhex("16030140010001"),
        b"",
    ],
)
def test_what_is_none(data):
    assert not is_client_hello(data)


@given(st.binary(max_size=64))
def test_any_bytes_have_an_answer_and_more_bytes_do_not_change_it(data):
    assert is_client_hello(data) == is_client_hello(data[:NEEDED])
