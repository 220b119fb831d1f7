"""What a picture says of mirrors."""

from __future__ import annotations

from vnet.picture.cards import box_card
from vnet.picture.scene import Wanted, scene
from vnet.picture.words import box_words
from vnet.policy.compile import compile
from vnet.topology.inventory import expand
from vnet.topology.load import load_text

TEXT = """\
name: mirrored
networks: {lan: {vlan: 10, subnets: 10.0.0.0/22}}
vms:
  web: {networks: [lan], replicas: 40}
  db: {networks: [lan], groups: [db]}
  ids: {interfaces: {span0: {mirror_only: true}}}
mirrors:
  all: {source: "network:lan", to: "ids:span0"}
  one: {source: "web-1:eth0", to: "vxlan:192.0.2.1/7"}
  each: {source: "web:eth0", direction: out, to: "pcap:web.pcapng"}
"""


def test_copies_are_told_where_they_are_made_and_where_they_go() -> None:
    topology = load_text(TEXT, "mirrored.vnet.yaml", {})
    inventory = expand(topology, {})
    shown = scene(topology, inventory, compile(topology, inventory), Wanted())
    assert shown.signs[0].lines[-1] == "copied to ids:span0"
    copies = {box.name: box.copies for box in shown.boxes}
    assert copies["ids"] == ("span0 gets copies: all",)
    assert copies["db"] == ()
    (web,) = (box for box in shown.boxes if box.count == 40)
    assert web.copies == ("eth0 copied to pcap:web.pcapng (out)",), "not what only one of them has"
    assert web.copies[0] in box_words(web, shown)
    assert any(web.copies[0].startswith(row.words) for row in box_card(web, shown).rows)
