"""Which engine serves a session: every row of both tables, and what a report would say."""

from dataclasses import replace

import pytest

from ktls.ciphers import SUITES, Version, by_iana
from ktls.errors import EngineUnavailable
from ktls.probe import Capabilities
from offload.engine import Choice, Engine, choose, usable_suites

NAMES = ("AES_GCM_256", "CHACHA20_POLY1305", "AES_GCM_128", "AES_CCM_128")
CIPHERS = dict.fromkeys(Version, NAMES)
NOTHING = Capabilities(reason="no kTLS: ENOENT", hint="modprobe tls")
KERNEL = Capabilities(kernel_tls=True, tx_ciphers=CIPHERS, rx_ciphers=CIPHERS)
CARD = replace(KERNEL, tx_devices=("eth0",))
RX_CARD = replace(KERNEL, rx_devices=("eth0",))
GCM_ONLY = replace(KERNEL, tx_ciphers={Version.TLS13: ("AES_GCM_128",)}, rx_ciphers={Version.TLS13: ("AES_GCM_128",)})
GCM13, CHACHA13 = by_iana("TLS_AES_128_GCM_SHA256"), by_iana("TLS_CHACHA20_POLY1305_SHA256")
GCM12 = by_iana("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
GCM256 = by_iana("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")
CHACHA12 = by_iana("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")

NO_STOP = "the program may stop TLS, which on kTLS takes CAP_NET_ADMIN"
NO_CARD = "no network device here offloads TLS"

CHOSEN = [
    # preference, capabilities, suite, more, engine, reason
    ("auto", NOTHING, GCM13, {}, "relay", "no kTLS: ENOENT"),
    ("auto", KERNEL, GCM13, {}, "kernel", NO_CARD),
    ("auto", KERNEL, GCM12, {"device": "eth0"}, "kernel", NO_CARD),
    ("auto", CARD, GCM13, {"device": "eth0"}, "kernel", "devices do TLSv1.2 only, not TLSv1.3"),
    ("auto", CARD, CHACHA12, {"device": "eth0"}, "kernel", "devices do AES-GCM only, not CHACHA20_POLY1305"),
    ("auto", CARD, GCM12, {}, "kernel", "the connection's network device is not known"),
    ("auto", CARD, GCM12, {"device": "lo"}, "kernel", "lo has no TLS offload switched on"),
    ("auto", CARD, GCM12, {"device": "eth0"}, "nic", "the best there is"),
    ("auto", CARD, GCM256, {"device": "eth0"}, "nic", "the best there is"),
    ("auto", RX_CARD, GCM12, {"device": "eth0"}, "nic", "the best there is"),
    ("auto", GCM_ONLY, CHACHA13, {}, "relay", "kTLS has no CHACHA20_POLY1305 for TLSv1.3 here"),
    ("auto", KERNEL, GCM13, {"application_controlled": True}, "relay", NO_STOP),
    ("auto", KERNEL, GCM13, {"application_controlled": True, "can_transplant": True}, "kernel", NO_CARD),
    ("no-nic", NOTHING, GCM13, {}, "relay", "no kTLS: ENOENT"),
    ("no-nic", KERNEL, GCM13, {}, "kernel", "the best without a device"),
    ("no-nic", CARD, GCM13, {"device": "eth0"}, "kernel", "the best without a device"),
    ("no-nic", CARD, GCM12, {"device": "lo"}, "kernel", "the best without a device"),
    (
        "no-nic",
        CARD,
        GCM12,
        {"device": "eth0"},
        "relay",
        "the kernel would leave it to eth0, which the rule excludes",
    ),
    ("kernel", KERNEL, CHACHA13, {}, "kernel", "the rule says kernel"),
    ("kernel", CARD, GCM12, {"device": "eth0"}, "kernel", "the rule says kernel"),
    ("nic", CARD, GCM12, {"device": "eth0"}, "nic", "the rule says nic"),
    ("relay", CARD, GCM12, {"device": "eth0"}, "relay", "the rule says relay"),
    ("relay", NOTHING, GCM13, {"application_controlled": True}, "relay", "the rule says relay"),
]
REFUSED = [
    ("kernel", NOTHING, GCM13, {}, "no kTLS: ENOENT"),
    ("kernel", GCM_ONLY, CHACHA13, {}, "kTLS has no CHACHA20_POLY1305 for TLSv1.3 here"),
    ("kernel", KERNEL, GCM13, {"application_controlled": True}, NO_STOP),
    ("nic", NOTHING, GCM12, {}, "no kTLS: ENOENT"),
    ("nic", KERNEL, GCM12, {"device": "eth0"}, NO_CARD),
    ("nic", CARD, GCM13, {"device": "eth0"}, "devices do TLSv1.2 only, not TLSv1.3"),
    ("nic", CARD, CHACHA12, {"device": "eth0"}, "devices do AES-GCM only, not CHACHA20_POLY1305"),
    ("nic", CARD, GCM12, {}, "the connection's network device is not known"),
    ("nic", CARD, GCM12, {"device": "lo"}, "lo has no TLS offload switched on"),
    ("nic", CARD, GCM12, {"device": "eth0", "application_controlled": True}, NO_STOP),
]


@pytest.mark.parametrize(("preference", "capabilities", "suite", "more", "engine", "reason"), CHOSEN)
def test_the_best_engine_without_an_obstacle_is_chosen(preference, capabilities, suite, more, engine, reason):
    assert choose(preference, capabilities, min(suite.versions), suite, **more) == Choice(Engine(engine), reason)


@pytest.mark.parametrize(("preference", "capabilities", "suite", "more", "why"), REFUSED)
def test_a_rule_that_cannot_be_kept_is_refused(preference, capabilities, suite, more, why):
    with pytest.raises(EngineUnavailable) as caught:
        choose(preference, capabilities, min(suite.versions), suite, **more)
    version = min(suite.versions).label
    assert caught.value.message == f"engine {preference} cannot serve {version} with {suite}: {why}"
    assert caught.value.hint


def test_a_reason_is_told_once_though_it_rules_out_two_engines():
    assert choose("auto", NOTHING, Version.TLS12, GCM12).reason == "no kTLS: ENOENT"


def test_both_reasons_are_told_where_they_differ():
    choice = choose("auto", replace(CARD, rx_ciphers={}), Version.TLS12, GCM12, device="eth0")
    assert choice == Choice(Engine.RELAY, "kTLS has no AES_GCM_128 for TLSv1.2 here")


# --- suites ----------------------------------------------------------------------------------------------------------


def test_the_relay_offers_all_suites_in_their_order():
    assert usable_suites("relay", NOTHING, Version.TLS12, Version.TLS13) == SUITES


@pytest.mark.parametrize("preference", ["auto", "no-nic", "kernel"])
def test_a_kernel_with_all_ciphers_offers_all_suites_in_their_order(preference):
    assert usable_suites(preference, KERNEL, Version.TLS12, Version.TLS13) == SUITES


@pytest.mark.parametrize(("version", "count"), [(Version.TLS12, 11), (Version.TLS13, 4)])
def test_versions_bound_what_is_offered(version, count):
    suites = usable_suites("auto", KERNEL, version, version)
    assert len(suites) == count
    assert all(version in suite.versions for suite in suites)


def test_auto_offers_the_kernels_suites_first_and_the_others_still():
    suites = usable_suites("auto", GCM_ONLY, Version.TLS13, Version.TLS13)
    assert suites[0] is GCM13
    assert CHACHA13 in suites


def test_kernel_offers_nothing_that_would_end_on_the_relay():
    assert usable_suites("kernel", GCM_ONLY, Version.TLS12, Version.TLS13) == (GCM13,)


def test_nic_offers_what_a_card_takes():
    suites = usable_suites("nic", CARD, Version.TLS12, Version.TLS13)
    assert GCM12 in suites
    assert {suite.kernel.name for suite in suites} == {"AES_GCM_128", "AES_GCM_256"}
    assert all(Version.TLS12 in suite.versions for suite in suites)


@pytest.mark.parametrize(
    ("preference", "capabilities", "lowest"),
    [("kernel", NOTHING, Version.TLS12), ("nic", KERNEL, Version.TLS12), ("nic", CARD, Version.TLS13)],
)
def test_no_suite_at_all_is_an_error_before_the_handshake(preference, capabilities, lowest):
    with pytest.raises(EngineUnavailable, match=f"^engine {preference} can do no suite"):
        usable_suites(preference, capabilities, lowest, Version.TLS13)
