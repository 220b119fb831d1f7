/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Lines: how fast a NIC may send and be sent.
 *
 * What delays packets is a queue of the kernel's (sch_tbf): for what goes to the port that of its own interface;
 * for what comes from it that of a veth, to which it is redirected before anything is read of it, and by whose
 * other end it comes in again. What is lost is decided here, so that it is counted and told as any loss: of each
 * direction one number says until when the line is busy (as for storms, storm.h). A packet that would have to wait
 * longer than the line is deep is lost. The kernel's queue has more room and is a little faster, so that it loses
 * nothing.
 */
#ifndef VNET_LINE_H
#define VNET_LINE_H

#include "maps.h"

#define VNET_LINE_BITS_NS 8000000000ULL /* nanoseconds that a byte takes at 1 bit/s */

/* How long the headers are that every segment of a packet is going to have. */
static __always_inline __u32 vnet_header_bytes(struct __sk_buff *skb)
{
	int is_ipv6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	__u8 first = 0, proto = 0, offset = 0;
	__u32 length = sizeof(struct ethhdr);

	bpf_skb_load_bytes(skb, length, &first, 1);
	bpf_skb_load_bytes(skb, length + (is_ipv6 ? 6 : 9), &proto, 1);
	length += is_ipv6 ? 40 : (first & 0xf) * 4;
	if (proto != IPPROTO_TCP)
		return length + 8;
	bpf_skb_load_bytes(skb, length + 12, &offset, 1);
	return length + (offset >> 4) * 4;
}

/* What a packet is on a wire: one that is to be cut has headers for each of its segments. */
static __always_inline __u64 vnet_wire_bytes(struct __sk_buff *skb)
{
	__u32 header, size = skb->gso_size, length = skb->len;

	if (!size)
		return length;
	header = vnet_header_bytes(skb);
	if (length <= header)
		return length;
	return length + (__u64)header * ((length - header - 1) / size);
}

/* Hand a packet to a line. Returns whether that has no room for it. */
static __always_inline int vnet_line_full(struct __sk_buff *skb, const struct vnet_rate *rate, __u64 *busy)
{
	__u64 now = bpf_ktime_get_coarse_ns(), until = *(volatile __u64 *)busy, bps = rate->bps;

	if (!bps)
		return 0;
	if (until < now) /* another CPU may have done so, and added to it */
		__sync_val_compare_and_swap(busy, until, now);
	else if (until - now > rate->depth_us * 1000ULL)
		return 1;
	__sync_fetch_and_add(busy, vnet_wire_bytes(skb) * VNET_LINE_BITS_NS / bps);
	return 0;
}

/* May no more be sent to a port for now? */
__noinline int vnet_line_in(struct __sk_buff *skb, __u32 number)
{
	struct vnet_line *line = bpf_map_lookup_elem(&lines, &number);
	struct vnet_port_state *state = bpf_map_lookup_elem(&port_state, &number);

	return line && state && vnet_line_full(skb, &line->inward, &state->line_in);
}

/* The interface at which a packet of a port enters its line; 0 if there is no room. */
__noinline int vnet_line_out(struct __sk_buff *skb, __u32 number)
{
	struct vnet_line *line = bpf_map_lookup_elem(&lines, &number);
	struct vnet_port_state *state = bpf_map_lookup_elem(&port_state, &number);

	return line && state && !vnet_line_full(skb, &line->outward, &state->line_out) ? line->ifindex : 0;
}

#endif
