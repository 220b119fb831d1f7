/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Carry out a path: set the tag each output wants and hand the packet on. The last unicast output
 * is a redirect; all others are clones.
 */
#ifndef VNET_EXECUTE_H
#define VNET_EXECUTE_H

#include "observe.h"

#include <linux/pkt_cls.h>

/* Make the packet's outermost tag `wanted` (0 = none). Returns 0 or a negative errno. */
static __always_inline int vnet_retag(struct __sk_buff *skb, struct vnet_scratch *s, __u16 wanted)
{
	int error;

	if (s->vlan_tci == wanted)
		return 0;
	if (s->vlan_tci) {
		error = bpf_skb_vlan_pop(skb);
		if (error)
			return error;
	}
	s->vlan_tci = 0;
	if (wanted) {
		error = bpf_skb_vlan_push(skb, bpf_htons(VNET_ETH_P_8021Q), wanted & ~VNET_VLAN_PRESENT);
		if (error)
			return error;
		s->vlan_tpid = VNET_ETH_P_8021Q;
	}
	s->vlan_tci = wanted;
	return 0;
}

/* Count and observe a packet about to leave by a port; returns its ifindex, 0 if it cannot. */
static __always_inline __u32 vnet_leave(struct __sk_buff *skb, __u32 number)
{
	struct vnet_port *port = bpf_map_lookup_elem(&ports, &number);
	struct vnet_port_counter *counter;
	struct vnet_control *control;

	if (!port || !port->ifindex || !(port->flags & VNET_PORT_UP))
		return 0;
	counter = bpf_map_lookup_elem(&port_counters, &number);
	if (counter) {
		counter->tx_packets++;
		counter->tx_bytes += skb->len;
	}
	if (port->flags & VNET_PORT_CAPTURE) {
		control = vnet_control();
		vnet_emit(skb, VNET_POINT_DELIVERED, number, control ? control->snaplen : 128);
	}
	return port->ifindex;
}

struct vnet_flood_state {
	struct __sk_buff *skb;
	__u32 list;
	__u32 in_port;
	__u32 sent;
	__u32 skipped;
};

static long vnet_flood_one(__u32 index, struct vnet_flood_state *state)
{
	__u32 at = state->list + 1 + index, ifindex, *number = bpf_map_lookup_elem(&outputs, &at);

	if (!number || *number == state->in_port) {
		state->skipped = 1;
		return 0;
	}
	ifindex = vnet_leave(state->skb, *number);
	if (ifindex && !bpf_clone_redirect(state->skb, ifindex, 0))
		state->sent++;
	return 0;
}

/* A copy to every port of a list but the one the packet came in by. Returns how many. */
__noinline __u32 vnet_flood(struct __sk_buff *skb, __u32 list, __u32 in_port)
{
	struct vnet_flood_state state = { .skb = skb, .list = list, .in_port = in_port };
	__u32 *length = bpf_map_lookup_elem(&outputs, &list);
	struct vnet_scratch *s = vnet_scratch();

	if (length)
		bpf_loop(*length, vnet_flood_one, &state, 0);
	if (s && state.skipped)
		s->same_port = 1;
	return state.sent;
}

/* Execute the scratch's path. Returns the tc verdict; sets path.reason if nothing could be sent. */
static __always_inline int vnet_execute(struct __sk_buff *skb, struct vnet_scratch *s)
{
	__u32 i, n = s->path.n_ops, sent = 0;

	for (i = 0; i < VNET_PATH_OPS; i++) {
		struct vnet_op *op = &s->path.ops[i];
		__u32 ifindex;

		if (i >= n)
			break;
		if (vnet_retag(skb, s, op->vlan_tci)) {
			s->path.reason = VNET_DROP_ACTION_FAILED;
			continue;
		}
		if (op->kind == VNET_PATH_CONTROLLER) {
			if (vnet_event_allowed(s, s->in_port))
				vnet_emit(skb, VNET_POINT_CONTROLLER, s->in_port, op->arg);
			else
				vnet_count(&lost_events, VNET_POINT_CONTROLLER);
			sent++;
			continue;
		}
		if (op->kind == VNET_PATH_OUTPUTS) {
			sent += vnet_flood(skb, op->arg, s->in_port);
			continue;
		}
		ifindex = vnet_leave(skb, op->arg);
		if (!ifindex)
			continue;
		if (i + 1 == n) {
			skb->cb[0] = op->arg; /* tells BPF_PROG_TEST_RUN where to */
			return bpf_redirect(ifindex, 0);
		}
		if (!bpf_clone_redirect(skb, ifindex, 0))
			sent++;
	}
	if (!sent && !s->path.reason)
		s->path.reason = s->same_port ? VNET_DROP_SAME_PORT : VNET_DROP_NO_PORT;
	return TC_ACT_SHOT;
}

#endif
