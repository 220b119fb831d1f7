"""What is to be reached: rows, the figures that make them, and their limits against peers of the same run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `value` is in the row's unit; of instruction counts the harness is not yet off."""

    row: int
    case: str
    peer: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """`case` of `peer` must be at most (or at least) `bound` times `against` in `against_case`.

    Without `against` the bound is the number itself.
    """

    bound: float
    against: str = ""
    case: str = ""
    against_case: str | None = None
    peer: str = "vnet"
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    number: int
    work: str
    unit: str
    limits: tuple[Limit, ...]
    harness: bool = False
    """Whether the figure of the peer `harness` is to be taken off the others of its case.

    A case without one is measured against the row's first.
    """
    missed: str = ""
    """Why a limit of this row is missed where it is, and what would close the gap."""


ROWS = (
    Row(
        1,
        "L2 unicast, one flow",
        "instructions a packet",
        (Limit(1.0, "bridge"), Limit(0.6, "ovs")),
        True,
        "Storm limits look at each frame's destination before anything else: about 20 instructions, which a "
        "bridge, that has none, does not pay. Figures repeat to 1 %.",
    ),
    Row(
        2,
        "stateful policy, established connection",
        "instructions a packet",
        (Limit(0.55, "nft"), Limit(0.37, "ovs")),
        True,
    ),
    Row(
        3,
        "stateful policy with many rules",
        "instructions a packet",
        (Limit(1.05, "vnet", "10000", "10"), Limit(1 / 9, "nft linear", "10000", "100")),
        True,
    ),
    Row(
        4,
        "first packet of a flow, full pipeline",
        "instructions; ns of a SYN",
        (Limit(3000.0, "", "ns"), Limit(1 / 20, "ovs", "instructions")),
        True,
        "A packet that the cache does not know is decided table by table: a policy has seven tables, about "
        "two dozen steps of 100 instructions and seven look-ups of 450, and the connection's two entries. "
        "Nothing of it is waste that a profile shows; a cache of decisions that leaves out what no rule on "
        "the way asked for, as the megaflows of Open vSwitch do, would spare most first packets the walk.",
    ),
    Row(
        5,
        "many flows in turn",
        "ns a packet",
        (Limit(1.5, "vnet", "1000000 flows, ns", "1000 flows, ns"),),
        missed="Each processor remembers 16,384 flows, of 216 bytes each. With more that take turns, every "
        "packet is decided by the tables and displaces another one's entry, and these entries no longer fit "
        "into the processor's caches either. It is a step and not a cliff: the cost ends at that of the "
        "tables. The bridge does not look at ports and has one entry for all of these flows. A cache of "
        "decisions that leaves out what no rule on the way asked for would have one as well.",
    ),
    Row(
        6,
        "a TCP connection is opened",
        "instructions for its three packets",
        (Limit(0.5, "nft", "open"), Limit(256, "", "bytes each")),
        True,
        "All three packets of a handshake go through the tables, because each of them changes what the "
        "tracker says: row 4, three times. The remedy is the same. Of the bytes, a connection's own record "
        "takes 160, and its two entries in the kernel's hash table take 224, of which 96 are the table's "
        "own: labels and translations are 16 and 1 of them, so moving these elsewhere gains little. An "
        "index in an array, that holds numbers of records and compares the records, would take 16 to 32.",
    ),
    Row(
        7,
        "one VM attacks",
        "throughput that the others keep",
        tuple(Limit(0.98, "", case, at_least=True) for case in ("SYN flood", "scan", "rule-shaped")),
        missed="Compared is with the same frames dropped where they come in, so what is missing is the time "
        "that the switch spends on 50,000 frames a second, on a machine of two processors that also sends "
        "and receives the others' stream. Nothing else of the others' is touched: connections, learnt "
        "addresses, events and entries of the cache are bounded for each port. A meter on the port, or a "
        "third processor, bounds the time as well; a cheaper first packet (row 4) lessens it.",
    ),
    Row(
        8,
        "a rule is revoked under traffic",
        "packets let through afterwards",
        (Limit(0, "", "of 20 revocations"),),
    ),
    Row(
        9,
        "100,000 rules from the file to enforced and verified",
        "s",
        (Limit(1.5, "ovs-ofctl", "1,000 VMs, 100,000 rules, s"),),
        missed="ovs-ofctl reads flows and is in C; vnet reads a topology, and does in Python what is done to "
        "each flow on the way: compile, encode, decode, lower, stage, six writes to maps, and all of it back "
        "again to be verified. Two fifths of the time are the agent's, a third the file's and the "
        "compiler's. An extension module for codec and staging would take half of it; a change (row 10) "
        "costs only what it changes.",
    ),
    Row(
        10,
        "one rule or one VM changed among 10,000 VMs, 100,000 rules",
        "ms",
        (Limit(20, "", "p99 enforced, ms"),),
        missed="A rule put in the middle of a list moves the priorities of those behind it: up to 200 flows "
        "of 0.06 ms each, most of it Python's codec on both sides.",
    ),
    Row(
        11,
        "the daemon is killed, started, upgraded",
        "of 4,000 pings lost",
        (Limit(0, "", "killed and started again"), Limit(0, "", "program exchanged")),
    ),
    Row(
        12,
        "exact verification",
        "s",
        (Limit(1, "", "10,000 VMs, 100,000 rules, s"),),
        missed="Most of it is sorting the flows by what they match on; the claims themselves take a third.",
    ),
    Row(13, "maps read back = what was verified", "flows that differ", (Limit(0, "", "of 120,253 flows"),)),
    Row(
        15,
        "bulk TCP, namespace to namespace and TAP to TAP",
        "Gb/s, ratios of rounds",
        (
            Limit(0.95, "", "Gb/s / direct", at_least=True),
            Limit(1.0, "", "Gb/s / bridge", at_least=True),
            Limit(1.0, "", "TAP Gb/s / bridge", at_least=True),
        ),
        missed="A stream of 64 KB frames is bound by copying, not by the switch, which decides each once. "
        "Rounds differ by more than what is missing, as their range says.",
    ),
    Row(
        16,
        "a byte there and one back over TCP",
        "us, ratios of rounds",
        tuple(
            Limit(bound, "", f"{place} us / {peer}")
            for place in ("P50", "P99")
            for peer, bound in (("direct", 1.05), ("bridge", 1.0))
        ),
        missed="Most of the time is the scheduler's, that wakes either end. A direct pair has no switch "
        "and is one pair of devices where all others are two: twice the way into a backlog. A bridge pays "
        "the same. Rounds differ by more than what is missing, as their range says.",
    ),
    Row(
        17,
        "many ports; flood",
        "instructions a packet or copy, harness included",
        (Limit(1.02, "vnet", "unicast 1000", "unicast 2"), Limit(1.0, "bridge", "copy of 1000")),
        missed="A program sends a copy by bpf_clone_redirect, and after that the kernel gives the packet in "
        "hand memory of its own again, so that the program may write to it (pskb_expand_head): about 600 "
        "instructions a copy, most of what is missing; vnet's own share of a copy is 120. A bridge does not "
        "write to what it floods. No helper of these kernels sends a packet from tc to many devices; XDP has "
        "one (BPF_F_BROADCAST), but frames there know no segmentation offload. Policies flood little: ARP "
        "goes to the one who is asked for.",
    ),
    Row(18, "another VM is captured", "instructions a packet", (Limit(1.02, "vnet", "on", "off"),), True),
)
BY_NUMBER = {row.number: row for row in ROWS}
