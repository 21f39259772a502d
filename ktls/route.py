"""Which network device a connection leaves through: the one that would have to offload its records."""

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError


def device_to(address: str) -> str | None:
    """Ask the kernel's routing table for the device towards an address.

    Args:
        address: the peer's IP address as text.

    Returns:
        The device's name; None where there is no route, or more than one next hop. Below a bond or a VLAN there may be
        another device, which decides for itself.

    >>> device_to("127.0.0.1")
    'lo'
    """
    with IPRoute() as routes:
        try:
            (route,) = routes.route("get", dst=address)
        except (NetlinkError, ValueError):
            return None
        index = route.get_attr("RTA_OIF")
        links = routes.get_links(index) if index else []
        return str(links[0].get_attr("IFLA_IFNAME")) if links else None
