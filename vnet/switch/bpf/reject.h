/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The answer to a packet that a rule rejects: a TCP reset, or ICMP "administratively prohibited"; or what a
 * router says of it. The packet itself becomes the answer and goes back by the port that it came in by. vnet/openflow/answer.py says what
 * is answered, and why; tests compare the bytes.
 */
#ifndef VNET_REJECT_H
#define VNET_REJECT_H

#include "execute.h"

#define VNET_WINDOW_ANSWERS 128 /* per port and window */
#define VNET_ANSWER_TTL 64
#define VNET_QUOTED 8           /* bytes of what follows the IP header */

/* Whether source and destination of the IP header in s->asked are addresses of single hosts. */
static __always_inline int vnet_is_unicast(const struct vnet_scratch *s, int six)
{
	const __u8 *ip = s->asked;
	__u8 any = 0;
	int i;

	if (!six)
		return ip[12] && ip[12] != 127 && ip[12] < 224 && ip[16] < 224;
	for (i = 8; i < 23; i++)
		any |= ip[i];
	return any && ip[8] != 0xff && ip[24] != 0xff;
}

/* Who answers: the destination of the packet that was asked, or the router that has a word to say. */
static __always_inline void vnet_answerer(const struct vnet_scratch *s, int six, __u8 *to)
{
	__u64 high = bpf_cpu_to_be64(s->refusal.value), low = bpf_cpu_to_be64(s->refusal.mask);
	__u32 four = bpf_htonl(s->refusal.mask);

	if (s->path.reject < VNET_REJECT_ROUTED) {
		if (six)
			__builtin_memcpy(to, s->asked + 24, 16);
		else
			__builtin_memcpy(to, s->asked + 16, 4);
	} else if (six) {
		__builtin_memcpy(to, &high, 8);
		__builtin_memcpy(to + 8, &low, 8);
	} else {
		__builtin_memcpy(to, &four, 4);
	}
}

/* An IP header to the source in front of `length` bytes. Returns the sum of its pseudo header. */
static __always_inline __u32 vnet_answer_ip(struct vnet_scratch *s, int six, __u8 proto, __u16 length)
{
	__u32 pseudo = bpf_htons(length) + bpf_htons(proto);
	__u8 *a = s->answer;
	__u16 total = length + 20, sum;

	if (six) {
		a[0] = 0x60;
		a[1] = a[2] = a[3] = 0;
		a[4] = length >> 8;
		a[5] = length;
		a[6] = proto;
		a[7] = VNET_ANSWER_TTL;
		vnet_answerer(s, 1, a + 8);
		__builtin_memcpy(a + 24, s->asked + 8, 16);
		return vnet_answer_sum(s, 8, 32, pseudo);
	}
	a[0] = 0x45;
	a[1] = a[4] = a[5] = a[7] = a[10] = a[11] = 0;
	a[2] = total >> 8;
	a[3] = total;
	a[6] = 0x40; /* do not fragment */
	a[8] = VNET_ANSWER_TTL;
	a[9] = proto;
	vnet_answerer(s, 0, a + 12);
	__builtin_memcpy(a + 16, s->asked + 12, 4);
	sum = ~vnet_answer_sum(s, 0, 20, 0);
	__builtin_memcpy(a + 10, &sum, 2);
	return vnet_answer_sum(s, 12, 8, pseudo);
}

/* Does whoever gets the packet expect only the sum of the pseudo header, and complete it or believe it? The
 * helper changes a checksum in one of two ways, and tells so.
 */
static __always_inline int vnet_is_partial(struct __sk_buff *skb, __u32 at)
{
	__u16 sum = 0;

	bpf_skb_store_bytes(skb, at, &sum, 2, 0);
	bpf_l4_csum_replace(skb, at, 0, bpf_htons(1), BPF_F_PSEUDO_HDR | 2);
	bpf_skb_load_bytes(skb, at, &sum, 2);
	return bpf_ntohs(sum) == 1;
}

/* RFC 9293, section 3.10.7.1. Returns the length of the answer behind the IP header, 0 for none. */
static __always_inline __u32 vnet_reset(struct __sk_buff *skb, struct vnet_scratch *s, int six)
{
	__u32 head = six ? 40 : 20, sequence, pseudo;
	__u8 asked[20], *a = s->answer + head, flags;
	int partial;
	__u16 sum;

	if (bpf_skb_load_bytes(skb, s->l4_offset, asked, sizeof(asked)) < 0)
		return 0;
	flags = asked[13];
	if (flags & VNET_TCP_RST)
		return 0;
	partial = vnet_is_partial(skb, s->l4_offset + 16);
	if (partial && s->l4_offset != s->l3_offset + head)
		return 0; /* whoever completes the sum would look for it elsewhere */
	__builtin_memset(a, 0, 20);
	a[0] = asked[2];
	a[1] = asked[3];
	a[2] = asked[0];
	a[3] = asked[1];
	if (flags & VNET_TCP_ACK) {
		__builtin_memcpy(a + 4, asked + 8, 4);
	} else {
		sequence = vnet_be32(asked + 4) + s->l4_length - (asked[12] >> 4) * 4 +
			   !!(flags & VNET_TCP_SYN) + !!(flags & VNET_TCP_FIN);
		sequence = bpf_htonl(sequence);
		__builtin_memcpy(a + 8, &sequence, 4);
	}
	a[12] = 5 << 4;
	a[13] = VNET_TCP_RST | (flags & VNET_TCP_ACK ? 0 : VNET_TCP_ACK);
	pseudo = vnet_answer_ip(s, six, IPPROTO_TCP, 20);
	sum = partial ? pseudo : ~vnet_answer_sum(s, head, 20, pseudo);
	__builtin_memcpy(a + 16, &sum, 2);
	return 20;
}

/* RFC 792 and RFC 1812, section 5.2.7.1; RFC 4443, section 3. */
static __always_inline __u32 vnet_icmp_error(struct __sk_buff *skb, struct vnet_scratch *s, int six)
{
	__u32 head = six ? 40 : 20, quoted = six ? 40 : (s->asked[0] & 15) * 4, pseudo;
	__u32 end = s->l4_offset + s->l4_length - s->l3_offset;
	__u8 *a = s->answer + head;
	__u16 sum;

	quoted += VNET_QUOTED;
	if (quoted > end)
		quoted = end;
	quoted &= 0x7c;
	if (quoted < 20 || quoted > 68)
		return 0;
	asm volatile("" : "+r"(quoted));
	quoted = ((quoted - 20) & 0x3c) + 20; /* Linux 6.1 has forgotten what was compared */
	if (bpf_skb_load_bytes(skb, s->l3_offset, a + 8, quoted) < 0)
		return 0;
	a[2] = a[3] = a[4] = a[5] = a[6] = a[7] = 0;
	if (s->path.reject >= VNET_REJECT_ROUTED) {
		a[0] = s->refusal.b >> 8;
		a[1] = s->refusal.b;
		if (s->path.reject == VNET_REJECT_TOO_BIG) { /* RFC 1191, section 4; RFC 4443, section 3.2 */
			a[6] = s->too_small >> 8;
			a[7] = s->too_small;
		}
	} else {
		a[0] = six ? 1 : 3;
		a[1] = six ? 1 : 13;
	}
	pseudo = vnet_answer_ip(s, six, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP, 8 + quoted);
	sum = ~vnet_answer_sum(s, head, 8 + quoted, six ? pseudo : 0);
	__builtin_memcpy(a + 2, &sum, 2);
	return 8 + quoted;
}

static __always_inline int vnet_is_icmp_error(struct __sk_buff *skb, const struct vnet_scratch *s, int six)
{
	__u8 type;

	if (s->l4_proto != (six ? IPPROTO_ICMPV6 : IPPROTO_ICMP) ||
	    bpf_skb_load_bytes(skb, s->l4_offset, &type, 1) < 0)
		return 0;
	return vnet_ct_is_error(s->l4_proto, type) || (six && (type < 128 || type == 137));
}

/* From the gateway, which is its source by now, to who sent it. */
static __always_inline void vnet_turn_back(const struct vnet_scratch *s, __u8 *swapped, const __u8 *macs)
{
	__u64 sender = s->packet[VNET_W_SRC];
	int i;

	for (i = 0; i < 6; i++)
		swapped[i] = sender >> (56 - 8 * i);
	__builtin_memcpy(swapped + 6, macs + 6, 6);
}

/* Make the packet the answer to itself. Returns 0 if there is none. */
static __always_inline int vnet_make_answer(struct __sk_buff *skb, struct vnet_scratch *s)
{
	__u16 eth_type = s->packet[VNET_W_SRC];
	int six = eth_type == ETH_P_IPV6;
	__u32 head = six ? 40 : 20, length;
	__u8 macs[12], swapped[12];

	if ((eth_type != ETH_P_IP && !six) || s->later || s->touched ||
	    bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)) < 0 || macs[0] & 1 ||
	    bpf_skb_load_bytes(skb, s->l3_offset, s->asked, head) < 0 || !vnet_is_unicast(s, six))
		return 0;
	if (s->path.reject >= VNET_REJECT_ROUTED && s->refusal.a != (six ? 6 : 4))
		return 0;
	if (s->l4_proto == IPPROTO_TCP && s->path.reject < VNET_REJECT_ROUTED)
		length = vnet_reset(skb, s, six);
	else
		length = vnet_is_icmp_error(skb, s, six) ? 0 : vnet_icmp_error(skb, s, six);
	length += head;
	if (length == head || length > sizeof(s->answer) || bpf_skb_change_tail(skb, s->l3_offset + length, 0))
		return 0;
	__builtin_memcpy(swapped, macs + 6, 6);
	__builtin_memcpy(swapped + 6, macs, 6);
	if (s->path.reject == VNET_REJECT_TOO_BIG) /* it has the MACs of its next link */
		vnet_turn_back(s, swapped, macs);
	return !bpf_skb_store_bytes(skb, 0, swapped, sizeof(swapped), 0) &&
	       !bpf_skb_store_bytes(skb, s->l3_offset, s->answer, length, BPF_F_RECOMPUTE_CSUM);
}

/* Tell the sender of a packet that is being dropped. Returns the tc verdict. */
__noinline int vnet_reject(struct __sk_buff *skb)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_port_state *state;
	__u32 in_port, ifindex;

	if (!s)
		return TC_ACT_SHOT;
	in_port = s->in_port;
	state = bpf_map_lookup_elem(&port_state, &in_port);
	if (!in_port || s->inject || !state)
		return TC_ACT_SHOT;
	s->now_ns = bpf_ktime_get_coarse_ns();
	if (!vnet_share_left(state->answers, s->now_ns, VNET_WINDOW_ANSWERS) || !vnet_make_answer(skb, s))
		return TC_ACT_SHOT;
	vnet_share_use(&state->answers, s->now_ns);
	ifindex = vnet_leave(skb, s, in_port);
	return ifindex ? bpf_redirect(ifindex, 0) : TC_ACT_SHOT;
}

#endif
