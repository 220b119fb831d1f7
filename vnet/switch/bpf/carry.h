/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Adding to what packets count: by the dataplane, because a program that is run on a CPU is interrupted by no
 * packet there, while what the agent reads and writes back would take packets' counts away.
 */
#ifndef VNET_CARRY_H
#define VNET_CARRY_H

#include "maps.h"

/* What is to be added, behind 16 bytes of frame; vnet/switch/live/carry.py makes it. */
struct vnet_carry {
	__u32 what; /* VNET_CARRY_* */
	__u32 index;
	__u64 value[6];
};

#define VNET_CARRY_AT 16
#define VNET_CARRY_PORT 1
#define VNET_CARRY_DROP 2
#define VNET_CARRY_MISS 3
#define VNET_CARRY_METER 4
#define VNET_CARRY_LOST 5
#define VNET_CARRY_OWNED 6 /* connections and addresses of a port; like the following shared by all CPUs */
#define VNET_CARRY_CONN 7  /* packets and bytes of a connection, by direction */

static __always_inline void vnet_carry_to(void *map, const struct vnet_carry *carry, int values)
{
	__u64 *counter = bpf_map_lookup_elem(map, &carry->index);
	int i;

	for (i = 0; counter && i < values; i++)
		counter[i] += carry->value[i];
}

static __always_inline void vnet_carry_owned(const struct vnet_carry *carry)
{
	struct vnet_port_state *state = bpf_map_lookup_elem(&port_state, &carry->index);

	if (!state)
		return;
	__sync_fetch_and_add(&state->conns, carry->value[0]);
	__sync_fetch_and_add(&state->macs, carry->value[1]);
}

static __always_inline void vnet_carry_conn(const struct vnet_carry *carry)
{
	struct vnet_conn *conn = bpf_map_lookup_elem(&conns, &carry->index);

	if (!conn)
		return;
	__sync_fetch_and_add(&conn->packets[0], carry->value[0]);
	__sync_fetch_and_add(&conn->packets[1], carry->value[1]);
	__sync_fetch_and_add(&conn->bytes[0], carry->value[2]);
	__sync_fetch_and_add(&conn->bytes[1], carry->value[3]);
}

static __always_inline void vnet_carry_add(const struct vnet_carry *carry)
{
	switch (carry->what) {
	case VNET_CARRY_PORT:
		vnet_carry_to(&port_counters, carry, 6);
		break;
	case VNET_CARRY_DROP:
		vnet_carry_to(&drop_counters, carry, 1);
		break;
	case VNET_CARRY_MISS:
		vnet_carry_to(&table_misses, carry, 1);
		break;
	case VNET_CARRY_METER:
		vnet_carry_to(&meter_counters, carry, 2);
		break;
	case VNET_CARRY_LOST:
		vnet_carry_to(&lost_events, carry, 1);
		break;
	case VNET_CARRY_OWNED:
		vnet_carry_owned(carry);
		break;
	case VNET_CARRY_CONN:
		vnet_carry_conn(carry);
		break;
	}
}

#endif
