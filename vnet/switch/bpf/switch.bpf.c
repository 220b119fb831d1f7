// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* The switch: one program at tc ingress of every port; three that the agent runs: for a controller's packet, to
 * clear away what has aged or lost its port, and to carry over what another version has counted.
 */
#include "cache.h"
#include "reject.h"
#include "storm.h"
#include "walk.h"

#ifndef VNET_ONLY_INGRESS
#include "carry.h"
#include "tidy.h"
#endif

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define VNET_PACKET_OUT 0 /* the rule that holds a controller's actions */

static __always_inline int vnet_dropped(struct __sk_buff *skb, struct vnet_scratch *s)
{
	__u32 port = s->in_port;
	struct vnet_port_counter *counter = bpf_map_lookup_elem(&port_counters, &port);

	if (counter)
		counter->rx_dropped++;
	vnet_count(&drop_counters, s->path.reason);
	skb->cb[1] = s->path.reason; /* tells BPF_PROG_TEST_RUN why */
	return TC_ACT_SHOT;
}

/* What a packet needs from the first to the last; the rest is set up when its way is not known yet. */
static __always_inline void vnet_begin(struct vnet_scratch *s, __u32 in_port, __u32 version)
{
	s->key[VNET_W_PORT] = (__u64)in_port << 32;
	s->in_port = in_port;
	s->version = version;
	*(__u64 *)&s->observed = 0;
}

static __always_inline __u32 vnet_kinds(const struct vnet_scratch *s)
{
	__u16 type = s->key[VNET_W_SRC];
	__u8 proto = s->key[VNET_W_PORT] >> 24;
	__u32 kinds;

	if (type == ETH_P_ARP)
		return VNET_KIND_LINK;
	if (vnet_is_mpls(type))
		return VNET_KIND_MPLS;
	if (type != ETH_P_IP && type != ETH_P_IPV6)
		return 0;
	kinds = VNET_KIND_IP | (type == ETH_P_IPV6 ? VNET_KIND_IPV6 : 0);
	return kinds | (proto == IPPROTO_TCP ? VNET_KIND_TCP : 0) | (proto == IPPROTO_ICMPV6 ? VNET_KIND_LINK : 0);
}

/* No rule has said anything of the packet. */
static __always_inline void vnet_nothing_said(struct vnet_scratch *s)
{
	__u32 i;

	for (i = VNET_W_METADATA; i < VNET_W_MORE; i++)
		s->key[i] = 0;
}

/* Nothing is known yet of what is to become of the packet; with a reason it is lost before any rule sees it. */
static __always_inline void vnet_begin_path(struct vnet_scratch *s, __u8 reason)
{
	vnet_nothing_said(s);
	__builtin_memset(&s->path, 0, sizeof(s->path));
	__builtin_memset(&s->met, 0, sizeof(s->met));
	s->path.ct_slot = VNET_NO_SLOT;
	s->path.reason = reason;
}

static __always_inline void vnet_begin_walk(struct vnet_scratch *s)
{
	__u32 i;

	for (i = VNET_W_CT_SRC; i < VNET_KEY_WORDS; i++)
		s->key[i] = 0;
	__builtin_memcpy(s->base, s->key, sizeof(s->base));
	s->base_tag = s->came_tag = s->vlan;
	s->base_icmp_id = s->icmp_id;
	s->ct_slot = VNET_NO_SLOT;
	s->ct_gen = 0;
	s->ct_dir = 0;
	s->ct_word = 0;
	s->tracked = 0;
	s->ct_translated = 0;
	s->ct_nat_inner = 0;
	s->cacheable = 1;
	s->malformed = 0;
	s->flush = 0;
	s->ttl_set = 0;
	s->decs = 0;
	s->depth = 0;
	s->scopes = 0;
	s->lookups = 0;
	s->router = 0;
	s->kinds = vnet_kinds(s);
	s->last_rule = 0;
	s->logged = 0;
	s->set_slots = 0;
}

/* Why a packet that nothing was sent of was lost. */
static __always_inline __u8 vnet_loss(const struct vnet_scratch *s)
{
	__u32 id = s->last_rule;
	struct vnet_rule *rule;

	if (s->failure)
		return s->failure;
	rule = bpf_map_lookup_elem(&rules, &id);
	return id && rule ? rule->drop_reason : VNET_DROP_RULE;
}

/* Let the frames on the stack decide the packet; what is then left to do stands in s->ops. */
static __always_inline void vnet_walk(struct __sk_buff *skb, struct vnet_scratch *s, __u32 port_flags)
{
	struct vnet_walking walking = { .skb = skb, .port_flags = port_flags };

	bpf_loop(VNET_STEPS, vnet_step, &walking, 0);
	if (s->depth)
		vnet_note_failure(s, VNET_DROP_LOOP);
	s->path.ct_slot = s->ct_slot;
	s->path.ct_gen = s->ct_gen;
	s->path.ct_dir = s->ct_dir;
	s->path.ct_state = s->ct_word;
	s->path.failure = s->failure;
	s->path.reason = !s->path.n_ops && !s->sent ? vnet_loss(s) : VNET_DROP_NONE;
}

/* Have so many packets of the port been refused that it has to wait? Walks are dear, and the others pay for
 * those that come to nothing.
 */
static __always_inline int vnet_must_wait(struct vnet_scratch *s, const struct vnet_port *port)
{
	__u32 number = s->in_port;
	struct vnet_port_state *state = bpf_map_lookup_elem(&port_state, &number);

	s->now_ns = bpf_ktime_get_coarse_ns();
	return state && port && port->refusal_quota &&
	       !vnet_share_left(state->refusals, s->now_ns, port->refusal_quota);
}

static __always_inline void vnet_note_refusal(const struct vnet_scratch *s)
{
	__u32 number = s->in_port;
	struct vnet_port_state *state = bpf_map_lookup_elem(&port_state, &number);

	if (state)
		vnet_share_use(&state->refusals, s->now_ns);
}

/* The tables decide a packet that the cache does not know. */
__noinline int vnet_decide(struct __sk_buff *skb, __u32 port_flags)
{
	struct vnet_scratch *s = vnet_scratch();

	if (!s)
		return 0;
	vnet_begin_walk(s);
	vnet_push(s, VNET_FRAME_SET, 0, 0, 0, 0);
	vnet_push(s, VNET_FRAME_TABLE, 0, 0, VNET_NO_PORT, 0);
	vnet_walk(skb, s, port_flags);
	VNET_FOLLOW(VNET_STEP_END, 0, s->path.reason, s->path.reject);
	if (s->path.reason)
		vnet_note_refusal(s);
	vnet_cache_remember();
	return 0;
}

/* Tell who captures, or why the packet is lost, which rules a remembered path stands for. */
__noinline int vnet_recall_rules(__u32 path_id)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_path_rules *met = bpf_map_lookup_elem(&path_rules, &path_id);

	if (!s || !met)
		return 0;
	s->met = *met;
	vnet_nothing_said(s);
	return 0;
}

/* Nothing came of what was to be done. */
__noinline int vnet_lost(struct __sk_buff *skb, __u32 port_flags)
{
	struct vnet_scratch *s = vnet_scratch();

	if (!s)
		return TC_ACT_SHOT;
	s->path.reason = s->failure ? s->failure : VNET_DROP_NO_PORT;
	s->observed = 0; /* what was told of it is no longer so */
	if (s->from_cache && !s->met.n_rules)
		vnet_recall_rules(s->path_id);
	vnet_observe(skb, port_flags);
	return vnet_dropped(skb, s);
}

/* Nobody has the address that the packet is for. Beyond its share of those the port is in a storm; packets for
 * many have been counted when they came in.
 */
static __always_inline void vnet_note_unknown(struct __sk_buff *skb, struct vnet_scratch *s)
{
	if (!vnet_is_for_many(skb) && vnet_storm(skb, VNET_STORM_UNKNOWN))
		s->path.reason = VNET_DROP_STORM;
}

/* Has a router sent on a packet that then was too large? It says so, in the name that its action has. */
__noinline int vnet_find_router(__u32 n)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_action *action;
	__u32 i, at;

	if (!s)
		return 0;
	for (i = 0; i < VNET_CACHE_OPS; i++) {
		if (i >= n)
			return 0;
		if (s->ops[i].kind == VNET_PATH_DEC_TTL && s->ops[i].value)
			break;
	}
	if (i == VNET_CACHE_OPS)
		return 0;
	at = s->ops[i].value - 1;
	action = bpf_map_lookup_elem(&actions, &at);
	if (!action)
		return 0;
	s->refusal = *action;
	s->refusal.b = action->a == 4 ? 3 << 8 | 4 : 2 << 8;
	s->path.reject = VNET_REJECT_TOO_BIG;
	return 1;
}

/* What is left to do, and whether anything came of it. */
__noinline int vnet_finish(struct __sk_buff *skb, __u32 port_flags)
{
	struct vnet_scratch *s = vnet_scratch();
	int verdict = TC_ACT_SHOT;

	if (!s)
		return TC_ACT_SHOT;
	if (s->path.reason == VNET_DROP_NO_DST)
		vnet_note_unknown(skb, s);
	if (s->path.reason || port_flags & VNET_PORT_CAPTURE)
		vnet_observe(skb, port_flags);
	if (s->path.reason) {
		verdict = vnet_dropped(skb, s);
		return s->path.reject ? vnet_reject(skb) : verdict;
	}
	if (!s->path.n_ops)
		return TC_ACT_SHOT;
	verdict = vnet_execute(skb);
	if (s->sent)
		return verdict;
	verdict = vnet_lost(skb, port_flags);
	return s->failure == VNET_DROP_MTU && vnet_find_router(s->path.n_ops) ? vnet_reject(skb) : verdict;
}

static __always_inline int vnet_is_captured(__u32 number)
{
	struct vnet_port *port = bpf_map_lookup_elem(&ports, &number);

	return port && port->flags & VNET_PORT_CAPTURE;
}

/* One output, and nobody captures where the packet came in or goes out. `capturing`: some port is captured. */
static __always_inline int vnet_is_plain(const struct vnet_cached *cached, __u32 capturing, __u32 port_flags)
{
	if (cached->path.n_ops != 1 || cached->ops[0].kind != VNET_PATH_OUTPUT)
		return 0;
	return !capturing || (!(port_flags & VNET_PORT_CAPTURE) && !vnet_is_captured(cached->ops[0].arg));
}

/* Do again what was done to a packet before. Most paths are one output. */
static __always_inline int vnet_repeat(struct __sk_buff *skb, struct vnet_scratch *s, __u32 capturing,
				       const struct vnet_cached *cached, __u32 port_flags, __u32 bytes)
{
	__u32 id = cached->path_id, i, ifindex, n = cached->path.n_ops;
	struct vnet_counter *counter = bpf_map_lookup_elem(&path_counters, &id);
	int alone = vnet_is_plain(cached, capturing, port_flags);

	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
	}
	if (alone) {
		ifindex = vnet_go(skb, s, cached->ops[0].arg, bytes, 0);
		if (ifindex) {
			skb->cb[0] = cached->ops[0].arg;
			return bpf_redirect(ifindex, 0);
		}
	}
	s->from_cache = 1;
	s->path = cached->path;
	s->path_id = id;
	s->met.n_rules = 0;
	if (s->path.failure) /* that came before */
		s->failure = s->path.failure;
	if (alone)
		return vnet_lost(skb, port_flags);
	if (capturing || s->path.reason)
		vnet_recall_rules(id);
	for (i = 0; i < VNET_CACHE_OPS; i++) {
		if (i >= n)
			break;
		s->ops[i] = cached->ops[i];
	}
	return vnet_finish(skb, port_flags);
}

static __always_inline __u32 vnet_port_number(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex, *number;

	if (ifindex < VNET_LOW_IFINDEX)
		number = bpf_map_lookup_elem(&port_of, &ifindex);
	else
		number = bpf_map_lookup_elem(&port_by_ifindex, &ifindex);
	return number ? *number : 0;
}

/* Read a packet that a port may send. Returns why it may not, or cannot be read. */
static __always_inline int vnet_come_in(struct __sk_buff *skb, struct vnet_scratch *s, __u32 port_flags)
{
	if ((port_flags & (VNET_PORT_UP | VNET_PORT_NO_RECV)) != VNET_PORT_UP)
		return VNET_DROP_PORT_CLOSED;
	if (vnet_is_for_many(skb) && vnet_storm(skb, VNET_STORM_GROUP))
		return VNET_DROP_STORM;
	return vnet_parse(skb, s);
}

SEC("tc")
int vnet_ingress(struct __sk_buff *skb)
{
	__u32 in_port = vnet_port_number(skb), bytes = vnet_frame_bytes(skb), flags;
	struct vnet_control *control = vnet_control();
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_port_counter *counter;
	struct vnet_cached *cached;
	struct vnet_port *port;
	int reason = VNET_DROP_NONE, line;

	if (!s || !control)
		return TC_ACT_SHOT;
	vnet_begin(s, in_port, *(volatile __u32 *)&control->version);
	port = bpf_map_lookup_elem(&ports, &in_port);
	flags = port && in_port ? port->flags : 0;
	if (flags & VNET_PORT_LINE_OUT && skb->ifindex == port->ifindex) {
		line = vnet_line_out(skb, in_port);
		if (line)
			return bpf_redirect(line, 0);
		reason = VNET_DROP_RATE;
	}
	counter = bpf_map_lookup_elem(&port_counters, &in_port);
	if (counter) {
		counter->rx_packets++;
		counter->rx_bytes += bytes;
	}
	if (!reason)
		reason = vnet_come_in(skb, s, flags);
	if (!reason) {
		cached = vnet_cache_find(s, control, bytes);
		if (cached)
			return vnet_repeat(skb, s, control->capturing, cached, flags, bytes);
		if (vnet_must_wait(s, port))
			reason = VNET_DROP_REFUSAL_QUOTA;
	}
	vnet_begin_path(s, reason);
	if (!reason)
		vnet_decide(skb, flags);
	return vnet_finish(skb, flags);
}

#ifndef VNET_ONLY_INGRESS

/* Carry out the actions of rule VNET_PACKET_OUT on a packet of a controller. The context's cb[0] is the
 * ingress port it names.
 */
SEC("tc")
int vnet_packet_out(struct __sk_buff *skb)
{
	struct vnet_control *control = vnet_control();
	struct vnet_scratch *s = vnet_scratch();
	__u32 id = VNET_PACKET_OUT;
	struct vnet_rule *rule = bpf_map_lookup_elem(&rules, &id);

	if (!s || !control || !rule)
		return TC_ACT_SHOT;
	vnet_begin(s, skb->cb[0], *(volatile __u32 *)&control->version);
	s->inject = 1;
	vnet_begin_path(s, vnet_parse_again(skb));
	if (!s->path.reason) {
		s->now_ns = bpf_ktime_get_coarse_ns();
		vnet_begin_walk(s);
		s->cacheable = 0;
		vnet_push(s, VNET_FRAME_SET, 0, 0, 0, 0);
		vnet_push(s, VNET_FRAME_ACTIONS, VNET_NO_TABLE, rule->first_action + rule->n_actions,
			  rule->first_action, 0);
		vnet_walk(skb, s, 0);
	}
	vnet_finish(skb, 0);
	return TC_ACT_OK;
}

/* Clear away: the context's cb[0] says what (VNET_TIDY_*), cb[1] the port, cb[2] the zone. */
SEC("tc")
int vnet_tidy(struct __sk_buff *skb)
{
	struct vnet_tidying tidying = {
		.now = bpf_ktime_get_coarse_ns(), .what = skb->cb[0], .port = skb->cb[1], .zone = skb->cb[2]
	};

	if (tidying.what & (VNET_TIDY_CONNS | VNET_TIDY_ZONE))
		bpf_loop(VNET_CONNS, vnet_tidy_conn, &tidying, 0);
	if (tidying.what & VNET_TIDY_ZONE)
		bpf_loop(VNET_PORTS * VNET_FRAGS, vnet_tidy_frag, &tidying, 0);
	if (tidying.what & (VNET_TIDY_MACS | VNET_TIDY_AGED))
		bpf_for_each_map_elem(&macs, vnet_tidy_mac, &tidying, 0);
	return TC_ACT_OK;
}

/* Add the numbers in the frame to counters. */
SEC("tc")
int vnet_carry(struct __sk_buff *skb)
{
	struct vnet_carry carry;

	if (!bpf_skb_load_bytes(skb, VNET_CARRY_AT, &carry, sizeof(carry)))
		vnet_carry_add(&carry);
	return TC_ACT_OK;
}

#endif
