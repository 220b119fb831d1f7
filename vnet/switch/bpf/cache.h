/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The flow cache: exact packet key -> path. Filled here, by the kernel itself; an entry is good only
 * for the version it was made under, so a commit empties the cache at no cost.
 *
 * Each CPU has a table of its own, with two places for each key: no lock, no list of the least recently
 * used, no helper call but the array's, and nobody else who could be writing what is being read. The key
 * is what the rules in force ask for (control.reads), so packets that differ in nothing else share an entry.
 *
 * A path that depended on a connection holds only while that connection (same generation of its
 * slot) still gives the packet the same ct_state, and only for packets that cannot change the answer of
 * the tracker (vnet_ct_special).
 */
#ifndef VNET_CACHE_H
#define VNET_CACHE_H

#include "conntrack.h"

#define VNET_EVICTIONS 256 /* entries of other ports that a port may displace in one window */

static __always_inline __u32 vnet_cache_index(const struct vnet_scratch *s)
{
	const __u64 *w = s->packet;
	__u64 h = (w[0] ^ w[4]) * 0x9e3779b97f4a7c15ULL + (w[1] ^ w[6]) * 0xd1342543de82ef95ULL +
		  (w[2] ^ w[7]) * 0xaf251af3b0f025b5ULL + (w[3] ^ w[5]) * 0xb564ef22ec7aece5ULL;

	return (h ^ h >> 32) >> 16 & (VNET_CACHE - 1);
}

static __always_inline void vnet_cache_key(struct vnet_scratch *s, const struct vnet_control *control)
{
	const __u64 *reads = control->reads[s->version & 1];
	int i;

	for (i = 0; i < VNET_CACHE_WORDS; i++)
		s->packet[i] = s->key[i] & reads[i];
}

static __always_inline struct vnet_cached *vnet_cache_at(const struct vnet_scratch *s, __u32 index)
{
	struct vnet_cached *cached = bpf_map_lookup_elem(&cache, &index);
	__u64 differs = 0;
	int i;

	if (!cached || cached->version != s->version)
		return 0;
	for (i = 0; i < VNET_CACHE_WORDS; i++)
		differs |= cached->key[i] ^ s->packet[i];
	return differs ? 0 : cached;
}

/* May a packet of so many bytes take a remembered path? Notes it with the connection, if there is one. */
static __always_inline int vnet_cache_holds(struct vnet_scratch *s, const struct vnet_path *path, __u32 bytes)
{
	struct vnet_conn *conn;
	__u32 slot = path->ct_slot;

	if (path->min_ttl && s->key[VNET_W_MORE] >> 56 < path->min_ttl)
		return 0;
	if (slot == VNET_NO_SLOT)
		return 1;
	if (vnet_ct_special(s))
		return 0;
	conn = bpf_map_lookup_elem(&conns, &slot);
	if (!conn || conn->gen != path->ct_gen)
		return 0;
	s->now_ns = bpf_ktime_get_coarse_ns();
	if (vnet_conn_expired(conn, s->now_ns))
		return 0;
	if ((conn->seen_reply ? VNET_CS_EST : VNET_CS_NEW) != (path->ct_state & (VNET_CS_EST | VNET_CS_NEW)))
		return 0;
	vnet_conn_update(conn, path->ct_dir, s->tcp_flags, bytes, s->now_ns);
	return 1;
}

/* The path a packet of so many bytes takes that is like one before, or NULL. */
static __always_inline struct vnet_cached *vnet_cache_find(struct vnet_scratch *s, const struct vnet_control *control,
							   __u32 bytes)
{
	struct vnet_cached *cached;
	__u32 index;

	vnet_cache_key(s, control);
	index = vnet_cache_index(s);
	cached = vnet_cache_at(s, index);
	if (!cached) {
		cached = vnet_cache_at(s, index ^ 1);
		if (!cached)
			return 0;
	}
	return vnet_cache_holds(s, &cached->path, bytes) ? cached : 0;
}

/* Did the last packet that this CPU remembered meet the same rules? Saves the look into a hash table. */
static __always_inline int vnet_path_again(const struct vnet_scratch *s)
{
	__u32 number = s->last_path;
	const __u64 *met = (const void *)&s->met, *there = bpf_map_lookup_elem(&path_rules, &number);
	__u64 differs = 0;
	__u32 i;

	if (!there || !s->met.n_rules)
		return 0;
	for (i = 0; i < sizeof(s->met) / 8; i++)
		differs |= met[i] ^ there[i];
	return !differs;
}

/* The number of the list of rules that the packet met; the first to meet it gives it one. */
static __always_inline __u32 vnet_path_number(struct vnet_scratch *s)
{
	__u32 zero = 0, number, *known;
	struct vnet_ct_control *control;

	if (vnet_path_again(s))
		return s->last_path;
	known = bpf_map_lookup_elem(&path_index, &s->met);
	if (known)
		return *known;
	if (bpf_map_pop_elem(&free_paths, &number)) {
		control = bpf_map_lookup_elem(&ct_control, &zero);
		if (!control || control->paths >= VNET_PATHS)
			return VNET_NO_PATH;
		number = __sync_fetch_and_add(&control->paths, 1);
		if (number >= VNET_PATHS)
			return VNET_NO_PATH;
	}
	bpf_map_update_elem(&path_rules, &number, &s->met, BPF_ANY);
	if (!bpf_map_update_elem(&path_index, &s->met, &number, BPF_NOEXIST))
		return number;
	bpf_map_push_elem(&free_paths, &number, 0); /* another CPU was first */
	known = bpf_map_lookup_elem(&path_index, &s->met);
	return known ? *known : VNET_NO_PATH;
}

/* May this port displace what is there? Its own and what is out of date always; that of others within a
 * budget, so that a port which sends from ever new addresses does not push the others out.
 */
static __always_inline int vnet_may_displace(const struct vnet_scratch *s, const struct vnet_cached *there)
{
	__u32 port = s->in_port, owner = there->key[VNET_W_PORT] >> 32;
	struct vnet_port_state *state;

	if (there->version != s->version || owner == port)
		return 1;
	state = bpf_map_lookup_elem(&port_state, &port);
	if (!state || !vnet_share_left(state->evictions, s->now_ns, VNET_EVICTIONS))
		return 0;
	vnet_share_use(&state->evictions, s->now_ns);
	return 1;
}

/* Only what the same rules would decide again the same way is remembered. */
static __always_inline int vnet_repeatable(const struct vnet_scratch *s)
{
	__u8 reason = s->path.reason;

	if (!s->cacheable || s->path.n_ops > VNET_CACHE_OPS)
		return 0;
	if (reason && reason != VNET_DROP_RULE && reason != VNET_DROP_SAME_PORT && reason < 64)
		return 0;
	return !s->tracked || (!vnet_ct_special(s) && s->ct_slot != VNET_NO_SLOT &&
			       s->path.ct_state & (VNET_CS_EST | VNET_CS_NEW));
}

__noinline int vnet_cache_remember(void)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_cached *cached;
	__u32 index, number, i;

	if (!s || !vnet_repeatable(s))
		return 0;
	index = vnet_cache_index(s);
	cached = bpf_map_lookup_elem(&cache, &index);
	if (cached && cached->version == s->version && !vnet_cache_at(s, index)) {
		index ^= 1;
		cached = bpf_map_lookup_elem(&cache, &index);
	}
	if (!cached || !vnet_may_displace(s, cached))
		return 0;
	number = vnet_path_number(s);
	if (number == VNET_NO_PATH)
		return 0;
	s->last_path = number;
	__builtin_memcpy(cached->key, s->packet, sizeof(cached->key));
	cached->version = s->version;
	cached->path_id = number;
	cached->path = s->path;
	for (i = 0; i < VNET_CACHE_OPS; i++) {
		if (i >= s->path.n_ops)
			break;
		cached->ops[i] = s->ops[i];
	}
	return 0;
}

#endif
