/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Packet bytes -> key words. Every header is checked against the frame's real length; what
 * contradicts itself is VNET_DROP_MALFORMED, because a guess here is a hole in a guard there.
 */
#ifndef VNET_PARSE_H
#define VNET_PARSE_H

#include "maps.h"
#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define VNET_MAX_EXT_HEADERS 8
#define VNET_ND_OPTIONS 8
#define VNET_HEADERS 192 /* bytes made linear before parsing */

#define VNET_FRAG_FIRST 1
#define VNET_FRAG_LATER 3

#define VNET_ETH_P_8021Q 0x8100
#define VNET_ETH_P_8021AD 0x88a8

struct vnet_arp {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 op;
	__u8 sha[6], spa[4], tha[6], tpa[4];
};

/* Where parsing stands: offset of the next header and how many bytes the packet has from there. */
struct vnet_cursor {
	__u32 offset;
	__u32 length;
	__u8 proto;
	__u8 frag;
};

static __always_inline __u64 vnet_mac(const __u8 *p)
{
	return (__u64)p[0] << 40 | (__u64)p[1] << 32 | (__u64)p[2] << 24 | (__u64)p[3] << 16 |
	       (__u64)p[4] << 8 | p[5];
}

static __always_inline __u64 vnet_be64(const __u8 *p)
{
	return (__u64)p[0] << 56 | (__u64)p[1] << 48 | (__u64)p[2] << 40 | (__u64)p[3] << 32 |
	       (__u64)p[4] << 24 | (__u64)p[5] << 16 | (__u64)p[6] << 8 | p[7];
}

static __always_inline __u32 vnet_be32(const __u8 *p)
{
	return (__u32)p[0] << 24 | (__u32)p[1] << 16 | (__u32)p[2] << 8 | p[3];
}

/* Ethernet and at most one tag, in the skb's metadata or in the data. */
static __always_inline int vnet_parse_ethernet(struct __sk_buff *skb, struct vnet_scratch *s,
					       struct vnet_cursor *c, __u16 *eth_type)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	__u64 tci = 0;

	if ((void *)(eth + 1) > end)
		return VNET_DROP_MALFORMED;
	c->offset = sizeof(*eth);
	c->length = skb->len - sizeof(*eth);
	*eth_type = bpf_ntohs(eth->h_proto);
	s->vlan_tci = 0;
	if (skb->vlan_present) {
		tci = skb->vlan_tci | VNET_VLAN_PRESENT;
		s->vlan_tpid = bpf_ntohs(skb->vlan_proto);
	} else if (*eth_type == VNET_ETH_P_8021Q || *eth_type == VNET_ETH_P_8021AD) {
		__be16 *tag = data + sizeof(*eth);

		if ((void *)(tag + 2) > end)
			return VNET_DROP_MALFORMED;
		tci = bpf_ntohs(tag[0]) | VNET_VLAN_PRESENT;
		s->vlan_tpid = *eth_type;
		*eth_type = bpf_ntohs(tag[1]);
		c->offset += 4;
		c->length -= 4;
	}
	if (*eth_type < 0x600) /* 802.3 framing: a length, not a type; 0x05ff as in OpenFlow 1.0 */
		*eth_type = 0x05ff;
	s->vlan_tci = tci;
	s->inner_type = *eth_type;
	s->key[VNET_W_DST] = vnet_mac(eth->h_dest) << 16 | tci;
	s->key[VNET_W_SRC] = vnet_mac(eth->h_source) << 16 | *eth_type;
	return 0;
}

static __always_inline int vnet_parse_arp(struct __sk_buff *skb, struct vnet_scratch *s,
					  const struct vnet_cursor *c)
{
	struct vnet_arp arp;

	if (bpf_skb_load_bytes(skb, c->offset, &arp, sizeof(arp)) < 0)
		return VNET_DROP_MALFORMED;
	if (arp.hardware != bpf_htons(1) || arp.protocol != bpf_htons(ETH_P_IP) || arp.hardware_len != 6 ||
	    arp.protocol_len != 4)
		return VNET_DROP_MALFORMED;
	s->key[VNET_W_IP_SRC + 1] = vnet_be32(arp.spa);
	s->key[VNET_W_IP_DST + 1] = vnet_be32(arp.tpa);
	s->key[VNET_W_L4] = bpf_ntohs(arp.op);
	s->key[VNET_W_SHA] = vnet_mac(arp.sha);
	s->key[VNET_W_THA] = vnet_mac(arp.tha);
	return 0;
}

static __always_inline int vnet_parse_ipv4(struct __sk_buff *skb, struct vnet_scratch *s, struct vnet_cursor *c)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + c->offset;
	__u32 header, total;
	__u16 frag;

	if ((void *)(ip + 1) > end || c->length < sizeof(*ip))
		return VNET_DROP_MALFORMED;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || total < header || total > c->length)
		return VNET_DROP_MALFORMED;
	frag = bpf_ntohs(ip->frag_off);
	if (frag & 0x1fff)
		c->frag = VNET_FRAG_LATER;
	else if (frag & 0x2000)
		c->frag = VNET_FRAG_FIRST;
	s->key[VNET_W_IP_SRC + 1] = bpf_ntohl(ip->saddr);
	s->key[VNET_W_IP_DST + 1] = bpf_ntohl(ip->daddr);
	c->proto = ip->protocol;
	s->key[VNET_W_PORT] |= (__u64)ip->tos << 16;
	c->offset += header;
	c->length = total - header;
	return 0;
}

/* One extension header; returns 1 when it was one, 0 when `proto` is the upper layer, < 0 malformed. */
static __always_inline int vnet_skip_extension(struct __sk_buff *skb, struct vnet_cursor *c)
{
	__u8 header[8];
	__u32 size;

	switch (c->proto) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case IPPROTO_FRAGMENT:
		break;
	default:
		return 0;
	}
	if (c->length < sizeof(header) || bpf_skb_load_bytes(skb, c->offset, header, sizeof(header)) < 0)
		return -1;
	size = 8 + header[1] * 8;
	if (c->proto == IPPROTO_FRAGMENT) {
		__u16 offset = header[2] << 8 | header[3];

		size = 8;
		if (offset >> 3)
			c->frag = VNET_FRAG_LATER;
		else if (offset & 1)
			c->frag = VNET_FRAG_FIRST;
	}
	if (size > c->length)
		return -1;
	c->proto = header[0];
	c->offset += size;
	c->length -= size;
	return 1;
}

static __always_inline int vnet_parse_ipv6(struct __sk_buff *skb, struct vnet_scratch *s, struct vnet_cursor *c)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + c->offset;
	__u32 payload;
	int i;

	if ((void *)(ip + 1) > end || c->length < sizeof(*ip))
		return VNET_DROP_MALFORMED;
	payload = bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || payload > c->length - sizeof(*ip))
		return VNET_DROP_MALFORMED;
	s->key[VNET_W_IP_SRC] = vnet_be64((__u8 *)&ip->saddr);
	s->key[VNET_W_IP_SRC + 1] = vnet_be64((__u8 *)&ip->saddr + 8);
	s->key[VNET_W_IP_DST] = vnet_be64((__u8 *)&ip->daddr);
	s->key[VNET_W_IP_DST + 1] = vnet_be64((__u8 *)&ip->daddr + 8);
	s->key[VNET_W_PORT] |= (__u64)((ip->priority << 4 | ip->flow_lbl[0] >> 4) & 0xff) << 16;
	c->proto = ip->nexthdr;
	c->offset += sizeof(*ip);
	c->length = payload;
	for (i = 0; i <= VNET_MAX_EXT_HEADERS; i++) {
		int more = vnet_skip_extension(skb, c);

		if (more < 0)
			return VNET_DROP_MALFORMED;
		if (!more || c->frag == VNET_FRAG_LATER)
			return 0;
	}
	return VNET_DROP_MALFORMED;
}

/* Neighbour solicitation and advertisement (RFC 4861, sections 4.3 and 4.4) and their address option. */
static __always_inline int vnet_parse_nd(struct __sk_buff *skb, struct vnet_scratch *s,
					 const struct vnet_cursor *c, __u8 type)
{
	__u32 offset = c->offset + 24, left = c->length - 24;
	__u8 bytes[16], wanted = type == 135 ? 1 : 2, seen = 0;
	int i, word = type == 135 ? VNET_W_SHA : VNET_W_THA;

	if (c->length < 24 || bpf_skb_load_bytes(skb, c->offset + 8, bytes, 16) < 0)
		return VNET_DROP_MALFORMED;
	s->key[VNET_W_ND_TARGET] = vnet_be64(bytes);
	s->key[VNET_W_ND_TARGET + 1] = vnet_be64(bytes + 8);
	for (i = 0; i < VNET_ND_OPTIONS && left >= 8; i++) {
		__u32 size;

		if (bpf_skb_load_bytes(skb, offset, bytes, 8) < 0)
			return VNET_DROP_MALFORMED;
		size = bytes[1] * 8;
		if (!size || size > left)
			return VNET_DROP_MALFORMED;
		if (bytes[0] == wanted && size == 8 && !seen) {
			s->key[word] = vnet_mac(bytes + 2);
			seen = 1;
		}
		offset += size;
		left -= size;
	}
	return left ? VNET_DROP_MALFORMED : 0;
}

static __always_inline int vnet_parse_icmp(struct __sk_buff *skb, struct vnet_scratch *s,
					   const struct vnet_cursor *c)
{
	__u8 header[8];

	if (c->length < sizeof(header) || bpf_skb_load_bytes(skb, c->offset, header, sizeof(header)) < 0)
		return VNET_DROP_MALFORMED;
	s->key[VNET_W_L4] = (__u64)header[0] << 48 | (__u64)header[1] << 32;
	s->key[VNET_W_PORT] |= VNET_HAS_L4;
	s->icmp_id = header[4] << 8 | header[5];
	if (c->proto == IPPROTO_ICMPV6 && (header[0] == 135 || header[0] == 136))
		return vnet_parse_nd(skb, s, c, header[0]);
	return 0;
}

static __always_inline int vnet_parse_transport(struct __sk_buff *skb, struct vnet_scratch *s,
						const struct vnet_cursor *c)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 minimum = c->proto == IPPROTO_TCP ? 20 : c->proto == IPPROTO_UDP ? 8 : 12;
	__u32 offset = c->offset;
	__u8 *header;

	if (c->length < minimum || offset > 1024)
		return VNET_DROP_MALFORMED;
	s->key[VNET_W_PORT] |= VNET_HAS_L4;
	header = data + offset;
	if ((void *)(header + 20) > end) { /* rare: short datagrams, long extension headers */
		__u8 copy[20] = {};

		if (bpf_skb_load_bytes(skb, offset, copy, minimum == 20 ? 20 : 8) < 0)
			return VNET_DROP_MALFORMED;
		if (minimum == 20 && (copy[12] >> 4 < 5 || (copy[12] >> 4) * 4 > c->length))
			return VNET_DROP_MALFORMED;
		s->key[VNET_W_L4] = (__u64)vnet_be32(copy) << 32;
		s->tcp_flags = copy[13] & 0x3f;
		return 0;
	}
	if (minimum == 20) {
		if (header[12] >> 4 < 5 || (header[12] >> 4) * 4 > c->length)
			return VNET_DROP_MALFORMED;
		s->tcp_flags = header[13] & 0x3f;
	}
	s->key[VNET_W_L4] = (__u64)vnet_be32(header) << 32;
	return 0;
}

/* Fill the scratch's key and offsets. Returns 0 or a drop reason. */
static __always_inline int vnet_parse(struct __sk_buff *skb, struct vnet_scratch *s)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct vnet_cursor c = {};
	__u16 eth_type;
	int reason;

	if (data + VNET_HEADERS > end && skb->len > (__u32)(end - data))
		bpf_skb_pull_data(skb, skb->len < VNET_HEADERS ? skb->len : VNET_HEADERS);
	reason = vnet_parse_ethernet(skb, s, &c, &eth_type);
	if (reason)
		return reason;
	if (eth_type == ETH_P_ARP)
		return vnet_parse_arp(skb, s, &c);
	if (eth_type == ETH_P_IP)
		reason = vnet_parse_ipv4(skb, s, &c);
	else if (eth_type == ETH_P_IPV6)
		reason = vnet_parse_ipv6(skb, s, &c);
	else
		return 0;
	if (reason)
		return reason;
	s->key[VNET_W_PORT] |= (__u64)c.proto << 24 | (__u64)c.frag << 8;
	s->l4_offset = c.offset;
	s->l4_length = c.length;
	if (c.frag == VNET_FRAG_LATER)
		return 0;
	if (c.proto == IPPROTO_TCP || c.proto == IPPROTO_UDP || c.proto == IPPROTO_SCTP)
		return vnet_parse_transport(skb, s, &c);
	if ((c.proto == IPPROTO_ICMP && eth_type == ETH_P_IP) ||
	    (c.proto == IPPROTO_ICMPV6 && eth_type == ETH_P_IPV6))
		return vnet_parse_icmp(skb, s, &c);
	return 0;
}

#endif
