"""The monitor that tells of links that come, go, or gain and lose their carrier."""

from __future__ import annotations

import os
import select
import time

from tests.bpf.bench import sh
from vnet.switch.live.links import LinkMonitor


def readable(monitor: LinkMonitor) -> bool:
    return bool(select.select([monitor.fd], [], [], 2)[0])


def test_monitor_wakes_for_links_of_its_namespace_only() -> None:
    name = f"vnt-links-{os.getpid()}"
    sh(f"ip netns add {name}")
    try:
        monitor = LinkMonitor(name)
        for change in ("add va type veth peer name vb", "set va up", "set vb up", "set vb down", "del va"):
            sh(f"ip -n {name} link {change}")
            assert readable(monitor), change
            time.sleep(0.05)
            monitor.drain()
            assert not select.select([monitor.fd], [], [], 0)[0]
        monitor.close()
    finally:
        sh(f"ip netns del {name}")
