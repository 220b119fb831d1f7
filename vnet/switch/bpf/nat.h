/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Translation of addresses and ports (ovs-actions(7), nat). */
#ifndef VNET_NAT_H
#define VNET_NAT_H

#include "connections.h"

/* Translation (ovs-actions(7), nat): write into the key what packets of a direction look like on the
 * other side: the reverse of what the other direction's packets look like there.
 */
static __always_inline void vnet_nat_apply(struct vnet_scratch *s, const struct vnet_conn *conn, __u32 dir)
{
	const struct vnet_ct_key *other = &conn->key[(dir & 1) ^ 1];
	__u8 proto = s->key[VNET_W_PORT] >> 24, nat = conn->nat;

	if (!nat)
		return;
	if (dir & 1)
		nat = (nat & VNET_CS_SNAT ? VNET_CS_DNAT : 0) | (nat & VNET_CS_DNAT ? VNET_CS_SNAT : 0);
	if (nat & VNET_CS_SNAT) { /* who sends an error about another's packet may be none of the two */
		s->key[VNET_W_IP_SRC] = other->dst[0];
		s->key[VNET_W_IP_SRC + 1] = other->dst[1];
	}
	if (nat & VNET_CS_DNAT) {
		s->key[VNET_W_IP_DST] = other->src[0];
		s->key[VNET_W_IP_DST + 1] = other->src[1];
	}
	s->key[VNET_W_CT] |= nat;
	if (s->key[VNET_W_CT] & VNET_CS_REL)
		return;
	if (proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP)
		s->key[VNET_W_L4] = (s->key[VNET_W_L4] & 0xffffffffULL) | (__u64)other->dport << 48 |
				    (__u64)other->sport << 32;
	else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6)
		s->icmp_id = other->dport == 0x0800 ? other->sport : other->dport;
}

/* Is there something to choose besides the address: a port, or the identifier of who asks with an echo? */
static __always_inline int vnet_nat_has_port(const struct vnet_scratch *s, __u16 port)
{
	__u8 proto = s->ct_key.proto;

	if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6)
		return port != 0x0800;
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

/* Choose what replies look like under a translation: an address and a port of the range (records `at` and
 * on) that no other connection's replies have. Returns 0 or a drop reason; s->ct_reverse is the choice.
 */
__noinline int vnet_nat_choose(__u32 at, __u32 flags)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_action *high, *low, *ports;
	__u32 at_low = at + 1, at_ports = at + 2, first = 0, count = 0, i;
	__u64 hash, span;
	__u16 port;

	if (!s)
		return VNET_DROP_ACTION_FAILED;
	high = bpf_map_lookup_elem(&actions, &at);
	low = bpf_map_lookup_elem(&actions, &at_low);
	ports = bpf_map_lookup_elem(&actions, &at_ports);
	if (!high || !low || !ports)
		return VNET_DROP_ACTION_FAILED;
	hash = (s->ct_key.src[1] ^ s->ct_key.dst[1] << 13 ^ (__u64)s->ct_key.sport << 32 ^ s->ct_key.dport) *
	       0x9e3779b97f4a7c15ULL;
	span = low->mask - low->value + 1;
	if (flags & VNET_CT_NAT_ADDRESS) {
		__u64 chosen = low->value + (span ? (hash >> 32) % span : 0);

		if (flags & VNET_CT_SNAT) {
			s->ct_reverse.dst[0] = high->value;
			s->ct_reverse.dst[1] = chosen;
		} else {
			s->ct_reverse.src[0] = high->value;
			s->ct_reverse.src[1] = chosen;
		}
	}
	port = flags & VNET_CT_SNAT ? s->ct_reverse.dport : s->ct_reverse.sport;
	if (!vnet_nat_has_port(s, port))
		return bpf_map_lookup_elem(&conn_index, &s->ct_reverse) ? VNET_DROP_NAT_FULL : 0;
	if (flags & VNET_CT_NAT_PORT) {
		first = (__u16)ports->value;
		count = (__u16)ports->mask - first + 1;
		if (port < first || port >= first + count)
			port = first + (__u32)(hash >> 40) % (count ? count : 1);
	} else if (flags & VNET_CT_SNAT) { /* who may have had a low port keeps one */
		first = port < 512 ? 1 : port < 1024 ? 600 : 1024;
		count = port < 512 ? 511 : port < 1024 ? 424 : 64512;
	}
	for (i = 0; i < 64; i++) {
		if (flags & VNET_CT_SNAT)
			s->ct_reverse.dport = port;
		else
			s->ct_reverse.sport = port;
		if (!bpf_map_lookup_elem(&conn_index, &s->ct_reverse))
			return 0;
		if (i >= count)
			break;
		port = port < first || (__u32)port + 1 >= first + count ? first : port + 1;
	}
	return VNET_DROP_NAT_FULL;
}

#endif
