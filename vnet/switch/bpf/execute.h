/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Carry out a path: the operations in order. The last output of a packet that came in by a port is a
 * redirect; all others are clones.
 */
#ifndef VNET_EXECUTE_H
#define VNET_EXECUTE_H

#include "advertise.h"
#include "learn.h"
#include "line.h"
#include "meter.h"
#include "observe.h"
#include "rewrite.h"
#include "steps.h"

/* Is a long frame longer than an MTU allows? Of a super packet each segment will be as long as its headers and
 * `gso_size` together; whoever cuts it up does not ask again.
 */
__noinline int vnet_is_too_long(struct __sk_buff *skb, __u32 mtu)
{
	struct vnet_scratch *s = vnet_scratch();
	__u32 length = skb->len;

	if (!s)
		return 1;
	if (skb->gso_size) {
		length = s->l4_offset + 8 + skb->gso_size;
		if (s->l4_proto == IPPROTO_TCP && !bpf_skb_load_bytes(skb, s->l4_offset + 12, s->asked, 1))
			length += (s->asked[0] >> 4) * 4 - 8;
	}
	if (length <= mtu + 14)
		return 0;
	return length > mtu + 18 || !s->vlan || skb->vlan_present; /* a tag more is allowed */
}

/* Count a packet of so many bytes, about to leave by a port, `seen` by who captures there; returns its ifindex,
 * 0 if it cannot.
 */
static __always_inline __u32 vnet_go(struct __sk_buff *skb, struct vnet_scratch *s, __u32 number, __u32 bytes,
				     int seen)
{
	struct vnet_port *port = bpf_map_lookup_elem(&ports, &number);
	struct vnet_port_counter *counter;

	if (!port || (port->flags & (VNET_PORT_UP | VNET_PORT_NO_FWD)) != VNET_PORT_UP)
		return 0;
	counter = bpf_map_lookup_elem(&port_counters, &number);
	if (port->mtu && skb->len > port->mtu + 14 && vnet_is_too_long(skb, port->mtu)) {
		vnet_note_failure(s, VNET_DROP_MTU);
		s->too_small = port->mtu;
		if (counter)
			counter->tx_dropped++;
		return 0;
	}
	if (port->flags & VNET_PORT_LINE_IN && vnet_line_in(skb, number)) {
		vnet_note_failure(s, VNET_DROP_RATE);
		if (counter)
			counter->tx_dropped++;
		return 0;
	}
	if (counter) {
		counter->tx_packets++;
		counter->tx_bytes += bytes;
	}
	if (seen && port->flags & VNET_PORT_CAPTURE)
		vnet_tell_taps(skb, VNET_POINT_DELIVERED, number);
	VNET_FOLLOW_LEAVE(skb, number);
	return port->ifindex;
}

static __always_inline __u32 vnet_leave(struct __sk_buff *skb, struct vnet_scratch *s, __u32 number)
{
	return vnet_go(skb, s, number, vnet_frame_bytes(skb), 1);
}

static __always_inline void vnet_send_clone(struct __sk_buff *skb, struct vnet_scratch *s, __u32 number)
{
	__u32 ifindex = vnet_leave(skb, s, number);

	if (ifindex && !bpf_clone_redirect(skb, ifindex, 0))
		s->sent = 1;
}

struct vnet_flooding {
	struct __sk_buff *skb;
	__u32 list;
};

static long vnet_flood_one(__u32 index, struct vnet_flooding *flooding)
{
	__u32 at = flooding->list + 1 + index, *number = bpf_map_lookup_elem(&outputs, &at);
	struct vnet_scratch *s = vnet_scratch();

	if (!s)
		return 1;
	if (!number || *number == s->in_port) {
		vnet_note_failure(s, VNET_DROP_SAME_PORT);
		return 0;
	}
	vnet_send_clone(flooding->skb, s, *number);
	return 0;
}

/* A copy to every port of a list but the one the packet came in by. */
__noinline int vnet_flood(struct __sk_buff *skb, __u32 list)
{
	struct vnet_flooding flooding = { .skb = skb, .list = list };
	__u32 *length = bpf_map_lookup_elem(&outputs, &list);

	if (length)
		bpf_loop(*length, vnet_flood_one, &flooding, 0);
	return 0;
}

static __always_inline void vnet_packet_in(struct __sk_buff *skb, struct vnet_scratch *s, const struct vnet_op *op)
{
	__u32 number = s->in_port;
	struct vnet_port *port = bpf_map_lookup_elem(&ports, &number);

	if (port && port->flags & VNET_PORT_NO_PACKET_IN)
		return;
	s->packet_in_reason = op->a;
	VNET_FOLLOW(VNET_STEP_CONTROLLER, op->value, op->a, op->arg);
	if (vnet_event_allowed(s, s->in_port, s->last_rule))
		vnet_emit(skb, VNET_POINT_CONTROLLER, s->in_port, op->arg);
	else
		vnet_count(&lost_events, VNET_POINT_CONTROLLER);
	s->sent = 1;
}

#define VNET_EXCEEDED 1 /* no errno is positive */

/* On a remembered way, which does not depend on what the meter says. */
static __always_inline int vnet_pass_meter(struct __sk_buff *skb, struct vnet_scratch *s, __u32 meter)
{
	int ipv4 = (__u16)s->key[VNET_W_SRC] == ETH_P_IP;
	__u64 before = s->key[VNET_W_PORT];
	__u32 precedence = 0;

	switch (vnet_meter(skb, meter, &precedence)) {
	case VNET_BAND_DROP:
		return VNET_EXCEEDED;
	case VNET_BAND_REMARK:
		vnet_remark(s, precedence);
		if (s->key[VNET_W_PORT] != before)
			return vnet_set(skb, ipv4 ? VNET_PLACE_IPV4_TOS : VNET_PLACE_IPV6_TC,
					s->key[VNET_W_PORT] >> 16 & 0xff);
	}
	return 0;
}

/* One operation that is no output to a single port. Returns 0, a negative errno or VNET_EXCEEDED. */
static __always_inline int vnet_operate(struct __sk_buff *skb, struct vnet_scratch *s, const struct vnet_op *op)
{
	__u32 length = skb->len;
	int error = 0;

	switch (op->kind) {
	case VNET_PATH_OUTPUTS:
		return vnet_flood(skb, op->arg);
	case VNET_PATH_CONTROLLER:
		vnet_packet_in(skb, s, op);
		return 0;
	case VNET_PATH_METER: /* the walk has asked it already */
		return s->from_cache ? vnet_pass_meter(skb, s, op->arg) : 0;
	case VNET_PATH_SET:
		return vnet_set(skb, op->a, op->value);
	case VNET_PATH_DEC_TTL:
		return vnet_lower_ttl(skb, s, op->arg);
	case VNET_PATH_NAT_INNER:
		return vnet_translate_quoted(skb, op->arg, op->a);
	case VNET_PATH_ADVERTISE:
		return vnet_advertise(skb, op->value);
	case VNET_PATH_PROTO:
		return vnet_set_proto(skb, s, op->arg, op->value);
	case VNET_PATH_TTL_IN:
		return vnet_set_inner_ttl(skb, s, op->arg);
	case VNET_PATH_VLAN:
		error = vnet_retag(skb, s, op->value);
		break;
	case VNET_PATH_PUSH_VLAN:
		error = vnet_stack_vlan(skb, s, op->value);
		break;
	case VNET_PATH_POP_VLAN:
		error = bpf_skb_vlan_pop(skb);
		break;
	case VNET_PATH_PUSH_MPLS:
		error = vnet_insert_mpls(skb, s, op->arg, op->value, op->value >> 32);
		break;
	case VNET_PATH_POP_MPLS:
		error = vnet_remove_mpls(skb, s, op->arg, op->value);
		break;
	case VNET_PATH_TYPE:
		error = vnet_rename(skb, s, op->arg);
		break;
	}
	vnet_shift(skb, s, length);
	return error;
}

/* Where a packet goes that is treated as a learning switch does; 0 = to all, VNET_NO_PORT = nowhere. */
static __always_inline __u32 vnet_normal_port(struct __sk_buff *skb, struct vnet_scratch *s)
{
	__u32 port = vnet_learn(skb);

	VNET_FOLLOW(VNET_STEP_NORMAL, 0, port, 0);
	if (port == s->in_port) {
		vnet_note_failure(s, VNET_DROP_SAME_PORT);
		return VNET_NO_PORT;
	}
	return port;
}

struct vnet_executing {
	struct __sk_buff *skb;
	__u32 n;
	int verdict;
};

static long vnet_execute_one(__u32 i, struct vnet_executing *executing)
{
	struct __sk_buff *skb = executing->skb;
	struct vnet_scratch *s = vnet_scratch();
	const struct vnet_op *op;
	__u32 port, ifindex;
	int error;

	if (!s)
		return 1;
	op = &s->ops[vnet_index(i, VNET_OPS)];
	port = op->arg;
	if (op->kind == VNET_PATH_NORMAL) {
		port = vnet_normal_port(skb, s);
		if (!port)
			vnet_flood(skb, op->arg);
		if (!port || port == VNET_NO_PORT)
			return 0;
	} else if (op->kind != VNET_PATH_OUTPUT) {
		error = vnet_operate(skb, s, op);
		if (!error)
			return 0;
		s->failure = error == VNET_EXCEEDED ? VNET_DROP_RATE : VNET_DROP_ACTION_FAILED;
		return 1;
	}
	if (i + 1 < executing->n || s->flushing || s->inject) {
		vnet_send_clone(skb, s, port);
		return 0;
	}
	ifindex = vnet_leave(skb, s, port);
	if (!ifindex)
		return 0;
	s->sent = 1;
	skb->cb[0] = port; /* tells BPF_PROG_TEST_RUN where to */
	executing->verdict = bpf_redirect(ifindex, 0);
	return 0;
}

/* Execute the scratch's operations. Returns the tc verdict; sets `failure` if one could not be done. */
__noinline int vnet_execute(struct __sk_buff *skb)
{
	struct vnet_executing executing = { .skb = skb, .verdict = TC_ACT_SHOT };
	struct vnet_scratch *s = vnet_scratch();

	if (!s)
		return TC_ACT_SHOT;
	executing.n = s->path.n_ops < VNET_OPS ? s->path.n_ops : VNET_OPS;
	bpf_loop(executing.n, vnet_execute_one, &executing, 0);
	return executing.verdict;
}

#endif
