/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Storm control: how many packets for many, or for nobody, a port may send in a second. What kind a packet is
 * its destination's MAC says, before anything else of it is read.
 *
 * Of each kind one number: until when what the port has sent is paid for (the virtual scheduling algorithm of
 * ITU-T I.371, annex A). A packet moves it by the limit's part of a second, and must wait if that is more than a
 * second ahead: so at most a second's packets come at once.
 */
#ifndef VNET_STORM_H
#define VNET_STORM_H

#include "maps.h"

#define VNET_STORM_NS 1000000000ULL
#define VNET_STORM_TRIES 4 /* other CPUs may take at the same time; who is beaten so often is in a storm */

/* Kinds of packets that make a storm. */
#define VNET_STORM_GROUP 0 /* for all, or for many */
#define VNET_STORM_UNKNOWN 1

/* Is the packet for a group, or for all? What cannot be told counts as that. */
static __always_inline int vnet_is_for_many(struct __sk_buff *skb)
{
	__u8 *data = (void *)(long)skb->data;

	return (void *)(data + 1) > (void *)(long)skb->data_end || *data & 1;
}

/* One more of which `limit` a second are allowed. Returns whether that is too many. */
static __always_inline int vnet_storm_pay(struct __sk_buff *skb, __u64 *paid, __u32 limit)
{
	__u64 now = bpf_ktime_get_coarse_ns(), cost = VNET_STORM_NS / limit, was, then;
	int i;

	if (skb->gso_size) /* it is as many packets as it is going to be cut into */
		cost *= skb->len / skb->gso_size + 1;
#pragma unroll
	for (i = 0; i < VNET_STORM_TRIES; i++) {
		was = *(volatile __u64 *)paid;
		then = (was > now ? was : now) + cost;
		if (then > now + VNET_STORM_NS)
			return 1;
		if (__sync_val_compare_and_swap(paid, was, then) == was)
			return 0;
	}
	return 1;
}

/* Is a packet of this kind (VNET_STORM_*) one too many of the port that it came in by? */
__noinline int vnet_storm(struct __sk_buff *skb, __u32 kind)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_port_state *state;
	struct vnet_port *port;
	__u8 to[6] = { 0 };
	__u32 number, limit;
	__u64 *paid;

	if (!s || s->inject)
		return 0;
	number = s->in_port;
	port = bpf_map_lookup_elem(&ports, &number);
	state = bpf_map_lookup_elem(&port_state, &number);
	if (!port || !state)
		return 0;
	bpf_skb_load_bytes(skb, 0, to, sizeof(to));
	if (kind == VNET_STORM_UNKNOWN) {
		paid = &state->unknowns;
		limit = port->unknown_unicast_pps;
	} else if ((to[0] & to[1] & to[2] & to[3] & to[4] & to[5]) == 0xff) {
		paid = &state->broadcasts;
		limit = port->broadcast_pps;
	} else {
		paid = &state->multicasts;
		limit = port->multicast_pps;
	}
	return limit && vnet_storm_pay(skb, paid, limit);
}

#endif
