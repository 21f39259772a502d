"""The key schedule against published values, and against OpenSSL's own derivation."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.ciphers import SUITES, CipherSuite, HashName, Role, Version, by_iana
from ktls.errors import UsageError
from ktls.keyschedule import hash_length, hkdf_expand_label, key_block12, next_traffic_secret, prf12, traffic_keys

AES_128_GCM = by_iana("TLS_AES_128_GCM_SHA256")
SUITES_12 = [suite for suite in SUITES if Version.TLS12 in suite.versions]

# RFC 8448 section 3, "Simple 1-RTT Handshake": secret, label, transcript hash, what is derived
HELLO_HASH = "860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8"
FINISHED_HASH = "9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13"
HANDSHAKE_SECRET = "1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac"
MASTER_SECRET = "18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919"
C_HS = "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21"
S_HS = "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38"
C_AP = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"
S_AP = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"


@pytest.mark.parametrize(
    ("secret", "label", "context", "derived"),
    [
        (HANDSHAKE_SECRET, b"c hs traffic", HELLO_HASH, C_HS),
        (HANDSHAKE_SECRET, b"s hs traffic", HELLO_HASH, S_HS),
        (MASTER_SECRET, b"c ap traffic", FINISHED_HASH, C_AP),
        (MASTER_SECRET, b"s ap traffic", FINISHED_HASH, S_AP),
        (S_HS, b"finished", "", "008d3b66f816ea559f96b537e885c31fc068bf492c652f01f288a1d8cdc19fc8"),
        (C_HS, b"finished", "", "b80ad01015fb2f0bd65ff7d4da5d6bf83f84821d1f87fdc7d3c75b5a7b42d9c4"),
    ],
    ids=["c hs traffic", "s hs traffic", "c ap traffic", "s ap traffic", "server finished", "client finished"],
)
def test_expand_label_gives_the_secrets_of_rfc_8448(secret: str, label: bytes, context: str, derived: str):
    assert hkdf_expand_label(bytes.fromhex(secret), label, bytes.fromhex(context), 32, "sha256").hex() == derived


@pytest.mark.parametrize(
    ("secret", "key", "iv"),
    [
        (C_HS, "dbfaa693d1762c5b666af5d950258d01", "5bd3c71b836e0b76bb73265f"),
        (S_HS, "3fce516009c21727d0f2e4e86ee403bc", "5d313eb2671276ee13000b30"),
        (C_AP, "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9"),
        (S_AP, "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984"),
    ],
    ids=["c hs", "s hs", "c ap", "s ap"],
)
def test_traffic_keys_are_those_of_rfc_8448(secret: str, key: str, iv: str):
    keys = traffic_keys(bytes.fromhex(secret), AES_128_GCM)
    assert (keys.key.hex(), keys.iv.hex()) == (key, iv)


def openssl_expand_label(secret: bytes, label: bytes, length: int, digest: str) -> bytes:
    options = [
        f"digest:{digest}",
        f"hexkey:{secret.hex()}",
        "mode:EXPAND_ONLY",
        "hexprefix:746c73313320",
        f"hexlabel:{label.hex()}",
        "hexdata:",
    ]
    arguments = [argument for option in options for argument in ("-kdfopt", option)]
    command = ["openssl", "kdf", "-keylen", str(length), *arguments, "-binary", "TLS13-KDF"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize(("hash_name", "digest"), [("sha256", "SHA2-256"), ("sha384", "SHA2-384")])
def test_the_next_traffic_secret_is_openssls(hash_name: HashName, digest: str):
    secret = bytes(range(hash_length(hash_name)))
    expected = openssl_expand_label(secret, b"traffic upd", hash_length(hash_name), digest)
    assert next_traffic_secret(secret, hash_name) == expected


@pytest.mark.parametrize("suite", [suite for suite in SUITES if Version.TLS13 in suite.versions], ids=str)
def test_traffic_keys_of_every_suite_are_openssls(suite: CipherSuite):
    secret = bytes(range(hash_length(suite.hash_name)))
    digest = suite.hash_name.replace("sha", "SHA2-")
    keys = traffic_keys(secret, suite)
    assert keys.key == openssl_expand_label(secret, b"key", suite.key_length, digest)
    assert keys.iv == openssl_expand_label(secret, b"iv", 12, digest)


def test_a_shorter_output_is_not_the_start_of_a_longer_one():
    # HkdfLabel holds the length, so that two keys of different lengths have nothing in common.
    short, long = (hkdf_expand_label(bytes(32), b"key", b"", length, "sha256") for length in (16, 32))
    assert not long.startswith(short)


@pytest.mark.parametrize(
    ("label", "context", "length"),
    [(b"x" * 250, b"", 32), (b"key", b"x" * 256, 32), (b"key", b"", 0), (b"key", b"", 255 * 32 + 1)],
    ids=["label", "context", "nothing", "too much"],
)
def test_what_hkdf_label_cannot_hold_is_refused(label: bytes, context: bytes, length: int):
    with pytest.raises(UsageError):
        hkdf_expand_label(bytes(32), label, context, length, "sha256")


# The vectors posted to the IETF TLS list in 2009 (tls/current/msg03416), which OpenSSL reproduces.
PRF_VECTORS: dict[HashName, tuple[str, str, str]] = {
    "sha256": (
        "9bbe436ba940f017b17652849a71db35",
        "a0ba9f936cda311827a6f796ffd5198c",
        "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a"
        "6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17abfd3797c0564bab"
        "4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66",
    ),
    "sha384": (
        "b80b733d6ceefcdc71566ea48e5567df",
        "cd665cf6a8447dd6ff8b27555edb7465",
        "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cd"
        "e9ca0faa60be9fe34f82b1233c9146a0e534cb400fed2700884f9dc236f80edd"
        "8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d918425"
        "9b5bf8cd4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee6"
        "91c8f3a26854308d5eaa3be85e0990703d73e56f",
    ),
}


@pytest.mark.parametrize("hash_name", PRF_VECTORS)
def test_the_1_2_prf_gives_the_published_vectors(hash_name: HashName):
    secret, seed, output = map(bytes.fromhex, PRF_VECTORS[hash_name])
    assert prf12(secret, b"test label", seed, len(output), hash_name) == output


@pytest.mark.parametrize("hash_name", PRF_VECTORS)
def test_the_1_2_prf_is_openssls(hash_name: HashName):
    secret, seed = bytes(range(48)), bytes(range(64))
    options = [f"digest:{hash_name}", f"hexsecret:{secret.hex()}", "seed:key expansion", f"hexseed:{seed.hex()}"]
    arguments = [argument for option in options for argument in ("-kdfopt", option)]
    command = ["openssl", "kdf", "-keylen", "77", *arguments, "-binary", "TLS1-PRF"]
    expected = subprocess.run(command, check=True, capture_output=True).stdout
    assert prf12(secret, b"key expansion", seed, 77, hash_name) == expected


@given(st.binary(max_size=64), st.binary(max_size=64), st.integers(0, 200), st.integers(0, 200))
def test_a_shorter_prf_output_is_the_start_of_a_longer_one(secret: bytes, seed: bytes, one: int, other: int):
    short, long = sorted((one, other))
    whole = prf12(secret, b"label", seed, long, "sha256")
    assert len(whole) == long
    assert prf12(secret, b"label", seed, short, "sha256") == whole[:short]


@pytest.mark.parametrize("suite", SUITES_12, ids=str)
def test_the_key_block_is_cut_in_the_rfcs_order(suite: CipherSuite):
    master, client, server = b"m" * 48, b"c" * 32, b"s" * 32
    length = 2 * (suite.key_length + suite.fixed_iv_length)
    expected = prf12(master, b"key expansion", server + client, length, suite.hash_name)
    block = key_block12(master, client, server, suite)
    assert block.client.key + block.server.key + block.client.iv + block.server.iv == expected
    assert len(block.client.key) == len(block.server.key) == suite.key_length
    assert len(block.client.iv) == len(block.server.iv) == suite.fixed_iv_length


def test_what_one_side_writes_with_the_other_reads_with():
    block = key_block12(bytes(48), bytes(32), bytes(32), SUITES_12[0])
    assert block.written_by(Role.CLIENT) is block.client
    assert block.written_by(Role.CLIENT.peer) is block.server


@pytest.mark.parametrize("lengths", [(47, 32, 32), (48, 31, 32), (48, 32, 33)])
def test_secrets_and_randoms_of_another_length_are_refused(lengths: tuple[int, int, int]):
    master, client, server = map(bytes, lengths)
    with pytest.raises(UsageError, match="bytes, not"):
        key_block12(master, client, server, SUITES_12[0])


def test_keys_are_not_shown():
    block = key_block12(b"m" * 48, b"c" * 32, b"s" * 32, SUITES_12[0])
    assert repr(block.client) == "TrafficKeys()"
    assert repr(block) == "KeyBlock(client=TrafficKeys(), server=TrafficKeys())"
