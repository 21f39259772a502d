"""A chain as peers look at it."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ktls.chains import chain_problems, issued, path_of, self_signed
from tests.ktls.certificates import LATER, Made, make, make_sha1


@pytest.fixture(scope="module")
def root() -> Made:
    return make("root")


@pytest.fixture(scope="module")
def middle(root) -> Made:
    return make("middle", root)


@pytest.fixture(scope="module")
def leaf(middle) -> Made:
    return make("leaf", middle, names=["a.example"])


def problems(*chain: Made, known: bool = True, days: int = 30) -> list[tuple[str, str]]:
    return list(chain_problems([one.certificate for one in chain], LATER, days, lambda _: known))


def test_a_chain_in_order_has_no_problem_with_or_without_its_root(root, middle, leaf):
    assert problems(leaf, middle) == []
    assert problems(leaf, middle, root, known=False) == []


def test_issuers_are_found_in_any_order_and_the_order_is_told(root, middle, leaf):
    chain = [one.certificate for one in (leaf, root, middle)]
    assert path_of(chain) == [leaf.certificate, middle.certificate, root.certificate]
    assert problems(leaf, root, middle) == [
        ("error", "is in the wrong order: each certificate is to be followed by its issuer")
    ]


def test_an_issuer_that_is_missing_is_named(root, middle, leaf):
    assert problems(leaf, known=False) == [
        (
            "warning",
            'ends at "CN=leaf", whose issuer "CN=middle" is no anchor that is known here: '
            "is an intermediate certificate missing?",
        )
    ]
    assert problems(leaf, root, known=False) == [
        ("error", 'the issuer of "CN=leaf" is missing: "CN=middle"'),
        ("warning", '"CN=root" is superfluous: it is no issuer of the others'),
    ]


def test_an_issuer_of_the_same_name_with_another_key_is_no_issuer(root, leaf):
    for key in (None, rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()):
        false = make("middle", root, key=key)
        assert not issued(false.certificate, leaf.certificate)
        assert ("error", 'the certificate of "CN=middle" in it is not the one that issued "CN=leaf"') in problems(
            leaf, false, known=False
        )


def test_what_is_superfluous_or_there_twice_is_told(middle, leaf):
    other = make("other")
    assert problems(leaf, other, middle) == [("warning", '"CN=other" is superfluous: it is no issuer of the others')]
    assert problems(leaf, middle, middle) == [("warning", '"CN=middle" is there twice')]


def test_a_leaf_that_signs_itself_is_told():
    alone = make("alone", names=["a.example"])
    assert self_signed(alone.certificate)
    assert problems(alone, known=False) == [
        ("warning", "is self-signed: only peers with this very certificate in their trust take it")
    ]


@pytest.mark.parametrize(
    ("days", "found"),
    [
        ((-20, -10.5), [("error", "expired on {until:%Y-%m-%d}")]),
        ((10.5, 20), [("error", "not valid before {since:%Y-%m-%d}")]),
        ((-1, 10.5), [("warning", "expires on {until:%Y-%m-%d}, in 10 days")]),
        ((-1, 1.5), [("warning", "expires on {until:%Y-%m-%d}, in 1 day")]),
        ((-1, 0.5), [("warning", "expires on {until:%Y-%m-%d}, in less than a day")]),
        ((-1, 31), []),
    ],
)
def test_dates_of_the_leaf_and_of_its_issuers(root, days, found):
    leaf = make("leaf", root, names=["a.example"], days=days)
    span = {"since": leaf.certificate.not_valid_before_utc, "until": leaf.certificate.not_valid_after_utc}
    assert problems(leaf) == [(level, what.format(**span)) for level, what in found]
    middle = make("middle", root, days=days)
    below = make("leaf", middle, names=["a.example"])
    assert problems(below, middle) == [(level, '"CN=middle" ' + what.format(**span)) for level, what in found]


def test_days_are_those_asked_for(root):
    leaf = make("leaf", root, names=["a.example"], days=(-1, 10.5))
    assert problems(leaf, days=10) == []
    assert len(problems(leaf, days=11)) == 1


def test_weak_keys_are_told(root):
    short = make("leaf", root, names=["a.example"], key=rsa.generate_private_key(65537, 1024))
    assert problems(short) == [("error", "has an RSA key of 1024 bits: 2048 are the least")]
    small = make("leaf", root, names=["a.example"], key=ec.generate_private_key(ec.SECP192R1()))
    assert problems(small) == [("error", "has a key on a curve of 192 bits: 224 are the least")]
    assert problems(make("leaf", root, names=["a.example"], key=rsa.generate_private_key(65537, 2048))) == []
    assert problems(make("leaf", root, names=["a.example"], key=ed25519.Ed25519PrivateKey.generate())) == []


def test_a_signature_of_sha1_is_told_and_hides_no_issuer(root, tmp_path):
    leaf = make_sha1(tmp_path, "leaf", root)
    assert problems(leaf, root) == [("error", "is signed with SHA1, which is broken")]


def test_an_issuer_that_is_no_authority_is_told(root):
    usurper = make("usurper", root, names=["b.example"])
    assert problems(make("leaf", usurper, names=["a.example"]), usurper) == [
        ("error", '"CN=usurper" issues others and is no authority\'s certificate: its basic constraints do not say so')
    ]
