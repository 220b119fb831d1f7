/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What leaves the dataplane for people: captured packets, drops, packet-ins. One ring buffer; what
 * does not fit is counted in lost_events by observation point, never silently missing.
 */
#ifndef VNET_OBSERVE_H
#define VNET_OBSERVE_H

#include "filter.h"

#define VNET_WINDOW_EVENTS 128  /* unasked-for events per port and window, and as many for a log */
#define VNET_EVENT_SMALL 384 /* the record's header and 128 bytes of packet, at least */
#define VNET_EVENT_MIDDLE 2048
#define VNET_EVENT_LARGE 65600

/* The rule that decided, 0 if none did. */
static __always_inline __u32 vnet_deciding_rule(const struct vnet_scratch *s)
{
	__u32 n = s->met.n_rules;

	return n && n <= VNET_PATH_RULES ? s->met.rules[vnet_index(n - 1, VNET_PATH_RULES)] : 0;
}

static __always_inline void vnet_event_fill(struct __sk_buff *skb, struct vnet_scratch *s, struct vnet_event *e,
					    __u32 point, __u32 port, __u32 captured, __u32 taps)
{
	__u32 rule_id = point == VNET_POINT_CONTROLLER ? s->last_rule : vnet_deciding_rule(s), i;
	struct vnet_rule *rule = bpf_map_lookup_elem(&rules, &rule_id);

	e->time_ns = bpf_ktime_get_ns();
	e->cookie = rule_id && rule ? rule->cookie : 0;
	e->metadata = s->key[VNET_W_METADATA];
	e->tunnel = s->key[VNET_W_TUNNEL];
	e->port = port;
	e->in_port = s->in_port;
	e->rule = rule_id;
	e->version = s->version;
	e->ct_state = point == VNET_POINT_CONTROLLER ? (__u32)s->key[VNET_W_CT] : s->path.ct_state;
	e->ct_mark = s->key[VNET_W_CT] >> 32;
	e->ct_zone = s->key[VNET_W_ZONE];
	e->ct_label[0] = s->key[VNET_W_LABEL];
	e->ct_label[1] = s->key[VNET_W_LABEL + 1];
	e->gso_size = skb->gso_size;
	e->gso_segs = skb->gso_segs;
	e->taps = taps;
	e->length = skb->len;
	e->captured = captured;
	e->vlan_tci = skb->vlan_tci;
	e->vlan_tpid = skb->vlan_present ? bpf_ntohs(skb->vlan_proto) : 0;
	e->point = point;
	e->reason = s->path.reason;
	e->table = s->path.table;
	e->verdict = point == VNET_POINT_CONTROLLER ? s->packet_in_reason : s->path.reason != VNET_DROP_NONE;
	e->n_rules = s->met.n_rules;
	__builtin_memcpy(e->rules, s->met.rules, sizeof(e->rules));
	for (i = 0; i < 8; i++)
		e->registers[i] = s->key[VNET_W_REGS + i];
}

#define VNET_EMIT(room)                                                                             \
	do {                                                                                        \
		struct vnet_event *e = bpf_ringbuf_reserve(&events, room, 0);                       \
		__u32 last;                                                                         \
                                                                                                    \
		if (!e)                                                                             \
			break;                                                                      \
		last = length - 1;                                                                  \
		asm volatile("" : "+r"(last));                                                      \
		if (last >= room - sizeof(*e) ||                                                    \
		    bpf_skb_load_bytes(skb, 0, e->data, last + 1) < 0) {                            \
			bpf_ringbuf_discard(e, 0);                                                  \
			return 0;                                                                   \
		}                                                                                   \
		vnet_event_fill(skb, s, e, point, port, length, taps);                                   \
		bpf_ringbuf_submit(e, 0);                                                           \
		return 0;                                                                           \
	} while (0)

static __always_inline void vnet_note_lost(__u32 point, __u32 wanted)
{
	struct vnet_tap_counter *counted;
	__u32 tap;

	vnet_count(&lost_events, point);
	for (tap = 0; tap < VNET_TAPS; tap++) {
		__u32 number = tap;

		if (!(wanted >> tap & 1))
			continue;
		counted = bpf_map_lookup_elem(&tap_counters, &number);
		if (counted)
			counted->lost++;
	}
}

/* Report the packet with its first `length` bytes; to the taps that have just been found to want it. */
__noinline int vnet_emit(struct __sk_buff *skb, __u32 point, __u32 port, __u32 length)
{
	struct vnet_filtering *f = vnet_filtering();
	struct vnet_scratch *s = vnet_scratch();
	__u32 taps;

	if (!s || !f)
		return 0;
	taps = point == VNET_POINT_GUEST || point == VNET_POINT_DELIVERED ? f->matched : 0;
	if (length > skb->len)
		length = skb->len;
	if (length <= VNET_EVENT_SMALL - sizeof(struct vnet_event))
		VNET_EMIT(VNET_EVENT_SMALL);
	else if (length <= VNET_EVENT_MIDDLE - sizeof(struct vnet_event))
		VNET_EMIT(VNET_EVENT_MIDDLE);
	else {
		if (length > VNET_EVENT_LARGE - sizeof(struct vnet_event))
			length = VNET_EVENT_LARGE - sizeof(struct vnet_event);
		VNET_EMIT(VNET_EVENT_LARGE);
	}
	vnet_note_lost(point, taps);
	return 0;
}

/* Report the packet to those of the port's taps that want it; whether any does. */
static __always_inline int vnet_tell_taps(struct __sk_buff *skb, __u32 point, __u32 port)
{
	struct vnet_filter_run run = { .skb = skb };
	struct vnet_filtering *f = vnet_filtering();

	if (!f || !vnet_filter_begin(skb, point, port))
		return 0;
	bpf_loop(VNET_FILTER_ROUNDS, vnet_filter_step, &run, 0);
	if (!f->matched)
		return 0;
	vnet_emit(skb, point, port, f->snaplen);
	return 1;
}

/* May this port report another event nobody asked for? Bounds what one port's drops cost the others. What a
 * rule wants logged has a share of its own, so that no noise can hide it.
 */
static __always_inline int vnet_event_allowed(struct vnet_scratch *s, __u32 port, __u32 rule_id)
{
	struct vnet_rule *rule = bpf_map_lookup_elem(&rules, &rule_id);
	struct vnet_port_state *state;
	__u64 *share;

	if (port >= VNET_PORTS)
		port = 0;
	state = bpf_map_lookup_elem(&port_state, &port);
	if (!state)
		return 0;
	share = rule_id && rule && rule->logged ? &state->logged : &state->events;
	if (!vnet_share_left(*share, s->now_ns, VNET_WINDOW_EVENTS))
		return 0;
	vnet_share_use(share, s->now_ns);
	return 1;
}

/* Report what became of a packet that came in by s->in_port, before it is changed. */
__noinline int vnet_observe(struct __sk_buff *skb, __u32 port_flags)
{
	struct vnet_scratch *s = vnet_scratch();

	if (!s || s->observed)
		return 0;
	s->observed = 1;
	if (port_flags & (VNET_PORT_CAPTURE | VNET_PORT_CAPTURE_DROPS) &&
	    vnet_tell_taps(skb, VNET_POINT_GUEST, s->in_port))
		return 0;
	if (!s->path.reason)
		return 0;
	s->now_ns = bpf_ktime_get_coarse_ns();
	if (vnet_event_allowed(s, s->in_port, vnet_deciding_rule(s)))
		vnet_emit(skb, VNET_POINT_DROP, s->in_port, 128);
	else
		vnet_count(&lost_events, VNET_POINT_DROP);
	return 0;
}

#endif
