/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Every map: who writes it, who reads it. "agent" is vnet/switch/live/datapath.py. All are pinned. */
#ifndef VNET_MAPS_H
#define VNET_MAPS_H

#include "abi.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* The bucket of tokens of each band of a meter; here for its lock, which has no form in Python. */
struct vnet_meter_state {
	struct bpf_spin_lock lock;
	__u32 started;
	__u64 last_ns;
	__s64 tokens[VNET_BANDS]; /* below 0: what is still to be paid */
};

/* The machine that runs filters (filter.h), and what it has found out about a packet. */
struct vnet_filtering {
	__u32 left;    /* taps still to be asked, as bits from `tap` on */
	__u32 tap;
	__u32 matched; /* taps that want an event, as bits */
	__u32 snaplen; /* the most that one of them wants */
	__u32 pc;
	__u32 a;
	__u32 x;
	__u32 memory[16];
	__u32 length;  /* of the frame with its tag */
	__u32 tagged;  /* the tag is kept beside the frame */
	__u32 point;
	__u32 reason;
	__u32 table;
	__u8 head[20]; /* of a frame with such a tag */
};

#define VNET_MAP(name, map_type, entries, key_type, value_type, flags_)                          \
	struct {                                                                                    \
		__uint(type, map_type);                                                             \
		__uint(max_entries, entries);                                                       \
		__uint(map_flags, flags_);                                                       \
		__type(key, key_type);                                                              \
		__type(value, value_type);                                                          \
	} name SEC(".maps")

/* Written by the agent through mmap, read by every packet. */
VNET_MAP(control, BPF_MAP_TYPE_ARRAY, 1, __u32, struct vnet_control, BPF_F_MMAPABLE);
VNET_MAP(entries, BPF_MAP_TYPE_ARRAY, VNET_RULES, __u32, struct vnet_entry, BPF_F_MMAPABLE);
VNET_MAP(group_entries, BPF_MAP_TYPE_ARRAY, VNET_GROUPS, __u32, struct vnet_entry, BPF_F_MMAPABLE);
VNET_MAP(meter_entries, BPF_MAP_TYPE_ARRAY, VNET_METERS, __u32, struct vnet_entry, BPF_F_MMAPABLE);

/* Written by the agent before the commit that needs them, read by the table walk. */
VNET_MAP(tables, BPF_MAP_TYPE_ARRAY, 2 * VNET_TABLES, __u32, struct vnet_table, 0);
VNET_MAP(masks, BPF_MAP_TYPE_ARRAY, VNET_MASKS, __u32, struct vnet_mask, 0);
VNET_MAP(rule_index, BPF_MAP_TYPE_HASH, VNET_RULES, struct vnet_rule_key, __u32, BPF_F_NO_PREALLOC);
VNET_MAP(small_index, BPF_MAP_TYPE_HASH, VNET_RULES, struct vnet_small_key, __u32, BPF_F_NO_PREALLOC);
VNET_MAP(rules, BPF_MAP_TYPE_ARRAY, VNET_RULES, __u32, struct vnet_rule, 0);
VNET_MAP(actions, BPF_MAP_TYPE_ARRAY, VNET_ACTIONS, __u32, struct vnet_action, 0);
VNET_MAP(groups, BPF_MAP_TYPE_ARRAY, 2 * VNET_GROUPS, __u32, struct vnet_group, 0);
VNET_MAP(buckets, BPF_MAP_TYPE_ARRAY, VNET_RULES, __u32, struct vnet_bucket, 0);
VNET_MAP(meters, BPF_MAP_TYPE_ARRAY, 2 * VNET_METERS, __u32, struct vnet_meter, 0);
/* Lists of ports: length, then ports. The first two are all ports of the switch, by version & 1. */
VNET_MAP(outputs, BPF_MAP_TYPE_ARRAY, VNET_OUTPUTS, __u32, __u32, 0);
VNET_MAP(ports, BPF_MAP_TYPE_ARRAY, VNET_PORTS, __u32, struct vnet_port, 0);
VNET_MAP(lines, BPF_MAP_TYPE_ARRAY, VNET_PORTS, __u32, struct vnet_line, 0);
/* Of a port with a line both ends are in it: its own interface, and that by which the line ends. */
VNET_MAP(port_by_ifindex, BPF_MAP_TYPE_HASH, VNET_PORTS, __u32, __u32, 0);
/* The same for interfaces with a low index, which are most: by array. 0 = no port. */
VNET_MAP(port_of, BPF_MAP_TYPE_ARRAY, VNET_LOW_IFINDEX, __u32, __u32, 0);

/* Written by the agent, read where packets are captured: the taps, their filters, bits of taps by port. */
VNET_MAP(taps, BPF_MAP_TYPE_ARRAY, VNET_TAPS, __u32, struct vnet_tap, 0);
VNET_MAP(tap_code, BPF_MAP_TYPE_ARRAY, VNET_TAPS * VNET_FILTER_INSNS, __u32, struct vnet_filter_insn, 0);
VNET_MAP(port_taps, BPF_MAP_TYPE_ARRAY, VNET_PORTS, __u32, __u32, 0);

/* Written and read by the agent only: the OpenFlow text of flows, groups and meters, kept for adoption. */
VNET_MAP(rule_text, BPF_MAP_TYPE_HASH, 8 * VNET_RULES, struct vnet_text_key, struct vnet_text,
	 BPF_F_NO_PREALLOC);

/* Written and read by the agent only: what rules counted in paths that are gone. */
VNET_MAP(rule_folded, BPF_MAP_TYPE_ARRAY, VNET_RULES, __u32, struct vnet_counter, 0);

/* Written by the dataplane, read by the agent. */
VNET_MAP(rule_counters, BPF_MAP_TYPE_PERCPU_ARRAY, VNET_RULES, __u32, struct vnet_counter, 0);
VNET_MAP(path_counters, BPF_MAP_TYPE_PERCPU_ARRAY, VNET_PATHS, __u32, struct vnet_counter, 0);
VNET_MAP(meter_counters, BPF_MAP_TYPE_PERCPU_ARRAY, 2 * VNET_METERS * (VNET_BANDS + 1), __u32,
	 struct vnet_counter, 0);
VNET_MAP(table_misses, BPF_MAP_TYPE_PERCPU_ARRAY, VNET_TABLES, __u32, __u64, 0);
VNET_MAP(port_counters, BPF_MAP_TYPE_PERCPU_ARRAY, VNET_PORTS, __u32, struct vnet_port_counter, 0);
VNET_MAP(drop_counters, BPF_MAP_TYPE_PERCPU_ARRAY, VNET_DROP_MAX, __u32, __u64, 0);
VNET_MAP(tap_counters, BPF_MAP_TYPE_PERCPU_ARRAY, VNET_TAPS, __u32, struct vnet_tap_counter, 0);
VNET_MAP(lost_events, BPF_MAP_TYPE_PERCPU_ARRAY, 8, __u32, __u64, 0);

/* Written by the dataplane; the agent reads them, and removes what is out of use. */
VNET_MAP(path_index, BPF_MAP_TYPE_HASH, VNET_PATHS, struct vnet_path_rules, __u32, BPF_F_NO_PREALLOC);
VNET_MAP(path_rules, BPF_MAP_TYPE_ARRAY, VNET_PATHS, __u32, struct vnet_path_rules, 0);
VNET_MAP(macs, BPF_MAP_TYPE_HASH, VNET_MACS, struct vnet_mac_key, struct vnet_mac, BPF_F_NO_PREALLOC);
VNET_MAP(conns, BPF_MAP_TYPE_ARRAY, VNET_CONNS, __u32, struct vnet_conn, BPF_F_MMAPABLE);
VNET_MAP(conn_index, BPF_MAP_TYPE_HASH, 2 * VNET_CONNS, struct vnet_ct_key, struct vnet_ct_ref, 0);
VNET_MAP(port_state, BPF_MAP_TYPE_ARRAY, VNET_PORTS, __u32, struct vnet_port_state, 0);

/* Dataplane only. */
VNET_MAP(cache, BPF_MAP_TYPE_PERCPU_ARRAY, VNET_CACHE, __u32, struct vnet_cached, 0);
VNET_MAP(meter_state, BPF_MAP_TYPE_ARRAY, 2 * VNET_METERS, __u32, struct vnet_meter_state, 0);
VNET_MAP(frags, BPF_MAP_TYPE_ARRAY, VNET_PORTS * VNET_FRAGS, __u32, struct vnet_frag, 0);
VNET_MAP(ct_control, BPF_MAP_TYPE_ARRAY, 1, __u32, struct vnet_ct_control, 0);
VNET_MAP(filtering, BPF_MAP_TYPE_PERCPU_ARRAY, 1, __u32, struct vnet_filtering, 0);

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, VNET_CONNS);
	__type(value, __u32);
} free_conns SEC(".maps");

/* Numbers of paths that the agent has cleared away. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, VNET_PATHS);
	__type(value, __u32);
} free_paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

VNET_MAP(scratch, BPF_MAP_TYPE_PERCPU_ARRAY, 1, __u32, struct vnet_scratch, 0);

#define VNET_WINDOW_SHIFT 27 /* 134 ms: the unit of time of rate limits */

static __always_inline struct vnet_scratch *vnet_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

static __always_inline struct vnet_control *vnet_control(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

/* n modulo a power of two, in a way that the compiler does not optimise out of the verifier's sight. */
static __always_inline __u32 vnet_index(__u32 n, __u32 size)
{
	asm volatile("" : "+r"(n));
	return n & (size - 1);
}

/* How long the frame is, with the tag that the kernel may keep beside it. */
static __always_inline __u32 vnet_frame_bytes(struct __sk_buff *skb)
{
	return skb->len + (skb->vlan_present ? 4 : 0);
}

/* Why nothing came of something. The first cause is the one that is told, but for an output to where the
 * packet came from, which may not matter, and of a list of ports is found out last.
 */
static __always_inline void vnet_note_failure(struct vnet_scratch *s, __u8 reason)
{
	if (!s->failure || (s->failure == VNET_DROP_SAME_PORT && reason))
		s->failure = reason;
}

/* A share is what a port may use of something in each window of time: window << 16 | how much it has used.
 * CPUs that use the same one at once may count one use for two: shares bound, they do not measure.
 */
static __always_inline int vnet_share_left(__u64 share, __u64 now, __u32 most)
{
	return share >> 16 != now >> VNET_WINDOW_SHIFT || (share & 0xffff) < most;
}

static __always_inline void vnet_share_use(__u64 *share, __u64 now)
{
	__u64 window = now >> VNET_WINDOW_SHIFT;

	*share = (*share >> 16 == window ? *share : window << 16) + 1;
}

static __always_inline void vnet_count(void *map, __u32 index)
{
	__u64 *counter = bpf_map_lookup_elem(map, &index);

	if (counter)
		*counter += 1;
}

#endif
