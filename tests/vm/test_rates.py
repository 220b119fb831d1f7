"""Rates of real guests: virtio, TAPs and TSO, both ways; changed under a stream that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.fabric_lab import Lab, lab

TEXT = """\
name: rated
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: [10.0.0.0/24, "fd00:10::/64"]}}
vms:
  slow: {interfaces: {eth0: {network: lan, rate: 2M}}}
  quick: {networks: [lan]}
policies: [{name: all, applied_to: any, ingress: [{from: any}]}]
"""
MEASURE_S = 2
TRIES = 10
STREAMS = 4


@pytest.fixture(scope="module")
def host():
    with lab() as made:
        yield made


def written(folder: Path, text: str) -> str:
    file = folder / "rated.vnet.yaml"
    file.write_text(text)
    return str(file)


def sh(host: Lab, vm: str, command: str) -> str:
    return host.vnet("exec", vm, "--", "sh", "-c", command)


def stream(host: Lab, source: str, target: str, address: str, port: int) -> None:
    """From now on, for a while, as fast as it goes: when one of them makes up for a loss others go on."""
    end_the_last, each = "killall nc 2>/dev/null", f"for port in $(seq {port} {port + STREAMS - 1}); do"
    send = f"timeout 40 sh -c 'cat /dev/zero | nc {address} $0' $port"
    sh(host, source, end_the_last + "; true")
    sh(host, target, f"{end_the_last}; {each} sleep 60 | nc -l -p $port >/dev/null 2>&1 & done")
    sh(host, source, f"sleep 0.5; {each} {send} >/dev/null 2>&1 & done; sleep 1.5")


def received_bps(host: Lab, vm: str) -> float:
    count = "cat /sys/class/net/eth0/statistics/rx_bytes; cut -d' ' -f1 /proc/uptime"
    had, began, has, ended = sh(host, vm, f"{count}; sleep {MEASURE_S}; {count}").split()
    return (int(has) - int(had)) * 8 / (float(ended) - float(began))


def goes_at(host: Lab, vm: str, bps: float) -> None:
    """Within a tenth; a guest counts the headers of many segments once. One of some tries must be right."""
    found = []
    for _ in range(TRIES):
        found.append(received_bps(host, vm) / bps)
        if 0.9 <= found[-1] <= 1.05:
            return
    raise AssertionError(found)


def test_a_guest_sends_at_its_rate_and_at_another_one_amid_a_stream(host: Lab, tmp_path: Path) -> None:
    host.vnet("up", "-f", written(tmp_path, TEXT))
    assert "eth0 in 2M out 2M" in host.vnet("ps", "-o", "wide")
    stream(host, "slow", "quick", host.json("inspect", "quick")["addresses"][0].partition("/")[0], 5010)
    goes_at(host, "quick", 2_000_000)
    file = written(tmp_path, TEXT.replace("rate: 2M", "rate: {in: 2M, out: 5M}"))
    (line,) = host.json("plan", "-f", file)["changes"]
    assert (line["kind"], line["what"]) == ("port", "live: in 2M/s, out 2M/s → in 2M/s, out 5M/s")
    assert host.json("up", "-f", file)["actions"] == ["rate of port slow.eth0: in 2M/s, out 5M/s"]
    goes_at(host, "quick", 5_000_000)
    assert host.json("plan", "-f", file)["changes"] == []


def test_a_guest_is_sent_at_its_rate(host: Lab, tmp_path: Path) -> None:
    host.vnet("up", "-f", written(tmp_path, TEXT))
    stream(host, "quick", "slow", host.json("inspect", "slow")["addresses"][1].partition("/")[0], 5020)
    goes_at(host, "slow", 2_000_000)
    assert {count["reason"] for count in host.json("drops")["counts"]} >= {"RATE"}


def test_an_impairment_is_refused_at_plan_where_the_kernel_has_none(host: Lab, tmp_path: Path) -> None:
    """As this machine's: `tests/vm/test_kernels.py` has kernels with sch_netem."""
    file = written(tmp_path, TEXT.replace("rate: 2M", "impair: {delay: 20ms}"))
    told = host.vnet("plan", "-f", file, expect=6)
    assert "CONFIG_NET_SCH_NETEM" in told and "modprobe sch_netem" in told
    assert "slow.eth0" in told
