"""Records: framing under any bytes, RFC 8448's trace, and sealing and opening under every suite.

That the records are those of a real TLS library is tested in test_session.py, with keys from its key log.
"""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.ciphers import SUITES, CipherSuite, Version, aead, by_iana
from ktls.errors import BadRecord, KtlsError, ProtocolError, RecordOverflow, UsageError
from ktls.keyschedule import hash_length
from ktls.records import (
    HEADER_LENGTH,
    MAX_CIPHERTEXT,
    MAX_PLAINTEXT,
    ContentType,
    RecordHeader,
    RecordProtection,
    RecordReader,
)
from ktls.session import MAX_SEQUENCE, RxKeys, TxKeys

SUITES_12 = [suite for suite in SUITES if Version.TLS12 in suite.versions]
SUITES_13 = [suite for suite in SUITES if Version.TLS13 in suite.versions]
EXPLICIT = [suite for suite in SUITES if suite.explicit_nonce_length]
DATA, HANDSHAKE, ALERT = ContentType.APPLICATION_DATA, ContentType.HANDSHAKE, ContentType.ALERT

record = st.builds(
    lambda content_type, data: RecordHeader(content_type, 0x0303, len(data)).pack() + data,
    st.sampled_from(ContentType),
    st.binary(max_size=40),
)
# Half of it almost well formed, so that the search gets past the first header.
stream = st.one_of(
    st.binary(max_size=64),
    st.builds(lambda records, tail: b"".join(records) + tail, st.lists(record, max_size=5), st.binary(max_size=8)),
)


def tx_keys(suite: CipherSuite, *, sequence: int = 0, explicit_nonce: bytes = bytes(8)) -> TxKeys:
    (version,) = suite.versions
    return TxKeys(
        suite=suite,
        version=version,
        secret=bytes(hash_length(suite.hash_name)) if version is Version.TLS13 else None,
        key=bytes(range(suite.key_length)),
        iv=bytes(range(0xA0, 0xA0 + suite.fixed_iv_length)),
        sequence=sequence,
        explicit_nonce=explicit_nonce[: suite.explicit_nonce_length],
    )


def rx_keys(suite: CipherSuite, *, sequence: int = 0) -> RxKeys:
    tx = tx_keys(suite)
    return RxKeys(suite=suite, version=tx.version, secret=tx.secret, key=tx.key, iv=tx.iv, sequence=sequence)


def seal_by_hand(suite: CipherSuite, inner: bytes, *, outer: ContentType = DATA) -> bytes:
    """A TLS 1.3 record with any inner plaintext, authentic under `rx_keys` at sequence number 0."""
    keys = tx_keys(suite)
    header = RecordHeader(outer, 0x0303, len(inner) + 16).pack()
    return header + aead(suite, keys.key).encrypt(keys.iv, inner, header)


# --- headers ---------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=16))
def test_any_bytes_are_a_header_or_a_protocol_error(data: bytes):
    try:
        header = RecordHeader.parse(data)
    except ProtocolError:
        return
    assert header.pack() == data[:HEADER_LENGTH]


@given(st.sampled_from(ContentType), st.integers(0x0300, 0x03FF), st.integers(0, MAX_PLAINTEXT))
def test_packing_and_parsing_a_header_are_inverse(content_type: ContentType, version: int, length: int):
    header = RecordHeader(content_type, version, length)
    assert RecordHeader.parse(header.pack()) == header


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (b"GET / HTTP/1.1", "type 71"),
        (b"\x80\x2e\x01\x03\x01", "type 128"),  # a ClientHello of SSL 2.0
        (b"\x18\x03\x03\x00\x01", "type 24"),  # heartbeat
        (b"\x16\x02\x00\x00\x01", "0x0200"),
        (b"\x16\x03\x03", "3 bytes"),
    ],
)
def test_what_is_no_tls_record_is_refused_with_the_reason(start: bytes, why: str):
    with pytest.raises(ProtocolError, match=why):
        RecordHeader.parse(start)


@pytest.mark.parametrize(("version", "limit"), [(Version.TLS12, 16384 + 2048), (Version.TLS13, 16384 + 256)])
def test_a_record_may_be_as_long_as_its_version_says_and_no_longer(version: Version, limit: int):
    assert MAX_CIPHERTEXT[version] == limit
    longest = RecordHeader(DATA, 0x0303, limit)
    assert RecordHeader.parse(longest.pack(), limit) == longest
    with pytest.raises(RecordOverflow, match=f"{limit + 1} bytes, more than {limit}"):
        RecordHeader.parse(RecordHeader(DATA, 0x0303, limit + 1).pack(), limit)


# --- the reader ------------------------------------------------------------------------------------------------------


def read_all(chunks: list[bytes]) -> tuple[list[bytes], str | None]:
    """What a reader makes of a stream: its records, and the error at the end, if any."""
    reader, records = RecordReader(), []
    try:
        for chunk in chunks:
            reader.feed(chunk)
            while (taken := reader.next_record()) is not None:
                records.append(taken)
    except ProtocolError as error:
        return records, str(error)
    return records, None


@given(stream)
def test_a_stream_is_read_alike_whole_and_byte_by_byte(data: bytes):
    assert read_all([data]) == read_all([data[at : at + 1] for at in range(len(data))])


@given(stream, st.lists(st.integers(0, 300), max_size=6))
def test_a_stream_is_read_alike_however_it_is_cut(data: bytes, cuts: list[int]):
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    assert read_all([data]) == read_all([data[a:b] for a, b in pairwise(edges)])


@given(st.lists(record, max_size=5), st.binary(max_size=30))
def test_what_follows_a_record_does_not_change_it(records: list[bytes], trailing: bytes):
    assert read_all([b"".join(records) + trailing])[0][: len(records)] == records


@given(st.lists(record, min_size=1, max_size=5))
def test_reading_no_more_than_wanted_never_passes_a_records_end(records: list[bytes]):
    reader, source, taken = RecordReader(), b"".join(records), b""
    for expected in records:
        assert reader.between_records
        while (got := reader.next_record()) is None:
            assert reader.want > 0
            chunk, source = source[: reader.want], source[reader.want :]
            taken += chunk
            reader.feed(chunk)
            assert reader.want > 0 or taken.endswith(expected)
        assert got == expected
    assert reader.want == HEADER_LENGTH
    assert source == b""


@given(stream)
def test_every_stream_ends_in_wanting_more_or_in_an_error_and_stays_there(data: bytes):
    reader = RecordReader()
    reader.feed(data)
    try:
        while reader.next_record() is not None:
            pass
    except ProtocolError as error:
        assert reader.want == 0
        reader.feed(b"\x17\x03\x03\x00\x00")
        with pytest.raises(type(error)):
            reader.next_record()
    else:
        assert 0 < reader.want <= HEADER_LENGTH + MAX_CIPHERTEXT[Version.TLS12]


def test_a_record_too_long_is_told_from_its_header_alone():
    reader = RecordReader(MAX_CIPHERTEXT[Version.TLS13])
    reader.feed(RecordHeader(DATA, 0x0303, MAX_CIPHERTEXT[Version.TLS13] + 1).pack())
    with pytest.raises(RecordOverflow):
        reader.next_record()


def test_an_end_in_the_middle_of_a_record_can_be_told():
    reader = RecordReader()
    assert reader.between_records
    reader.feed(b"\x17")
    assert not reader.between_records


# --- RFC 8448 section 3, "Simple 1-RTT Handshake", AES-128-GCM --------------------------------------------------------

C_HS = "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21"
C_AP = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"
S_AP = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"
FIFTY = bytes(range(50)).hex()
TRACE = [
    pytest.param(
        C_HS,
        0,
        HANDSHAKE,
        "14000020a8ec436d677634ae525ac1fcebe11a039ec17694fac6e98527b642f2edd5ce61",
        "170303003575ec4dc238cce60b298044a71e219c56cc77b0517fe9b93c7a4bfc44d87f38f80338ac98fc46deb384bd1c"
        "aeacab6867d726c40546",
        id="client Finished",
    ),
    pytest.param(
        S_AP,
        0,
        HANDSHAKE,
        "040000c90000001efad6aac502000000b22c035d829359ee5ff7af4ec900000000262a6494dc486d2c8a34cb33fa90bf"
        "1b0070ad3c498883c9367c09a2be785abc55cd226097a3a982117283f82a03a143efd3ff5dd36d64e861be7fd61d2827"
        "db279cce145077d454a3664d4e6da4d29ee03725a6a4dafcd0fc67d2aea70529513e3da2677fa5906c5b3f7d8f92f228"
        "bda40dda721470f9fbf297b5aea617646fac5c03272e970727c621a79141ef5f7de6505e5bfbc388e93343694093934a"
        "e4d3570008002a000400000400",
        "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dcf3d11d63c758db289a"
        "015940252f55713e061dc13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca7f2b9fa1b6c0d4a3d03f75e0"
        "9c30ba1e62972ac46f75f7b981be63439b2999ce13064615139891d5e4c5b406f16e3fc181a77ca475840025db2f0a77"
        "f81b5ab05b94c01346755f69232c86519d86cbeeac87aac347d143f9605d64f650db4d023e70e952ca49fe5137121c74"
        "bc2697687e248746d6df353005f3bce18696129c8153556b3b6c6779b37bf15985684f",
        id="NewSessionTicket",
    ),
    pytest.param(
        C_AP,
        0,
        DATA,
        FIFTY,
        "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b"
        "62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4",
        id="client data",
    ),
    pytest.param(
        S_AP,
        1,
        DATA,
        FIFTY,
        "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8"
        "fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d",
        id="server data",
    ),
    pytest.param(C_AP, 1, ALERT, "0100", "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3", id="client close"),
    pytest.param(S_AP, 2, ALERT, "0100", "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9", id="server close"),
]


@pytest.mark.parametrize(("secret", "sequence", "content_type", "content", "record"), TRACE)
def test_the_records_of_rfc_8448_open(secret, sequence, content_type, content, record):
    suite = by_iana("TLS_AES_128_GCM_SHA256")
    opener = RecordProtection(RxKeys.from_secret(bytes.fromhex(secret), suite, sequence=sequence))
    opened = opener.open(bytes.fromhex(record))
    assert (opened.content_type, opened.data.hex()) == (content_type, content)
    assert opener.sequence == sequence + 1


@pytest.mark.parametrize(("secret", "sequence", "content_type", "content", "record"), TRACE)
def test_sealing_gives_the_records_of_rfc_8448(secret, sequence, content_type, content, record):
    suite = by_iana("TLS_AES_128_GCM_SHA256")
    sealer = RecordProtection(TxKeys.from_secret(bytes.fromhex(secret), suite, sequence=sequence))
    assert sealer.seal(content_type, bytes.fromhex(content)).hex() == record


# --- protection ------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(SUITES),
    st.sampled_from([ALERT, HANDSHAKE, DATA]),
    st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=4),
    st.integers(0, MAX_SEQUENCE - 4),
    st.binary(min_size=8, max_size=8),
)
def test_what_is_sealed_opens(suite, content_type, contents, sequence, explicit_nonce):
    sealer = RecordProtection(tx_keys(suite, sequence=sequence, explicit_nonce=explicit_nonce))
    opener = RecordProtection(rx_keys(suite, sequence=sequence))
    for data in contents:
        opened = opener.open(sealer.seal(content_type, data))
        assert (opened.content_type, opened.data) == (content_type, data)
    assert sealer.sequence == opener.sequence == sequence + len(contents)


@given(st.sampled_from(SUITES), st.binary(min_size=1, max_size=50), st.data())
def test_a_flipped_bit_is_refused_and_the_true_record_still_opens(suite: CipherSuite, data: bytes, draw: st.DataObject):
    sealed = RecordProtection(tx_keys(suite)).seal(DATA, data)
    bit = draw.draw(st.integers(0, 8 * len(sealed) - 1))
    broken = bytearray(sealed)
    broken[bit // 8] ^= 1 << bit % 8
    opener = RecordProtection(rx_keys(suite))
    with pytest.raises(BadRecord if bit >= 8 * HEADER_LENGTH else ProtocolError):
        opener.open(bytes(broken))
    assert opener.open(sealed).data == data


@given(st.sampled_from(SUITES), st.one_of(stream, record))
def test_any_bytes_opened_are_a_protocol_error(suite: CipherSuite, data: bytes):
    with pytest.raises(ProtocolError):
        RecordProtection(rx_keys(suite)).open(data)


@given(st.sampled_from(SUITES_13), st.binary(max_size=50))
def test_any_authentic_inner_plaintext_is_a_value_or_a_protocol_error(suite: CipherSuite, inner: bytes):
    try:
        opened = RecordProtection(rx_keys(suite)).open(seal_by_hand(suite, inner))
    except ProtocolError:
        return
    assert inner.rstrip(b"\0") == opened.data + bytes([opened.content_type])


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_a_full_record_opens_and_one_byte_more_cannot_be_sealed(suite: CipherSuite):
    data = bytes(MAX_PLAINTEXT)
    sealer = RecordProtection(tx_keys(suite))
    sealed = sealer.seal(DATA, data)
    assert len(sealed) <= HEADER_LENGTH + MAX_CIPHERTEXT[rx_keys(suite).version]
    assert RecordProtection(rx_keys(suite)).open(sealed).data == data
    with pytest.raises(UsageError, match="16385 bytes"):
        sealer.seal(DATA, bytes(MAX_PLAINTEXT + 1))
    assert sealer.sequence == 1


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_an_empty_data_record_opens_in_both_versions(suite: CipherSuite):
    sealed = RecordProtection(tx_keys(suite)).seal(DATA, b"")
    assert RecordProtection(rx_keys(suite)).open(sealed).data == b""


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_a_record_replayed_or_out_of_order_is_refused(suite: CipherSuite):
    sealer, opener = RecordProtection(tx_keys(suite)), RecordProtection(rx_keys(suite))
    first, second = sealer.seal(DATA, b"first"), sealer.seal(DATA, b"second")
    with pytest.raises(BadRecord, match="record 0 "):
        opener.open(second)
    opener.open(first)
    with pytest.raises(BadRecord, match="record 1 "):
        opener.open(first)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_a_record_cut_short_or_with_more_behind_it_is_refused(suite: CipherSuite):
    sealed = RecordProtection(tx_keys(suite)).seal(DATA, b"data")
    for wrong in (sealed[:-1], sealed + b"\0"):
        with pytest.raises(ProtocolError, match="a record that says"):
            RecordProtection(rx_keys(suite)).open(wrong)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_a_record_too_short_for_its_tag_is_refused(suite: CipherSuite):
    short = bytes(suite.overhead - 1)
    with pytest.raises(BadRecord, match="too short"):
        RecordProtection(rx_keys(suite)).open(RecordHeader(DATA, 0x0303, len(short)).pack() + short)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_the_last_sequence_number_is_used_once_and_never_wraps(suite: CipherSuite):
    sealer = RecordProtection(tx_keys(suite, sequence=MAX_SEQUENCE))
    opener = RecordProtection(rx_keys(suite, sequence=MAX_SEQUENCE))
    sealed = sealer.seal(DATA, b"last")
    assert opener.open(sealed).data == b"last"
    with pytest.raises(UsageError, match="new keys are due"):
        sealer.seal(DATA, b"one more")
    with pytest.raises(UsageError, match="new keys are due"):
        opener.open(sealed)


@pytest.mark.parametrize("suite", EXPLICIT, ids=str)
def test_explicit_nonces_count_up_from_the_given_one_whatever_the_sequence(suite: CipherSuite):
    sealer = RecordProtection(tx_keys(suite, sequence=1, explicit_nonce=b"\xff" * 7 + b"\xfe"))
    nonces = [sealer.seal(DATA, b"x")[5:13].hex() for _ in range(3)]
    assert nonces == ["fffffffffffffffe", "ffffffffffffffff", "0000000000000000"]


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_our_own_record_opens_with_the_keys_it_was_sealed_with(suite: CipherSuite):
    keys = tx_keys(suite, sequence=7)
    sealed = RecordProtection(keys).seal(DATA, b"ours")
    assert RecordProtection(keys).open(sealed).data == b"ours"


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_keys_to_read_with_do_not_seal(suite: CipherSuite):
    with pytest.raises(UsageError, match="keys to read with"):
        RecordProtection(rx_keys(suite)).seal(DATA, b"data")


@given(st.sampled_from(SUITES_13), st.binary(max_size=50), st.integers(0, 100))
def test_1_3_padding_hides_the_length_and_is_taken_off(suite: CipherSuite, data: bytes, padding: int):
    sealed = RecordProtection(tx_keys(suite)).seal(DATA, data, padding=padding)
    assert len(sealed) == HEADER_LENGTH + len(data) + 1 + padding + 16
    assert RecordProtection(rx_keys(suite)).open(sealed).data == data


@pytest.mark.parametrize("padding", [-1, MAX_PLAINTEXT])
def test_padding_that_does_not_fit_is_refused(padding: int):
    with pytest.raises(UsageError, match="of padding"):
        RecordProtection(tx_keys(SUITES_13[0])).seal(DATA, b"x", padding=padding)


@pytest.mark.parametrize("suite", SUITES_12, ids=str)
def test_1_2_has_no_padding(suite: CipherSuite):
    with pytest.raises(UsageError, match="no padding"):
        RecordProtection(tx_keys(suite)).seal(DATA, b"x", padding=1)


@pytest.mark.parametrize(
    ("inner", "why"),
    [
        (b"\0" * 20, "nothing but padding"),
        (b"", "nothing but padding"),
        (b"\x01\x14", "change_cipher_spec"),
        (b"\x16", "empty"),
        (b"\x15\0\0", "empty"),
        (b"data\x18", "type 24"),
    ],
)
def test_an_authentic_1_3_record_with_forbidden_content_is_refused(inner: bytes, why: str):
    with pytest.raises(ProtocolError, match=why):
        RecordProtection(rx_keys(SUITES_13[0])).open(seal_by_hand(SUITES_13[0], inner))


def test_1_3_content_beyond_the_limit_is_an_overflow_although_the_record_is_not():
    sealed = seal_by_hand(SUITES_13[0], bytes(MAX_PLAINTEXT + 1) + b"\x17")
    assert len(sealed) < HEADER_LENGTH + MAX_CIPHERTEXT[Version.TLS13]
    with pytest.raises(RecordOverflow, match="16386"):
        RecordProtection(rx_keys(SUITES_13[0])).open(sealed)


def test_1_2_content_beyond_the_limit_is_an_overflow_although_the_record_is_not():
    suite = SUITES_12[0]
    body = bytes(MAX_PLAINTEXT + 1 + suite.overhead)
    with pytest.raises(RecordOverflow, match="16385"):
        RecordProtection(rx_keys(suite)).open(RecordHeader(DATA, 0x0303, len(body)).pack() + body)


@pytest.mark.parametrize("content_type", [ContentType.CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE])
def test_a_clear_record_among_protected_1_3_ones_is_refused(content_type: ContentType):
    sealed = seal_by_hand(SUITES_13[0], b"data\x17", outer=content_type)
    with pytest.raises(ProtocolError, match=f"type {content_type:d} in clear"):
        RecordProtection(rx_keys(SUITES_13[0])).open(sealed)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_a_protected_record_says_0x0303(suite: CipherSuite):
    sealed = RecordProtection(tx_keys(suite)).seal(DATA, b"data")
    assert sealed[1:3] == b"\x03\x03"
    with pytest.raises(ProtocolError, match="0x0304"):
        RecordProtection(rx_keys(suite)).open(sealed[:1] + b"\x03\x04" + sealed[3:])


def test_opened_content_and_errors_show_no_data_and_no_key():
    suite = SUITES_13[0]
    sealed = RecordProtection(tx_keys(suite)).seal(DATA, b"secret")
    assert "secret" not in repr(RecordProtection(rx_keys(suite)).open(sealed))
    with pytest.raises(KtlsError) as caught:
        RecordProtection(rx_keys(suite, sequence=1)).open(sealed)
    assert caught.value.__cause__ is None
    assert caught.value.alert == 20
