/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The OpenFlow pipeline as a machine: a stack of tables to search and action lists to carry out, one step
 * at a time. Actions change the key; outputs write down operations (commit.h), which are carried out when
 * the pipeline has ended, or before, where what follows needs the changed packet.
 */
#ifndef VNET_WALK_H
#define VNET_WALK_H

#include "classify.h"
#include "commit.h"
#include "conntrack.h"
#include "execute.h"
#include "group.h"
#include "stack.h"
#include "steps.h"

#define VNET_R_NO_MATCH 0
#define VNET_R_ACTION 1
#define VNET_R_INVALID_TTL 2

#define VNET_SLOT_GROUP 62 /* of the action set: a group replaces the output */
#define VNET_SLOT_OUTPUT 63

static __always_inline int vnet_output(struct vnet_scratch *s, __u32 port)
{
	if (port == s->in_port) { /* only IN_PORT sends a packet back (section 7.2.1) */
		vnet_note_failure(s, VNET_DROP_SAME_PORT);
		return 0;
	}
	vnet_commit();
	return vnet_add_op(s, VNET_PATH_OUTPUT, 0, port, 0);
}

static __always_inline int vnet_output_list(struct vnet_scratch *s, __u8 kind, __u32 list)
{
	vnet_commit();
	return vnet_add_op(s, kind, 0, list, 0);
}

/* The list of all ports in force for this packet. */
static __always_inline __u32 vnet_all_ports(const struct vnet_scratch *s)
{
	return (s->version & 1) * VNET_PORTS;
}

/* The packet goes to the controllers as it is now. */
static __always_inline int vnet_to_controller(struct vnet_scratch *s, __u8 reason,
					      __u32 length)
{
	s->cacheable = 0;
	s->flush |= VNET_FLUSH_OPS;
	vnet_commit();
	return vnet_add_op(s, VNET_PATH_CONTROLLER, reason, length, s->last_rule);
}

static __always_inline __u8 vnet_controller_reason(const struct vnet_scratch *s)
{
	__u32 id = s->last_rule;
	struct vnet_rule *rule = bpf_map_lookup_elem(&rules, &id);

	return rule && rule->miss ? VNET_R_NO_MATCH : VNET_R_ACTION;
}

static __always_inline int vnet_has_l4(const struct vnet_scratch *s, __u16 eth_type, __u8 wanted)
{
	return (eth_type == ETH_P_IP || eth_type == ETH_P_IPV6) && (__u8)(s->key[VNET_W_PORT] >> 24) == wanted &&
	       s->key[VNET_W_PORT] & VNET_HAS_L4;
}

/* Has the packet what a field needs to be there? */
static __always_inline int vnet_has(const struct vnet_scratch *s, __u32 need)
{
	__u16 type = s->key[VNET_W_SRC];
	__u8 icmp = s->key[VNET_W_L4] >> 48;

	switch (need) {
	case VNET_NEED_VLAN:
		return s->key[VNET_W_DST] & VNET_VLAN_PRESENT ? 1 : 0;
	case VNET_NEED_IPV4:
		return type == ETH_P_IP;
	case VNET_NEED_IPV6:
		return type == ETH_P_IPV6;
	case VNET_NEED_IP:
		return type == ETH_P_IP || type == ETH_P_IPV6;
	case VNET_NEED_ARP:
		return type == ETH_P_ARP;
	case VNET_NEED_MPLS:
		return vnet_is_mpls(type);
	case VNET_NEED_TCP:
		return vnet_has_l4(s, type, IPPROTO_TCP);
	case VNET_NEED_UDP:
		return vnet_has_l4(s, type, IPPROTO_UDP);
	case VNET_NEED_SCTP:
		return vnet_has_l4(s, type, IPPROTO_SCTP);
	case VNET_NEED_ICMP:
		return type == ETH_P_IP && vnet_has_l4(s, type, IPPROTO_ICMP);
	case VNET_NEED_ICMPV6:
		return type == ETH_P_IPV6 && vnet_has_l4(s, type, IPPROTO_ICMPV6);
	case VNET_NEED_ND:
		return type == ETH_P_IPV6 && vnet_has_l4(s, type, IPPROTO_ICMPV6) && (icmp == 135 || icmp == 136);
	case VNET_NEED_ND_SOLICIT:
		return type == ETH_P_IPV6 && vnet_has_l4(s, type, IPPROTO_ICMPV6) && icmp == 135;
	case VNET_NEED_ND_ADVERT:
		return type == ETH_P_IPV6 && vnet_has_l4(s, type, IPPROTO_ICMPV6) && icmp == 136;
	}
	return 1;
}

/* Is the word part of what the flow cache's key does not tell of the packet? */
static __always_inline int vnet_beyond(__u32 word)
{
	return (word >= VNET_W_SHA && word < VNET_W_METADATA) || word >= VNET_W_MORE;
}

/* Write into the key; a tag's presence is not for a field to change. With other addresses or ports the
 * packet may be another connection's.
 */
static __always_inline void vnet_write(struct vnet_scratch *s, __u32 word, __u64 value, __u64 mask)
{
	if (word == VNET_W_DST)
		mask &= ~(__u64)VNET_VLAN_PRESENT;
	if (vnet_beyond(word))
		s->cacheable = 0;
	if (word == VNET_W_MORE && mask >> 56)
		s->ttl_set = 1;
	if (word >= VNET_W_IP_SRC && word <= VNET_W_L4 && (s->key[word] ^ value) & mask)
		s->ct_zone = VNET_NO_ZONE;
	s->key[word] = (s->key[word] & ~mask) | (value & mask);
}

static __always_inline void vnet_move(struct vnet_scratch *s)
{
	__u32 from = s->action.a & 31, to = s->action.a >> 8 & 31;
	__u32 from_shift = s->action.b & 63, to_shift = s->action.b >> 8 & 63, bits = s->action.b >> 16 & 127;
	__u64 mask = bits >= 64 ? ~0ULL : (1ULL << bits) - 1, value = 0;

	if (vnet_beyond(from))
		s->cacheable = 0;
	if (vnet_has(s, s->action.value & 0xff))
		value = s->key[from] >> from_shift & mask;
	if (vnet_has(s, s->action.value >> 8))
		vnet_write(s, to, value << to_shift, mask << to_shift);
}

/* -- the stack of headers: rare, so carried out at once and never cached ---------------------------- */

/* Note how to take back a change of the header stack. */
static __always_inline int vnet_log(struct vnet_scratch *s, __u8 kind, __u32 arg, __u64 value)
{
	__u32 n = s->logged;
	struct vnet_op *entry;

	if (n >= VNET_STACK)
		return VNET_DROP_UNSUPPORTED;
	entry = &s->log[vnet_index(n, VNET_STACK)];
	entry->kind = kind;
	entry->arg = arg;
	entry->value = value;
	s->logged = n + 1;
	return 0;
}

static __always_inline int vnet_restack(struct vnet_scratch *s, __u8 kind, __u32 arg, __u64 value, __u8 flush)
{
	s->cacheable = 0;
	s->flush |= flush;
	return vnet_add_op(s, kind, 0, arg, value);
}

/* A second tag has the priority and the VLAN of the first (section 5.12.1). */
static __always_inline int vnet_push_vlan(struct vnet_scratch *s)
{
	__u16 tci = s->key[VNET_W_DST];
	__u64 tag = (__u32)s->action.a << 16 | (tci & ~VNET_VLAN_PRESENT);
	int reason;

	if (!tci) {
		s->key[VNET_W_DST] |= VNET_VLAN_PRESENT;
		s->tpid = s->action.a;
		return 0;
	}
	vnet_commit();
	reason = vnet_log(s, VNET_PATH_POP_VLAN, 0, 0);
	if (reason)
		return reason;
	return vnet_restack(s, VNET_PATH_PUSH_VLAN, 0, tag, VNET_FLUSH_OPS | VNET_FLUSH_PARSE);
}

static __always_inline int vnet_pop_vlan(struct vnet_scratch *s)
{
	int reason;

	if (!(__u16)s->key[VNET_W_DST])
		return 0;
	if (!s->vlan || !vnet_is_vlan(s->inner_type)) {
		s->key[VNET_W_DST] &= ~0xffffULL;
		return 0;
	}
	vnet_commit(); /* the tag below comes to light */
	reason = vnet_log(s, VNET_PATH_PUSH_VLAN, 0, s->base_tag);
	if (reason)
		return reason;
	return vnet_restack(s, VNET_PATH_POP_VLAN, 0, 0, VNET_FLUSH_OPS | VNET_FLUSH_PARSE);
}

/* The EtherType to bring back: the key does not tell a length of 802.3 framing. */
static __always_inline __u16 vnet_type_bytes(struct __sk_buff *skb, const struct vnet_scratch *s)
{
	__be16 type = 0;

	bpf_skb_load_bytes(skb, s->l3_offset - 2, &type, sizeof(type));
	return bpf_ntohs(type);
}

static __always_inline int vnet_push_mpls(struct __sk_buff *skb, struct vnet_scratch *s)
{
	__u16 eth_type = s->key[VNET_W_SRC];
	__u32 entry;
	int reason;

	if (vnet_is_mpls(eth_type))
		entry = (__u32)s->key[VNET_W_MPLS] & ~0x100U;
	else
		entry = 0x100 | (eth_type == ETH_P_IP || eth_type == ETH_P_IPV6 ? s->key[VNET_W_MORE] >> 56 : 0);
	vnet_commit();
	reason = vnet_log(s, VNET_PATH_POP_MPLS, vnet_type_bytes(skb, s), 0);
	if (reason)
		return reason;
	return vnet_restack(s, VNET_PATH_PUSH_MPLS, s->action.a, entry, VNET_FLUSH_OPS | VNET_FLUSH_PARSE);
}

#define VNET_MIN_FRAME 60 /* without the FCS (IEEE 802.3, section 4.4.2, minFrameSize) */

/* How many bytes a frame that is long enough for Ethernet lacks when it has lost a label. */
static __always_inline __u32 vnet_padding(struct __sk_buff *skb, const struct vnet_scratch *s)
{
	__u32 length = vnet_frame_bytes(skb) + (s->base_tag ? 4 : 0) - (s->vlan ? 4 : 0);

	return length >= VNET_MIN_FRAME && length < VNET_MIN_FRAME + 4 ? VNET_MIN_FRAME + 4 - length : 0;
}

static __always_inline int vnet_pop_mpls(struct __sk_buff *skb, struct vnet_scratch *s)
{
	__u16 eth_type = s->key[VNET_W_SRC];
	__u64 padding;
	int reason;

	if (!vnet_is_mpls(eth_type))
		return 0;
	vnet_commit();
	padding = vnet_padding(skb, s);
	reason = vnet_log(s, VNET_PATH_PUSH_MPLS, eth_type, (__u32)s->key[VNET_W_MPLS] | padding << 32);
	if (reason)
		return reason;
	return vnet_restack(s, VNET_PATH_POP_MPLS, s->action.a, padding, VNET_FLUSH_OPS | VNET_FLUSH_PARSE);
}

static __always_inline int vnet_set_type(struct __sk_buff *skb, struct vnet_scratch *s)
{
	int reason;

	vnet_commit();
	reason = vnet_log(s, VNET_PATH_TYPE, vnet_type_bytes(skb, s), 0);
	if (reason)
		return reason;
	return vnet_restack(s, VNET_PATH_TYPE, s->action.a, 0, VNET_FLUSH_OPS | VNET_FLUSH_PARSE);
}

/* What layer 4 then is has to be read anew. */
static __always_inline int vnet_set_ip_proto(struct vnet_scratch *s)
{
	__u64 spot;
	int reason;

	if (!vnet_has(s, VNET_NEED_IP))
		return 0;
	spot = vnet_proto_spot(s);
	vnet_commit();
	reason = vnet_log(s, VNET_PATH_PROTO, (__u8)(s->key[VNET_W_PORT] >> 24), spot);
	if (reason)
		return reason;
	return vnet_restack(s, VNET_PATH_PROTO, s->action.a, spot, VNET_FLUSH_OPS | VNET_FLUSH_PARSE);
}

/* -- time to live ----------------------------------------------------------------------------------- */

/* A router tells the sender, if the packet is lost. */
static __always_inline void vnet_router_refuses(struct vnet_scratch *s)
{
	s->path.reject = VNET_REJECT_ROUTED;
	s->refusal = s->action;
	s->cacheable = 0;
}

static __always_inline int vnet_ttl_over(struct vnet_scratch *s)
{
	vnet_to_controller(s, VNET_R_INVALID_TTL, 0xffff);
	return VNET_DROP_TTL;
}

static __always_inline int vnet_dec_ttl(struct vnet_scratch *s, __u32 at)
{
	__u16 eth_type = s->key[VNET_W_SRC];

	if (eth_type != ETH_P_IP && eth_type != ETH_P_IPV6)
		return 0;
	if (s->key[VNET_W_MORE] >> 56 <= 1) {
		if (!s->action.a)
			return vnet_ttl_over(s);
		vnet_router_refuses(s);
		return VNET_DROP_TTL;
	}
	if (s->action.a)
		s->router = at;
	s->key[VNET_W_MORE] -= 1ULL << 56;
	if (s->ttl_set)
		return 0;
	s->decs++;
	if (s->path.min_ttl < s->decs + 1)
		s->path.min_ttl = s->decs + 1;
	return 0;
}

static __always_inline int vnet_dec_mpls_ttl(struct vnet_scratch *s)
{
	if (!vnet_is_mpls(s->key[VNET_W_SRC]))
		return 0;
	s->cacheable = 0;
	if ((__u8)s->key[VNET_W_MPLS] <= 1)
		return vnet_ttl_over(s);
	s->key[VNET_W_MPLS]--;
	return 0;
}

/* Where the TTL behind the outermost label stack entry lies; 0 = nowhere. */
static __always_inline __u32 vnet_inner_ttl(struct __sk_buff *skb, const struct vnet_scratch *s, __u8 *ttl)
{
	__u32 at = s->mpls_offset + 4;
	__u8 first;

	if (!vnet_is_mpls(s->key[VNET_W_SRC]) || bpf_skb_load_bytes(skb, at, &first, 1) < 0)
		return 0;
	if (!(s->key[VNET_W_MPLS] & 0x100))
		at += 3;
	else if (first >> 4 == 4)
		at += 8;
	else if (first >> 4 == 6)
		at += 7;
	else
		return 0;
	return bpf_skb_load_bytes(skb, at, ttl, 1) < 0 ? 0 : at;
}

static __always_inline int vnet_copy_ttl_out(struct __sk_buff *skb, struct vnet_scratch *s)
{
	__u8 ttl;

	s->cacheable = 0;
	if (vnet_inner_ttl(skb, s, &ttl))
		s->key[VNET_W_MPLS] = (s->key[VNET_W_MPLS] & ~0xffULL) | ttl;
	return 0;
}

static __always_inline int vnet_copy_ttl_in(struct __sk_buff *skb, struct vnet_scratch *s)
{
	__u8 ttl;
	int reason;

	if (!vnet_inner_ttl(skb, s, &ttl))
		return 0;
	vnet_commit();
	reason = vnet_log(s, VNET_PATH_TTL_IN, ttl, 0);
	if (reason)
		return reason;
	return vnet_restack(s, VNET_PATH_TTL_IN, (__u8)s->key[VNET_W_MPLS], 0, VNET_FLUSH_OPS);
}

/* -- actions ---------------------------------------------------------------------------------------- */

/* Does any rule in force look at a packet's DSCP, or write it? Then those that a meter remarks go other ways. */
static __always_inline int vnet_reads_tos(const struct vnet_scratch *s)
{
	struct vnet_control *control = vnet_control();

	return !control || control->reads[s->version & 1][VNET_W_PORT] & 0xff0000;
}

static __always_inline int vnet_meter_action(struct __sk_buff *skb, struct vnet_scratch *s)
{
	__u32 at = s->action.b, meter, exceeded, precedence = 0;
	struct vnet_entry *entry = bpf_map_lookup_elem(&meter_entries, &at);

	meter = entry ? vnet_entry_rule(entry, s->version) : 0;
	if (!meter)
		return 0;
	exceeded = vnet_meter(skb, meter, &precedence);
	VNET_FOLLOW(VNET_STEP_METER, 0, meter, exceeded);
	switch (exceeded) {
	case VNET_BAND_DROP:
		s->cacheable = 0;
		return VNET_DROP_RATE;
	case VNET_BAND_REMARK:
		s->cacheable = 0;
		vnet_remark(s, precedence);
		return 0;
	}
	if (vnet_remarks(meter) && vnet_reads_tos(s))
		s->cacheable = 0;
	return vnet_add_op(s, VNET_PATH_METER, 0, meter, 0);
}

/* Remember the records behind this one for the end of the pipeline. */
static __always_inline int vnet_write_set(struct vnet_scratch *s, __u32 at)
{
	__u32 slot = vnet_index(s->action.a, VNET_SET);

	s->set[slot] = at | s->action.b << 24;
	s->set_slots |= 1ULL << slot;
	return 0;
}

/* ct(): the rest of the list goes on with the packet untracked; with a table, a copy resumes there. */
static __always_inline int vnet_conntrack(struct __sk_buff *skb, struct vnet_scratch *s, __u32 at)
{
	int reason;

	reason = vnet_ct(skb, at);
	VNET_FOLLOW(VNET_STEP_CT, reason, s->ct_zone | s->action.a << 16, s->ct_slot);
	if (reason)
		return reason;
	if (!(s->action.a & VNET_CT_RECIRC)) {
		vnet_ct_clear(s->key);
		return 0;
	}
	if (vnet_is_tail(s))
		return vnet_jump(s, s->action.b >> 16 & 0xff);
	reason = vnet_scope_enter(s);
	if (reason)
		return reason;
	vnet_ct_clear(s->scope[vnet_index(s->scopes - 1, VNET_SCOPES)].key);
	reason = vnet_push(s, VNET_FRAME_SET, 0, 0, 0, 0);
	return reason ? reason : vnet_push(s, VNET_FRAME_TABLE, s->action.b >> 16 & 0xff, 0, VNET_NO_PORT, 0);
}

/* Does an action ask for nothing that parsing would have to tell? */
static __always_inline int vnet_is_blind(__u16 op)
{
	return op == VNET_OP_OUTPUT || op == VNET_OP_OUTPUTS || op == VNET_OP_FLOOD || op == VNET_OP_IN_PORT ||
	       op == VNET_OP_PUSH_VLAN || op == VNET_OP_POP_VLAN || op == VNET_OP_WRITE ||
	       op == VNET_OP_CLEAR || op == VNET_OP_CT_CLEAR;
}

/* Carry out s->action; `at` is the record behind it. Returns 0 or the reason to go no further. */
__noinline int vnet_act(struct __sk_buff *skb, __u32 at)
{
	struct vnet_scratch *s = vnet_scratch();
	__u32 word;

	if (!s)
		return VNET_DROP_ACTION_FAILED;
	word = s->action.a & 31;
	if (s->malformed && !vnet_is_blind(s->action.op))
		return VNET_DROP_MALFORMED;
	switch (s->action.op) {
	case VNET_OP_OUTPUT:
		return vnet_output(s, s->action.b);
	case VNET_OP_OUTPUT_FIELD:
		if (vnet_beyond(word))
			s->cacheable = 0;
		return vnet_output(s, s->key[word] >> (s->action.b & 63) & s->action.mask);
	case VNET_OP_IN_PORT:
		return vnet_output_list(s, VNET_PATH_OUTPUT, s->in_port);
	case VNET_OP_OUTPUTS:
		return vnet_output_list(s, VNET_PATH_OUTPUTS, s->action.b);
	case VNET_OP_FLOOD:
		return vnet_output_list(s, VNET_PATH_OUTPUTS, vnet_all_ports(s));
	case VNET_OP_NORMAL:
		return vnet_output_list(s, VNET_PATH_NORMAL, vnet_all_ports(s));
	case VNET_OP_CONTROLLER:
		return vnet_to_controller(s, vnet_controller_reason(s), s->action.b);
	case VNET_OP_SET:
		if (vnet_has(s, s->action.b))
			vnet_write(s, word, s->action.value, s->action.mask);
		return 0;
	case VNET_OP_MOVE:
		vnet_move(s);
		return 0;
	case VNET_OP_PUSH_VLAN:
		return vnet_push_vlan(s);
	case VNET_OP_POP_VLAN:
		return vnet_pop_vlan(s);
	case VNET_OP_PUSH_MPLS:
		return vnet_push_mpls(skb, s);
	case VNET_OP_POP_MPLS:
		return vnet_pop_mpls(skb, s);
	case VNET_OP_SET_TYPE:
		return vnet_set_type(skb, s);
	case VNET_OP_SET_PROTO:
		return vnet_set_ip_proto(s);
	case VNET_OP_DEC_TTL:
		return vnet_dec_ttl(s, at);
	case VNET_OP_DEC_MPLS_TTL:
		return vnet_dec_mpls_ttl(s);
	case VNET_OP_COPY_TTL_OUT:
		return vnet_copy_ttl_out(skb, s);
	case VNET_OP_COPY_TTL_IN:
		return vnet_copy_ttl_in(skb, s);
	case VNET_OP_CT:
		return vnet_conntrack(skb, s, at);
	case VNET_OP_CT_CLEAR:
		vnet_ct_clear(s->key);
		s->ct_zone = VNET_NO_ZONE;
		return 0;
	case VNET_OP_GROUP:
		return vnet_group(skb, s->action.b);
	case VNET_OP_METER:
		return vnet_meter_action(skb, s);
	case VNET_OP_RESUBMIT:
		return vnet_push(s, VNET_FRAME_TABLE, s->action.a, 0, s->action.b, 1);
	case VNET_OP_WRITE:
		return vnet_write_set(s, at);
	case VNET_OP_CLEAR:
		s->set_slots = 0;
		return 0;
	case VNET_OP_REJECT:
		if (s->action.a)
			vnet_router_refuses(s);
		else
			s->path.reject = VNET_REJECT_PLAIN;
		return 0;
	case VNET_OP_ADVERTISE:
		vnet_commit();
		return vnet_add_op(s, VNET_PATH_ADVERTISE, 0, 0, s->action.value);
	case VNET_OP_DATA:
		return 0;
	}
	return VNET_DROP_UNSUPPORTED;
}

/* -- steps ------------------------------------------------------------------------------------------ */

static __always_inline int vnet_search(struct __sk_buff *skb, struct vnet_scratch *s, struct vnet_frame *f)
{
	__u64 port_word = s->key[VNET_W_PORT];
	__u32 table = f->table, rule_id;
	struct vnet_rule *rule;

	if (s->malformed)
		return VNET_DROP_MALFORMED;
	if (s->lookups++ >= VNET_LOOKUPS)
		return VNET_DROP_LOOP;
	s->path.table = table;
	if (f->at != VNET_NO_PORT)
		s->key[VNET_W_PORT] = (port_word & 0xffffffffULL) | (__u64)f->at << 32;
	rule_id = vnet_classify(table);
	VNET_FOLLOW(VNET_STEP_TABLE, rule_id, table, f->nested);
	s->key[VNET_W_PORT] = port_word;
	rule = rule_id ? bpf_map_lookup_elem(&rules, &rule_id) : 0;
	if (!rule) {
		vnet_count(&table_misses, table);
		s->cacheable = 0; /* nobody would count it */
		if (f->nested) {
			vnet_pop(s);
			return 0;
		}
		return VNET_DROP_TABLE_MISS;
	}
	vnet_meet(skb, s, rule_id);
	s->last_rule = rule_id;
	f->kind = VNET_FRAME_ACTIONS;
	f->at = rule->first_action;
	f->end = rule->first_action + rule->n_actions;
	f->rule = rule_id;
	f->table = rule->goto_table;
	return 0;
}

static __always_inline int vnet_next_action(struct __sk_buff *skb, struct vnet_scratch *s, struct vnet_frame *f)
{
	struct vnet_action *action;
	__u32 at = f->at;

	if (at >= f->end) {
		vnet_pop(s);
		return 0;
	}
	action = bpf_map_lookup_elem(&actions, &at);
	if (!action)
		return VNET_DROP_ACTION_FAILED;
	s->action = *action;
	f->at = at + 1;
	if (s->action.op == VNET_OP_WRITE)
		f->at += s->action.b;
	else if (s->action.op == VNET_OP_CT)
		f->at += s->action.b >> 24;
	return vnet_act(skb, at + 1);
}

static __always_inline int vnet_next_of_set(struct vnet_scratch *s)
{
	__u32 slot, at;

	if (!s->set_slots) {
		vnet_pop(s);
		return 0;
	}
	if (s->set_slots & 1ULL << VNET_SLOT_GROUP)
		s->set_slots &= ~(1ULL << VNET_SLOT_OUTPUT);
	for (slot = 0; slot < VNET_SET - 1; slot++)
		if (s->set_slots & 1ULL << slot)
			break;
	s->set_slots &= ~(1ULL << slot);
	at = s->set[vnet_index(slot, VNET_SET)];
	return vnet_push(s, VNET_FRAME_ACTIONS, VNET_NO_TABLE, (at & 0xffffff) + (at >> 24), at & 0xffffff, 0);
}

/* What happened to one copy of the packet ends there; the others go on. */
static __always_inline void vnet_fail(struct vnet_scratch *s, int reason)
{
	int i;

	vnet_note_failure(s, reason);
	s->set_slots = 0;
	for (i = 0; i < VNET_STACK; i++) {
		struct vnet_frame *f = vnet_top(s);

		if (!f || f->kind == VNET_FRAME_RESTORE || f->kind == VNET_FRAME_BUCKETS)
			return;
		vnet_pop(s);
	}
}

__noinline int vnet_parse_again(struct __sk_buff *skb)
{
	struct vnet_scratch *s = vnet_scratch();

	if (!s)
		return VNET_DROP_ACTION_FAILED;
	s->key[VNET_W_PORT] &= ~0xffffffffULL;
	return vnet_parse(skb, s);
}

/* Carry out what is pending, and read the packet anew if its headers were moved. */
static __always_inline void vnet_flush(struct __sk_buff *skb, struct vnet_scratch *s, __u32 port_flags)
{
	__u8 flush = s->flush;

	vnet_observe(skb, port_flags);
	s->flush = 0;
	s->touched = 1;
	s->flushing = 1;
	vnet_execute(skb);
	s->flushing = 0;
	s->path.n_ops = 0;
	if (flush & VNET_FLUSH_PARSE) {
		s->malformed = vnet_parse_again(skb) != 0;
		__builtin_memcpy(s->base, s->key, sizeof(s->base));
		s->base_tag = s->came_tag = s->vlan;
		s->base_icmp_id = s->icmp_id;
	}
	if (s->failure == VNET_DROP_ACTION_FAILED)
		vnet_fail(s, VNET_DROP_ACTION_FAILED);
}

struct vnet_walking {
	struct __sk_buff *skb;
	__u32 port_flags;
	__u32 pad;
};

static long vnet_step(__u32 step __attribute__((unused)), struct vnet_walking *walking)
{
	struct __sk_buff *skb = walking->skb;
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_frame *f;
	int reason = 0;

	if (!s)
		return 1;
	if (s->path.n_ops > VNET_OPS - 16) { /* room for a commit and an output */
		s->cacheable = 0;
		s->flush |= VNET_FLUSH_OPS;
	}
	if (s->flush) {
		vnet_flush(skb, s, walking->port_flags);
		return 0;
	}
	f = vnet_top(s);
	if (!f)
		return 1;
	if (f->kind == VNET_FRAME_ACTIONS && f->at >= f->end && f->table != VNET_NO_TABLE) {
		f->kind = VNET_FRAME_TABLE;
		f->at = VNET_NO_PORT;
	}
	switch (f->kind) {
	case VNET_FRAME_TABLE:
		reason = vnet_search(skb, s, f);
		break;
	case VNET_FRAME_ACTIONS:
		reason = vnet_next_action(skb, s, f);
		break;
	case VNET_FRAME_SET:
		reason = vnet_next_of_set(s);
		break;
	case VNET_FRAME_BUCKETS:
		reason = vnet_next_bucket(skb, s, f);
		break;
	case VNET_FRAME_RESTORE:
		vnet_scope_leave(s, f);
		break;
	default:
		vnet_pop(s);
	}
	if (reason)
		vnet_fail(s, reason);
	return 0;
}

#endif
