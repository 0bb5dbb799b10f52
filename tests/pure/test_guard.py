"""Which addresses a webhook is sent to, by what they are and by what they carry."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from notify.guard import PRIVATE, kind, refusal


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", ""),
        ("1.1.1.1", ""),
        ("172.15.255.255", ""),
        ("172.32.0.0", ""),
        ("100.63.255.255", ""),
        ("100.128.0.0", ""),
        ("2606:4700:4700::1111", ""),
        ("2001:4860:4860::8888", ""),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("::1", "loopback"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("fd12:3456::1", "private"),
        ("fec0::1", "private"),
        ("100.64.0.1", "shared by a provider"),
        ("100.127.255.255", "shared by a provider"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("169.254.169.254", "a metadata service"),
        ("169.254.170.2", "a metadata service"),
        ("100.100.100.200", "a metadata service"),
        ("fd00:ec2::254", "a metadata service"),
        ("0.0.0.0", "unspecified"),  # noqa: S104
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("192.0.2.1", "reserved"),
        ("198.18.0.1", "reserved"),
        ("203.0.113.5", "reserved"),
        ("2001:db8::1", "reserved"),
        ("2001::1", "reserved"),  # Teredo
        ("100::1", "reserved"),
        ("4000::1", "reserved"),
        ("64:ff9b:1::a00:1", "reserved"),
        # What carries IPv4 is judged by it.
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:169.254.169.254", "a metadata service"),
        ("::ffff:8.8.8.8", ""),
        ("::127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "a metadata service"),
        ("64:ff9b::808:808", ""),
        ("2002:7f00:1::", "loopback"),
        ("2002:c0a8:101::1", "private"),
        ("2002:808:808::1", ""),
    ],
)
def test_kinds(address: str, expected: str) -> None:
    assert kind(ip_address(address)) == expected


@given(number=st.integers(0, 2**32 - 1))
def test_no_ipv4_passes_that_python_knows_as_special(number: int) -> None:
    address = IPv4Address(number)
    assume(not (address.is_global and not address.is_multicast))
    assert kind(address) != ""


@given(
    number=st.integers(0, 2**128 - 1),
    network=st.sampled_from(["::/0", "2000::/3", "2001::/20", "fc00::/7", "fe80::/9", "ff00::/8", "::/8"]),
)
def test_no_ipv6_passes_that_python_knows_as_special(number: int, network: str) -> None:
    base = ip_network(network)
    address = IPv6Address(int(base.network_address) | number & int(base.hostmask))
    if kind(address) == "" and (address.is_multicast or not address.is_global):
        # A public IPv4 address inside of a form that no interface has.
        assert any(address in ip_network(form) for form in ("::ffff:0:0/96", "64:ff9b::/96", "::/96", "2002::/16"))


@given(
    number=st.integers(0, 2**32 - 1),
    form=st.sampled_from([(0xFFFF << 32, 0), (0x64FF9B << 96, 0), (0x2002 << 112, 80), (0, 0)]),
)
def test_ipv6_that_carries_ipv4_is_judged_as_that(number: int, form: tuple[int, int]) -> None:
    start, shift = form
    assume(start or number > 1)
    assert kind(IPv6Address(start | number << shift)) == kind(IPv4Address(number))


@pytest.mark.parametrize(
    ("addresses", "allow", "words"),
    [
        (["8.8.8.8", "2606:4700:4700::1111"], False, None),
        (["8.8.8.8", "127.0.0.1"], False, "loopback"),
        (["127.0.0.1", "8.8.8.8"], False, "allow_private"),
        (["127.0.0.1", "10.0.0.1", "fd00::1", "100.64.0.1"], True, None),
        (["10.0.0.1", "169.254.169.254"], True, "a metadata service"),
        (["fe80::1%eth0"], True, "link-local"),
        (["0.0.0.0"], True, "unspecified"),  # noqa: S104
        (["224.0.0.1"], True, "multicast"),
        (["2130706433"], False, "cannot be read"),
        ([], False, "no address"),
    ],
)
def test_refusal(addresses: list[str], allow: bool, words: str | None) -> None:
    told = refusal(addresses, allow)
    assert (told is None) == (words is None)
    assert words is None or (told is not None and words in told)
    assert not any(address in (told or "") for address in addresses)


@given(number=st.integers(0, 2**128 - 1))
def test_allowing_private_allows_nothing_else(number: int) -> None:
    address = IPv6Address(number)
    if refusal([str(address)], allow_private=True) is None:
        assert kind(address) in ("", *PRIVATE)
