"""A rule's action becomes the parameters of an environment: nothing is lost, and the engine's limits are kept."""

import pytest

from ktls.agent.parameters import role_of, tls_parameters
from ktls.ciphers import SUITES, Role, Version
from ktls.errors import EngineUnavailable
from ktls.probe import probe
from policy.identities import Keyring
from policy.model import Action
from policy.opening import keyring_of


@pytest.mark.parametrize(
    ("said", "connecting", "role"),
    [
        ("auto", True, Role.CLIENT),
        ("auto", False, Role.SERVER),
        ("server", True, Role.SERVER),
        ("client", False, Role.CLIENT),
    ],
)
def test_the_role_is_the_actions_or_follows_from_who_connected(said, connecting, role):
    assert role_of(Action(role=said), connecting=connecting) is role


def test_what_the_action_says_is_what_the_environment_gets():
    action = Action(
        keyring=Keyring("k", trust=("/ca.pem",)),
        min_version="1.3",
        alpn=("http/1.1",),
        peer_name="db.example",
        client_auth="required",
        peer_identities=("DNS:x.example",),
        engine="relay",
    )
    made = tls_parameters(action, Role.CLIENT, probe())
    assert (made.min_version, made.max_version) == (Version.TLS13, Version.TLS13)
    assert (made.alpn, made.peer_name, made.client_auth) == (("http/1.1",), "db.example", "required")
    assert made.peer_identities == ("DNS:x.example",)
    assert keyring_of(action.keyring).trust == ("/ca.pem",)


def test_ciphers_keep_the_actions_order():
    names = ("TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
    made = tls_parameters(Action(ciphers=names, engine="relay"), Role.CLIENT, probe())
    assert tuple(suite.iana_name for suite in made.suites) == names
    assert set(made.suites) <= set(SUITES)


def test_an_engine_that_can_do_none_of_the_ciphers_is_told():
    with pytest.raises(EngineUnavailable):
        tls_parameters(
            Action(ciphers=("TLS_AES_128_GCM_SHA256",), max_version="1.2", engine="relay"), Role.CLIENT, probe()
        )
