/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The flow cache: exact packet key -> path. Filled here, by the kernel itself; an entry is good only
 * for the version it was made under, so a commit empties the cache at no cost.
 *
 * A path that depended on a connection holds only while that connection (same generation of its
 * slot) still gives the packet the same ct_state. Packets that may change the answer of the tracker
 * (SYN, FIN, RST; a packet of no committed connection; ICMP errors; fragments) are never cached.
 */
#ifndef VNET_CACHE_H
#define VNET_CACHE_H

#include "conntrack.h"

#include <stddef.h>

#define VNET_SEAL 0x9e3779b97f4a7c15ULL /* 2^64 divided by the golden ratio, odd */

static __always_inline int vnet_cacheable(const struct vnet_scratch *s)
{
	__u16 eth_type = s->key[VNET_W_SRC];

	if ((__u8)(s->key[VNET_W_PORT] >> 24) == IPPROTO_TCP &&
	    (s->tcp_flags & (VNET_TCP_SYN | VNET_TCP_FIN | VNET_TCP_RST | VNET_TCP_ACK)) != VNET_TCP_ACK)
		return 0;
	if ((__u8)(s->key[VNET_W_PORT] >> 8)) /* fragments */
		return 0;
	/* What words 8-11 or the ICMP id tell apart is not in the cache's key. */
	if (eth_type == ETH_P_ARP)
		return 0;
	return (__u8)(s->key[VNET_W_PORT] >> 24) != IPPROTO_ICMP &&
	       (__u8)(s->key[VNET_W_PORT] >> 24) != IPPROTO_ICMPV6;
}

/* A sum over key and path. The kernel gives the memory of a replaced or evicted LRU element away at
 * once (kernel/bpf/hashtab.c), so another CPU may be writing another packet's path where this one
 * reads: what was read then does not fit its seal.
 */
static __always_inline __u64 vnet_cache_seal(const struct vnet_scratch *s)
{
	const __u64 *path = (const void *)&s->path;
	__u64 a = 0, b = 0;
	int i;

	for (i = 0; i < VNET_CACHE_WORDS; i += 2) {
		a = (a ^ s->packet[i]) * VNET_SEAL;
		b = (b ^ s->packet[i + 1]) * VNET_SEAL;
	}
	for (i = 0; i + 1 < (int)(offsetof(struct vnet_path, seal) / 8); i += 2) {
		a = (a ^ path[i]) * VNET_SEAL;
		b = (b ^ path[i + 1]) * VNET_SEAL;
	}
	return a ^ (b << 32 | b >> 32) ^ path[i];
}

/* Take the remembered path if it still holds. */
static __always_inline int vnet_cache_hit(struct __sk_buff *skb, struct vnet_scratch *s)
{
	struct vnet_path *path;
	struct vnet_conn *conn;

	if (!vnet_cacheable(s)) {
		s->cacheable = 0;
		return 0;
	}
	__builtin_memcpy(s->packet, s->key, sizeof(s->packet));
	path = bpf_map_lookup_elem(&cache, s->packet);
	if (!path || path->version != s->version)
		return 0;
	s->path = *path;
	if (s->path.version != s->version || s->path.seal != vnet_cache_seal(s))
		return 0;
	if (s->path.ct_slot == VNET_NO_SLOT)
		return 1;
	conn = bpf_map_lookup_elem(&conns, &s->path.ct_slot);
	if (!conn || conn->gen != s->path.ct_gen || vnet_conn_expired(conn, s->now_ns))
		return 0;
	if ((conn->seen_reply ? VNET_CS_EST : VNET_CS_NEW) != (s->path.ct_state & (VNET_CS_EST | VNET_CS_NEW)))
		return 0;
	vnet_conn_update(conn, s->path.ct_dir, s->tcp_flags, skb->len, s->now_ns);
	return 1;
}

static __always_inline void vnet_cache_remember(struct vnet_scratch *s)
{
	if (!s->cacheable || s->path.reason)
		return;
	if (s->tracked && s->ct_slot == VNET_NO_SLOT)
		return;
	if (s->tracked && !(s->path.ct_state & (VNET_CS_EST | VNET_CS_NEW)))
		return;
	s->path.seal = vnet_cache_seal(s);
	bpf_map_update_elem(&cache, s->packet, &s->path, BPF_ANY);
}

#endif
