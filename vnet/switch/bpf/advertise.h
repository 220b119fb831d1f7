/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A router's neighbour advertisement: the solicitation becomes its answer. vnet/openflow/answer.py says what is
 * answered; tests compare the bytes.
 */
#ifndef VNET_ADVERTISE_H
#define VNET_ADVERTISE_H

#include "rewrite.h"

#define VNET_SOLICITATION 135
#define VNET_ADVERTISEMENT 136
#define VNET_ADVERTISED 72 /* bytes: IPv6 header, advertisement, one option */

/* The Internet checksum (RFC 1071) of `length` bytes of the answer at `from`, added to `sum`. */
static __always_inline __u16 vnet_answer_sum(struct vnet_scratch *s, __u32 from, __u32 length, __u32 sum)
{
	__s64 total = bpf_csum_diff(0, 0, (void *)(s->answer + from), length, sum);

	total = (total & 0xffff) + (total >> 16 & 0xffff);
	total = (total & 0xffff) + (total >> 16);
	return total;
}

/* RFC 4861, sections 4.4 and 7.2.4: solicited, overriding, by a router with this MAC. A function of its own,
 * since the stack of who calls it is full. Returns a negative errno
 * if it could not be done.
 */
__noinline int vnet_advertise(struct __sk_buff *skb, __u64 mac)
{
	struct vnet_scratch *s = vnet_scratch();
	__u8 *a;

	if (!s)
		return -1;
	a = s->answer;
	if (bpf_skb_load_bytes(skb, s->l4_offset, a, 1) < 0)
		return -1;
	if (s->l4_proto != IPPROTO_ICMPV6 || a[0] != VNET_SOLICITATION)
		return 0;
	if (bpf_skb_load_bytes(skb, s->l3_offset + 8, a + 24, 16) < 0 ||
	    bpf_skb_load_bytes(skb, s->l4_offset + 8, a + 8, 16) < 0)
		return -1;
	__builtin_memset(a, 0, 8);
	a[0] = 0x60;
	a[5] = VNET_ADVERTISED - 40;
	a[6] = IPPROTO_ICMPV6;
	a[7] = 255;
	__builtin_memset(a + 40, 0, 8);
	a[40] = VNET_ADVERTISEMENT;
	a[44] = 0xe0; /* router, solicited, override */
	__builtin_memcpy(a + 48, a + 8, 16);
	a[64] = 2; /* target link-layer address */
	a[65] = 1; /* in units of 8 bytes */
	a[66] = mac >> 40;
	a[67] = mac >> 32;
	a[68] = mac >> 24;
	a[69] = mac >> 16;
	a[70] = mac >> 8;
	a[71] = mac;
	*(__u16 *)(a + 42) = ~vnet_answer_sum(s, 8, VNET_ADVERTISED - 8, bpf_htons(VNET_ADVERTISED - 40) + bpf_htons(IPPROTO_ICMPV6));
	if (bpf_skb_change_tail(skb, s->l3_offset + VNET_ADVERTISED, 0))
		return -1;
	return bpf_skb_store_bytes(skb, s->l3_offset, a, VNET_ADVERTISED, BPF_F_RECOMPUTE_CSUM);
}

#endif
