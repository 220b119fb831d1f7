"""Scapy expressions are read, never run: nothing but layers, nothing asked of this host."""

from __future__ import annotations

import socket

import pytest

from vnet.base.errors import InputError
from vnet.fabric.scapy_words import layers, read

GOOD = {
    'Ether()/IP(dst="10.0.0.2")/TCP(dport=80)': ["Ether", "IP", "TCP"],
    'IP(dst="10.0.0.2")/UDP(sport=53)/b"abc"': ["IP", "UDP", "Raw"],
    'IPv6(dst="fd00::2")/ICMPv6EchoRequest(id=7)': ["IPv6", "ICMPv6EchoRequest"],
    'Ether(dst="ff:ff:ff:ff:ff:ff")/ARP(op=2, psrc="10.0.0.1", pdst="10.0.0.2")': ["Ether", "ARP"],
    'Ether()/Dot1Q(vlan=20)/IP(dst="10.0.0.2")/ICMP(type=8)': ["Ether", "Dot1Q", "IP", "ICMP"],
    'IP(dst="10.0.0.2")/TCP(flags="SA", options=[("MSS", 1460), ("NOP", None)])': ["IP", "TCP"],
    'IP(dst="10.0.0.2", options=[IPOption_RR(routers=["10.0.0.9"])])/UDP()': ["IP", "UDP"],
    'IP(dst="10.0.0.2")/UDP()/DNS(qd=DNSQR(qname="www.example.com"))': ["IP", "UDP", "DNS"],
    'IP(dst="10.0.0.2", frag=3, flags="MF", ttl=1)/Raw("x")': ["IP", "Raw"],
}


@pytest.mark.parametrize("text", GOOD)
def test_layers_and_literals_are_read(text: str) -> None:
    assert [layer.__name__ for layer in read(text).layers()][: len(GOOD[text])] == GOOD[text]


BAD = {
    "": "write layers joined by /",
    "IP(": "write layers joined by /",
    "(" * 500: "write layers joined by /",
    "x" * 20_001: "20000 are read",
    "IP(dst=167772162)/TCP()": "no IP address: write it as text",
    "IP(dst=None)/TCP()": "no IP address: write it as text",
    'IP(dst=b"10.0.0.2")/TCP()': "no IP address: write it as text",
    "IP": "only calls of Scapy's layers",
    '"abc"': "begin with a layer",
    '"abc"/IP()': "a payload has nothing above it",
    "IP()*3": "only calls of Scapy's layers",
    "IP()/1": "only calls of Scapy's layers",
    "1/0": "only calls of Scapy's layers",
    '__import__("os").system("id")': "only calls of Scapy's layers",
    'eval("1")': "no layer of this name",
    'open("/etc/passwd")': "no layer of this name",
    "IP.__class__()": "only calls of Scapy's layers",
    "(lambda: 1)()": "only calls of Scapy's layers",
    "[IP() for x in (1,)][0]": "only calls of Scapy's layers",
    'IP(dst=open("x"))': "no layer of this name",
    'IP(dst=f"{1}")': "only literal arguments",
    "IP(dst=__name__)": "only literal arguments",
    'Raw(b"x" * 1000000000)': "only calls of Scapy's layers",
    "IP(ttl=2**9999999)": "only calls of Scapy's layers",
    'IP(**{"dst": "10.0.0.2"})': "has no field None",
    "IP(*[1])": "name the field",
    'Ipv6(dst="::1")': 'did you mean "IPv6"',
    'IP(dts="10.0.0.2")': "it has version, ihl",
    'IP("10.0.0.2")': "name the field: version",
    "TCP(dport=[80, 443])": "one packet is traced",
    "TCP(dport=(1, 1000))": "one packet is traced",
    'IP(dst="www.example.com")': "names are not looked up",
    'IP(dst="10.0.0.0/8")': "names are not looked up",
    'ARP(pdst="www.example.com")': "names are not looked up",
    'IP(options=[IPOption_RR(routers=["www.example.com"])])': "names are not looked up",
    'DNSRR(rdata="www.example.com")': "names are not looked up",
    'Ether(dst="www.example.com")': "no MAC address",
    'TCP(flags="nonsense")': "ValueError",
    "/".join(["IP()"] * 60): "more than 40 layers",
}


@pytest.mark.parametrize("text", BAD)
def test_all_else_is_refused_with_what_to_write(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("this host was asked")

    layers()
    for name in ("getaddrinfo", "gethostbyname", "socket"):
        monkeypatch.setattr(socket, name, asked)
    with pytest.raises(InputError) as refused:
        read(text)
    assert BAD[text] in str(refused.value)
    assert str(refused.value).startswith("--packet: ")
