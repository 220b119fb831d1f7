"""The example of a trunk, with real guests, on a host of its own: a namespace with the trunk's near end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leftovers
from tests.bpf.bench import sh
from tests.net.campus_lab import Campus, Host, campus
from tests.vm.fabric_lab import PREFIX, ROOT, Lab, lab

FILE = ("-f", str(ROOT / "topologies" / "campus.vnet.yaml"))
BESIDE = leftovers.prefix("cmp")
HOST = f"{BESIDE}host"
HOSTS = {
    "printer": Host(110, "02:00:00:00:01:01", ("10.110.0.200/24", "fd00:110::c8/64")),
    "library": Host(120, "02:00:00:00:01:02", ("10.120.0.200/24", "fd00:120::c8/64", "10.120.0.254/24")),
}


@pytest.fixture
def there() -> Iterator[tuple[Lab, Campus]]:
    sh(f"ip netns add {HOST}")
    try:
        with campus(BESIDE, HOST, "campus0", HOSTS) as made, lab(within=HOST) as host:
            host.have_image()
            yield host, made
    finally:
        sh(f"ip netns del {HOST}")


def test_guests_stand_among_the_machines_of_a_campus(there: tuple[Lab, Campus]) -> None:
    host, made = there
    refused = host.vnet("up", *FILE, expect=1) if _address("add") else ""
    assert "campus.vnet.yaml:13:3" in refused and "addresses 192.0.2.1/24 on campus0" in refused, refused
    assert _address("del")
    host.vnet("up", *FILE)
    (uplink,) = host.json("inspect")["uplinks"]
    assert (uplink["uplink"], uplink["link"], uplink["networks"]) == (
        "trunk",
        "up",
        {"staff": 110, "servers": 120},
    )
    assert "trunk" in host.vnet("ps")
    for family, printer in ((4, "10.110.0.200"), (6, "fd00:110::c8")):
        said = host.vnet("exec", "desk-1", "--", "ping", f"-{family}", "-c", "2", "-W", "2", printer)
        assert "2 packets received" in said or "2 received" in said, said
    mail = next(vm["addresses"] for vm in host.json("ps") if vm["vm"] == "mail")
    for address in mail:
        ping = ["ip", "netns", "exec", made.name("library"), "ping", "-c", "1", "-W", "2"]
        done = subprocess.run([*ping, address.partition("/")[0]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    claims = host.json("verify", "--probe")
    assert len(claims) == 7
    assert all(claim["holds"] and claim["passed"] for claim in claims), claims
    host.kill_daemon()
    host.vnet("down", "-n", "campus")
    shown = subprocess.run(
        ["ip", "-n", HOST, "-o", "link", "show", "campus0"], capture_output=True, text=True, check=True
    )
    assert "state UP" in shown.stdout and "PROMISC" not in shown.stdout
    assert not Path(f"/run/netns/{PREFIX}campus").exists()


def _address(what: str) -> bool:
    done = subprocess.run(
        ["ip", "-n", HOST, "address", what, "192.0.2.1/24", "dev", "campus0"],
        check=False,
        capture_output=True,
    )
    return done.returncode == 0
