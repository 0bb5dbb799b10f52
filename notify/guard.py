"""Which addresses a webhook may be sent to: public ones, and private ones where the channel allows it. Pure.

Judges addresses, never names: the sender resolves a name once, has every answer judged, and connects to what was
judged, so that a name which changes its answer gains nothing. What an IPv6 form carries of IPv4 is judged as IPv4.
Source: IANA's special-purpose registries (RFC 6890), https://www.iana.org/assignments/iana-ipv4-special-registry.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

# A network of one's own: refused unless the channel allows it.
PRIVATE = "private", "loopback", "shared by a provider"

# The first that fits names the address. Of cloud metadata services, those outside of 169.254.0.0/16 stand by name.
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a metadata service", ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")),
    ("unspecified", ("0.0.0.0/8", "::/128")),
    ("loopback", ("127.0.0.0/8", "::1/128")),
    ("link-local", ("169.254.0.0/16", "fe80::/10")),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
    ("shared by a provider", ("100.64.0.0/10",)),
    ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
    ("reserved", ("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24")),
    (
        "reserved",
        ("203.0.113.0/24", "240.0.0.0/4", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20"),
    ),
)
_NETWORKS: tuple[tuple[str, IPv4Network | IPv6Network], ...] = tuple(
    (kind, ip_network(network)) for kind, networks in _KINDS for network in networks
)
_GLOBAL_V6 = IPv6Network("2000::/3")  # nothing else is given out

_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")


def kind(address: Address) -> str:
    """What sort of address it is, "" where it is a public one."""
    if isinstance(address, IPv6Address):
        inner = _carried(address)
        if inner is not None:
            return kind(inner)
    for name, network in _NETWORKS:
        if address.version == network.version and address in network:
            return name
    return "reserved" if isinstance(address, IPv6Address) and address not in _GLOBAL_V6 else ""


def refusal(addresses: Sequence[str], allow_private: bool = False) -> str | None:
    """Why nothing is sent to a name with these addresses, without telling them; None where it may be.

    One bad answer among good ones refuses the name: a good server has none. `allow_private` lets through networks of
    one's own and this machine, never a metadata service.
    """
    for text in addresses:
        try:
            found = kind(ip_address(text.partition("%")[0]))
        except ValueError:
            return "its address cannot be read"
        if found in PRIVATE and not allow_private:
            return f"its address is {found}; allow_private = true would allow it"
        if found and found not in PRIVATE:
            return f"its address is {found}"
    return None if addresses else "it has no address"


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address at which a translator or tunnel would deliver; None for IPv6 proper."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):  # :: and ::1 are no IPv4
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None
