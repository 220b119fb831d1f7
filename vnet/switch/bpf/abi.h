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
#define VNET_TABLES 32
#define VNET_MASKS 1024        /* masks of all tables together */
#define VNET_TABLE_MASKS 64    /* masks one table may search: the announced budget */
#define VNET_MASK_WORDS 12     /* words one match may constrain */
#define VNET_RULES 131072
#define VNET_ACTIONS 262144
#define VNET_RULE_ACTIONS 32   /* actions one flow may hold, a list of outputs counting as one */
#define VNET_OUTPUTS 65536     /* ports in output lists, plus one per list for its length */
#define VNET_PORTS 4096        /* highest port number + 1 */
#define VNET_CACHE 65536
#define VNET_CONNS 65536
#define VNET_STEPS 32          /* table lookups per packet */
#define VNET_PATH_RULES 16
#define VNET_PATH_OPS 8
#define VNET_KEY_WORDS 32
#define VNET_CACHE_WORDS 8

/* The parsed packet and its metadata as words; fields.py knows each OpenFlow field's word and shift.
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
 *   ---   words 0-7 are the flow cache's key; ARP and ND, which need 8-11, are never cached
 *   12    metadata
 *   13    ct_mark:32 ct_state:32
 *   14    0:48 ct_zone:16
 *   15-18 reg1:32 reg0:32, reg3 reg2, reg5 reg4, reg7 reg6
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
};

#define VNET_VLAN_PRESENT 0x1000
#define VNET_HAS_L4 1 /* ports, or ICMP type and code */

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
	VNET_DROP_MAX = 128,
};

/* Actions of a rule. a, b, value, mask as the comments say. */
enum vnet_action_op {
	VNET_OP_OUTPUT = 1,       /* b = port */
	VNET_OP_OUTPUTS = 2,      /* b = index into outputs: length, then ports; the ingress port is left out */
	VNET_OP_OUTPUT_FIELD = 3, /* a = word, b = shift, mask = the field's bits after shifting */
	VNET_OP_IN_PORT = 4,      /* back out of the ingress port */
	VNET_OP_CONTROLLER = 5,   /* b = bytes to send */
	VNET_OP_SET = 6,          /* a = word, value and mask in place */
	VNET_OP_MOVE = 7,         /* a = from word | to word << 8, b = from shift | to shift << 8 | bits << 16 */
	VNET_OP_PUSH_VLAN = 8,    /* a = ethertype */
	VNET_OP_POP_VLAN = 9,
	VNET_OP_CT = 10,          /* a = flags, b = zone | table << 16, value and mask = mark */
};

#define VNET_CT_COMMIT 1
#define VNET_CT_RECIRC 2 /* resume at the table in b */
#define VNET_CT_FORCE 4

/* ct_state bits, as in ovs-fields(7). */
#define VNET_CS_NEW 0x01
#define VNET_CS_EST 0x02
#define VNET_CS_REL 0x04
#define VNET_CS_RPL 0x08
#define VNET_CS_INV 0x10
#define VNET_CS_TRK 0x20

#define VNET_NO_TABLE 0xff
#define VNET_NO_SLOT 0xffffffff

/* The one cell that decides which rules are in force. Written by the agent through its mapping. */
struct vnet_control {
	__u32 version;     /* a packet reads it once, before its first lookup */
	__u32 layout;      /* of the maps, vnet/switch/layout.py: another one cannot be adopted */
	__u32 snaplen;     /* bytes of each captured packet */
	__u32 capturing;   /* number of captured ports; 0 = observation costs nothing */
	__u8 digest[32];   /* of the object file the programs came from */
	__u64 datapath_id;
};

struct vnet_mask {
	__u32 n_words;
	__u32 table;
	__u8 word[16];
	__u64 mask[VNET_MASK_WORDS];
};

struct vnet_table_mask {
	__u32 mask_id;
	__u32 max_priority; /* of the rules under it: the search ends at the first mask below a hit */
};

/* A table in one of two banks (version & 1). */
struct vnet_table {
	__u32 n_masks;
	__u32 pad;
	struct vnet_table_mask masks[VNET_TABLE_MASKS];
};

struct vnet_rule_key {
	__u32 mask_id;
	__u32 pad;
	__u64 words[VNET_MASK_WORDS];
};

/* Which rule a key stands for, in two versions: the highest version <= the packet's is in force. */
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
	__u8 pad[5];
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

#define VNET_PORT_UP 1
#define VNET_PORT_CAPTURE 2

struct vnet_port {
	__u32 ifindex;
	__u32 flags;
	__u32 conn_quota;
	__u32 pad;
};

struct vnet_port_counter {
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 rx_dropped;
	__u64 tx_packets;
	__u64 tx_bytes;
};

/* Shared by all CPUs; written by the dataplane only. */
struct vnet_port_state {
	__u64 conns;
	__u64 window;   /* of the event rate limit, units of 2^27 ns */
	__u64 events;   /* in this window */
};

enum vnet_path_op {
	VNET_PATH_OUTPUT = 1,     /* port */
	VNET_PATH_OUTPUTS = 2,    /* list */
	VNET_PATH_CONTROLLER = 3, /* bytes */
};

struct vnet_op {
	__u8 kind;
	__u8 pad;
	__u16 vlan_tci; /* the tag the packet leaves with; 0 = none */
	__u32 arg;
};

struct vnet_cache_key {
	__u64 words[VNET_CACHE_WORDS];
};

/* What became of a packet; also the flow cache's value. */
struct vnet_path {
	__u32 version;
	__u32 ct_slot;  /* VNET_NO_SLOT if the path did not depend on a connection */
	__u32 ct_gen;
	__u8 ct_state;  /* the cached path holds only while the connection gives this state */
	__u8 ct_dir;
	__u8 reason;
	__u8 table;     /* the last one searched */
	__u32 n_rules;
	__u32 n_ops;
	__u32 rules[VNET_PATH_RULES];
	struct vnet_op ops[VNET_PATH_OPS];
	__u64 seal;     /* in the cache: binds the path to its key (cache.h) */
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

struct vnet_conn {
	struct vnet_ct_key key; /* of the original direction */
	__u64 created_ns;
	__u64 last_seen_ns;
	__u64 packets[2];
	__u64 bytes[2];
	__u32 gen;       /* odd while in use; goes up when the slot is taken, freed or its mark changes */
	__u32 mark;
	__u32 port;      /* whose quota it counts against */
	__u8 tcp_state;
	__u8 seen_reply;
	__u8 fin_seen;   /* bit per direction */
	__u8 pad;
};

struct vnet_ct_control {
	__u32 fresh; /* slots below this have been used at least once */
	__u32 hand;  /* the sweep's position */
};

/* Everything one packet needs while it is being decided; too large for the 512-byte stack. */
struct vnet_scratch {
	__u64 key[VNET_KEY_WORDS];
	__u64 packet[VNET_CACHE_WORDS]; /* the key's first words as parsed: the flow cache's key */
	struct vnet_rule_key rule_key;
	struct vnet_path path;
	struct vnet_conn conn;
	struct vnet_ct_key ct_key;
	struct vnet_ct_key ct_reverse;
	__u64 now_ns;
	__u32 in_port;
	__u32 version;
	__u32 l4_offset;
	__u32 l4_length;
	__u32 icmp_id;
	__u32 ct_slot;
	__u32 ct_gen;
	__u32 ct_dir;
	__u16 vlan_tci;  /* as the packet came in */
	__u16 vlan_tpid;
	__u16 inner_type; /* ethertype after the outer tag: another tag cannot be popped to */
	__u8 tcp_flags;
	__u8 next_table;
	__u8 tracked;    /* 1 = ct_* above belong to ct_zone in the key */
	__u8 cacheable;
	__u8 same_port;  /* an output to the ingress port was left out */
	__u8 pad[2];
};

enum vnet_point {
	VNET_POINT_GUEST = 1,     /* as the guest sent it, with the verdict */
	VNET_POINT_DELIVERED = 2, /* as it leaves towards a port */
	VNET_POINT_DROP = 3,      /* a drop on a port nobody captures: headers only, rate limited */
	VNET_POINT_CONTROLLER = 4, /* packet-in */
};

struct vnet_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cookie;
	__u64 metadata;
	__u32 port;    /* GUEST, DROP, CONTROLLER: ingress; DELIVERED: egress */
	__u32 in_port;
	__u32 rule;
	__u32 version;
	__u32 ct_state;
	__u32 length;  /* of the packet on the wire, without the tag below */
	__u32 captured;
	__u16 vlan_tci; /* tag not contained in data; 0 = none */
	__u16 vlan_tpid;
	__u8 point;
	__u8 reason;
	__u8 table;
	__u8 verdict;  /* 0 pass, 1 drop; CONTROLLER: 0 the table-miss flow, 1 another */
	__u32 n_rules;
	__u32 rules[VNET_PATH_RULES]; /* those that matched, in order */
	__u8 data[];
};

/* The OpenFlow form of each rule, so that a restarted agent learns its flows from the kernel. */
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

_Static_assert(sizeof(struct vnet_control) == 56, "control");
_Static_assert(sizeof(struct vnet_mask) == 120, "mask");
_Static_assert(sizeof(struct vnet_rule_key) == 104, "rule key");
_Static_assert(sizeof(struct vnet_rule) == 24, "rule");
_Static_assert(sizeof(struct vnet_action) == 24, "action");
_Static_assert(sizeof(struct vnet_path) == 160, "path");
_Static_assert(sizeof(struct vnet_ct_key) == 40, "ct key");
_Static_assert(sizeof(struct vnet_conn) == 104, "conn");
_Static_assert(sizeof(struct vnet_scratch) == 824, "scratch");
_Static_assert(sizeof(struct vnet_event) == 128, "event");
_Static_assert(sizeof(struct vnet_text) == 256, "text");

#endif
