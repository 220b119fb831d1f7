/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Datagrams that come in fragments: nothing is put together or held back, a later fragment is decided by what
 * the first one of its datagram said.
 */
#ifndef VNET_FRAGMENT_H
#define VNET_FRAGMENT_H

#include "classify.h"

#include <stddef.h>

/* Bytes 8n…8m-1 of a datagram have come: note them. Returns 0 if one of them had come before. */
static __always_inline int vnet_frag_range(struct vnet_frag *f, __u16 from, __u16 to)
{
	int i;

	for (i = 0; i < 8 && i < f->n_ranges; i++)
		if (from < f->to[i] && to > f->from[i])
			return 0;
	for (i = 0; i < 8 && i < f->n_ranges; i++) {
		if (f->to[i] == from) {
			f->to[i] = to;
			return 1;
		}
		if (f->from[i] == to) {
			f->from[i] = from;
			return 1;
		}
	}
	i = f->n_ranges;
	if (i < 0 || i >= 8)
		return 0;
	f->from[i] = from;
	f->to[i] = to;
	f->n_ranges = i + 1;
	return 1;
}

#define VNET_FRAG_VOID -1

/* A fragment: a first one is remembered, a later one given what its first one said of layer 4, without
 * reassembly. Each port follows VNET_FRAGS datagrams at once, so no port can make another one forget.
 * Overlaps void the datagram (RFC 5722). Returns 0, a drop reason, or VNET_FRAG_VOID.
 */
__noinline int vnet_ct_fragment(__u32 zone)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_frag *f;
	__u64 hash;
	__u32 index;
	__u16 from, to;
	__u8 proto, family;
	int later, same, reason = VNET_DROP_FRAGMENT;

	if (!s)
		return VNET_DROP_ACTION_FAILED;
	later = (__u8)(s->key[VNET_W_PORT] >> 8) == VNET_FRAG_LATER;
	proto = s->key[VNET_W_PORT] >> 24;
	family = (__u16)s->key[VNET_W_SRC] == ETH_P_IP ? 4 : 6;
	s->cacheable = 0;
	hash = (s->key[VNET_W_IP_SRC + 1] ^ s->key[VNET_W_IP_DST + 1] << 7 ^ s->frag_id ^ zone << 16) *
	       0x9e3779b97f4a7c15ULL;
	index = (s->in_port & (VNET_PORTS - 1)) * VNET_FRAGS + (hash >> 60) % VNET_FRAGS;
	f = bpf_map_lookup_elem(&frags, &index);
	if (!f)
		return VNET_DROP_ACTION_FAILED;
	if (__sync_lock_test_and_set(&f->lock, 1)) /* another CPU has a fragment of this port in hand */
		return VNET_DROP_FRAGMENT;
	same = f->id == s->frag_id && f->src[0] == s->key[VNET_W_IP_SRC] &&
	       f->src[1] == s->key[VNET_W_IP_SRC + 1] && f->dst[0] == s->key[VNET_W_IP_DST] &&
	       f->dst[1] == s->key[VNET_W_IP_DST + 1] && f->proto == proto && f->family == family &&
	       f->zone == (__u16)zone && s->now_ns < f->seen_ns + 30 * VNET_SECOND;
	if (!same) {
		if (later)
			goto out;
		__builtin_memset(f, 0, offsetof(struct vnet_frag, lock));
		f->id = s->frag_id;
		f->src[0] = s->key[VNET_W_IP_SRC];
		f->src[1] = s->key[VNET_W_IP_SRC + 1];
		f->dst[0] = s->key[VNET_W_IP_DST];
		f->dst[1] = s->key[VNET_W_IP_DST + 1];
		f->proto = proto;
		f->family = family;
		f->zone = zone;
		f->seen_ns = s->now_ns;
		f->l4 = s->key[VNET_W_L4];
		if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6)
			f->l4 |= s->icmp_id;
	}
	from = s->frag_offset / 8;
	to = from + (s->l4_length + 7) / 8;
	if (f->bad || !vnet_frag_range(f, from, to)) {
		f->bad = 1;
		reason = VNET_FRAG_VOID;
		goto out;
	}
	if (later) {
		s->key[VNET_W_L4] = s->base[VNET_W_L4] = f->l4 & ~0xffffffffULL;
		s->icmp_id = s->base_icmp_id = (__u32)f->l4;
		s->key[VNET_W_PORT] |= VNET_HAS_L4;
		s->base[VNET_W_PORT] |= VNET_HAS_L4;
		s->tcp_flags = 0;
	}
	reason = 0;
out:
	__sync_lock_test_and_set(&f->lock, 0);
	return reason;
}

static __always_inline int vnet_is_fragment(const struct vnet_scratch *s)
{
	return (__u8)(s->key[VNET_W_PORT] >> 8) != 0;
}

#endif
