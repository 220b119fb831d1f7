/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The OpenFlow pipeline: search a table, carry out the rule's actions on the key, go on where it
 * says, and write down as a path what is to happen to the packet. The packet itself is not touched.
 */
#ifndef VNET_WALK_H
#define VNET_WALK_H

#include "classify.h"
#include "conntrack.h"

static __always_inline int vnet_add_op(struct vnet_scratch *s, __u8 kind, __u32 arg)
{
	__u32 n = s->path.n_ops;

	if (n >= VNET_PATH_OPS)
		return VNET_DROP_UNSUPPORTED;
	s->path.ops[n & (VNET_PATH_OPS - 1)].kind = kind;
	s->path.ops[n & (VNET_PATH_OPS - 1)].pad = 0;
	s->path.ops[n & (VNET_PATH_OPS - 1)].vlan_tci = (__u16)s->key[VNET_W_DST];
	s->path.ops[n & (VNET_PATH_OPS - 1)].arg = arg;
	s->path.n_ops = n + 1;
	return 0;
}

static __always_inline int vnet_output(struct vnet_scratch *s, __u32 port)
{
	if (port == s->in_port) { /* only IN_PORT sends a packet back (section 7.2.1) */
		s->same_port = 1;
		return 0;
	}
	return vnet_add_op(s, VNET_PATH_OUTPUT, port);
}

/* Write into the key. A packet without a tag has none to write, and one that has it keeps it. */
static __always_inline void vnet_write(struct vnet_scratch *s, __u32 word, __u64 value, __u64 mask)
{
	if (word == VNET_W_DST) {
		if (!(s->key[VNET_W_DST] & VNET_VLAN_PRESENT))
			return;
		mask &= ~(__u64)VNET_VLAN_PRESENT;
	}
	s->key[word] = (s->key[word] & ~mask) | (value & mask);
}

static __always_inline void vnet_move(struct vnet_scratch *s, const struct vnet_action *action)
{
	__u32 from = action->a & 31, to = action->a >> 8 & 31;
	__u32 from_shift = action->b & 63, to_shift = action->b >> 8 & 63, bits = action->b >> 16 & 127;
	__u64 mask = bits >= 64 ? ~0ULL : (1ULL << bits) - 1;
	__u64 value = s->key[from] >> from_shift & mask;

	vnet_write(s, to, value << to_shift, mask << to_shift);
}

static __always_inline int vnet_push_vlan(struct vnet_scratch *s, const struct vnet_action *action)
{
	if (s->key[VNET_W_DST] & VNET_VLAN_PRESENT || action->a != VNET_ETH_P_8021Q)
		return VNET_DROP_UNSUPPORTED; /* a second tag */
	s->key[VNET_W_DST] |= VNET_VLAN_PRESENT;
	return 0;
}

static __always_inline int vnet_pop_vlan(struct vnet_scratch *s)
{
	if (s->vlan_tci && (s->inner_type == VNET_ETH_P_8021Q || s->inner_type == VNET_ETH_P_8021AD))
		return VNET_DROP_UNSUPPORTED; /* the tag below was not parsed */
	s->key[VNET_W_DST] &= ~0xffffULL;
	return 0;
}

static __always_inline int vnet_action(struct __sk_buff *skb, struct vnet_scratch *s,
				       const struct vnet_action *action)
{
	__u32 word = action->a & 31;

	switch (action->op) {
	case VNET_OP_OUTPUT:
		return vnet_output(s, action->b);
	case VNET_OP_OUTPUT_FIELD:
		return vnet_output(s, s->key[word] >> (action->b & 63) & action->mask);
	case VNET_OP_IN_PORT:
		return vnet_add_op(s, VNET_PATH_OUTPUT, s->in_port);
	case VNET_OP_OUTPUTS:
		return vnet_add_op(s, VNET_PATH_OUTPUTS, action->b);
	case VNET_OP_CONTROLLER:
		s->cacheable = 0;
		return vnet_add_op(s, VNET_PATH_CONTROLLER, action->b);
	case VNET_OP_SET:
		vnet_write(s, word, action->value, action->mask);
		return 0;
	case VNET_OP_MOVE:
		vnet_move(s, action);
		return 0;
	case VNET_OP_PUSH_VLAN:
		return vnet_push_vlan(s, action);
	case VNET_OP_POP_VLAN:
		return vnet_pop_vlan(s);
	case VNET_OP_CT:
		if (action->a & VNET_CT_RECIRC) {
			s->next_table = action->b >> 16;
			if (!(action->a & VNET_CT_COMMIT))
				return vnet_ct_lookup(skb, action->b & 0xffff);
		}
		return vnet_ct_commit(skb, s, action);
	}
	return VNET_DROP_UNSUPPORTED;
}

/* Carry out a rule. Returns 0 or the reason to drop; s->next_table says where to go on. */
__noinline int vnet_apply(struct __sk_buff *skb, __u32 rule_id)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_rule *rule = bpf_map_lookup_elem(&rules, &rule_id);
	__u32 i, n, first;
	int reason;

	if (!s || !rule)
		return VNET_DROP_ACTION_FAILED;
	s->next_table = rule->goto_table;
	n = rule->n_actions;
	first = rule->first_action;
	for (i = 0; i < VNET_RULE_ACTIONS; i++) {
		__u32 at = first + i;
		struct vnet_action *action;

		if (i >= n)
			break;
		action = bpf_map_lookup_elem(&actions, &at);
		if (!action)
			return VNET_DROP_ACTION_FAILED;
		reason = vnet_action(skb, s, action);
		if (reason)
			return reason;
	}
	return 0;
}

static __always_inline int vnet_remember_rule(struct vnet_scratch *s, __u32 rule)
{
	__u32 n = s->path.n_rules;

	if (n >= VNET_PATH_RULES)
		return VNET_DROP_LOOP;
	s->path.rules[n & (VNET_PATH_RULES - 1)] = rule;
	s->path.n_rules = n + 1;
	return 0;
}

/* The pipeline has ended: 0 if the packet goes anywhere, else why not. */
static __always_inline int vnet_outcome(const struct vnet_scratch *s, int reason)
{
	if (s->path.n_ops)
		return 0;
	return s->same_port ? VNET_DROP_SAME_PORT : reason;
}

/* Walk the tables from `table` on; fills s->path. Returns the drop reason or 0. */
__noinline int vnet_walk(struct __sk_buff *skb, __u32 table)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_rule *last;
	__u32 rule = 0, step;
	int reason;

	if (!s)
		return VNET_DROP_ACTION_FAILED;
	for (step = 0; step < VNET_STEPS; step++) {
		s->path.table = table;
		rule = vnet_classify(table);
		if (!rule) {
			vnet_count(&table_misses, table);
			return vnet_outcome(s, VNET_DROP_TABLE_MISS);
		}
		reason = vnet_remember_rule(s, rule);
		if (!reason)
			reason = vnet_apply(skb, rule);
		if (reason)
			return reason;
		table = s->next_table;
		if (table == VNET_NO_TABLE) {
			last = bpf_map_lookup_elem(&rules, &rule);
			return vnet_outcome(s, last ? last->drop_reason : VNET_DROP_RULE);
		}
	}
	return VNET_DROP_LOOP;
}

#endif
