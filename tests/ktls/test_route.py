"""The device towards an address is the routing table's."""

import pytest

from ktls.route import device_to


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_leaves_through_lo(address):
    assert device_to(address) == "lo"


def test_an_address_without_a_route_has_no_device():
    assert device_to("240.0.0.1") != "lo"
