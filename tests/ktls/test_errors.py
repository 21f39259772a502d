"""One tree: every leaf says why (a word), what the program sees (an errno), and what we tell the peer (an alert)."""

import errno

import pytest

from ktls import errors, kernel_errors
from ktls.errors import KtlsError


def leaves(root: type[KtlsError]) -> list[type[KtlsError]]:
    below = [leaf for child in root.__subclasses__() for leaf in leaves(child)]
    return [root, *below] if root.reason else below


LEAVES = sorted(set(leaves(KtlsError)), key=lambda leaf: leaf.__qualname__)
CATEGORIES = [errors.KtlsError, errors.PeerError, errors.ConfigError, errors.SystemFault, errors.KernelError]
SEEN_BY_PROGRAMS = {
    errors.HandshakeTimeout: errno.ETIMEDOUT,
    errors.NameMismatch: errno.EKEYREJECTED,
    errors.UnknownIssuer: errno.EKEYREJECTED,
    errors.CertificateMissing: errno.EKEYREJECTED,
    errors.CertificateExpired: errno.EKEYEXPIRED,
    errors.CertificateRevoked: errno.EKEYREVOKED,
    errors.KeyringError: errno.ENOKEY,
    errors.ProtocolError: errno.EPROTO,
    errors.ClearTextError: errno.EPROTO,
    errors.PeerAlert: errno.EPROTO,
    errors.PeerClosed: errno.ECONNRESET,
    errors.Truncated: errno.ECONNRESET,
    errors.AgentUnreachable: errno.ECONNREFUSED,
    errors.Denied: errno.EACCES,
    kernel_errors.UlpUnavailable: errno.EPROTONOSUPPORT,
}


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__qualname__)
def test_every_leaf_has_a_reason_an_errno_and_a_valid_alert(leaf):
    error = leaf("something happened")
    assert (str(error), error.message) == ("something happened", "something happened")
    assert error.reason == error.reason.lower()
    assert error.errno in errno.errorcode
    assert error.alert is None or 0 <= error.alert <= 255


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_category_cannot_be_raised(category):
    with pytest.raises(TypeError, match="is a category"):
        category("x")


@pytest.mark.parametrize(
    ("leaf", "number"), SEEN_BY_PROGRAMS.items(), ids=lambda value: getattr(value, "reason", value)
)
def test_programs_see_the_errno_of_the_design(leaf, number):
    assert leaf("x").errno == number


def test_a_hint_replaces_that_of_the_class():
    assert errors.UnknownIssuer("x").hint == "add the issuer's certificate to the keyring's trust"
    assert errors.UnknownIssuer("x", hint="ask them").hint == "ask them"
