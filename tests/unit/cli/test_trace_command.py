"""`vnet trace` as a user meets it, with the real daemon on a host in memory; the interpreter decides."""

import re
import subprocess
import sys

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap, wrpcapng

from tests.net.test_fabric_network import TEXT
from tests.unit.cli.test_change_commands import ROOT, Vnet, host, vnet  # noqa: F401  fixtures


@pytest.fixture
def small(vnet: Vnet) -> Vnet:  # noqa: F811
    vnet.up(TEXT)
    return vnet


def test_a_packet_that_passes_and_one_that_does_not(small):
    told = small("trace", "a", "b", "80/tcp").stdout.splitlines()
    assert told[0].startswith("a.eth0 sends 10.0.0.")
    assert (
        'delivered - policy b-from-a, rule ingress 1 "allow from a ports 80/tcp" at small.vnet.yaml:8' in told
    )
    told = small("trace", "a", "b", "22/tcp").stdout
    assert "dropped: POLICY - " in told
    assert "would be allowed if policy b-from-a ingress 1 (small.vnet.yaml:8) took it in" in told
    assert "actions" not in told and "actions" in small("trace", "a", "b", "22/tcp", "-o", "wide").stdout


def test_the_exit_code_tells_only_if_it_is_asked_to(small):
    small("trace", "a", "b", "22/tcp")
    small("trace", "a", "b", "22/tcp", "--exit-code", expect=3)
    small("trace", "a", "b", "80/tcp", "--exit-code", "--reply")


def test_programs_get_the_same_as_data(small):
    told = small.json("trace", "a", "b", "80/tcp", "--reply")
    assert told["verdict"]["outcome"] == told["reply"]["verdict"]["outcome"] == "delivered"
    assert [step["name"] for step in told["steps"]][:3] == ["admit", "source_guard", "destination"]
    assert told["steps"][-2]["rule"]["at"] == "small.vnet.yaml:8"
    assert told["reply"]["packet"]["nic"] == "b.eth0"
    assert told["reply"]["assumed"]


def test_expressions_and_files_are_packets_too(small):
    told = small.json("trace", "a", "--packet", 'IP(src="192.0.2.1",dst="10.0.0.3")/TCP(dport=80)')
    assert told["verdict"]["reason"] == "SPOOF_IP"
    frame = Ether(bytes.fromhex(told["packet"]["frame"]))
    frames = [Ether(src=frame.src, dst=frame.dst) / IP(dst="10.0.0.3") / UDP(dport=n) for n in (1, 2)]
    for write, name in ((wrpcap, "two.pcap"), (wrpcapng, "two.pcapng")):
        write(str(small.directory / name), frames)
        told = small.json("trace", "--pcap", f"{name}:2", "--from", "a")
        assert told["packet"]["frame"] == bytes(frames[1]).hex()
        assert "there is no packet 3" in small("trace", "--pcap", f"{name}:3", expect=1).stderr
    (small.directory / "odd:7").write_bytes((small.directory / "two.pcap").read_bytes())
    assert small.json("trace", "--pcap", "odd:7", "--from", "a")["packet"]["frame"] == bytes(frames[0]).hex()


WRONG = {
    ("x", "b", "80/tcp"): (1, "there is no VM or NIC x in fabric small; known: a, a.eth0, b, b.eth0"),
    ("a", "192.0.2.1", "80/tcp"): (
        1,
        "192.0.2.1 is in no network of a; its networks: lan (10.0.0.0/24, fd00::/64)",
    ),
    ("a", "b", "80"): (1, 'did you mean "80/tcp" or "80/udp"?'),
    ("a", "b"): (2, "write FROM TO PORT"),
    (): (2, "write FROM TO PORT, as in `web db 5432/tcp`, --packet or --pcap"),
    ("a", "b", "80/tcp", "--packet", "IP()"): (2, "which packet?"),
    ("a", "--packet", "system('id')"): (1, "no layer of this name"),
    ("a", "--from", "b", "--packet", "IP()"): (2, "who sends it, a or b?"),
    ("--pcap", "nowhere"): (1, "cannot read nowhere: No such file"),
    ("--pcap", "x:0"): (2, "numbered from 1"),
    ("a", "b", "80/tcp", "-c", "1"): (2, "belong to --live"),
    ("--live", "", "--new"): (2, "--live follows real packets"),
    ("--live", "nonsense here"): (1, "pcap-filter(7)"),
    ("x", "--live", ""): (1, "there is no VM or NIC x"),
    ("-n", "other", "a", "b", "80/tcp"): (1, "there is no fabric other"),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_makes_no_sense_is_answered_with_what_to_do(small, words):
    code, text = WRONG[words]
    done = small("trace", *words, expect=code)
    assert text in done.stderr and done.stdout == ""


def test_a_file_that_is_no_capture_is_said_to_be_none(small):
    (small.directory / "text").write_text("hello, world, this is no capture at all\n" * 9)
    assert "text is neither pcap nor pcapng" in small("trace", "--pcap", "text", expect=1).stderr


def test_a_daemon_that_is_not_asked_does_not_load_scapy():
    code = "import sys, vnet.api.daemon; sys.exit('scapy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_help_names_the_forms(small):
    told = re.sub(r"\s+", " ", small("trace", "--help").stdout)
    for words in ("FROM TO PORT", "--packet", "--pcap", "--reply", "--new", "--live", "--exit-code"):
        assert words in told


@pytest.mark.parametrize(("write", "name"), [(wrpcap, "cut.pcap"), (wrpcapng, "cut.pcapng")])
def test_a_packet_that_a_capture_cut_goes_the_way_of_the_whole_one(small, write, name):
    packet = Ether(bytes.fromhex(small.json("trace", "a", "b", "80/tcp")["packet"]["frame"])) / bytes(40)
    del packet[IP].len
    whole = bytes(packet)
    cut = Ether(whole[:60])
    cut.wirelen = len(whole)
    write(str(small.directory / name), [cut])
    told = small.json("trace", "--pcap", name, "--from", "a")
    assert told["packet"]["length_bytes"] == len(whole)
    assert told["verdict"]["outcome"] == "delivered"
    assert f"only 60 of its {len(whole)} bytes were kept: the rest as zeros" in told["assumed"]
