"""`ovs-ofctl` and its commands on the eBPF switch and on Open vSwitch, with real ports: the same is printed.

What is expected to differ is named by the step; docs/openflow.md says why. That commands without a dataplane
print what they should is in tests/wire.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.exams.conntrack.hosts import until
from tests.net.controller_lab import SWITCHES, ControllerLab
from tests.ovs.harness import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

HOSTS = 3
ONE, TWO, THREE = "10.9.0.1", "10.9.0.2", "10.9.0.3"
FRAME = "02000000000302000000000188b5" + "00" * 46
PINGS = 5


@dataclass(frozen=True, slots=True)
class Step:
    """One command; `options` stand before it, `stdin` is what it reads."""

    words: tuple[str, ...]
    options: tuple[str, ...] = ()
    stdin: str = ""
    refused: str = ""
    """The error that it ends with on both."""

    @property
    def name(self) -> str:
        return " ".join((*self.options, *self.words))[:90]


def do(*words: str, options: tuple[str, ...] = (), stdin: str = "", refused: str = "") -> Step:
    return Step(words, options, stdin, refused)


STRICT, BUNDLE, NO_STATS, ONE_FOUR = ("--strict",), ("--bundle",), ("--no-stats",), ("-O", "OpenFlow14")
FILE = """
cookie=0x1,table=0,priority=10,in_port=1,actions=output:2,group:7
cookie=0x2,table=0,priority=10,in_port=2,actions=output:1
cookie=0x13,table=0,priority=20,tcp,tp_dst=80,actions=meter:3,goto_table:1
cookie=0x14,table=1,priority=5,ip,nw_dst=10.9.0.0/24,actions=dec_ttl,output:3
cookie=0x25,table=1,priority=6,ipv6,ipv6_dst=fd00::/64,actions=set_field:02:00:00:00:00:09->eth_dst,output:2
table=1,priority=7,arp,arp_spa=10.9.0.7,actions=drop
table=2,priority=8,dl_vlan=5,actions=strip_vlan,output:2
table=2,priority=8,in_port=3,actions=push_vlan:0x88a8,set_field:4101->vlan_vid,output:1
table=2,priority=0,actions=controller:128
table=3,ct_state=+new+trk,ip,actions=ct(commit,zone=7),resubmit(,4)
"""
OTHER = """
cookie=0x1,table=0,priority=10,in_port=1,actions=output:2
cookie=0x2,table=0,priority=10,in_port=2,actions=output:1
table=5,priority=3,ip,actions=normal
"""
SCRIPT = (
    do("probe"),
    do("add-group", "group_id=7,type=all,bucket=output:3"),
    do("add-groups", "-", stdin="group_id=8,type=select,bucket=weight:2,output:1,bucket=weight:3,output:2\n"
       "group_id=9,type=ff,bucket=watch_port:1,output:1,bucket=watch_port:2,output:2\n"
       "group_id=10,type=indirect,bucket=set_field:02:00:00:00:00:05->eth_src,output:1\n"),
    do("add-meter", "meter=3,kbps,burst,stats,bands=type=drop,rate=1000,burst_size=100"),
    do("add-meter", "meter=4,pktps,bands=type=drop,rate=50"),
    do("add-flows", "-", stdin=FILE),
    do("dump-flows", options=NO_STATS),
    do("dump-flows", "table=1", options=NO_STATS),
    do("dump-flows", "cookie=0x10/0xf0", options=NO_STATS),
    do("dump-flows", "out_port=2", options=NO_STATS),
    do("dump-flows", "out_group=7", options=NO_STATS),
    do("dump-flows", "table=0,tcp", options=NO_STATS),
    do("dump-flows", options=(*NO_STATS, "--sort=priority")),
    do("dump-flows", options=(*NO_STATS, "--rsort=cookie")),
    do("dump-flows", "table=2", options=(*NO_STATS, "--names")),
    do("dump-aggregate"),
    do("dump-aggregate", "table=1"),
    do("dump-groups"),
    do("dump-groups", "8"),
    do("dump-meters"),
    do("dump-meter", "meter=4"),
    do("diff-flows", "-", stdin=FILE),
    do("mod-flows", "ip,table=1,actions=output:2"),
    do("mod-flows", "table=0,priority=10,in_port=2,actions=output:1,output:3", options=STRICT),
    do("mod-flows", "table=0,priority=11,in_port=2,actions=drop", options=STRICT),
    do("dump-flows", options=NO_STATS),
    do("del-flows", "table=2,dl_vlan=5"),
    do("del-flows", "table=2,priority=0", options=STRICT),
    do("del-flows", "cookie=0x20/0xf0"),
    do("dump-flows", options=NO_STATS),
    do("mod-group", "group_id=7,type=all,bucket=output:3,bucket=output:2"),
    do("mod-group", "group_id=11,type=all,bucket=output:3", options=("--may-create",)),
    do("insert-buckets", "group_id=7,command_bucket_id=last,bucket=bucket_id:9,output:1"),
    do("remove-buckets", "group_id=7,command_bucket_id=last"),
    do("dump-groups"),
    do("mod-meter", "meter=4,kbps,bands=type=drop,rate=77"),
    do("dump-meters"),
    do("bundle", "-", stdin="flow add table=6,priority=4,actions=drop\n"
       "group add group_id=12,type=all,bucket=output:1\n"
       "flow add table=6,priority=5,in_port=1,actions=group:12\n"),
    do("bundle", "-", options=ONE_FOUR, stdin="flow add table=6,priority=6,actions=drop\n"),
    do("add-flows", "-", options=BUNDLE,
       stdin="table=6,priority=9,actions=output:1\ntable=6,priority=8,actions=output:2\n"),
    do("dump-flows", "table=6", options=NO_STATS),
    do("del-groups", "group_id=12"),
    do("dump-flows", "table=6", options=NO_STATS),
    do("replace-flows", "-", stdin=OTHER),
    do("dump-flows", options=NO_STATS),
    do("diff-flows", "-", stdin=OTHER),
    do("diff-flows", "-", stdin=FILE),
    do("del-meters", "meter=4"),
    do("del-meters"),
    do("dump-meters"),
    do("del-groups"),
    do("dump-groups"),
    do("mod-port", "2", "no-forward"),
    do("mod-port", "2", "forward"),
    do("add-flow", "actions=group:99", refused="OFPBAC_BAD_OUT_GROUP"),
    do("add-flow", "table=3,actions=goto_table:2", refused="OFPBIC_BAD_TABLE_ID"),
    do("add-flow", "check_overlap,priority=10,actions=drop", refused="OFPFMFC_OVERLAP"),
    do("del-flows"),
    do("dump-flows", options=NO_STATS),
    do("ping", "64"),
)  # fmt: skip


@dataclass(slots=True)
class Ran:
    """What the steps came to on a switch."""

    lab: ControllerLab
    results: dict[Step, str] = field(default_factory=dict)


def ofctl(lab: ControllerLab, step: Step) -> str:
    """Exit code and what was printed, without what changes from run to run."""
    command, *words = step.words
    version = () if "-O" in step.options else ("-O", "OpenFlow13")
    argv = ["ovs-ofctl", *version, "--timeout=20", *step.options, command, f"unix:{lab.socket}", *words]
    done = subprocess.run(argv, input=step.stdin, capture_output=True, text=True, timeout=30, check=False)
    lab.settle()
    return f"exit {done.returncode}\n{plain(done.stdout + done.stderr)}"


_CHANGING = (
    (r"\(xid=0x[0-9a-f]+\)", ""),
    (r" \(OF1\.\d\)", ""),
    (r"unix:\S+", "SWITCH"),
    (r"time=\d+\.\d ms", "time"),
    (r"xid=[0-9a-f]+", "xid"),
    (r"addr:[0-9a-f:]{17}", "addr"),
    (r"^\S+Z\|", ""),
    (r"failed to connect to socket \(.*\)", "failed to connect to socket"),
    (r'table="table (\d+)"', r"table=\1"),
    (r"duration:?=?[0-9.]+s", "duration"),
)


def plain(text: str) -> str:
    for pattern, instead in _CHANGING:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


def lines(text: str) -> list[str]:
    """In which order flows, groups and meters are told is left open."""
    return sorted(line.strip() for line in text.splitlines() if line.strip())


def prepared(lab: ControllerLab) -> ControllerLab:
    for number, address in enumerate((ONE, TWO, THREE), 1):
        lab.hosts[number].configure(f"{address}/24")
        for other, far in enumerate((ONE, TWO, THREE), 1):
            if other != number:
                lab.hosts[number].neighbour(far, lab.hosts[other].mac)
    lab.start_switch()
    return lab


@pytest.fixture(scope="module")
def both() -> Iterator[dict[str, ControllerLab]]:
    with ControllerLab("ovs", HOSTS) as ovs, ControllerLab("vnet", HOSTS) as vnet:
        yield {lab.switch: prepared(lab) for lab in (ovs, vnet)}


@pytest.fixture(scope="module")
def results(both: dict[str, ControllerLab]) -> dict[str, list[str]]:
    return {name: [ofctl(lab, step) for step in SCRIPT] for name, lab in both.items()}


@pytest.mark.parametrize("at", range(len(SCRIPT)), ids=lambda at: SCRIPT[at].name)
def test_the_same_is_printed(results: dict[str, list[str]], at: int) -> None:
    ours, theirs = (results[name][at] for name in ("vnet", "ovs"))
    if SCRIPT[at].refused:
        assert all(text.startswith("exit 1") and SCRIPT[at].refused in text for text in (ours, theirs))
    elif any("sort" in option for option in SCRIPT[at].options):
        assert ours == theirs
    else:
        assert lines(ours) == lines(theirs)


# -- with packets ---------------------------------------------------------------------------------


BRIDGING = """
cookie=0x5,table=0,priority=5,in_port=1,actions=meter:3,goto_table:1
table=0,priority=5,in_port=2,actions=output:1
table=0,priority=4,in_port=3,actions=controller:64
table=1,priority=7,ip,actions=group:7
"""
DURING = (
    do("del-flows"),
    do("del-groups"),
    do("del-meters"),
    do("add-group", "group_id=7,type=indirect,bucket=output:2"),
    do("add-meter", "meter=3,kbps,stats,bands=type=drop,rate=100000"),
    do("add-flows", "-", stdin=BRIDGING),
)


@pytest.fixture(scope="module", params=SWITCHES)
def carrying(request: pytest.FixtureRequest, results: dict[str, list[str]], both: dict[str, ControllerLab]):
    """A switch that has carried pings of host 1 to host 2 and their answers."""
    lab = both[request.param]
    for step in DURING:
        assert ofctl(lab, step).startswith("exit 0"), step
    assert lab.hosts[1].ping(TWO, count=PINGS).all_answered
    return lab


def counted(lab: ControllerLab, *words: str, text: str) -> None:
    """Wait until a command prints a count; what is counted may be told a second later."""
    pattern = re.compile(text, re.DOTALL)
    until(lambda: pattern.search(ofctl(lab, do(*words))), f"{words}: {text}", 10)


def test_flows_and_aggregates_count_what_was_carried(carrying: ControllerLab) -> None:
    size = PINGS * 98
    counted(carrying, "dump-flows", "table=0,in_port=1", text=f"n_packets={PINGS}, n_bytes={size},")
    counted(
        carrying, "dump-aggregate", "table=1", text=f"packet_count={PINGS} byte_count={size} flow_count=1"
    )
    counted(carrying, "dump-aggregate", text=f"packet_count={3 * PINGS} byte_count={3 * size} flow_count=4")


def test_groups_and_meters_count_what_was_carried(carrying: ControllerLab) -> None:
    count = f"packet_count={PINGS},byte_count={PINGS * 98}"
    counted(carrying, "dump-group-stats", text=f"group_id=7,duration,ref_count=1,{count},bucket0:{count}")
    meters = f"meter:3 flow_count:1 packet_in_count:{PINGS} byte_in_count:{PINGS * 98} duration bands:.0: "
    counted(carrying, "meter-stats", text=f"{meters}packet_count:0 byte_count:0")


def test_ports_and_tables_count_what_was_carried(carrying: ControllerLab) -> None:
    assert re.search(r"rx pkts=\d+, bytes=\d+, drop=0", ofctl(carrying, do("dump-ports", "1")))
    before = ofctl(carrying, do("dump-ports", "2"))
    assert carrying.hosts[1].ping(TWO, count=PINGS).all_answered
    numbers = [int(text) for text in re.findall(r"[rt]x pkts=(\d+)", before)]
    wanted = r".*".join(f"[rt]x pkts={number + PINGS}," for number in numbers)
    counted(carrying, "dump-ports", "2", text=wanted)
    counted(carrying, "dump-tables", text=r"table 0.*active=3, lookup=\d+, matched=\d+")


def test_a_packet_out_leaves_by_the_ports_it_names(carrying: ControllerLab) -> None:
    with carrying.hosts[3].capture() as seen, carrying.hosts[2].capture() as other:
        done = ofctl(carrying, do("packet-out", f"in_port=controller,packet={FRAME},actions=output:3"))
        assert done.startswith("exit 0"), done
        seen.wait(lambda frame: frame == bytes.fromhex(FRAME))
        assert other.count(lambda frame: frame == bytes.fromhex(FRAME)) == 0


@pytest.mark.parametrize("carrying", ["vnet"], indirect=True)
def test_a_monitor_prints_packet_ins_and_removed_flows(carrying: ControllerLab) -> None:
    """Open vSwitch sends none to who connects to it."""
    monitor = subprocess.Popen(
        ["ovs-ofctl", "-O", "OpenFlow13", "monitor", f"unix:{carrying.socket}", "64"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OVS_RUNDIR": str(carrying.folder)},
    )
    try:
        assert monitor.stdout is not None
        os.set_blocking(monitor.stdout.fileno(), False)
        said = bytearray()

        def says(text: str) -> bool:
            assert monitor.stdout is not None
            said.extend(monitor.stdout.read() or b"")
            return text.encode() in said

        def packet_in() -> bool:
            carrying.hosts[3].send(FRAME)  # again, as the monitor may not listen yet
            return says("OFPT_PACKET_IN")

        until(packet_in, "a packet-in", 10)
        until(lambda: says("(via action)"), "the packet-in's reason", 5)
        ofctl(carrying, do("add-flow", "table=9,send_flow_rem,cookie=0x99,actions=drop"))
        ofctl(carrying, do("del-flows", "table=9"))
        until(lambda: says("reason=delete table_id=9 cookie:0x99"), "a flow-removed", 5)
    finally:
        monitor.terminate()
        monitor.wait(timeout=10)
        if monitor.stdout:
            monitor.stdout.close()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("show",), "3(p3): addr"),
        (("dump-desc",), "DP Description"),
        (("dump-table-features",), "write_metadata"),
        (("dump-group-features",), "fast failover group"),
        (("meter-features",), "band_types: drop"),
        (("dump-ports-desc",), "1(p1): addr"),
        (("queue-stats",), "OFPST_QUEUE reply"),
        (("queue-get-config",), "OFPT_QUEUE_GET_CONFIG_REPLY"),
        (("get-frags",), "normal"),
        (("probe",), ""),
        (("benchmark", "64", "20"), "Finished in"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_questions_are_answered(carrying: ControllerLab, words: tuple[str, ...], text: str) -> None:
    done = ofctl(carrying, do(*words))
    assert done.startswith("exit 0")
    assert text in done


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("dump-tlv-map",), "OFPBRC_BAD_VENDOR"),
        (("ct-flush-zone", "5"), "OFPBRC_BAD_VENDOR"),
        (("ct-flush", "zone=5"), "OFPBRC_BAD_VENDOR"),
        (("dump-ipfix-bridge",), "OFPBRC_BAD_VENDOR"),
        (("set-frags", "drop"), "OFPSCFC_BAD_FLAGS"),
        (("set-frags", "nx-match"), "OFPSCFC_BAD_FLAGS"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_there_is_not_is_refused(
    both: dict[str, ControllerLab], words: tuple[str, ...], error: str
) -> None:
    done = ofctl(both["vnet"], do(*words))
    assert error in done


def test_another_version_of_openflow_is_not_spoken(both: dict[str, ControllerLab]) -> None:
    done = ofctl(both["vnet"], do("dump-flows", options=ONE_FOUR))
    assert done.startswith("exit 1")
    assert "peer supports version 0x04" in done
