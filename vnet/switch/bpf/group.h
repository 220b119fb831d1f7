/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Groups (OpenFlow 1.3.5, section 5.6). A bucket works on a copy of the packet's state, so what it writes
 * is gone when it ends. A bucket's actions are those of a rule of its own, which also counts for it.
 */
#ifndef VNET_GROUP_H
#define VNET_GROUP_H

#include "classify.h"
#include "stack.h"
#include "steps.h"

static __always_inline int vnet_bucket_live(const struct vnet_bucket *bucket)
{
	__u32 number = bucket->watch_port;
	struct vnet_port *port;

	if (number == VNET_NO_PORT)
		return 1;
	port = bpf_map_lookup_elem(&ports, &number);
	return port && (port->flags & (VNET_PORT_UP | VNET_PORT_LIVE)) == (VNET_PORT_UP | VNET_PORT_LIVE);
}

/* Of the packet's flow: addresses, EtherType, protocol and ports. group_hash in vnet/openflow does the same. */
static __always_inline __u64 vnet_flow_hash(const struct vnet_scratch *s)
{
	__u64 h = (__u8)(s->key[VNET_W_PORT] >> 24);
	int i;

	h = (h ^ s->key[VNET_W_DST] >> 16) * 0x9e3779b97f4a7c15ULL;
	for (i = VNET_W_SRC; i < VNET_W_L4; i++)
		h = (h ^ s->key[i] ^ h >> 29) * 0x9e3779b97f4a7c15ULL;
	return (h ^ s->key[VNET_W_L4] >> 32 ^ h >> 29) * 0x9e3779b97f4a7c15ULL;
}

/* -log2(x / 2^32) in units of 2^-16, to about 0.01: a mantissa and a parabola through the ends. */
static __always_inline __u64 vnet_minus_log2(__u32 x)
{
	__u32 n = 0, f, i;

	x |= 1;
	for (i = 16; i; i >>= 1)
		if (x >> (n + i))
			n += i;
	f = (x << (31 - n) & 0x7fffffff) >> 15;
	return (32ULL << 16) - (((__u64)n << 16) + f + ((__u64)f * (65536 - f) >> 16) * 22695 / 65536);
}

struct vnet_choosing {
	__u64 hash;
	__u64 best;
	__u32 first;
	__u32 chosen; /* index + 1 */
	__u32 type;
};

/* SELECT: each live bucket draws a number u from the flow and itself; the least -log(u) / weight wins, which
 * is in proportion to the weights, and a bucket that goes moves no flow but its own (weighted rendezvous
 * hashing; Schindelhauer and Schomaker, 2005). FAST_FAILOVER: the first live one.
 */
static long vnet_choose_one(__u32 index, struct vnet_choosing *choosing)
{
	__u32 at = choosing->first + index;
	struct vnet_bucket *bucket = bpf_map_lookup_elem(&buckets, &at);
	__u64 score;

	if (!bucket || !vnet_bucket_live(bucket))
		return 0;
	if (choosing->type != VNET_GROUP_SELECT) {
		choosing->chosen = at + 1;
		return 1;
	}
	if (!bucket->weight)
		return 0;
	score = (choosing->hash ^ (index + 1) * 0xd1342543de82ef95ULL) * 0x9e3779b97f4a7c15ULL;
	score = (score ^ score >> 32) * 0x9e3779b97f4a7c15ULL >> 32;
	score = (vnet_minus_log2(score) << 20) / bucket->weight;
	if (!choosing->chosen || score < choosing->best) {
		choosing->best = score;
		choosing->chosen = at + 1;
	}
	return 0;
}

static __always_inline int vnet_enter_bucket(struct __sk_buff *skb, struct vnet_scratch *s, __u32 at)
{
	struct vnet_bucket *bucket = bpf_map_lookup_elem(&buckets, &at);
	struct vnet_rule *rule;
	__u32 id;
	int reason;

	if (!bucket)
		return VNET_DROP_ACTION_FAILED;
	id = bucket->rule;
	rule = bpf_map_lookup_elem(&rules, &id);
	if (!rule)
		return VNET_DROP_ACTION_FAILED;
	vnet_meet(skb, s, id);
	VNET_FOLLOW(VNET_STEP_BUCKET, id, 0, 0);
	reason = vnet_scope_enter(s);
	if (reason)
		return reason;
	s->set_slots = 0;
	return vnet_push(s, VNET_FRAME_ACTIONS, VNET_NO_TABLE, rule->first_action + rule->n_actions,
			 rule->first_action, 0);
}

static __always_inline int vnet_next_bucket(struct __sk_buff *skb, struct vnet_scratch *s, struct vnet_frame *f)
{
	__u32 at = f->at;

	if (at >= f->end) {
		vnet_pop(s);
		return 0;
	}
	f->at = at + 1;
	return vnet_enter_bucket(skb, s, at);
}

/* Let a group treat the packet. Returns 0 or a drop reason. */
__noinline int vnet_group(struct __sk_buff *skb, __u32 number)
{
	struct vnet_choosing choosing = {};
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_entry *entry = bpf_map_lookup_elem(&group_entries, &number);
	struct vnet_group *group;
	__u32 id;

	if (!s)
		return VNET_DROP_ACTION_FAILED;
	id = entry ? vnet_entry_rule(entry, s->version) : 0;
	group = id ? bpf_map_lookup_elem(&groups, &id) : 0;
	if (!group || !group->n_buckets) {
		vnet_note_failure(s, VNET_DROP_NO_BUCKET);
		return 0;
	}
	vnet_meet(skb, s, group->rule);
	if (group->type == VNET_GROUP_ALL)
		return vnet_push(s, VNET_FRAME_BUCKETS, VNET_NO_TABLE, group->first_bucket + group->n_buckets,
				 group->first_bucket, 0);
	choosing.hash = vnet_flow_hash(s);
	choosing.first = group->first_bucket;
	choosing.type = group->type;
	bpf_loop(group->n_buckets, vnet_choose_one, &choosing, 0);
	if (!choosing.chosen) {
		vnet_note_failure(s, VNET_DROP_NO_BUCKET);
		return 0;
	}
	return vnet_enter_bucket(skb, s, choosing.chosen - 1);
}

#endif
