"""The suite table against OpenSSL's own, and the kernel's structs against the sizes of include/uapi/linux/tls.h."""

import ssl
import subprocess

import pytest

from ktls.ciphers import (
    KERNEL_CIPHERS,
    SUITES,
    CipherSuite,
    KernelCipher,
    Role,
    Version,
    aead,
    by_iana,
    by_openssl,
)
from ktls.errors import UsageError

# name -> cipher_type, size, offsets of key, salt and rec_seq; iv is at 4 in all (compiled from the header)
UAPI = {
    "AES_GCM_128": (51, 40, 12, 28, 32),
    "AES_GCM_256": (52, 56, 12, 44, 48),
    "AES_CCM_128": (53, 40, 12, 28, 32),
    "CHACHA20_POLY1305": (54, 56, 16, 48, 48),
}


@pytest.fixture(scope="module")
def openssl_table() -> dict[str, tuple[str, str, int]]:
    """OpenSSL's name -> IANA's name, protocol, code."""
    lines = subprocess.run(
        ["openssl", "ciphers", "-V", "-stdname", "ALL:@SECLEVEL=0"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    extra = subprocess.run(
        ["openssl", "ciphers", "-V", "-stdname", "-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256", "ALL"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    table = {}
    for line in lines + extra:
        code, _, iana, _, name, protocol, *_ = line.split()
        high, low = code.split(",")
        table[name] = (iana, protocol, int(high, 16) << 8 | int(low, 16))
    return table


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_a_suite_has_the_names_and_number_that_openssl_knows(suite: CipherSuite, openssl_table):
    (version,) = suite.versions
    assert openssl_table[suite.openssl_name] == (suite.iana_name, version.label, suite.code)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_the_hash_is_the_one_in_the_name(suite: CipherSuite):
    assert suite.hash_name == ("sha384" if suite.iana_name.endswith("SHA384") else "sha256")


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_fixed_and_explicit_parts_make_a_nonce_of_twelve_bytes(suite: CipherSuite):
    assert suite.fixed_iv_length + suite.explicit_nonce_length == 12
    assert suite.kernel.salt_length + suite.kernel.iv_length == 12
    assert suite.key_length == suite.kernel.key_length
    assert suite.overhead == suite.explicit_nonce_length + 16


def test_every_kernel_cipher_is_served_in_both_versions():
    served = {(suite.kernel, version) for suite in SUITES for version in suite.versions}
    assert served == {(kernel, version) for kernel in KERNEL_CIPHERS for version in Version}


@pytest.mark.parametrize("kernel", KERNEL_CIPHERS, ids=lambda kernel: kernel.name)
def test_the_struct_is_laid_out_as_the_kernel_header_says(kernel: KernelCipher):
    cipher_type, size, key_at, salt_at, rec_seq_at = UAPI[kernel.name]
    iv, key = b"i" * kernel.iv_length, b"k" * kernel.key_length
    salt, rec_seq = b"s" * kernel.salt_length, b"12345678"
    packed = kernel.pack(Version.TLS13, iv=iv, key=key, salt=salt, rec_seq=rec_seq)
    assert len(packed) == size == kernel.size
    assert memoryview(packed)[:4].cast("H").tolist() == [0x0304, cipher_type]
    assert packed[4:key_at] == iv
    assert packed[key_at:salt_at] == key
    assert packed[salt_at:rec_seq_at] == salt
    assert packed[rec_seq_at:] == rec_seq


@pytest.mark.parametrize("field", ["iv", "key", "salt", "rec_seq"])
def test_a_field_of_another_length_is_refused_without_showing_it(field: str):
    kernel = by_iana("TLS_AES_128_GCM_SHA256").kernel
    fields = {"iv": b"i" * 8, "key": b"k" * 16, "salt": b"s" * 4, "rec_seq": b"r" * 8}
    fields[field] += b"Z"
    with pytest.raises(UsageError, match="AES_GCM_128 takes") as caught:
        kernel.pack(Version.TLS12, **fields)
    assert "Z" not in str(caught.value)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_suites_are_found_by_either_name(suite: CipherSuite):
    (version,) = suite.versions
    assert by_iana(suite.iana_name) is suite
    assert by_openssl(suite.openssl_name, version) is suite


def test_a_suite_of_the_other_version_is_not_found():
    with pytest.raises(UsageError, match=r"'TLS_AES_128_GCM_SHA256' in TLSv1\.2"):
        by_openssl("TLS_AES_128_GCM_SHA256", Version.TLS12)


def test_an_unknown_name_is_quoted_and_the_known_ones_are_listed():
    with pytest.raises(UsageError, match="'RC4-MD5'") as caught:
        by_iana("RC4-MD5")
    assert "TLS_AES_128_GCM_SHA256" in caught.value.hint


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_the_aead_adds_a_tag_of_the_stated_length(suite: CipherSuite):
    cipher = aead(suite, bytes(suite.key_length))
    assert len(cipher.encrypt(bytes(12), b"data", b"")) == 4 + suite.tag_length


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_a_key_of_another_length_is_refused_without_showing_it(suite: CipherSuite):
    # AES-GCM itself would take a 32-byte key for a 16-byte one.
    with pytest.raises(UsageError, match=f"a key of {suite.key_length} bytes") as caught:
        aead(suite, b"Z" * (48 - suite.key_length))
    assert "Z" not in str(caught.value)


def test_versions_carry_their_wire_number_and_openssls_label():
    assert [(int(version), version.label) for version in Version] == [(0x0303, "TLSv1.2"), (0x0304, "TLSv1.3")]
    assert int(Version.TLS13) == ssl.TLSVersion.TLSv1_3


def test_each_role_is_the_others_peer():
    assert Role.CLIENT.peer is Role.SERVER
    assert Role.SERVER.peer is Role.CLIENT
