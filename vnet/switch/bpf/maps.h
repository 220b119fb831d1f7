/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Every map: who writes it, who reads it. "agent" is vnet/switch/live/datapath.py. All are pinned. */
#ifndef VNET_MAPS_H
#define VNET_MAPS_H

#include "abi.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

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

/* Written by the agent before the commit that needs them, read by the table walk. */
VNET_MAP(tables, BPF_MAP_TYPE_ARRAY, 2 * VNET_TABLES, __u32, struct vnet_table, 0);
VNET_MAP(masks, BPF_MAP_TYPE_ARRAY, VNET_MASKS, __u32, struct vnet_mask, 0);
VNET_MAP(rule_index, BPF_MAP_TYPE_HASH, VNET_RULES, struct vnet_rule_key, __u32, BPF_F_NO_PREALLOC);
VNET_MAP(rules, BPF_MAP_TYPE_ARRAY, VNET_RULES, __u32, struct vnet_rule, 0);
VNET_MAP(actions, BPF_MAP_TYPE_ARRAY, VNET_ACTIONS, __u32, struct vnet_action, 0);
VNET_MAP(outputs, BPF_MAP_TYPE_ARRAY, VNET_OUTPUTS, __u32, __u32, 0);
VNET_MAP(ports, BPF_MAP_TYPE_ARRAY, VNET_PORTS, __u32, struct vnet_port, 0);
VNET_MAP(port_by_ifindex, BPF_MAP_TYPE_HASH, VNET_PORTS, __u32, __u32, 0);

/* Written and read by the agent only: the OpenFlow text of the rules, kept for adoption. */
VNET_MAP(rule_text, BPF_MAP_TYPE_HASH, 8 * VNET_RULES, struct vnet_text_key, struct vnet_text,
	 BPF_F_NO_PREALLOC);

/* Written by the dataplane, read by the agent. */
VNET_MAP(rule_counters, BPF_MAP_TYPE_PERCPU_ARRAY, VNET_RULES, __u32, struct vnet_counter, 0);
VNET_MAP(table_misses, BPF_MAP_TYPE_PERCPU_ARRAY, VNET_TABLES, __u32, __u64, 0);
VNET_MAP(port_counters, BPF_MAP_TYPE_PERCPU_ARRAY, VNET_PORTS, __u32, struct vnet_port_counter, 0);
VNET_MAP(drop_counters, BPF_MAP_TYPE_PERCPU_ARRAY, VNET_DROP_MAX, __u32, __u64, 0);
VNET_MAP(lost_events, BPF_MAP_TYPE_PERCPU_ARRAY, 8, __u32, __u64, 0);

/* Dataplane only. */
VNET_MAP(cache, BPF_MAP_TYPE_LRU_HASH, VNET_CACHE, struct vnet_cache_key, struct vnet_path, 0);
VNET_MAP(port_state, BPF_MAP_TYPE_ARRAY, VNET_PORTS, __u32, struct vnet_port_state, 0);
VNET_MAP(conns, BPF_MAP_TYPE_ARRAY, VNET_CONNS, __u32, struct vnet_conn, 0);
VNET_MAP(conn_index, BPF_MAP_TYPE_HASH, 2 * VNET_CONNS, struct vnet_ct_key, struct vnet_ct_ref, 0);
VNET_MAP(ct_control, BPF_MAP_TYPE_ARRAY, 1, __u32, struct vnet_ct_control, 0);

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, VNET_CONNS);
	__type(value, __u32);
} free_conns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

VNET_MAP(scratch, BPF_MAP_TYPE_PERCPU_ARRAY, 1, __u32, struct vnet_scratch, 0);

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

static __always_inline void vnet_count(void *map, __u32 index)
{
	__u64 *counter = bpf_map_lookup_elem(map, &index);

	if (counter)
		*counter += 1;
}

#endif
