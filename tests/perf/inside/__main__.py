"""Runs in the guest: measures what the command line asked for and prints one JSON object a figure."""

from __future__ import annotations

import json
import pickle
import time
import traceback
from pathlib import Path

from tests.perf.inside.harness import Harness
from tests.perf.inside.rows import ROWS, Bench

ORDERS = Path("/tree/orders.pickle")


def say(**figure: object) -> None:
    print("@@" + json.dumps(figure), flush=True)


def main() -> None:
    orders = pickle.loads(ORDERS.read_bytes())
    for setting, value in (
        ("net/ipv6/conf/default/disable_ipv6", "1"),
        ("net/ipv6/conf/all/disable_ipv6", "1"),
        ("net/core/netdev_max_backlog", "100000"),
        ("net/netfilter/nf_conntrack_checksum", "0"),  # the harness changes ports and mends no checksums
    ):
        Path("/proc/sys", setting).write_text(value)
    say(ready=time.clock_gettime(time.CLOCK_BOOTTIME))
    bench = Bench(Harness(), orders, say)
    for row in orders["rows"]:
        try:
            ROWS[row](bench)
        except Exception as error:  # noqa: BLE001  the other rows are still wanted
            where = traceback.extract_tb(error.__traceback__)[-1]
            say(failed=row, why=f"{where.name}: {str(error)[:600]}")
    say(done=time.clock_gettime(time.CLOCK_BOOTTIME))


main()
