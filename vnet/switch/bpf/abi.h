/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Every struct and number that crosses between the dataplane and Python (vnet/switch/abi.py).
 *
 * A test reads this file's BTF out of the object and compares it with abi.py, field by field. No
 * implicit padding. Integers are host order; packet fields are converted on parsing, so a match is
 * plain integer arithmetic on 64-bit words.
 */
#ifndef VNET_ABI_H
#define VNET_ABI_H

#include <linux/types.h>

/* Capacities. A change that exceeds one is refused as a whole before anything is written. */
#define VNET_TABLES 64
#define VNET_MASKS 2048        /* masks of all tables together */
#define VNET_TABLE_MASKS 64    /* masks one table may search: the announced budget */
#define VNET_MASK_WORDS 12     /* words one match may constrain */
#define VNET_SMALL_WORDS 4     /* most constrain no more, and are looked up in a map with a shorter key */
#define VNET_RULES 131072      /* flows, groups and buckets */
#define VNET_ACTIONS 262144
#define VNET_RULE_ACTIONS 64   /* actions one flow may hold, a list of outputs counting as one */
#define VNET_OUTPUTS 65536     /* ports in output lists, plus one per list for its length */
#define VNET_PORTS 4096        /* highest port number + 1 */
#define VNET_LOW_IFINDEX 65536
#define VNET_GROUPS 4096
#define VNET_BUCKETS 64        /* of one group */
#define VNET_METERS 4096
#define VNET_BANDS 8           /* of one meter */
#define VNET_CACHE 16384       /* flow cache slots of each CPU; a power of two */
#define VNET_PATHS 65536       /* distinct lists of rules that cached paths are made of */
#define VNET_CONNS 65536
#define VNET_MACS 65536        /* addresses learnt by NORMAL */
#define VNET_FRAGS 16          /* fragmented datagrams followed at once for each port */
#define VNET_LOOKUPS 64        /* table lookups per packet */
#define VNET_STEPS 4096        /* lookups and actions per packet */
#define VNET_PATH_RULES 16
#define VNET_OPS 32
#define VNET_CACHE_OPS 8       /* a longer path is not remembered */
#define VNET_STACK 16          /* tables and action lists that wait for inner ones to end */
#define VNET_SCOPES 4          /* copies of the packet's state, for groups and ct(table) */
#define VNET_SET 64            /* slots of an action set */
#define VNET_KEY_WORDS 32
#define VNET_CACHE_WORDS 8
#define VNET_TAPS 32           /* captures and mirrors at once */
#define VNET_FILTER_INSNS 4096 /* of one tap's filter, as the kernel allows on sockets (BPF_MAXINSNS) */

/* The parsed packet and its metadata as words; lower.PLACES knows each OpenFlow field's word and shift.
 *
 *   word  bits 63..0
 *   0     in_port:32 ip_proto:8 ip_tos:8 ip_frag:8 has:8   (VNET_HAS_*: a field the packet lacks matches nothing)
 *   1     eth_dst:48 vlan_tci:16              (bit 12 = tag present, as in Open vSwitch)
 *   2     eth_src:48 eth_type:16
 *   3,4   ip source, high and low             (IPv4 and arp_spa in the low 32 bits)
 *   5,6   ip destination, high and low        (IPv4 and arp_tpa in the low 32 bits)
 *   7     tp_src:16 tp_dst:16 0:16 arp_op:16  (ICMP: tp_src = type, tp_dst = code)
 *   8     0:16 arp_sha or nd_sll:48           (an absent option is 0, as in Open vSwitch)
 *   9     0:16 arp_tha or nd_tll:48
 *   10,11 nd_target, high and low
 *   12    metadata
 *   13    ct_mark:32 ct_state:32
 *   14    ct_tp_src:16 ct_tp_dst:16 ct_nw_proto:8 family:8 ct_zone:16     (family of the connection: 4 or 6)
 *   15-22 reg1:32 reg0:32, reg3 reg2, … reg15 reg14
 *   23,24 ct_label, high and low
 *   25    tunnel_id
 *   26    nw_ttl:8 ipv6_exthdr:12 tcp_flags:12 ipv6_flabel:32
 *   27    0:32 mpls_label:20 mpls_tc:3 mpls_bos:1 mpls_ttl:8
 *   28,29 ct_nw_src or ct_ipv6_src, high and low
 *   30,31 ct_nw_dst or ct_ipv6_dst, high and low
 *
 * Words 0-7 are the flow cache's key. A path that asked for more of the packet than they tell is not
 * cached.
 */
enum vnet_word {
	VNET_W_PORT = 0,
	VNET_W_DST = 1,
	VNET_W_SRC = 2,
	VNET_W_IP_SRC = 3,
	VNET_W_IP_DST = 5,
	VNET_W_L4 = 7,
	VNET_W_SHA = 8,
	VNET_W_THA = 9,
	VNET_W_ND_TARGET = 10,
	VNET_W_METADATA = 12,
	VNET_W_CT = 13,
	VNET_W_ZONE = 14,
	VNET_W_REGS = 15,
	VNET_W_LABEL = 23,
	VNET_W_TUNNEL = 25,
	VNET_W_MORE = 26,
	VNET_W_MPLS = 27,
	VNET_W_CT_SRC = 28,
	VNET_W_CT_DST = 30,
};

#define VNET_VLAN_PRESENT 0x1000 /* in the key */
#define VNET_VLAN_DEI 0x1000     /* in a tag: drop-eligible indicator (IEEE 802.1Q, section 9.6) */
#define VNET_HAS_L4 1   /* ports, or ICMP type and code */
#define VNET_HAS_STAG 2 /* its tag came as 802.1ad; no field, but asked for by the flow cache */
#define VNET_HAS_DEI 4  /* its tag came as drop-eligible; the same */

/* Same numbers as vnet.base.drop.DropReason; those from 64 up come from the flow's cookie. */
enum vnet_drop {
	VNET_DROP_NONE = 0,
	VNET_DROP_TABLE_MISS = 1,
	VNET_DROP_RULE = 2,
	VNET_DROP_PORT_CLOSED = 3,
	VNET_DROP_MALFORMED = 4,
	VNET_DROP_FRAGMENT = 5,
	VNET_DROP_CT_INVALID = 6,
	VNET_DROP_CT_FULL = 7,
	VNET_DROP_CT_QUOTA = 8,
	VNET_DROP_MTU = 9,
	VNET_DROP_TTL = 10,
	VNET_DROP_NO_PORT = 11,
	VNET_DROP_LOOP = 12,
	VNET_DROP_SAME_PORT = 13,
	VNET_DROP_ACTION_FAILED = 14,
	VNET_DROP_RATE = 15,
	VNET_DROP_STORM = 16,
	VNET_DROP_UNSUPPORTED = 17,
	VNET_DROP_NO_BUCKET = 18,
	VNET_DROP_NAT_FULL = 19,
	VNET_DROP_REFUSAL_QUOTA = 20,
	VNET_DROP_NO_DST = 74, /* what nobody gets who is told by MAC and address counts against unknown_unicast_pps */
	VNET_DROP_MAX = 128,
};

/* Actions of a rule. a, b, value, mask as the comments say. */
enum vnet_action_op {
	VNET_OP_OUTPUT = 1,       /* b = port */
	VNET_OP_OUTPUTS = 2,      /* b = index into outputs: length, then ports; the ingress port is left out */
	VNET_OP_OUTPUT_FIELD = 3, /* a = word, b = shift, mask = the field's bits after shifting */
	VNET_OP_IN_PORT = 4,      /* back out of the ingress port */
	VNET_OP_CONTROLLER = 5,   /* b = bytes to send */
	VNET_OP_SET = 6,          /* a = word, b = enum vnet_need, value and mask in place */
	VNET_OP_MOVE = 7,         /* a = from word | to word << 8, b = from shift | to shift << 8 | bits << 16,
				   * value = enum vnet_need of the source | of the target << 8 */
	VNET_OP_PUSH_VLAN = 8,    /* a = TPID */
	VNET_OP_POP_VLAN = 9,
	VNET_OP_CT = 10,          /* a = VNET_CT_*, b = zone | table << 16 | number of DATA << 24, value, mask = mark */
	VNET_OP_FLOOD = 11,       /* to every port but the ingress port */
	VNET_OP_NORMAL = 12,      /* as a learning switch */
	VNET_OP_GROUP = 13,       /* b = index into group_entries */
	VNET_OP_METER = 14,       /* b = index into meter_entries */
	VNET_OP_RESUBMIT = 15,    /* a = table, b = in_port or VNET_NO_PORT */
	VNET_OP_CT_CLEAR = 16,
	VNET_OP_WRITE = 17,       /* a = slot of the action set, b = how many records behind it go there */
	VNET_OP_CLEAR = 18,       /* empty the action set */
	VNET_OP_PUSH_MPLS = 19,   /* a = ethertype */
	VNET_OP_POP_MPLS = 20,    /* a = ethertype */
	VNET_OP_DEC_TTL = 21,     /* a: 0, or the word of a router as for VNET_OP_REJECT if there is none left */
	VNET_OP_DEC_MPLS_TTL = 22,
	VNET_OP_COPY_TTL_OUT = 23,
	VNET_OP_COPY_TTL_IN = 24,
	VNET_OP_SET_TYPE = 25,    /* a = ethertype */
	VNET_OP_DATA = 26,        /* value, mask: operands of the record before */
	VNET_OP_SET_PROTO = 27,   /* a = protocol */
	VNET_OP_ADVERTISE = 29,   /* value: MAC, with which a neighbour solicitation is answered */
	VNET_OP_REJECT = 28,      /* drop, and tell the sender; a: 0 as its destination would, else as a router:
				   * 4 or 6 for IPv4 or IPv6, b: ICMP type << 8 | code, value, mask: the halves of
				   * its address, in host order */
};

/* What a packet must have for a field to be there: the others are not written, and read as 0. */
enum vnet_need {
	VNET_NEED_NOTHING = 0,
	VNET_NEED_VLAN = 1,
	VNET_NEED_IPV4 = 2,
	VNET_NEED_IPV6 = 3,
	VNET_NEED_IP = 4,
	VNET_NEED_ARP = 5,
	VNET_NEED_MPLS = 6,
	VNET_NEED_TCP = 7,
	VNET_NEED_UDP = 8,
	VNET_NEED_SCTP = 9,
	VNET_NEED_ICMP = 10,
	VNET_NEED_ICMPV6 = 11,
	VNET_NEED_ND = 12,
	VNET_NEED_ND_SOLICIT = 13,
	VNET_NEED_ND_ADVERT = 14,
};

#define VNET_CT_COMMIT 1
#define VNET_CT_RECIRC 2 /* resume at the table in b */
#define VNET_CT_FORCE 4
#define VNET_CT_LABEL 8  /* DATA: label, high half; DATA: low half */
#define VNET_CT_NAT 16   /* DATA: first and last address, high halves; DATA: low halves; DATA: first and last port */
#define VNET_CT_SNAT 32
#define VNET_CT_DNAT 64
#define VNET_CT_ZONE_FIELD 128 /* DATA: value = word | shift << 8, mask = the zone's bits after shifting */
#define VNET_CT_NAT_ADDRESS 256
#define VNET_CT_NAT_PORT 512
#define VNET_CT_MOVED 1024 /* mark and label to be written stand in the key; here are only their masks */

/* ct_state bits, as in ovs-fields(7). */
#define VNET_CS_NEW 0x01
#define VNET_CS_EST 0x02
#define VNET_CS_REL 0x04
#define VNET_CS_RPL 0x08
#define VNET_CS_INV 0x10
#define VNET_CS_TRK 0x20
#define VNET_CS_SNAT 0x40
#define VNET_CS_DNAT 0x80

#define VNET_NO_TABLE 0xff
#define VNET_NO_SLOT 0xffffffff
#define VNET_NO_PORT 0xffffffff
#define VNET_NO_PATH 0xffffffff
#define VNET_NO_ZONE 0xffffffff /* no packet is in it: the tracker must look the packet up */

/* The one cell that decides which rules are in force. Written by the agent through its mapping. */
struct vnet_control {
	__u32 version;     /* a packet reads it once, before its first lookup */
	__u32 layout;      /* of the maps, vnet/switch/layout.py: another one cannot be adopted */
	__u32 pad;
	__u32 capturing;   /* number of captured ports; 0 = observation costs nothing */
	__u8 digest[32];   /* of the object file the programs came from */
	__u64 datapath_id;
	__u64 reads[2][VNET_CACHE_WORDS]; /* by version & 1: the bits of the key that any rule asks for */
};

struct vnet_mask {
	__u32 n_words;
	__u32 table;
	__u8 word[16];
	__u64 mask[VNET_MASK_WORDS];
};

struct vnet_table_mask {
	__u32 mask_id;
	__u16 max_priority; /* of the rules under it: the search ends at the first mask below a hit */
	__u16 traits;       /* VNET_TRAIT_*: all rules under it ask for these */
};

/* Kinds of packets, as far as the flow cache's key does not tell all of them. */
#define VNET_KIND_LINK 1 /* ARP, ICMPv6 */
#define VNET_KIND_IP 2   /* TTL */
#define VNET_KIND_IPV6 4 /* flow label, extension headers */
#define VNET_KIND_TCP 8  /* flags */
#define VNET_KIND_MPLS 16

/* What tells at a glance that no rule under a mask can match. The bits from VNET_TRAIT_CT on are ct_state's. */
#define VNET_TRAIT_IPV4 1
#define VNET_TRAIT_IPV6 2
#define VNET_TRAIT_ARP 4
#define VNET_TRAIT_TCP 8
#define VNET_TRAIT_UDP 16
#define VNET_TRAIT_ICMP 32 /* of either version */
#define VNET_TRAIT_SCTP 64
#define VNET_TRAIT_LATER 128
#define VNET_TRAIT_CT 256

/* A table in one of two banks (version & 1). */
struct vnet_table {
	__u32 n_masks;
	__u32 beyond; /* VNET_KIND_*: the packets of which some mask asks for what is not in the flow cache's key */
	struct vnet_table_mask masks[VNET_TABLE_MASKS];
};

struct vnet_rule_key {
	__u32 mask_id;
	__u32 pad;
	__u64 words[VNET_MASK_WORDS];
};

/* The beginning of the same. */
struct vnet_small_key {
	__u32 mask_id;
	__u32 pad;
	__u64 words[VNET_SMALL_WORDS];
};

/* Which rule (group, meter) a number stands for, in two versions: the highest version <= the packet's is
 * in force.
 */
struct vnet_entry {
	__u32 rule[2]; /* 0 = none */
	__u32 version[2];
};

/* Immutable from before the commit that shows it until after the grace period that hides it. */
struct vnet_rule {
	__u64 cookie;
	__u32 first_action;
	__u16 n_actions;
	__u16 priority;
	__u8 table;
	__u8 goto_table;
	__u8 drop_reason;
	__u8 miss;   /* a table-miss flow: its packet-ins say so */
	__u8 logged; /* its packets are told for a log, from a share of their own */
	__u8 pad[3];
};

struct vnet_action {
	__u16 op;
	__u16 a;
	__u32 b;
	__u64 value;
	__u64 mask;
};

struct vnet_counter {
	__u64 packets;
	__u64 bytes;
};

enum vnet_group_type {
	VNET_GROUP_ALL = 0,
	VNET_GROUP_SELECT = 1,
	VNET_GROUP_INDIRECT = 2,
	VNET_GROUP_FAILOVER = 3,
};

struct vnet_bucket {
	__u32 rule;       /* its actions, in the order of an action set, and its counter */
	__u32 watch_port; /* VNET_NO_PORT = none */
	__u32 weight;
	__u32 pad;
};

/* One version of a group; immutable like a rule. */
struct vnet_group {
	__u32 type;
	__u32 n_buckets;
	__u32 first_bucket;
	__u32 rule; /* counts for the group */
};

#define VNET_BAND_DROP 1
#define VNET_BAND_REMARK 2
#define VNET_METER_KBPS 1
#define VNET_METER_PKTPS 2

struct vnet_band {
	__u64 burst;   /* tokens: 10^-6 bit or 10^-9 packets */
	__u64 full_ns; /* until the bucket is full again, whatever it owes */
	__u32 rate;    /* tokens per nanosecond: kbit/s or packets/s */
	__u16 type;
	__u16 precedence;
};

struct vnet_meter {
	__u32 flags;
	__u32 n_bands;
	struct vnet_band bands[VNET_BANDS];
};

#define VNET_PORT_UP 1
#define VNET_PORT_CAPTURE 2
#define VNET_PORT_NO_RECV 4
#define VNET_PORT_NO_FWD 8
#define VNET_PORT_NO_PACKET_IN 16
#define VNET_PORT_LIVE 32 /* its link is up, for fast failover */
#define VNET_PORT_CAPTURE_DROPS 64 /* like VNET_PORT_CAPTURE, of what it sends and is lost */
#define VNET_PORT_LINE_IN 128  /* what it is sent goes at a rate (line.h) */
#define VNET_PORT_LINE_OUT 256 /* what it sends goes through a line first */
#define VNET_PORT_PROMISCUOUS 512 /* the agent has made the interface so, and undoes it */

struct vnet_port {
	__u32 ifindex;
	__u32 flags;
	__u32 conn_quota;
	__u32 mac_quota;
	__u32 mtu;           /* 0 = not known */
	__u32 refusal_quota; /* packets in a window that the tables may refuse; 0 = any number */
	__u32 broadcast_pps; /* packets a second (storm.h); 0 = any number */
	__u32 multicast_pps;
	__u32 unknown_unicast_pps;
};

/* One direction of a port's line. */
struct vnet_rate {
	__u64 bps;      /* 0 = as fast as it can */
	__u32 depth_us; /* how long a packet may have to wait that still finds room */
	__u32 burst;    /* bytes; read by the agent only */
};

struct vnet_line {
	struct vnet_rate inward; /* into what stands behind the port */
	struct vnet_rate outward;
	__u32 ifindex;           /* where what the port sends enters its line; 0 = it has none */
	__u32 pad;
};

struct vnet_port_counter {
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 rx_dropped;
	__u64 tx_packets;
	__u64 tx_bytes;
	__u64 tx_dropped;
};

/* Shared by all CPUs; written by the dataplane only. Shares are of one window of time (vnet_share_left). */
struct vnet_port_state {
	__u64 conns;
	__u64 macs;
	__u64 events;    /* that nobody asked for */
	__u64 logged;    /* events for a log: no others leave them without a share */
	__u64 evictions; /* of other ports' flow cache entries */
	__u64 refusals;  /* packets that the tables had to decide, and refused */
	__u64 answers;   /* to packets that were rejected */
	__u64 broadcasts; /* until when those sent are paid for (storm.h) */
	__u64 multicasts;
	__u64 unknowns;
	__u64 line_in;    /* until when its line is busy with what it was given (line.h) */
	__u64 line_out;
};

/* What is to be done to the packet, in order. */
enum vnet_path_op {
	VNET_PATH_OUTPUT = 1,     /* arg = port */
	VNET_PATH_OUTPUTS = 2,    /* arg = list */
	VNET_PATH_CONTROLLER = 3, /* arg = bytes, value = rule, a = reason (OFPR_*), b = table */
	VNET_PATH_NORMAL = 4,     /* learn, look up, output or flood; arg = list of all ports, b = VLAN */
	VNET_PATH_METER = 5,      /* arg = index into meters */
	VNET_PATH_SET = 6,        /* a = enum vnet_place, value */
	VNET_PATH_VLAN = 7,       /* replace the outermost tag: value = TPID << 16 | TCI, 0 = none */
	VNET_PATH_PUSH_VLAN = 8,  /* in front of another: value as above */
	VNET_PATH_POP_VLAN = 9,
	VNET_PATH_PUSH_MPLS = 10, /* arg = ethertype, value = label stack entry | bytes of padding to take away << 32 */
	VNET_PATH_POP_MPLS = 11,  /* arg = ethertype, value = bytes of padding to add */
	VNET_PATH_DEC_TTL = 12,   /* arg = by how much; the cache sees to it that there is enough; value = of a router:
				   * its action, by the number behind it */
	VNET_PATH_NAT_INNER = 13, /* arg = slot, a = direction: the packet an ICMP error quotes */
	VNET_PATH_TYPE = 14,      /* arg = ethertype */
	VNET_PATH_TTL_IN = 15,    /* arg = TTL of the header behind the outermost label stack entry */
	VNET_PATH_PROTO = 16,     /* arg = protocol, value = where, from the IP header on: its byte | the checksum
				   * that covers it, 0 = none, << 16 | whether that is UDP's << 32 */
	VNET_PATH_ADVERTISE = 17, /* value = MAC: a neighbour solicitation becomes its answer */
};

/* Header fields that VNET_PATH_SET writes; execute.h knows where each lies. */
enum vnet_place {
	VNET_PLACE_ETH_DST = 0,
	VNET_PLACE_ETH_SRC = 1,
	VNET_PLACE_IPV4_TOS = 2,
	VNET_PLACE_IPV4_TTL = 3,
	VNET_PLACE_IPV4_SRC = 4,
	VNET_PLACE_IPV4_DST = 5,
	VNET_PLACE_IPV6_TC = 6,
	VNET_PLACE_IPV6_LABEL = 7,
	VNET_PLACE_IPV6_HOPS = 8,
	VNET_PLACE_IPV6_SRC_HIGH = 9,
	VNET_PLACE_IPV6_SRC_LOW = 10,
	VNET_PLACE_IPV6_DST_HIGH = 11,
	VNET_PLACE_IPV6_DST_LOW = 12,
	VNET_PLACE_L4_SRC = 13,
	VNET_PLACE_L4_DST = 14,
	VNET_PLACE_ICMP = 15,
	VNET_PLACE_ARP_OP = 16,
	VNET_PLACE_ARP_SHA = 17,
	VNET_PLACE_ARP_SPA = 18,
	VNET_PLACE_ARP_THA = 19,
	VNET_PLACE_ARP_TPA = 20,
	VNET_PLACE_ND_TARGET_HIGH = 21,
	VNET_PLACE_ND_TARGET_LOW = 22,
	VNET_PLACE_ND_LINK = 23,
	VNET_PLACE_MPLS = 24,
	VNET_PLACE_ICMP_ID = 25,
	VNET_PLACE_MAX = 26,
};

struct vnet_op {
	__u8 kind;
	__u8 a;
	__u16 b;
	__u32 arg;
	__u64 value;
};

/* What became of a packet. */
#define VNET_REJECT_PLAIN 1
#define VNET_REJECT_ROUTED 2  /* by a router; never of a remembered path */
#define VNET_REJECT_TOO_BIG 3 /* likewise, once the packet was about to leave */

struct vnet_path {
	__u32 ct_slot;   /* VNET_NO_SLOT if the path did not depend on a connection */
	__u32 ct_gen;
	__u8 ct_state;   /* the path holds only while the connection gives this state */
	__u8 ct_dir;
	__u8 reason;
	__u8 table;      /* the last one searched */
	__u8 min_ttl;    /* a packet with less is another case */
	__u8 n_ops;
	__u8 failure;    /* why a part of it went no further, which is told if the rest does not either */
	__u8 reject;     /* VNET_REJECT_*: the sender is told */
};

/* One slot of a CPU's flow cache. Only that CPU's programs touch it, and they do not interrupt each other. */
struct vnet_cached {
	__u64 key[VNET_CACHE_WORDS];
	__u32 version;
	__u32 path_id;
	struct vnet_path path;
	struct vnet_op ops[VNET_CACHE_OPS];
};

/* The rules a path met, in order. */
struct vnet_path_rules {
	__u32 n_rules;
	__u32 rules[VNET_PATH_RULES];
	__u32 pad;
};

struct vnet_ct_key {
	__u64 src[2];
	__u64 dst[2];
	__u16 sport; /* ICMP echo: id, and 0x0800 for the other side */
	__u16 dport;
	__u16 zone;
	__u8 proto;
	__u8 family; /* 4 or 6 */
};

struct vnet_ct_ref {
	__u32 slot;
	__u32 dir; /* 0 original, 1 reply */
};

enum vnet_tcp_state {
	VNET_TCP_NONE = 0, /* not TCP */
	VNET_TCP_SYN_SENT = 1,
	VNET_TCP_SYN_RECV = 2,
	VNET_TCP_ESTABLISHED = 3,
	VNET_TCP_FIN_WAIT = 4,  /* one side has sent FIN */
	VNET_TCP_TIME_WAIT = 5, /* both have */
	VNET_TCP_CLOSED = 6,    /* reset */
};

#define VNET_GOES_ON 4 /* in fin_seen: has gone on after a reset */

struct vnet_conn {
	struct vnet_ct_key key[2]; /* of the packets of each direction, as they come */
	__u64 created_ns;
	__u64 last_seen_ns;
	__u64 packets[2];
	__u64 bytes[2];
	__u64 label[2];  /* high and low half */
	__u32 gen;       /* odd while in use; goes up when the slot is taken, freed or its mark changes */
	__u32 mark;
	__u32 port;      /* whose quota it counts against */
	__u8 tcp_state;
	__u8 seen_reply;
	__u8 fin_seen;   /* bit per direction, and VNET_GOES_ON << direction */
	__u8 nat;        /* VNET_CS_SNAT and VNET_CS_DNAT as the original direction has them */
};

struct vnet_ct_control {
	__u32 fresh; /* slots below this have been used at least once */
	__u32 hand;  /* the sweep's position */
	__u32 paths; /* path numbers below this have been used at least once */
	__u32 tick;  /* when was last swept hard */
};

/* A datagram that comes in fragments: what its first one said, and which bytes have come. */
struct vnet_frag {
	__u64 src[2];
	__u64 dst[2];
	__u64 l4;          /* word 7 of the first fragment; of ICMP with the identifier in the low bits */
	__u64 seen_ns;
	__u32 id;
	__u16 zone;
	__u8 proto;
	__u8 family;
	__u8 bad;          /* overlaps: nothing of it passes any more */
	__u8 first;        /* the first fragment has come */
	__u8 n_ranges;
	__u8 pad;
	__u16 from[8];     /* ranges of 8-byte units that have come */
	__u16 to[8];
	__u32 lock;
};

struct vnet_mac_key {
	__u64 mac;         /* address:48 vlan:16 */
};

struct vnet_mac {
	__u32 port;
	__u32 pad;
	__u64 seen_ns;
};

enum vnet_frame_kind {
	VNET_FRAME_TABLE = 1,   /* search `table` */
	VNET_FRAME_ACTIONS = 2, /* carry out records at…end-1, then search `table` */
	VNET_FRAME_SET = 3,     /* carry out the action set */
	VNET_FRAME_BUCKETS = 4, /* carry out bucket `at` of a group of type ALL, and the next ones */
	VNET_FRAME_RESTORE = 5, /* bring back the state of scope `at` */
	VNET_FRAME_PORT = 6,    /* bring back in_port `at` */
};

struct vnet_frame {
	__u32 at;
	__u32 end;
	__u32 rule;
	__u8 kind;
	__u8 table;
	__u8 nested;    /* by resubmit: a miss ends nothing else */
	__u8 pad;
};

/* What an action may change and a scope brings back. */
struct vnet_state {
	__u64 key[VNET_KEY_WORDS];
	__u64 set_slots;           /* bit per slot of the action set that is filled */
	__u32 set[VNET_SET];       /* the first record in each | how many << 24 */
	__u32 tpid;                /* of the outermost tag */
	__u32 logged;              /* changes of the header stack made so far */
	__u32 icmp_id;
	__u32 pad;
};

/* Where parsing stands: offset of the next header and how many bytes the packet has from there. */
struct vnet_cursor {
	__u32 offset;
	__u32 length;
	__u32 frag_id;
	__u32 frag_offset;
	__u16 ext;         /* VNET_EXT_* */
	__u8 proto;
	__u8 frag;
	__u8 rank;         /* of the extension header that should stand last so far */
	__u8 dest_seen;
	__u8 routing;      /* a routing header hides the final destination */
	__u8 pad;
};

/* Everything one packet needs while it is being decided; too large for the 512-byte stack. */
struct vnet_scratch {
	__u64 key[VNET_KEY_WORDS];
	__u64 packet[VNET_CACHE_WORDS]; /* the flow cache's key: what rules ask for of the packet as it came */
	struct vnet_path path;
	struct vnet_path_rules met;
	struct vnet_op ops[VNET_OPS];
	__u64 now_ns;
	/* These eight are cleared by one store. */
	__u8 observed;     /* the captured packet has been reported */
	__u8 inject;       /* a controller's packet: nothing is left to the caller */
	__u8 failure;      /* why the packet, or a copy of it, went no further */
	__u8 sent;         /* whether anything was sent */
	__u8 flushing;     /* operations are carried out before the walk has ended */
	__u8 from_cache;
	__u8 touched;      /* operations have changed the packet */
	__u8 spare;
	__u32 in_port;
	__u32 version;
	__u32 l3_offset;
	__u32 l4_offset;
	__u32 l4_length;
	__u32 nd_offset;   /* of the link-layer address option; 0 = none */
	__u32 mpls_offset; /* of the outermost label stack entry */
	__u32 icmp_id;
	__u32 frag_id;
	__u32 frag_offset; /* in bytes */
	__u32 ct_slot;
	__u32 ct_gen;
	__u32 ct_dir;
	__u32 vlan;        /* the packet's outermost tag: TPID << 16 | TCI; 0 = none */
	__u16 inner_type;  /* ethertype after the outermost tag */
	__u16 l3_type;     /* of the IP header that was read; the following are of the packet as it is now */
	__u8 l4_proto;
	__u8 later;        /* a later fragment: layer 4 is elsewhere */
	__u8 tcp_flags;
	__u8 tracked;      /* 1 = ct_* above belong to ct_zone in the key */
	__u8 cacheable;
	__u8 routing;      /* an IPv6 routing header hides the final destination */
	__u8 flush;        /* carry out the ops before going on; VNET_FLUSH_* */
	__u8 ttl_set;      /* the TTL was written, not only decremented */
	__u8 depth;
	__u8 scopes;
	__u8 decs;         /* how often the TTL was decremented */
	__u8 ct_translated; /* the translation of ct_zone has been applied */
	__u8 ct_nat_inner;  /* and the packet that an ICMP error quotes is to follow */
	__u8 packet_in_reason; /* OFPR_* of the event being sent */
	__u8 malformed;    /* what came to light under a tag cannot be read */
	__u8 pad;
	__u16 lacks;       /* VNET_TRAIT_* that the packet does not have, of the search that is going on */
	__u16 last_extension; /* size of the last IPv6 extension header, if there is one */
	__u32 ct_zone;
	__u32 base_icmp_id;
	__u32 base_tag;    /* the outermost tag once the pending operations are carried out */
	__u32 came_tag;    /* the outermost tag when the packet was read */
	__u64 ct_word;     /* word 13 as the tracker left it */
	__u64 moved[3];    /* mark and label, high and low half, that ct() is to write */
	__u32 lookups;
	__u32 kinds;       /* VNET_KIND_* */
	__u32 last_rule;
	__u32 last_path;   /* the path that was remembered last; outlives the packet */
	__u32 tpid;        /* of the outermost tag as it is to be */
	__u32 logged;
	__u32 path_id;     /* of the remembered path that is taken */
	__u32 router;      /* action behind the one of a router that counted the TTL down; 0 = none */
	__u32 too_small;   /* MTU of the port that the packet was too large for */
	__u64 base[VNET_KEY_WORDS]; /* what the packet's bytes say by now */
	__u64 set_slots;
	__u32 set[VNET_SET];
	struct vnet_frame stack[VNET_STACK];
	struct vnet_op log[VNET_STACK]; /* how to take back changes of the header stack */
	struct vnet_state scope[VNET_SCOPES];
	struct vnet_rule_key rule_key;
	struct vnet_cursor cursor;
	struct vnet_ct_key ct_key;
	struct vnet_ct_key ct_reverse;
	struct vnet_action action; /* the one being carried out */
	struct vnet_action refusal; /* what a router says of the packet, if path.reject is VNET_REJECT_ROUTED */
	__u8 asked[40];            /* the IP header of the packet that is rejected */
	__u8 answer[128];          /* IP header and what follows it */
};

#define VNET_FLUSH_OPS 1   /* carry out what is pending */
#define VNET_FLUSH_PARSE 2 /* and read the packet anew */

enum vnet_point {
	VNET_POINT_GUEST = 1,     /* as the guest sent it, with the verdict */
	VNET_POINT_DELIVERED = 2, /* as it leaves towards a port */
	VNET_POINT_DROP = 3,      /* a drop on a port nobody captures: headers only, rate limited */
	VNET_POINT_CONTROLLER = 4, /* packet-in */
};

/* One instruction of classic BPF, `struct sock_filter` (linux/filter.h). */
struct vnet_filter_insn {
	__u16 code;
	__u8 jt;
	__u8 jf;
	__u32 k;
};

/* Somebody who wants packets of some ports: a capture, or a mirror. Not changed while a port names it. */
struct vnet_tap {
	__u32 points;    /* bit per enum vnet_point: GUEST, DELIVERED */
	__u32 n_insns;   /* of its filter, in tap_code from its number * VNET_FILTER_INSNS on; 0 = takes everything */
	__u32 snaplen;   /* bytes of each packet */
	__u32 to_port;   /* copies go there, and no event is made; 0 = events */
	__u8 dropped;    /* takes only what is lost */
	__u8 from_table; /* and of that only what came as far as this table */
	__u8 pad[2];
};

/* What became of the packets that it was asked about; one element for each CPU. */
struct vnet_tap_counter {
	__u64 seen;
	__u64 matched;
	__u64 lost; /* of those that matched: no room for an event, or the copy could not be sent */
};

struct vnet_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cookie;
	__u64 metadata;
	__u64 tunnel;
	__u32 port;    /* GUEST, DROP, CONTROLLER: ingress; DELIVERED: egress */
	__u32 in_port;
	__u32 rule;
	__u32 version;
	__u32 ct_state;
	__u32 ct_mark;
	__u32 length;  /* of the packet on the wire, without the tag below */
	__u32 captured;
	__u16 vlan_tci; /* of a tag not contained in data, if its TPID is not 0 */
	__u16 vlan_tpid;
	__u8 point;
	__u8 reason;
	__u8 table;
	__u8 verdict;  /* 0 pass, 1 drop; CONTROLLER: OFPR_* */
	__u32 n_rules;
	__u16 ct_zone;
	__u16 gso_size; /* bytes of payload that each segment is to have; 0 = it is sent as it is */
	__u32 rules[VNET_PATH_RULES]; /* those that matched, in order */
	__u32 taps;     /* GUEST, DELIVERED: bit per tap that wants it */
	__u32 gso_segs; /* how many segments it is to be cut into, as far as the kernel knows */
	__u64 ct_label[2]; /* high and low half */
	__u64 registers[8];
	__u8 data[];
};

/* The OpenFlow form of each flow, group and meter, so that a restarted agent learns them from the kernel. */
#define VNET_TEXT_CHUNK 240
struct vnet_text_key {
	__u32 rule;
	__u32 chunk;
};

struct vnet_text {
	__u32 since; /* version that shows the flow */
	__u32 until; /* version that hides it, 0 = none */
	__u32 length; /* bytes of the whole text */
	__u32 pad;
	__u8 bytes[VNET_TEXT_CHUNK];
};

_Static_assert(sizeof(struct vnet_mask) == 120, "mask");
_Static_assert(sizeof(struct vnet_rule_key) == 104, "rule key");
_Static_assert(sizeof(struct vnet_rule) == 24, "rule");
_Static_assert(sizeof(struct vnet_line) == 40, "line");
_Static_assert(sizeof(struct vnet_action) == 24, "action");
_Static_assert(sizeof(struct vnet_op) == 16, "op");
_Static_assert(sizeof(struct vnet_path) == 16, "path");
_Static_assert(sizeof(struct vnet_cached) == 64 + 8 + 16 + 128, "cached");
_Static_assert(sizeof(struct vnet_ct_key) == 40, "ct key");
_Static_assert(sizeof(struct vnet_text) == 256, "text");

#endif
