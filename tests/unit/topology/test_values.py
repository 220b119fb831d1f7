"""How single scalars are read."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.topology import selectors, values
from vnet.topology.model import ClaimKind, PeerKind, Service
from vnet.topology.shape import Refused
from vnet.topology.yaml import Scalar, resolve


def scalar(text: str) -> Scalar:
    return Scalar(resolve(text), text, 1, 1, 1)


def hint(parse: Callable[[Scalar], object], text: str) -> str:
    with pytest.raises(Refused) as raised:
        parse(scalar(text))
    return raised.value.hint


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [
        ("96M", 96),
        ("1G", 1024),
        ("512MiB", 512),
        ("512Mi", 512),
        ("1.5G", 1536),
        ("65536K", 64),
        ("1T", 1 << 20),
    ],
)
def test_memory_counts_in_powers_of_1024(text: str, mebibytes: int) -> None:
    assert values.memory(scalar(text)) == mebibytes << 20


@pytest.mark.parametrize("text", ["96", "96MB", "1 G", "m", "-1G", "", "1e3M", "31M", "5T", "33000K"])
def test_memory_without_a_clear_unit_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        values.memory(scalar(text))


def test_a_mac_is_a_48_bit_integer() -> None:
    assert values.mac(scalar("52:54:00:12:34:56")) == 0x525400123456
    assert values.mac(scalar("52:54:00:AB:CD:EF")) == 0x525400ABCDEF


@given(st.integers(0, (1 << 48) - 1))
def test_a_mac_is_read_exactly_if_it_is_unicast_and_not_zero(mac: int) -> None:
    text = scalar(values.format_mac(mac))
    if mac == 0 or mac >> 40 & 1:
        with pytest.raises(Refused):
            values.mac(text)
    else:
        assert values.mac(text) == mac


def test_networks_of_both_families_are_read() -> None:
    assert values.network(scalar("10.0.0.0/8")) == ip_network("10.0.0.0/8")
    assert values.network(scalar("fd00:10::/64")) == ip_network("fd00:10::/64")


def test_host_bits_are_refused_with_both_readings() -> None:
    assert (
        hint(values.network, "10.0.0.5/24")
        == 'did you mean "10.0.0.0/24", or "10.0.0.5/32" for the one address?'
    )


@pytest.mark.parametrize(
    "text", ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "fe80::%1/64", "x/8", "/8", "::/129"]
)
def test_what_is_no_cidr_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        values.network(scalar(text))


def test_an_address_keeps_its_prefix() -> None:
    assert values.address(scalar("10.0.0.5/24")) == ip_interface("10.0.0.5/24")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("web", PeerKind.GROUP, "web"),
        ("vm:web", PeerKind.VM, "web"),
        ("network:front", PeerKind.NETWORK, "front"),
        ("10.0.0.0/8", PeerKind.CIDR, "10.0.0.0/8"),
        ("FD00:0::/64", PeerKind.CIDR, "fd00::/64"),
        ("any", PeerKind.ANY, "any"),
    ],
)
def test_selectors_are_told_apart_by_their_form(text: str, kind: PeerKind, value: str) -> None:
    found = selectors.peer(scalar(text))
    assert (found.kind, found.value) == (kind, value)


@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("443/tcp", Service(6, (443, 443), "443/tcp")),
        ("8000-8999/udp", Service(17, (8000, 8999), "8000-8999/udp")),
        ("80-80/tcp", Service(6, (80, 80), "80/tcp")),
        ("1-65535/tcp", Service(6, (1, 65535), "1-65535/tcp")),
        ("ssh", selectors.ServiceName("ssh")),
    ],
)
def test_ports_are_a_range_of_a_protocol_or_a_name(text: str, service: selectors.Ports) -> None:
    assert selectors.ports(scalar(text)) == service


@pytest.mark.parametrize(
    "text", ["443", "0/tcp", "65536/tcp", "2-1/tcp", "80/icmp", "80,81/tcp", "tcp", "-1/tcp", "80/"]
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        selectors.ports(scalar(text))


@pytest.mark.parametrize(
    ("text", "target", "ports"),
    [
        ("allow a -> b", (PeerKind.GROUP, "b"), None),
        ("allow a -> b:443/tcp", (PeerKind.GROUP, "b"), "443/tcp"),
        ("allow a->b:icmp", (PeerKind.GROUP, "b"), "icmp"),
        ("deny  a  ->  vm:b", (PeerKind.VM, "b"), None),
        ("deny a -> vm:b:22/tcp", (PeerKind.VM, "b"), "22/tcp"),
        ("only a -> network:b:1-2/udp", (PeerKind.NETWORK, "b"), "1-2/udp"),
        ("only a -> fd00::/64", (PeerKind.CIDR, "fd00::/64"), None),
        ("only a -> fd00:10::/64:443/tcp", (PeerKind.CIDR, "fd00:10::/64"), "443/tcp"),
        ("allow a -> 10.0.0.0/8:ssh", (PeerKind.CIDR, "10.0.0.0/8"), "ssh"),
        ("never a -> any", (PeerKind.ANY, "any"), None),
        ("allow a -> db:5432/tcp", (PeerKind.GROUP, "db"), "5432/tcp"),
        ("allow a -> fd00:53/udp", (PeerKind.GROUP, "fd00"), "53/udp"),
    ],
)
def test_claims_separate_the_target_from_its_ports(text: str, target: object, ports: str | None) -> None:
    claim = selectors.claim(scalar(text))
    found = claim.ports.name if isinstance(claim.ports, selectors.ServiceName) else claim.ports
    assert (claim.target.kind, claim.target.value) == target
    assert (None if found is None else str(found)) == ports


def test_a_claim_is_kept_with_single_spaces() -> None:
    claim = selectors.claim(scalar("deny  app ->   db:22/tcp"))
    assert (claim.kind, claim.text) == (ClaimKind.DENY, "deny app -> db:22/tcp")


def test_a_claim_s_parts_know_their_column() -> None:
    claim = selectors.claim(scalar("deny app -> vm:db:ssh"))
    assert (claim.source.offset, claim.target.offset) == (5, 12)
    assert isinstance(claim.ports, selectors.ServiceName)
    assert claim.ports.offset == 18


@given(st.text(alphabet="allowdeny never->:/.0123456789abcdef vmtcp", max_size=40))
def test_no_claim_makes_the_reader_crash(text: str) -> None:
    offset = 0
    try:
        selectors.claim(scalar(text))
    except Refused as refused:
        offset = refused.offset
    assert 0 <= offset <= len(text)


@pytest.mark.parametrize("name", ["eth1", "ens18", "enp0s31f6", "wlp2s0.20", "br-lan", "="])
def test_an_interface_of_the_host_may_be_called_as_linux_lets_it(name: str) -> None:
    assert values.device(scalar(name)) == name


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a b", "..", "sixteen-letters1"])
def test_what_linux_calls_no_interface_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        values.device(scalar(name))
