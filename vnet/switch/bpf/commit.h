/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the key says of the packet and what the packet's bytes say may differ while a rule's actions are
 * carried out. An output brings them together: for each difference an operation is written down that
 * changes the bytes. So nothing is written twice, and a group can go back to what the key was before.
 * Open vSwitch's lib/odp-util.c, commit_odp_actions, works like this.
 */
#ifndef VNET_COMMIT_H
#define VNET_COMMIT_H

#include "parse.h"

static __always_inline int vnet_add_op(struct vnet_scratch *s, __u8 kind, __u8 a, __u32 arg, __u64 value)
{
	__u32 n = s->path.n_ops;
	struct vnet_op *op;

	if (n >= VNET_OPS)
		return VNET_DROP_UNSUPPORTED;
	op = &s->ops[vnet_index(n, VNET_OPS)];
	op->kind = kind;
	op->a = a;
	op->b = s->path.table;
	op->arg = arg;
	op->value = value;
	s->path.n_ops = n + 1;
	return 0;
}

static __always_inline __u64 vnet_changed(const struct vnet_scratch *s, __u32 word, __u64 mask)
{
	return (s->key[word] ^ s->base[word]) & mask;
}

/* One operation for the bits of `word` from `shift` up, `mask` of them, if they changed. */
static __always_inline void vnet_commit_field(struct vnet_scratch *s, __u32 word, __u32 shift, __u64 mask,
					      __u8 place)
{
	if (vnet_changed(s, word, mask << shift))
		vnet_add_op(s, VNET_PATH_SET, place, 0, s->key[word] >> shift & mask);
}

static __always_inline void vnet_commit_ttl(struct vnet_scratch *s, __u8 place)
{
	__u8 before = s->base[VNET_W_MORE] >> 56, now = s->key[VNET_W_MORE] >> 56;

	if (before == now)
		return;
	if (s->ttl_set)
		vnet_add_op(s, VNET_PATH_SET, place, 0, now);
	else
		vnet_add_op(s, VNET_PATH_DEC_TTL, place, before - now, s->router);
}

static __always_inline void vnet_commit_l4(struct vnet_scratch *s, __u16 eth_type)
{
	__u8 proto = s->base[VNET_W_PORT] >> 24;

	if ((__u8)(s->key[VNET_W_PORT] >> 8) == VNET_FRAG_LATER || !(s->key[VNET_W_PORT] & VNET_HAS_L4))
		return;
	if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
		if (vnet_changed(s, VNET_W_L4, 0x00ff00ff00000000ULL))
			vnet_add_op(s, VNET_PATH_SET, VNET_PLACE_ICMP, 0,
				    (s->key[VNET_W_L4] >> 40 & 0xff00) | (s->key[VNET_W_L4] >> 32 & 0xff));
		if (s->icmp_id != s->base_icmp_id)
			vnet_add_op(s, VNET_PATH_SET, VNET_PLACE_ICMP_ID, 0, s->icmp_id);
		if (eth_type != ETH_P_IPV6)
			return;
		vnet_commit_field(s, VNET_W_ND_TARGET, 0, ~0ULL, VNET_PLACE_ND_TARGET_HIGH);
		vnet_commit_field(s, VNET_W_ND_TARGET + 1, 0, ~0ULL, VNET_PLACE_ND_TARGET_LOW);
		if (!s->nd_offset)
			return;
		vnet_commit_field(s, VNET_W_SHA, 0, 0xffffffffffffULL, VNET_PLACE_ND_LINK);
		vnet_commit_field(s, VNET_W_THA, 0, 0xffffffffffffULL, VNET_PLACE_ND_LINK);
		return;
	}
	vnet_commit_field(s, VNET_W_L4, 48, 0xffff, VNET_PLACE_L4_SRC);
	vnet_commit_field(s, VNET_W_L4, 32, 0xffff, VNET_PLACE_L4_DST);
}

static __always_inline void vnet_commit_ipv4(struct vnet_scratch *s)
{
	vnet_commit_field(s, VNET_W_IP_SRC + 1, 0, 0xffffffff, VNET_PLACE_IPV4_SRC);
	vnet_commit_field(s, VNET_W_IP_DST + 1, 0, 0xffffffff, VNET_PLACE_IPV4_DST);
	vnet_commit_field(s, VNET_W_PORT, 16, 0xff, VNET_PLACE_IPV4_TOS);
	vnet_commit_ttl(s, VNET_PLACE_IPV4_TTL);
	vnet_commit_l4(s, ETH_P_IP);
}

static __always_inline void vnet_commit_ipv6(struct vnet_scratch *s)
{
	vnet_commit_field(s, VNET_W_IP_SRC, 0, ~0ULL, VNET_PLACE_IPV6_SRC_HIGH);
	vnet_commit_field(s, VNET_W_IP_SRC + 1, 0, ~0ULL, VNET_PLACE_IPV6_SRC_LOW);
	vnet_commit_field(s, VNET_W_IP_DST, 0, ~0ULL, VNET_PLACE_IPV6_DST_HIGH);
	vnet_commit_field(s, VNET_W_IP_DST + 1, 0, ~0ULL, VNET_PLACE_IPV6_DST_LOW);
	vnet_commit_field(s, VNET_W_PORT, 16, 0xff, VNET_PLACE_IPV6_TC);
	vnet_commit_field(s, VNET_W_MORE, 0, 0xfffff, VNET_PLACE_IPV6_LABEL);
	vnet_commit_ttl(s, VNET_PLACE_IPV6_HOPS);
	vnet_commit_l4(s, ETH_P_IPV6);
}

static __always_inline void vnet_commit_arp(struct vnet_scratch *s)
{
	vnet_commit_field(s, VNET_W_L4, 0, 0xffff, VNET_PLACE_ARP_OP);
	vnet_commit_field(s, VNET_W_SHA, 0, 0xffffffffffffULL, VNET_PLACE_ARP_SHA);
	vnet_commit_field(s, VNET_W_IP_SRC + 1, 0, 0xffffffff, VNET_PLACE_ARP_SPA);
	vnet_commit_field(s, VNET_W_THA, 0, 0xffffffffffffULL, VNET_PLACE_ARP_THA);
	vnet_commit_field(s, VNET_W_IP_DST + 1, 0, 0xffffffff, VNET_PLACE_ARP_TPA);
}

/* The outermost tag as it is to be, 0 = none. One that is as it came may be drop-eligible, one that was
 * written is not: no field tells of it.
 */
static __always_inline __u32 vnet_wanted_tag(const struct vnet_scratch *s)
{
	__u16 tci = s->key[VNET_W_DST];
	__u32 tag = s->tpid << 16 | (tci & ~VNET_VLAN_PRESENT);

	if (!tci)
		return 0;
	return tag == (s->came_tag & ~VNET_VLAN_DEI) ? s->came_tag : tag;
}

/* Write down what makes the packet's bytes what the key says. Returns 0 or a drop reason. */
__noinline int vnet_commit(void)
{
	struct vnet_scratch *s = vnet_scratch();
	__u16 eth_type;
	int i;

	if (!s)
		return VNET_DROP_ACTION_FAILED;
	eth_type = s->key[VNET_W_SRC];
	vnet_commit_field(s, VNET_W_DST, 16, 0xffffffffffffULL, VNET_PLACE_ETH_DST);
	vnet_commit_field(s, VNET_W_SRC, 16, 0xffffffffffffULL, VNET_PLACE_ETH_SRC);
	if (eth_type == ETH_P_IP)
		vnet_commit_ipv4(s);
	else if (eth_type == ETH_P_IPV6)
		vnet_commit_ipv6(s);
	else if (eth_type == ETH_P_ARP)
		vnet_commit_arp(s);
	else if (vnet_is_mpls(eth_type))
		vnet_commit_field(s, VNET_W_MPLS, 0, 0xffffffff, VNET_PLACE_MPLS);
	if (s->ct_nat_inner) {
		s->ct_nat_inner = 0;
		vnet_add_op(s, VNET_PATH_NAT_INNER, s->ct_dir, s->ct_slot, 0);
	}
	if (vnet_wanted_tag(s) != s->base_tag)
		vnet_add_op(s, VNET_PATH_VLAN, 0, 0, vnet_wanted_tag(s));
	s->base_tag = vnet_wanted_tag(s);
	for (i = 0; i < VNET_W_METADATA; i++)
		s->base[i] = s->key[i];
	s->base[VNET_W_MORE] = s->key[VNET_W_MORE];
	s->base[VNET_W_MPLS] = s->key[VNET_W_MPLS];
	s->base_icmp_id = s->icmp_id;
	return 0;
}

#endif
