"""Pairs of veth devices: `p…` are the ports of a switch, what leaves by them comes to a sink at `q…`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.perf.inside.harness import PINS, sh


@contextmanager
def ports(count: int) -> Iterator[list[str]]:
    """Ports p1…pN, up, each ready to be fed."""
    numbers = range(1, count + 1)
    batch = [f"link add p{n} type veth peer name q{n}" for n in numbers]
    # The kernel lets live frames come in only by a device that has an XDP program; these do not meet it.
    batch += [f"link set p1 xdp pinned {PINS}/feed", f"link set p2 xdp pinned {PINS}/feed"]
    batch += [f"link set {kind}{n} up" for n in numbers for kind in "qp"]
    sh("ip -batch -", "\n".join(batch))
    sinks = [f"qdisc add dev q{n} clsact" for n in numbers]
    sinks += [f"filter add dev q{n} ingress bpf da object-pinned {PINS}/sink" for n in numbers]
    sh("tc -batch -", "\n".join(sinks))
    try:
        yield [f"p{n}" for n in numbers]
    finally:
        sh("ip -batch -", "\n".join(f"link del p{n}" for n in numbers))


def at_ingress(device: str, program: str) -> None:
    """Attach one of the harness's programs to a port."""
    sh(f"tc qdisc add dev {device} clsact")
    sh(f"tc filter add dev {device} ingress bpf da object-pinned {PINS}/{program}")
