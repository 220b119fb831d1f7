"""The shop with real guests and a real daemon, on a namespace that plays the host, with a world beyond it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.net.outside import AT_HOST, AT_WORLD, HOST, WORLD, Server, Talk, ask, serving, sh, world
from tests.vm.fabric_lab import ROOT, Lab, lab

SHOP, DMZ = (str(ROOT / "topologies" / f"{name}.vnet.yaml") for name in ("shop", "dmz-bastion"))
SOON_S = 3.0
"""How soon the daemon notices what is wrong, and has mended it."""
SERVE = """\
printf '#!/bin/sh\\necho {vm}\\ncat\\n' >/tmp/serve-{port}; chmod +x /tmp/serve-{port}
nc -ll -p {port} -e /tmp/serve-{port} </dev/null >/dev/null 2>&1 & echo $! >/tmp/pid-{port}
"""


@pytest.fixture(scope="module")
def shop() -> Iterator[Lab]:
    with lab() as made, serving_world(made):
        made.vnet("up", "-f", SHOP)
        for vm, port in (("web-1", 443), ("web-2", 443), ("bastion", 22)):
            serve(made, vm, port)
        yield made
        made.vnet("down", "-f", SHOP)


@contextmanager
def serving_world(made: Lab) -> Iterator[None]:
    """The host's namespace and the world. No packages come from there: the image has to be made before."""
    build = [sys.executable, "-m", "vnet.hv.live.image"]
    subprocess.run(build, env=made.environment, cwd=ROOT, check=True, capture_output=True)
    with world(), serving(Server(WORLD, "world", 80, AT_WORLD[4])):
        yield


def serve(shop: Lab, vm: str, port: int) -> None:
    shop.vnet("exec", vm, "--", "sh", "-c", SERVE.format(vm=vm, port=port))


def soon(is_so: Callable[[], bool]) -> bool:
    """Whether it becomes so in time."""
    deadline_s = time.monotonic() + SOON_S
    while not is_so():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.1)
    return True


def happened(shop: Lab) -> set[str]:
    """The kinds of events of the last minute."""
    lines = shop.vnet("events", "--since", "1m", "-o", "json").splitlines()
    return {json.loads(line)["kind"] for line in lines}


def answering() -> set[str]:
    return {ask(WORLD, AT_HOST[4], 443).split()[0] for _ in range(6)}


def test_the_world_reaches_both_web_servers_and_the_host_reaches_the_bastion(shop: Lab) -> None:
    assert soon(lambda: answering() == {"web-1", "web-2"})
    assert ask(HOST, "127.0.0.1", 2222).startswith("bastion")
    assert ask(HOST, "127.0.0.1", 8443).startswith("web-")
    assert "refused" in ask(WORLD, AT_HOST[4], 2222)


def test_the_claims_hold_and_are_tried(shop: Lab) -> None:
    told = shop.json("verify", "--probe")
    assert len(told) == 5 and all(claim["passed"] for claim in told)
    assert sum(bool(claim["probes"]) for claim in told) >= 3


def test_guests_reach_the_world_as_far_as_policies_let_them(shop: Lab) -> None:
    said = shop.vnet("exec", "bastion", "--", "sh", "-c", f"nc -w 2 {AT_WORLD[4]} 80 </dev/null")
    assert said == f"world {AT_HOST[4]}\n"
    for closed in ("web-1", "db"):
        tried = f"nc -w 1 {AT_WORLD[4]} 80 </dev/null 2>/dev/null; true"
        assert shop.vnet("exec", closed, "--", "sh", "-c", tried) == ""


def test_connections_outlive_a_daemon_that_is_killed(shop: Lab) -> None:
    with Talk(WORLD, AT_HOST[4], 443) as talk:
        shop.kill_daemon()
        assert talk.goes_on()
        assert answering() == {"web-1", "web-2"}
        shop.vnet("ps")
        assert talk.goes_on()
        assert answering() == {"web-1", "web-2"}


def test_a_server_that_dies_gets_no_more_connections_and_comes_back(shop: Lab) -> None:
    shop.vnet("exec", "web-2", "--", "sh", "-c", "kill $(cat /tmp/pid-443)")
    assert soon(lambda: answering() == {"web-1"})
    serve(shop, "web-2", 443)
    assert soon(lambda: answering() == {"web-1", "web-2"})
    assert {"target-down", "target-up"} <= happened(shop)


@pytest.mark.parametrize("damage", ["nft flush ruleset", "ip link del group 30317"])
def test_a_damaged_gateway_is_mended_soon(shop: Lab, damage: str) -> None:
    sh(damage)
    assert soon(lambda: answering() == {"web-1", "web-2"})
    assert "gateway-mended" in happened(shop)


def test_the_dmz_is_reached_by_its_bastion_and_its_published_port_only(shop: Lab) -> None:
    shop.vnet("up", "-f", DMZ)
    for vm, port in (("web", 80), ("bastion", 22)):
        shop.vnet("exec", "-n", "dmz-bastion", vm, "--", "sh", "-c", SERVE.format(vm=vm, port=port))
    assert soon(lambda: ask(HOST, "127.0.0.1", 8070).startswith("web"))
    assert ask(HOST, "127.0.0.1", 2270).startswith("bastion")
    assert "refused" in ask(WORLD, AT_HOST[4], 8070)
    told = shop.json("verify", "--probe", "-n", "dmz-bastion")
    assert told and all(claim["passed"] for claim in told)
    shop.vnet("down", "-f", DMZ)
