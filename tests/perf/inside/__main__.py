"""Measures what `orders.pickle` asks for and prints one JSON object a figure: `… guest` or `… host`.

In the guest all devices are in its only network namespace. On the host a namespace is made for them.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.perf.inside import rows, wall
from tests.perf.inside.harness import Harness, sh
from tests.perf.inside.labs import BRIDGE_NETFILTER
from tests.perf.inside.rows import Bench
from vnet.base.errors import VnetError

ORDERS = Path("orders.pickle")
FAILURES = (OSError, RuntimeError, subprocess.SubprocessError, VnetError)
CLONE_NEWNET = 0x40000000
SETTINGS = {
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/core/netdev_max_backlog": "100000",
    "net/netfilter/nf_conntrack_checksum": "0",  # the harness changes ports and mends no checksums
    **dict.fromkeys(BRIDGE_NETFILTER, "0"),
}


def say(**figure: object) -> None:
    print("@@" + json.dumps(figure), flush=True)


def main() -> None:
    orders = pickle.loads(ORDERS.read_bytes())
    if sys.argv[1] == "guest":
        settings()
        measure(Bench(Harness(), orders, say), rows.ROWS)
    else:
        from tests.perf.inside import scale  # needs more than the guest has
        from vnet.base import objects

        objects.expect_many()  # as the command and the daemon do when they begin
        with own_namespace():
            settings()
            bench = Bench(Harness(), orders, say, settle_s=0.2)
            try:
                measure(bench, wall.ROWS | scale.ROWS)
            finally:
                bench.harness.close()
    say(done=0)


def settings() -> None:
    for name, value in SETTINGS.items():
        path = Path("/proc/sys", name)
        if path.exists():  # some are the host's alone
            path.write_text(value)


@contextmanager
def own_namespace() -> Iterator[None]:
    """This process in a network namespace of its own, with nothing but what it makes there."""
    name = f"vnt-perf{os.getpid()}"
    sh(f"ip netns add {name}")
    try:
        target = os.open(f"/run/netns/{name}", os.O_RDONLY)
        if ctypes.CDLL(None).setns(target, CLONE_NEWNET):
            raise OSError("cannot enter the namespace")
        os.close(target)
        yield
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def measure(bench: Bench, known: Mapping[int, Callable[[Bench], None]]) -> None:
    say(ready=0)
    for row in bench.orders["rows"]:
        if row not in known:
            continue
        try:
            known[row](bench)
        except FAILURES as error:  # the other rows are still wanted
            where = traceback.extract_tb(error.__traceback__)[-1]
            say(failed=row, why=f"{where.filename}:{where.lineno} {type(error).__name__} {str(error)[:600]}")
        say(finished=row)


main()
