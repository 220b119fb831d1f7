/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Change the packet's bytes. Checksums follow by the difference (RFC 1624), so one that was wrong stays
 * wrong, and one that the kernel has yet to fill in (CHECKSUM_PARTIAL, GSO) is left to it.
 */
#ifndef VNET_REWRITE_H
#define VNET_REWRITE_H

#include "parse.h"
#include "sctp.h"

#include <linux/pkt_cls.h>

enum vnet_origin { VNET_FROM_L2, VNET_FROM_L3, VNET_FROM_L4, VNET_FROM_ND, VNET_FROM_MPLS };

#define VNET_SUM_IP 1     /* the IPv4 header's checksum covers it */
#define VNET_SUM_PSEUDO 2 /* layer 4's does, in the pseudo header */
#define VNET_SUM_L4 4     /* layer 4's does */

/* A field: `size` bytes at `offset` from `origin`, big-endian, of which bits shift… under mask are the field.
 * It begins at an even offset, so that a difference of its bytes is one of 16-bit words.
 */
struct vnet_spot {
	__u8 origin;
	__u8 offset;
	__u8 size;
	__u8 shift;
	__u8 sums;
	__u64 mask;
};

static const struct vnet_spot vnet_spots[VNET_PLACE_MAX] = {
	[VNET_PLACE_ETH_DST] = { VNET_FROM_L2, 0, 6, 0, 0, 0xffffffffffffULL },
	[VNET_PLACE_ETH_SRC] = { VNET_FROM_L2, 6, 6, 0, 0, 0xffffffffffffULL },
	[VNET_PLACE_IPV4_TOS] = { VNET_FROM_L3, 0, 2, 0, VNET_SUM_IP, 0xff },
	[VNET_PLACE_IPV4_TTL] = { VNET_FROM_L3, 8, 2, 8, VNET_SUM_IP, 0xff },
	[VNET_PLACE_IPV4_SRC] = { VNET_FROM_L3, 12, 4, 0, VNET_SUM_IP | VNET_SUM_PSEUDO, 0xffffffff },
	[VNET_PLACE_IPV4_DST] = { VNET_FROM_L3, 16, 4, 0, VNET_SUM_IP | VNET_SUM_PSEUDO, 0xffffffff },
	[VNET_PLACE_IPV6_TC] = { VNET_FROM_L3, 0, 2, 4, 0, 0xff },
	[VNET_PLACE_IPV6_LABEL] = { VNET_FROM_L3, 0, 4, 0, 0, 0xfffff },
	[VNET_PLACE_IPV6_HOPS] = { VNET_FROM_L3, 6, 2, 0, 0, 0xff },
	[VNET_PLACE_IPV6_SRC_HIGH] = { VNET_FROM_L3, 8, 8, 0, VNET_SUM_PSEUDO, ~0ULL },
	[VNET_PLACE_IPV6_SRC_LOW] = { VNET_FROM_L3, 16, 8, 0, VNET_SUM_PSEUDO, ~0ULL },
	[VNET_PLACE_IPV6_DST_HIGH] = { VNET_FROM_L3, 24, 8, 0, VNET_SUM_PSEUDO, ~0ULL },
	[VNET_PLACE_IPV6_DST_LOW] = { VNET_FROM_L3, 32, 8, 0, VNET_SUM_PSEUDO, ~0ULL },
	[VNET_PLACE_L4_SRC] = { VNET_FROM_L4, 0, 2, 0, VNET_SUM_L4, 0xffff },
	[VNET_PLACE_L4_DST] = { VNET_FROM_L4, 2, 2, 0, VNET_SUM_L4, 0xffff },
	[VNET_PLACE_ICMP] = { VNET_FROM_L4, 0, 2, 0, VNET_SUM_L4, 0xffff },
	[VNET_PLACE_ICMP_ID] = { VNET_FROM_L4, 4, 2, 0, VNET_SUM_L4, 0xffff },
	[VNET_PLACE_ARP_OP] = { VNET_FROM_L3, 6, 2, 0, 0, 0xffff },
	[VNET_PLACE_ARP_SHA] = { VNET_FROM_L3, 8, 6, 0, 0, 0xffffffffffffULL },
	[VNET_PLACE_ARP_SPA] = { VNET_FROM_L3, 14, 4, 0, 0, 0xffffffff },
	[VNET_PLACE_ARP_THA] = { VNET_FROM_L3, 18, 6, 0, 0, 0xffffffffffffULL },
	[VNET_PLACE_ARP_TPA] = { VNET_FROM_L3, 24, 4, 0, 0, 0xffffffff },
	[VNET_PLACE_ND_TARGET_HIGH] = { VNET_FROM_L4, 8, 8, 0, VNET_SUM_L4, ~0ULL },
	[VNET_PLACE_ND_TARGET_LOW] = { VNET_FROM_L4, 16, 8, 0, VNET_SUM_L4, ~0ULL },
	[VNET_PLACE_ND_LINK] = { VNET_FROM_ND, 0, 6, 0, VNET_SUM_L4, 0xffffffffffffULL },
	[VNET_PLACE_MPLS] = { VNET_FROM_MPLS, 0, 4, 0, 0, 0xffffffff },
};

static __always_inline __u32 vnet_origin(const struct vnet_scratch *s, __u8 from)
{
	switch (from) {
	case VNET_FROM_L3:
		return s->l3_offset;
	case VNET_FROM_L4:
		return s->l4_offset;
	case VNET_FROM_ND:
		return s->nd_offset;
	case VNET_FROM_MPLS:
		return s->mpls_offset;
	}
	return 0;
}

/* Where layer 4's checksum lies; 0 = there is none here. */
static __always_inline __u32 vnet_sum_offset(const struct vnet_scratch *s, __u8 proto)
{
	if (s->later)
		return 0;
	switch (proto) {
	case IPPROTO_TCP:
		return s->l4_offset + 16;
	case IPPROTO_UDP:
		return s->l4_offset + 6;
	case IPPROTO_ICMP:
		return s->l3_type == ETH_P_IP ? s->l4_offset + 2 : 0;
	case IPPROTO_ICMPV6:
		return s->l3_type == ETH_P_IPV6 ? s->l4_offset + 2 : 0;
	}
	return 0;
}

static __always_inline void vnet_follow_sums(struct __sk_buff *skb, struct vnet_scratch *s, __u8 sums,
					     __s64 difference)
{
	__u8 proto = s->l4_proto;
	__u32 at = vnet_sum_offset(s, proto);
	__u64 flags = proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;

	if (sums & VNET_SUM_IP)
		bpf_l3_csum_replace(skb, s->l3_offset + 10, 0, difference, 0);
	if (!at)
		return;
	if (sums & VNET_SUM_PSEUDO && proto != IPPROTO_ICMP)
		bpf_l4_csum_replace(skb, at, 0, difference, flags | BPF_F_PSEUDO_HDR);
	else if (sums & VNET_SUM_L4)
		bpf_l4_csum_replace(skb, at, 0, difference, flags);
}

static __always_inline void vnet_follow_sctp(struct __sk_buff *skb, struct vnet_scratch *s, __u32 offset,
					     const __u8 *before, const __u8 *after)
{
	__u32 change = (__u32)(before[0] ^ after[0]) | (__u32)(before[1] ^ after[1]) << 8, sum;

	if (offset)
		change <<= 16;
	change = vnet_crc_change(change, s->l4_length);
	if (bpf_skb_load_bytes(skb, s->l4_offset + 8, &sum, 4) < 0)
		return;
	sum ^= change;
	bpf_skb_store_bytes(skb, s->l4_offset + 8, &sum, 4, 0);
}

/* Write a field. Returns 0 or a negative errno. */
__noinline int vnet_set(struct __sk_buff *skb, __u32 place, __u64 value)
{
	struct vnet_scratch *s = vnet_scratch();
	const struct vnet_spot *spot;
	__u8 before[8] = {}, after[8] = {};
	__u32 at, size, i;
	__u64 number = 0;
	__s64 difference;

	if (!s || place >= VNET_PLACE_MAX)
		return -1;
	spot = &vnet_spots[place];
	at = vnet_origin(s, spot->origin) + spot->offset;
	size = ((spot->size - 1) & 7) + 1; /* shows the verifier that it is 1…8 */
	asm volatile("" : "+r"(size));
	if (bpf_skb_load_bytes(skb, at, before, size) < 0)
		return -1;
	for (i = 0; i < 8 && i < size; i++)
		number = number << 8 | before[i];
	number = (number & ~(spot->mask << spot->shift)) | (value & spot->mask) << spot->shift;
	for (i = 0; i < 8; i++) {
		if (i >= size)
			break;
		after[i] = number >> (8 * (size - 1 - i));
	}
	size = ((size - 1) & 7) + 1; /* Linux 6.1 has forgotten it */
	asm volatile("" : "+r"(size));
	if (bpf_skb_store_bytes(skb, at, after, size, BPF_F_RECOMPUTE_CSUM) < 0)
		return -1;
	if (!spot->sums)
		return 0;
	if (place == VNET_PLACE_IPV6_DST_HIGH || place == VNET_PLACE_IPV6_DST_LOW)
		if (s->routing) /* the pseudo header has the final destination (RFC 8200, section 8.1) */
			return 0;
	if (s->l4_proto == IPPROTO_SCTP && (place == VNET_PLACE_L4_SRC || place == VNET_PLACE_L4_DST)) {
		vnet_follow_sctp(skb, s, place == VNET_PLACE_L4_DST ? 2 : 0, before, after);
		return 0;
	}
	difference = bpf_csum_diff((__be32 *)before, 8, (__be32 *)after, 8, 0);
	vnet_follow_sums(skb, s, spot->sums, difference);
	return 0;
}

/* Lower the TTL or hop limit by `by`; the caller knows that there is enough. */
static __always_inline int vnet_lower_ttl(struct __sk_buff *skb, struct vnet_scratch *s, __u32 by)
{
	int ipv4 = s->l3_type == ETH_P_IP;
	__u8 ttl;

	if (bpf_skb_load_bytes(skb, s->l3_offset + (ipv4 ? 8 : 7), &ttl, 1) < 0)
		return -1;
	return vnet_set(skb, ipv4 ? VNET_PLACE_IPV4_TTL : VNET_PLACE_IPV6_HOPS, (__u8)(ttl - by));
}

/* Where a VNET_PATH_PROTO writes. The packet may then have another layer 4, so whoever takes the change back
 * needs it as it was before.
 */
static __always_inline __u64 vnet_proto_spot(const struct vnet_scratch *s)
{
	__u32 at = 9, header = s->l4_offset - s->l3_offset, sum = vnet_sum_offset(s, s->l4_proto);

	if (s->l3_type == ETH_P_IPV6)
		at = header == sizeof(struct ipv6hdr) ? 6 : header - s->last_extension;
	if (!sum || s->l4_proto == IPPROTO_ICMP) /* no pseudo header */
		return at;
	return at | (sum - s->l3_offset) << 16 | (__u64)(s->l4_proto == IPPROTO_UDP) << 32;
}

/* Write the protocol. The checksum of layer 4, whatever the protocol says, follows in its pseudo header. */
static __always_inline int vnet_set_proto(struct __sk_buff *skb, struct vnet_scratch *s, __u8 proto, __u64 spot)
{
	__u32 at = s->l3_offset + (spot & 0xffff), sum = spot >> 16 & 0xffff;
	__u64 flags = BPF_F_PSEUDO_HDR | (spot >> 32 ? BPF_F_MARK_MANGLED_0 : 0) | 2;
	__u8 old;

	if (skb->gso_size || bpf_skb_load_bytes(skb, at, &old, 1) < 0 ||
	    bpf_skb_store_bytes(skb, at, &proto, 1, BPF_F_RECOMPUTE_CSUM) < 0)
		return -1;
	if (s->l3_type == ETH_P_IP)
		bpf_l3_csum_replace(skb, s->l3_offset + 10, bpf_htons(old), bpf_htons(proto), 2);
	if (sum)
		bpf_l4_csum_replace(skb, s->l3_offset + sum, bpf_htons(old), bpf_htons(proto), flags);
	return 0;
}

/* -- tags ------------------------------------------------------------------------------------------- */

/* Headers have moved by what the packet grew. */
static __always_inline void vnet_shift(struct __sk_buff *skb, struct vnet_scratch *s, __u32 length)
{
	__u32 by = skb->len - length;

	s->l3_offset += by;
	s->l4_offset += by;
	s->mpls_offset += by;
	if (s->nd_offset)
		s->nd_offset += by;
}

static __always_inline int vnet_vlan_push(struct __sk_buff *skb, __u32 tag)
{
	return bpf_skb_vlan_push(skb, bpf_htons(tag >> 16), tag & 0xffff);
}

/* Make the packet's outermost tag `wanted` (0 = none). Returns 0 or a negative errno. */
static __always_inline int vnet_retag(struct __sk_buff *skb, struct vnet_scratch *s, __u32 wanted)
{
	int error;

	if (s->vlan) {
		error = bpf_skb_vlan_pop(skb);
		if (error)
			return error;
	}
	s->vlan = 0;
	if (wanted) {
		error = vnet_vlan_push(skb, wanted);
		if (error)
			return error;
	}
	s->vlan = wanted;
	return 0;
}

static __always_inline int vnet_stack_vlan(struct __sk_buff *skb, struct vnet_scratch *s, __u32 tag)
{
	int error = vnet_vlan_push(skb, tag);

	if (error)
		return error;
	if (s->vlan)
		s->inner_type = s->vlan >> 16;
	s->vlan = tag;
	return 0;
}

/* -- EtherType and MPLS ------------------------------------------------------------------------------ */

/* The kernel has no helper for these, but one that takes a tag off the front of the data and learns from what
 * is behind it what the packet's protocol is. So the new front is written with a tag before it, which is then
 * taken off.
 */
#define VNET_DUMMY_TAG ((__u32)VNET_ETH_P_8021Q << 16)

/* The data begins with a tag of no meaning, and another one is kept beside it. */
static __always_inline int vnet_front_open(struct __sk_buff *skb, struct vnet_scratch *s)
{
	int error = 0;

	if (s->vlan)
		error = bpf_skb_vlan_pop(skb);
	if (!error)
		error = vnet_vlan_push(skb, VNET_DUMMY_TAG);
	if (!error)
		error = vnet_vlan_push(skb, VNET_DUMMY_TAG);
	return error;
}

/* Drop the tag beside the data and those at its beginning; bring back the packet's own. */
static __always_inline int vnet_front_close(struct __sk_buff *skb, struct vnet_scratch *s, int tags)
{
	int error = bpf_skb_vlan_pop(skb);

	if (!error)
		error = bpf_skb_vlan_pop(skb);
	if (!error && tags > 1)
		error = bpf_skb_vlan_pop(skb);
	if (!error && s->vlan)
		error = vnet_vlan_push(skb, s->vlan);
	return error;
}

/* `padding` is taken away at the end. */
static __always_inline int vnet_insert_mpls(struct __sk_buff *skb, struct vnet_scratch *s, __u16 type,
					    __u32 entry, __u32 padding)
{
	__u8 front[22];
	int error;

	if (skb->gso_size || vnet_is_vlan(s->inner_type))
		return -1;
	error = vnet_front_open(skb, s);
	if (!error)
		error = bpf_skb_change_head(skb, 4, 0);
	if (error || bpf_skb_load_bytes(skb, 4, front, 12) < 0)
		return -1;
	*(__be16 *)(front + 12) = bpf_htons(VNET_ETH_P_8021Q);
	*(__be16 *)(front + 14) = 0;
	*(__be16 *)(front + 16) = bpf_htons(type);
	*(__be16 *)(front + 18) = bpf_htons(entry >> 16);
	*(__be16 *)(front + 20) = bpf_htons(entry);
	if (bpf_skb_store_bytes(skb, 0, front, sizeof(front), 0) < 0)
		return -1;
	error = vnet_front_close(skb, s, 1);
	return error || !padding ? error : bpf_skb_change_tail(skb, skb->len - padding, 0);
}

/* `padding` is added at the end. */
static __always_inline int vnet_remove_mpls(struct __sk_buff *skb, struct vnet_scratch *s, __u16 type,
					    __u32 padding)
{
	__be16 front[5] = { bpf_htons(VNET_ETH_P_8021Q), 0, bpf_htons(VNET_ETH_P_8021Q), 0, 0 };
	int error;

	if (skb->gso_size || vnet_front_open(skb, s))
		return -1;
	front[4] = bpf_htons(type);
	if (bpf_skb_store_bytes(skb, 12, front, sizeof(front), 0) < 0)
		return -1;
	error = vnet_front_close(skb, s, 2);
	return error || !padding ? error : bpf_skb_change_tail(skb, skb->len + padding, 0);
}

static __always_inline int vnet_rename(struct __sk_buff *skb, struct vnet_scratch *s, __u16 type)
{
	__be16 bytes = bpf_htons(type);

	if (skb->gso_size || vnet_front_open(skb, s) || bpf_skb_store_bytes(skb, 16, &bytes, 2, 0) < 0)
		return -1;
	return vnet_front_close(skb, s, 1);
}

/* The TTL of what the outermost label stack entry carries: another entry, IPv4 or IPv6. */
static __always_inline int vnet_set_inner_ttl(struct __sk_buff *skb, struct vnet_scratch *s, __u8 ttl)
{
	__u32 at = s->mpls_offset + 4;
	__u8 bytes[4], old[4] = {}, new[4] = {};

	if (bpf_skb_load_bytes(skb, at - 4, bytes, 4) < 0)
		return -1;
	if (!(bytes[2] & 1))
		return bpf_skb_store_bytes(skb, at + 3, &ttl, 1, 0);
	if (bpf_skb_load_bytes(skb, at, bytes, 1) < 0)
		return -1;
	if (bytes[0] >> 4 == 6)
		return bpf_skb_store_bytes(skb, at + 7, &ttl, 1, 0);
	if (bytes[0] >> 4 != 4 || bpf_skb_load_bytes(skb, at + 8, old, 2) < 0)
		return -1;
	new[0] = ttl;
	new[1] = old[1];
	if (bpf_skb_store_bytes(skb, at + 8, new, 2, 0) < 0)
		return -1;
	return bpf_l3_csum_replace(skb, at + 10, 0, bpf_csum_diff((__be32 *)old, 4, (__be32 *)new, 4, 0), 0);
}

/* -- what an ICMP error quotes ------------------------------------------------------------------------ */

/* Store four bytes in the place of `old`; the outer ICMP checksum follows. */
static __always_inline int vnet_store_quoted(struct __sk_buff *skb, __u32 at, __be32 *old, __be32 *bytes, __u32 sum)
{
	if (bpf_skb_load_bytes(skb, at, old, 4) < 0 || bpf_skb_store_bytes(skb, at, bytes, 4, 0) < 0)
		return -1;
	return bpf_l4_csum_replace(skb, sum, 0, bpf_csum_diff(old, 4, bytes, 4, 0), 0);
}

/* The quoted packet as its sender knows it: `tuple`. Its own checksums follow as far as they are quoted. */
static __always_inline int vnet_set_quoted(struct __sk_buff *skb, struct vnet_scratch *s,
					   const struct vnet_ct_key *tuple)
{
	__u32 inner = s->l4_offset + 8, l4, sum = s->l4_offset + 2, at;
	__be32 addresses[8], old[8], ports;
	__u8 first;
	int ipv4 = tuple->family == 4, size = ipv4 ? 8 : 32, i;
	__s64 difference;
	__be16 before, after;

	at = inner + (ipv4 ? 12 : 8);
	__builtin_memset(addresses, 0, sizeof(addresses));
	__builtin_memset(old, 0, sizeof(old));
	if (bpf_skb_load_bytes(skb, inner, &first, 1) < 0)
		return -1;
	if (ipv4) {
		addresses[0] = bpf_htonl(tuple->src[1]);
		addresses[1] = bpf_htonl(tuple->dst[1]);
		if (bpf_skb_load_bytes(skb, at, old, 8) < 0 || bpf_skb_store_bytes(skb, at, addresses, 8, 0) < 0)
			return -1;
	} else {
		for (i = 0; i < 2; i++) {
			addresses[2 * i] = bpf_htonl(tuple->src[i] >> 32);
			addresses[2 * i + 1] = bpf_htonl(tuple->src[i]);
			addresses[4 + 2 * i] = bpf_htonl(tuple->dst[i] >> 32);
			addresses[5 + 2 * i] = bpf_htonl(tuple->dst[i]);
		}
		if (bpf_skb_load_bytes(skb, at, old, 32) < 0 || bpf_skb_store_bytes(skb, at, addresses, 32, 0) < 0)
			return -1;
	}
	difference = bpf_csum_diff(old, size == 8 ? 8 : 32, addresses, size == 8 ? 8 : 32, 0);
	l4 = inner + (ipv4 ? (first & 15) * 4 : 40);
	if (ipv4) /* the header's own sum takes the difference up: nothing changes for the ICMP checksum */
		bpf_l3_csum_replace(skb, inner + 10, 0, difference, 0);
	else
		bpf_l4_csum_replace(skb, sum, 0, difference, 0);
	switch (tuple->proto) {
	case IPPROTO_ICMP:
		difference = 0; /* its sum does not cover addresses */
	case IPPROTO_ICMPV6:
		ports = bpf_htonl((__u32)(tuple->sport == 0x0800 ? tuple->dport : tuple->sport) << 16);
		if (bpf_skb_load_bytes(skb, l4 + 6, (__u8 *)&ports + 2, 2) < 0 ||
		    vnet_store_quoted(skb, l4 + 4, old, &ports, sum))
			return -1;
		at = l4 + 2;
		break;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		ports = bpf_htonl((__u32)tuple->sport << 16 | tuple->dport);
		if (vnet_store_quoted(skb, l4, old, &ports, sum))
			return -1;
		at = l4 + (tuple->proto == IPPROTO_UDP ? 6 : 16);
		break;
	default:
		return 0;
	}
	if (tuple->proto == IPPROTO_SCTP || at + 2 > s->l4_offset + s->l4_length ||
	    bpf_skb_load_bytes(skb, at, &before, 2) < 0 || (tuple->proto == IPPROTO_UDP && !before))
		return 0;
	difference = bpf_csum_diff(old, 4, &ports, 4, difference);
	bpf_l4_csum_replace(skb, at, 0, difference, tuple->proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
	if (bpf_skb_load_bytes(skb, at, &after, 2) < 0)
		return -1;
	return bpf_l4_csum_replace(skb, sum, before, after, 2);
}

__noinline int vnet_translate_quoted(struct __sk_buff *skb, __u32 slot, __u32 dir)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_conn *conn = bpf_map_lookup_elem(&conns, &slot);

	return s && conn ? vnet_set_quoted(skb, s, &conn->key[(dir & 1) ^ 1]) : -1;
}

#endif
