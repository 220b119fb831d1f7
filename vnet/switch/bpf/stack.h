/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The walk's stack, and scopes: copies of the packet's state that are brought back when a bucket of a
 * group, or the table that ct() resumed at, has ended.
 */
#ifndef VNET_STACK_H
#define VNET_STACK_H

#include "commit.h"

static __always_inline struct vnet_frame *vnet_top(struct vnet_scratch *s)
{
	__u32 depth = s->depth;

	if (!depth || depth > VNET_STACK)
		return 0;
	return &s->stack[vnet_index(depth - 1, VNET_STACK)];
}

static __always_inline void vnet_pop(struct vnet_scratch *s)
{
	if (s->depth)
		s->depth--;
}

static __always_inline int vnet_push(struct vnet_scratch *s, __u8 kind, __u32 table, __u32 end, __u32 at,
				     __u8 nested)
{
	__u32 depth = s->depth;
	struct vnet_frame *f;

	if (depth >= VNET_STACK)
		return VNET_DROP_LOOP;
	f = &s->stack[vnet_index(depth, VNET_STACK)];
	f->kind = kind;
	f->table = table;
	f->at = at;
	f->end = end;
	f->rule = 0;
	f->nested = nested;
	s->depth = depth + 1;
	return 0;
}

/* Does nothing wait for the current action list to end that could tell what became of the packet? */
static __always_inline int vnet_is_tail(const struct vnet_scratch *s)
{
	__u32 i, depth = s->depth;

	if (s->set_slots)
		return 0;
	for (i = 0; i < VNET_STACK; i++) {
		const struct vnet_frame *f = &s->stack[i];

		if (i >= depth)
			break;
		if ((f->kind == VNET_FRAME_ACTIONS && (f->at < f->end || f->table != VNET_NO_TABLE)) ||
		    f->kind == VNET_FRAME_BUCKETS || f->kind == VNET_FRAME_RESTORE)
			return 0;
	}
	return 1;
}

/* Go on at a table in place of the current action list. */
static __always_inline int vnet_jump(struct vnet_scratch *s, __u32 table)
{
	vnet_pop(s);
	return vnet_push(s, VNET_FRAME_TABLE, table, 0, VNET_NO_PORT, 0);
}

/* Keep the packet's state until the frames above this one are done. */
static __always_inline int vnet_scope_enter(struct vnet_scratch *s)
{
	__u32 n = s->scopes;
	struct vnet_state *kept;

	if (n >= VNET_SCOPES)
		return VNET_DROP_LOOP;
	kept = &s->scope[vnet_index(n, VNET_SCOPES)];
	__builtin_memcpy(kept->key, s->key, sizeof(kept->key));
	__builtin_memcpy(kept->set, s->set, sizeof(kept->set));
	kept->set_slots = s->set_slots;
	kept->tpid = s->tpid;
	kept->logged = s->logged;
	kept->icmp_id = s->icmp_id;
	s->scopes = n + 1;
	return vnet_push(s, VNET_FRAME_RESTORE, 0, 0, n, 0);
}

/* Bring the state back: first take back changes of the header stack, one a time, then the key. */
static __always_inline void vnet_scope_leave(struct vnet_scratch *s, const struct vnet_frame *f)
{
	struct vnet_state *kept = &s->scope[vnet_index(f->at, VNET_SCOPES)];
	__u32 n = s->logged, i;

	if (n > kept->logged && n <= VNET_STACK) {
		const struct vnet_op *undo = &s->log[vnet_index(n - 1, VNET_STACK)];

		vnet_add_op(s, undo->kind, 0, undo->arg, undo->value);
		s->logged = n - 1;
		s->cacheable = 0;
		s->flush |= VNET_FLUSH_OPS | VNET_FLUSH_PARSE;
		return;
	}
	for (i = VNET_W_IP_SRC; i <= VNET_W_L4; i++)
		if (s->key[i] != kept->key[i])
			s->ct_zone = VNET_NO_ZONE; /* what was tracked since is another packet */
	__builtin_memcpy(s->key, kept->key, sizeof(kept->key));
	__builtin_memcpy(s->set, kept->set, sizeof(kept->set));
	s->set_slots = kept->set_slots;
	s->tpid = kept->tpid;
	s->icmp_id = kept->icmp_id;
	s->scopes = vnet_index(f->at, VNET_SCOPES);
	vnet_pop(s);
}

/* Note that the packet met a rule (group, bucket), and count it there. */
static __always_inline void vnet_meet(struct __sk_buff *skb, struct vnet_scratch *s, __u32 rule)
{
	struct vnet_counter *counter = bpf_map_lookup_elem(&rule_counters, &rule);
	__u32 n = s->met.n_rules;

	if (counter) {
		counter->packets++;
		counter->bytes += vnet_frame_bytes(skb);
	}
	if (n >= VNET_PATH_RULES) {
		s->cacheable = 0;
		return;
	}
	s->met.rules[vnet_index(n, VNET_PATH_RULES)] = rule;
	s->met.n_rules = n + 1;
}

#endif
