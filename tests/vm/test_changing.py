"""One fabric with real guests, changed step by step; a stream over the NIC that stays goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from tests.vm.fabric_lab import Lab, lab

FABRIC = "changing"


def declared() -> dict[str, Any]:
    """What the module begins with."""
    return {
        "name": FABRIC,
        "defaults": {"image": "micro", "cpus": 1, "memory": "96M"},
        "networks": {
            "lan": {"vlan": 10, "subnets": "10.0.0.0/24"},
            "back": {"vlan": 20, "subnets": "10.0.20.0/24"},
            "side": {"vlan": 30, "subnets": ["10.0.30.0/24", "fd00:30::/64"]},
        },
        "vms": {
            "a": {"interfaces": {"eth0": nic("lan", "10.0.0.10/24")}},
            "b": {"networks": ["lan", "back", "side"]},
        },
        "policies": [{"name": "all", "applied_to": "any", "ingress": [{"from": "any"}]}],
    }


def nic(network: str, *addresses: str) -> dict[str, Any]:
    return {"network": network, "addresses": list(addresses)}


class Place:
    """The fabric as its file says it is, and a VM that is looked at."""

    def __init__(self, made: Lab) -> None:
        self.lab, self.topology = made, declared()
        self.file = made.directory / "changing.vnet.yaml"

    @property
    def a(self) -> dict[str, Any]:
        return self.topology["vms"]["a"]

    def write(self) -> str:
        self.file.write_text(yaml.safe_dump(self.topology, sort_keys=False))
        return str(self.file)

    def told(self) -> str:
        """What the plan says of the VM."""
        changes = self.lab.json("plan", "-f", self.write())["changes"]
        return next((each["what"] for each in changes if (each["kind"], each["name"]) == ("vm", "a")), "")

    def up(self, expect: int = 0) -> str:
        told = self.lab.vnet("up", "-f", self.write(), expect=expect)
        if expect == 0:
            assert self.lab.json("plan", "-f", self.write())["actions"] == [], "made as a whole"
        return told

    def sh(self, command: str, vm: str = "a", expect: int = 0) -> str:
        return self.lab.vnet("exec", vm, "--", "sh", "-c", command, expect=expect).strip()

    def row(self) -> dict[str, Any]:
        return next(row for row in self.lab.json("ps", "-n", FABRIC) if row["vm"] == "a")

    def address(self, network: str) -> str:
        """Of b there."""
        vms = self.lab.json("inspect", "-n", FABRIC)
        row = next(each for each in vms["vms"] if each["vm"] == "b")
        found = next(each for each in row["nics"] if each["network"] == network)
        return str(found["addresses"][0]).partition("/")[0]

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Meanwhile a pings b over eth0, twenty times a second, and loses nothing."""
        ping = f"ping -i 0.05 -W 2 {self.address('lan')} >/tmp/ping 2>&1 & echo $!"
        pid = self.sh(ping)
        yield
        self.sh(f"kill -INT {pid}; sleep 0.3")
        answered = [int(number) for number in re.findall(r"seq=(\d+) ", self.sh("cat /tmp/ping"))]
        assert len(answered) >= 5 and answered == list(range(len(answered))), "none is missing in between"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with lab() as made:
        place = Place(made)
        place.up()
        place.pid = place.row()["pid"]
        yield place
        made.vnet("down", "-n", FABRIC, "--disks")
        made.vnet("serve", "--stop")


def test_memory_and_cpus_grow_and_memory_is_given_back(place: Place) -> None:
    place.a.update({"memory": "256M", "cpus": 2})
    assert place.told() == "cpus 1 → 2 (live), memory 96M → 256M (live)"
    with place.stream():
        place.up()
    assert int(place.sh("awk '/MemTotal/ { print $2 }' /proc/meminfo")) > 210_000
    assert place.sh("nproc") == "2"
    place.a.update({"memory": "128M"})
    assert place.told() == "memory 256M → 128M (live)"
    place.up()
    assert int(place.sh("awk '/MemTotal/ { print $2 }' /proc/meminfo")) < 110_000
    assert place.row()["memory_bytes"] == 128 << 20


def test_a_nic_comes_and_its_network_is_reached_and_another_connection_loses_nothing(place: Place) -> None:
    place.a["interfaces"]["eth1"] = nic("back", "10.0.20.10/24")
    assert place.told() == "eth1 is new (live)"
    with place.stream():
        place.up()
    place.sh(f"ping -c 1 -W 2 {place.address('back')}")


def test_a_nic_moves_to_another_network_and_keeps_its_mac(place: Place) -> None:
    mac = place.sh("cat /sys/class/net/eth1/address")
    place.a["interfaces"]["eth1"] = nic("side", "10.0.30.10/24", "fd00:30::10/64")
    assert place.told() == "eth1 10.0.20.10/24 → 10.0.30.10/24, fd00:30::10/64 (live)"
    with place.stream():
        place.up()
    place.sh(f"ping -c 1 -W 2 {place.address('side')}")
    assert place.sh("cat /sys/class/net/eth1/address") == mac
    assert "10.0.20.10" not in place.sh("ip addr")
    place.sh(f"ping -c 1 -W 1 {place.address('back')}", expect=1)


def test_a_cable_is_pulled_and_plugged_in_by_hand_and_no_plan_speaks_of_it(place: Place) -> None:
    place.lab.vnet("set", "a", "link", "eth1", "down", "-n", FABRIC)
    assert place.sh("cat /sys/class/net/eth1/carrier") == "0"
    place.lab.kill_daemon()
    assert [nic["link"] for nic in place.row()["nics"]] == ["up", "down"]
    assert "ready, eth1 down" in place.lab.vnet("ps", "-n", FABRIC)
    assert place.told() == ""
    place.lab.vnet("set", "a", "link", "eth1", "up", "-n", FABRIC)
    place.sh(f"ping -c 1 -W 2 {place.address('side')}")
    told = place.lab.vnet("set", "a", "link", "eth9", "up", "-n", FABRIC, expect=1)
    assert "a has no NIC eth9; its NICs: eth0, eth1" in told


def test_a_disk_comes_and_grows_and_what_is_on_it_stays(place: Place) -> None:
    place.a["disks"] = [{"name": "data", "size": "32M"}]
    assert place.told() == "disk data is new (live)"
    place.up()
    place.sh("mke2fs /dev/disk/data >/dev/null 2>&1 && mkdir -p /mnt && mount -t ext4 /dev/disk/data /mnt")
    place.sh("echo precious >/mnt/note && sync")
    place.a["disks"] = [{"name": "data", "size": "64M"}, {"name": "logs", "size": "16M", "format": "raw"}]
    assert place.told() == "disk data 32M → 64M (live), disk logs is new (live)"
    place.up()
    assert place.sh("cat /sys/block/$(basename $(readlink /dev/disk/data))/size") == str(64 << 11)
    assert place.sh("cat /mnt/note; ls /dev/disk") == "precious\ndata\nlogs"


def test_a_change_that_cannot_be_made_is_taken_back_as_a_whole(place: Place) -> None:
    before = place.sh("ip -o addr | sort; ls /dev/disk; nproc; cat /mnt/note")
    place.a.update({"memory": "160M", "disks": [place.a["disks"][1]]})
    place.a["interfaces"]["eth2"] = nic("back", "10.0.20.10/24")
    with place.stream():
        assert "has its disk data mounted" in place.up(expect=1)
    assert place.sh("ip -o addr | sort; ls /dev/disk; nproc; cat /mnt/note") == before
    assert place.row()["memory_bytes"] == 128 << 20
    place.sh("umount /mnt")
    place.up()
    assert place.sh("ls /dev/disk") == "logs"
    assert [row["disk"] for row in place.lab.json("disk", "ls")] == ["data", "logs"]


def test_the_next_daemon_and_a_reset_know_what_was_changed(place: Place) -> None:
    place.lab.kill_daemon()
    assert place.lab.json("plan", "-f", place.write())["actions"] == []
    place.lab.vnet("reset", "a", "-n", FABRIC)
    assert place.sh("nproc; ls /dev/disk; ip -o -4 addr show dev eth2 | grep -c 10.0.20.10") == "2\nlogs\n1"
    place.a["disks"] = [*place.a["disks"], {"name": "more", "size": "16M"}]
    place.up()
    assert place.sh("ls /dev/disk") == "logs\nmore"
    assert place.row()["pid"] == place.pid, "all of this was one QEMU"


def test_what_is_attached_by_hand_is_live_and_the_plan_shows_what_the_file_does_not_say(place: Place) -> None:
    told = place.lab.vnet("attach", "a", "spare:16M", "-n", FABRIC)
    assert place.sh("ls /dev/disk") == "logs\nmore\nspare"
    assert place.told() == "disk spare goes, and is kept (live)"
    place.lab.vnet("detach", "a", "spare", "-n", FABRIC)
    assert place.told() == ""
    assert "a has no spare" in place.lab.vnet("detach", "a", "spare", "-n", FABRIC, expect=1)
    assert told == "", "data alone goes to the standard output"


def test_a_nic_goes_with_its_port(place: Place) -> None:
    for interface in ("eth1", "eth2"):
        del place.a["interfaces"][interface]
    assert place.told() == "eth1 goes (live), eth2 goes (live)"
    with place.stream():
        place.up()
    assert place.sh("ls /sys/class/net") == "eth0\nlo"
    assert len(place.row()["nics"]) == 1


def test_what_cannot_change_live_takes_a_restart_and_keeps_disks_and_log(place: Place) -> None:
    place.a.update({"memory": "88M", "cpus": 1})
    assert place.told() == "cpus 2 → 1 (restart), memory 160M → 88M (restart)"
    assert place.lab.json("plan", "-f", place.write())["actions"] == ["restart a"]
    place.up()
    assert place.sh("nproc; ls /dev/disk") == "1\nlogs\nmore"
    assert place.row()["pid"] != place.pid
    place.lab.vnet("logs", "a", "--previous", "-n", FABRIC)
