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
#define VNET_FRAG_LATER_BIT 2

#define VNET_ETH_P_8021Q 0x8100
#define VNET_ETH_P_8021AD 0x88a8
#define VNET_ETH_P_MPLS 0x8847
#define VNET_ETH_P_MPLS_MC 0x8848

/* Bits of ipv6_exthdr (OpenFlow 1.3.5, section 7.2.3.7). */
#define VNET_EXT_NO_NEXT 0x001
#define VNET_EXT_ESP 0x002
#define VNET_EXT_AUTH 0x004
#define VNET_EXT_DEST 0x008
#define VNET_EXT_FRAG 0x010
#define VNET_EXT_ROUTER 0x020
#define VNET_EXT_HOP 0x040
#define VNET_EXT_UNREP 0x080
#define VNET_EXT_UNSEQ 0x100

struct vnet_arp {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 op;
	__u8 sha[6], spa[4], tha[6], tpa[4];
};

static __always_inline int vnet_is_vlan(__u16 eth_type)
{
	return eth_type == VNET_ETH_P_8021Q || eth_type == VNET_ETH_P_8021AD;
}

static __always_inline int vnet_is_mpls(__u16 eth_type)
{
	return eth_type == VNET_ETH_P_MPLS || eth_type == VNET_ETH_P_MPLS_MC;
}

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

/* The same from packet memory, which may be read at any alignment. */
static __always_inline __u64 vnet_load64(const void *p)
{
	return bpf_be64_to_cpu(*(const __be64 *)p);
}

static __always_inline __u32 vnet_be32(const __u8 *p)
{
	return (__u32)p[0] << 24 | (__u32)p[1] << 16 | (__u32)p[2] << 8 | p[3];
}

/* Operations that write a tag keep its type, and one that brings it back its drop-eligible indicator: paths
 * that differ in these are kept apart. Returns the tag as the key has it.
 */
static __always_inline __u64 vnet_note_tag(struct vnet_scratch *s, __u16 tpid, __u16 tci)
{
	s->vlan = (__u32)tpid << 16 | tci;
	if (tpid == VNET_ETH_P_8021AD)
		s->key[VNET_W_PORT] |= VNET_HAS_STAG;
	if (tci & VNET_VLAN_DEI)
		s->key[VNET_W_PORT] |= VNET_HAS_DEI;
	return tci | VNET_VLAN_PRESENT;
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
	*eth_type = bpf_ntohs(*(__be16 *)(data + 12)); /* the packed struct is read by bytes */
	s->vlan = 0;
	if (skb->vlan_present) {
		tci = vnet_note_tag(s, bpf_ntohs(skb->vlan_proto), skb->vlan_tci);
	} else if (vnet_is_vlan(*eth_type)) {
		__be16 *tag = data + sizeof(*eth);

		if ((void *)(tag + 2) > end)
			return VNET_DROP_MALFORMED;
		tci = vnet_note_tag(s, *eth_type, bpf_ntohs(tag[0]));
		*eth_type = bpf_ntohs(tag[1]);
		c->offset += 4;
		c->length -= 4;
	}
	if (*eth_type < 0x600) /* 802.3 framing: a length, not a type; 0x05ff as in OpenFlow 1.0 */
		*eth_type = 0x05ff;
	s->tpid = s->vlan >> 16;
	s->inner_type = *eth_type;
	s->key[VNET_W_DST] = (vnet_load64(data) & ~0xffffULL) | tci;
	s->key[VNET_W_SRC] = (vnet_load64(data + 6) & ~0xffffULL) | *eth_type;
	return 0;
}

/* The outermost label stack entry (RFC 3032, section 2.1); nothing behind it is looked at. */
static __always_inline int vnet_parse_mpls(struct __sk_buff *skb, struct vnet_scratch *s,
					   const struct vnet_cursor *c)
{
	__u8 entry[4];

	if (bpf_skb_load_bytes(skb, c->offset, entry, sizeof(entry)) < 0)
		return VNET_DROP_MALFORMED;
	s->key[VNET_W_MPLS] = vnet_be32(entry);
	s->mpls_offset = c->offset;
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
	s->frag_id = ip->id;
	s->frag_offset = (frag & 0x1fff) * 8;
	if (frag & 0x1fff)
		c->frag = VNET_FRAG_LATER;
	else if (frag & 0x2000)
		c->frag = VNET_FRAG_FIRST;
	s->key[VNET_W_IP_SRC + 1] = bpf_ntohl(ip->saddr);
	s->key[VNET_W_IP_DST + 1] = bpf_ntohl(ip->daddr);
	c->proto = ip->protocol;
	s->key[VNET_W_PORT] |= (__u64)ip->tos << 16;
	s->key[VNET_W_MORE] = (__u64)ip->ttl << 56;
	c->offset += header;
	c->length = total - header;
	return 0;
}

/* Note an extension header at its place in the order that RFC 8200, section 4.1, prefers. Destination
 * options may stand twice: early, and last.
 */
static __always_inline void vnet_note_extension(struct vnet_cursor *c)
{
	__u16 bit = 0;
	__u8 rank = 0;

	switch (c->proto) {
	case IPPROTO_HOPOPTS:
		bit = VNET_EXT_HOP;
		rank = 1;
		break;
	case IPPROTO_DSTOPTS:
		rank = c->rank < 2 ? 2 : 7;
		if (c->dest_seen == 2)
			c->ext |= VNET_EXT_UNREP;
		else
			c->dest_seen++;
		c->ext |= VNET_EXT_DEST;
		break;
	case IPPROTO_ROUTING:
		bit = VNET_EXT_ROUTER;
		rank = 3;
		break;
	case IPPROTO_FRAGMENT:
		bit = VNET_EXT_FRAG;
		rank = 4;
		break;
	case IPPROTO_AH:
		bit = VNET_EXT_AUTH;
		rank = 5;
		break;
	case IPPROTO_ESP:
		bit = VNET_EXT_ESP;
		rank = 6;
		break;
	case IPPROTO_NONE:
		c->ext |= VNET_EXT_NO_NEXT;
		return;
	default:
		return;
	}
	if (c->ext & bit)
		c->ext |= VNET_EXT_UNREP;
	c->ext |= bit;
	if (rank < c->rank)
		c->ext |= VNET_EXT_UNSEQ;
	else
		c->rank = rank;
}

/* One extension header; returns 1 when it was one, 0 when `proto` is the upper layer, < 0 malformed. */
static __always_inline int vnet_skip_extension(struct __sk_buff *skb, struct vnet_cursor *c)
{
	__u8 header[8];
	__u32 size;

	vnet_note_extension(c);
	switch (c->proto) {
	case IPPROTO_AH:
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
		c->frag_id = vnet_be32(header + 4);
		c->frag_offset = offset & 0xfff8;
		if (offset >> 3)
			c->frag = VNET_FRAG_LATER;
		else if (offset & 1)
			c->frag = VNET_FRAG_FIRST;
	} else if (c->proto == IPPROTO_AH) {
		size = (header[1] + 2) * 4; /* RFC 4302, section 2.2 */
	} else if (c->proto == IPPROTO_ROUTING && header[3]) {
		c->routing = 1;
	}
	if (size > c->length)
		return -1;
	c->proto = header[0];
	c->offset += size;
	c->length -= size;
	return 1;
}

/* Take s->cursor from the IPv6 header to the upper layer, or to a later fragment's bytes. Its state lies in
 * a map so that the verifier need not follow every combination of headers. Returns < 0 if malformed.
 */
__noinline int vnet_skip_extensions(struct __sk_buff *skb)
{
	struct vnet_scratch *s = vnet_scratch();
	int i, more;
	__u32 before;

	if (!s)
		return -1;
	for (i = 0; i <= VNET_MAX_EXT_HEADERS; i++) {
		before = s->cursor.offset;
		more = vnet_skip_extension(skb, &s->cursor);
		if (more <= 0)
			return more;
		s->last_extension = s->cursor.offset - before;
		if (s->cursor.frag == VNET_FRAG_LATER)
			return 0;
	}
	return -1;
}

static __always_inline int vnet_is_extension(__u8 proto)
{
	switch (proto) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_DSTOPTS:
	case IPPROTO_AH:
	case IPPROTO_ESP:
	case IPPROTO_NONE:
		return 1;
	}
	return 0;
}

static __always_inline int vnet_parse_ipv6(struct __sk_buff *skb, struct vnet_scratch *s, struct vnet_cursor *c)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + c->offset;
	__u32 payload;

	if ((void *)(ip + 1) > end || c->length < sizeof(*ip))
		return VNET_DROP_MALFORMED;
	payload = bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || payload > c->length - sizeof(*ip))
		return VNET_DROP_MALFORMED;
	s->key[VNET_W_IP_SRC] = vnet_load64((void *)ip + 8);
	s->key[VNET_W_IP_SRC + 1] = vnet_load64((void *)ip + 16);
	s->key[VNET_W_IP_DST] = vnet_load64((void *)ip + 24);
	s->key[VNET_W_IP_DST + 1] = vnet_load64((void *)ip + 32);
	s->key[VNET_W_PORT] |= (__u64)((ip->priority << 4 | ip->flow_lbl[0] >> 4) & 0xff) << 16;
	s->key[VNET_W_MORE] = (__u64)ip->hop_limit << 56 | (__u32)(ip->flow_lbl[0] & 15) << 16 |
			      (__u32)ip->flow_lbl[1] << 8 | ip->flow_lbl[2];
	c->proto = ip->nexthdr;
	c->offset += sizeof(*ip);
	c->length = payload;
	s->routing = 0;
	if (!vnet_is_extension(c->proto))
		return 0;
	s->cursor = *c;
	if (vnet_skip_extensions(skb) < 0)
		return VNET_DROP_MALFORMED;
	*c = s->cursor;
	s->key[VNET_W_MORE] |= (__u64)c->ext << 44;
	s->frag_id = c->frag_id;
	s->frag_offset = c->frag_offset;
	s->routing = c->routing;
	return 0;
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
	s->key[VNET_W_SHA] = 0;
	s->key[VNET_W_THA] = 0;
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
			s->nd_offset = offset + 2;
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
	s->nd_offset = 0;
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
	offset = vnet_index(offset, 2048); /* Linux 6.1 has forgotten its bound */
	header = data + offset;
	if ((void *)(header + 20) > end) { /* rare: short datagrams, long extension headers */
		__u8 copy[20] = {};

		if (bpf_skb_load_bytes(skb, offset, copy, minimum == 20 ? 20 : 8) < 0)
			return VNET_DROP_MALFORMED;
		if (minimum == 20 && (copy[12] >> 4 < 5 || (copy[12] >> 4) * 4 > c->length))
			return VNET_DROP_MALFORMED;
		s->key[VNET_W_L4] = (__u64)vnet_be32(copy) << 32;
		if (minimum == 20) {
			s->tcp_flags = copy[13] & 0x3f;
			s->key[VNET_W_MORE] |= (__u64)((copy[12] & 15) << 8 | copy[13]) << 32;
		}
		return 0;
	}
	if (minimum == 20) {
		if (header[12] >> 4 < 5 || (header[12] >> 4) * 4 > c->length)
			return VNET_DROP_MALFORMED;
		s->tcp_flags = header[13] & 0x3f;
		s->key[VNET_W_MORE] |= (__u64)((header[12] & 15) << 8 | header[13]) << 32;
	}
	s->key[VNET_W_L4] = (__u64)bpf_ntohl(*(__be32 *)header) << 32;
	return 0;
}

/* Fill the key's words that tell of the packet, and the offsets. Returns 0 or a drop reason. The words
 * that tell of anything else stay; word 0 has the port and nothing else before. Words above those of the flow
 * cache are only set for packets that have what they tell: no match and no action asks others for it.
 */
static __always_inline int vnet_parse(struct __sk_buff *skb, struct vnet_scratch *s)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct vnet_cursor c = {};
	__u16 eth_type;
	int reason, w;

	for (w = VNET_W_IP_SRC; w <= VNET_W_L4; w++)
		s->key[w] = 0;
	if (data + VNET_HEADERS > end && skb->len > (__u32)(end - data))
		bpf_skb_pull_data(skb, skb->len < VNET_HEADERS ? skb->len : VNET_HEADERS);
	reason = vnet_parse_ethernet(skb, s, &c, &eth_type);
	if (reason)
		return reason;
	s->l3_offset = c.offset;
	if (eth_type == ETH_P_IP) {
		reason = vnet_parse_ipv4(skb, s, &c);
	} else if (eth_type == ETH_P_IPV6) {
		reason = vnet_parse_ipv6(skb, s, &c);
	} else if (eth_type == ETH_P_ARP) {
		return vnet_parse_arp(skb, s, &c);
	} else if (vnet_is_mpls(eth_type)) {
		return vnet_parse_mpls(skb, s, &c);
	} else {
		return 0;
	}
	if (reason)
		return reason;
	s->key[VNET_W_PORT] |= (__u64)c.proto << 24 | (__u64)c.frag << 8;
	s->l4_offset = c.offset;
	s->l4_length = c.length;
	s->l3_type = eth_type;
	s->l4_proto = c.proto;
	s->later = c.frag == VNET_FRAG_LATER;
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
