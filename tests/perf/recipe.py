"""The guest in which instructions are counted: the peers' tools beside Python."""

from __future__ import annotations

from tests.guests.image import Recipe

RECIPE = Recipe(
    name="perf",
    command="tests.perf.inside guest",
    modules=("veth", "bridge", "openvswitch", "nf_tables", "nft_ct", "nf_conntrack_bridge", "nft_meta_bridge",
             "cls_bpf", "sch_ingress"),
    packages=("nftables", "libnftables1", "libnftnl11", "libmnl0", "libjansson4", "libedit2", "libbsd0",
              "libmd0", "libxtables12", "libgmp10"),
    unpacked_programs=("usr/sbin/nft",),
    host_programs=("/usr/sbin/tc", "/usr/sbin/ip", "/usr/sbin/bridge", "/usr/sbin/ovsdb-server",
                   "/usr/sbin/ovs-vswitchd", "/usr/bin/ovs-dpctl", "/usr/bin/ovs-ofctl", "/usr/bin/ovs-vsctl",
                   "/usr/bin/ovsdb-tool"),
    host_files=("/usr/share/openvswitch/vswitch.ovsschema",),
)  # fmt: skip
