/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Which connection a packet belongs to: its tuple, and that of the packet which an ICMP error quotes. */
#ifndef VNET_TUPLE_H
#define VNET_TUPLE_H

#include "connections.h"

/* The tuple of an ICMP echo: the answering side is told by 0x0800 in place of a port, so that a
 * request in the other direction is another connection. Returns 0 if it is no echo, whose code is 0.
 */
static __always_inline int vnet_ct_echo(struct vnet_ct_key *key, __u8 proto, __u8 type, __u8 code, __u16 id)
{
	__u8 request = proto == IPPROTO_ICMP ? 8 : 128, reply = proto == IPPROTO_ICMP ? 0 : 129;

	if (code || (type != request && type != reply))
		return 0;
	key->sport = type == request ? id : 0x0800;
	key->dport = type == request ? 0x0800 : id;
	return 1;
}

/* ICMP errors (RFC 792: 3, 4, 11, 12; RFC 4443: 1-4) and redirects are about another packet. */
static __always_inline int vnet_ct_is_error(__u8 proto, __u8 type)
{
	if (proto == IPPROTO_ICMP)
		return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
	return proto == IPPROTO_ICMPV6 && type >= 1 && type <= 4;
}

/* Fill s->ct_key from the packet. Returns 0 if the packet can belong to no connection. */
static __always_inline int vnet_ct_key_of(struct vnet_scratch *s, __u16 zone)
{
	__u8 proto = s->key[VNET_W_PORT] >> 24, frag = s->key[VNET_W_PORT] >> 8;
	__u16 eth_type = s->key[VNET_W_SRC];
	__u64 l4 = s->key[VNET_W_L4];
	struct vnet_ct_key *key = &s->ct_key;

	if (eth_type != ETH_P_IP && eth_type != ETH_P_IPV6)
		return 0;
	if (frag == VNET_FRAG_LATER && !(s->key[VNET_W_PORT] & VNET_HAS_L4))
		return 0;
	key->src[0] = s->key[VNET_W_IP_SRC];
	key->src[1] = s->key[VNET_W_IP_SRC + 1];
	key->dst[0] = s->key[VNET_W_IP_DST];
	key->dst[1] = s->key[VNET_W_IP_DST + 1];
	key->sport = l4 >> 48;
	key->dport = l4 >> 32;
	key->zone = zone;
	key->proto = proto;
	key->family = eth_type == ETH_P_IP ? 4 : 6;
	if (proto == (eth_type == ETH_P_IP ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return vnet_ct_echo(key, proto, l4 >> 48, l4 >> 32, s->icmp_id);
	return 1;
}

/* The tuple of the packet an ICMP error quotes. Returns 0 if the quotation cannot be read, or if the
 * error is addressed to somebody else than the quoted sender.
 */
static __always_inline int vnet_ct_inner_key(struct __sk_buff *skb, struct vnet_scratch *s, __u16 zone)
{
	struct vnet_cursor c = { .offset = s->l4_offset + 8, .length = s->l4_length - 8 };
	struct vnet_ct_key *key = &s->ct_key;
	__u8 bytes[40], ports[8];
	__u16 eth_type = s->key[VNET_W_SRC];
	__u32 header = eth_type == ETH_P_IP ? 20 : 40;

	__builtin_memset(key, 0, sizeof(*key));
	key->zone = zone;
	if (c.length < header)
		return 0;
	if (eth_type == ETH_P_IP) {
		if (bpf_skb_load_bytes(skb, c.offset, bytes, 20) < 0)
			return 0;
		header = (bytes[0] & 15) * 4;
		if (bytes[0] >> 4 != 4 || header < 20 || header > c.length || (bytes[6] & 0x1f) || bytes[7])
			return 0;
		key->src[1] = vnet_be32(bytes + 12);
		key->dst[1] = vnet_be32(bytes + 16);
		key->family = 4;
		c.proto = bytes[9];
	} else {
		if (bpf_skb_load_bytes(skb, c.offset, bytes, 40) < 0 || bytes[0] >> 4 != 6)
			return 0;
		key->src[0] = vnet_be64(bytes + 8);
		key->src[1] = vnet_be64(bytes + 16);
		key->dst[0] = vnet_be64(bytes + 24);
		key->dst[1] = vnet_be64(bytes + 32);
		key->family = 6;
		c.proto = bytes[6];
	}
	if (key->src[0] != s->key[VNET_W_IP_DST] || key->src[1] != s->key[VNET_W_IP_DST + 1])
		return 0;
	c.offset += header;
	c.length -= header;
	if (key->family == 6) {
		s->cursor = c;
		if (vnet_skip_extensions(skb) < 0)
			return 0;
		c = s->cursor;
	}
	if (c.frag == VNET_FRAG_LATER || c.length < sizeof(ports) ||
	    bpf_skb_load_bytes(skb, c.offset, ports, sizeof(ports)) < 0)
		return 0;
	key->proto = c.proto;
	if (key->proto == (key->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return vnet_ct_echo(key, key->proto, ports[0], ports[1], ports[4] << 8 | ports[5]);
	if (key->proto == IPPROTO_TCP || key->proto == IPPROTO_UDP || key->proto == IPPROTO_SCTP) {
		key->sport = ports[0] << 8 | ports[1];
		key->dport = ports[2] << 8 | ports[3];
	}
	return 1;
}

/* The connection s->ct_key belongs to, or NULL; *found says which slot and direction, s->ct_gen which
 * generation of the slot.
 */
static __always_inline struct vnet_conn *vnet_ct_find(struct vnet_scratch *s, struct vnet_ct_ref *found)
{
	struct vnet_ct_ref *ref = bpf_map_lookup_elem(&conn_index, &s->ct_key);
	struct vnet_conn *conn;

	if (!ref)
		return 0;
	*found = *ref;
	conn = bpf_map_lookup_elem(&conns, &found->slot);
	if (!conn)
		return 0;
	s->ct_gen = *(volatile __u32 *)&conn->gen;
	if (!(s->ct_gen & 1) || !vnet_ct_key_equal(&conn->key[found->dir & 1], &s->ct_key))
		return 0;
	return conn;
}

#endif
