/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The table of connections.
 *
 * A connection is a slot of `conns`; both directions' tuples in `conn_index` name the slot. A slot
 * may be freed and reused while another CPU still holds its number, so who finds one through the
 * index compares the tuple, and who remembers or frees one compares the generation, which is odd
 * while the slot is in use.
 * Expired connections are treated as absent and swept by those who need a slot: nothing here
 * depends on a daemon being alive. A full table refuses; it never evicts somebody else's.
 */
#ifndef VNET_CONNECTIONS_H
#define VNET_CONNECTIONS_H

#include "classify.h"

#define VNET_SECOND 1000000000ULL
#define VNET_SWEEP 4       /* slots looked at for each new connection */
#define VNET_SWEEP_HARD 64 /* when the table is full, or a port has as many as it may */
#define VNET_TICK_SHIFT 20 /* about 1 ms; the coarse clock ticks every 4 or 10 */

/* How long a connection lives without a packet; the values of Linux nf_conntrack but for established. */
static __always_inline __u64 vnet_conn_timeout_ns(const struct vnet_conn *conn)
{
	switch (conn->tcp_state) {
	case VNET_TCP_SYN_SENT:
		return 120 * VNET_SECOND;
	case VNET_TCP_SYN_RECV:
		return 60 * VNET_SECOND;
	case VNET_TCP_ESTABLISHED:
		return 86400 * VNET_SECOND;
	case VNET_TCP_FIN_WAIT:
	case VNET_TCP_TIME_WAIT:
		return 120 * VNET_SECOND;
	case VNET_TCP_CLOSED:
		return 10 * VNET_SECOND;
	}
	return (conn->seen_reply ? 120 : 30) * VNET_SECOND;
}

static __always_inline int vnet_conn_expired(const struct vnet_conn *conn, __u64 now)
{
	return now > conn->last_seen_ns + vnet_conn_timeout_ns(conn);
}

static __always_inline int vnet_ct_key_equal(const struct vnet_ct_key *a, const struct vnet_ct_key *b)
{
	const __u64 *x = (const void *)a, *y = (const void *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3] && x[4] == y[4];
}

static __always_inline void vnet_ct_reverse(const struct vnet_ct_key *key, struct vnet_ct_key *reverse)
{
	reverse->src[0] = key->dst[0];
	reverse->src[1] = key->dst[1];
	reverse->dst[0] = key->src[0];
	reverse->dst[1] = key->src[1];
	reverse->sport = key->dport;
	reverse->dport = key->sport;
	reverse->zone = key->zone;
	reverse->proto = key->proto;
	reverse->family = key->family;
}

static __always_inline void vnet_ct_unindex(const struct vnet_ct_key *key, __u32 slot)
{
	struct vnet_ct_ref *ref = bpf_map_lookup_elem(&conn_index, key);

	if (ref && ref->slot == slot)
		bpf_map_delete_elem(&conn_index, key);
}

/* End the connection that a slot held in generation `gen`. Of several CPUs that try one succeeds, and
 * none if the slot holds another connection by now.
 */
__noinline int vnet_conn_free(__u32 slot, __u32 gen)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_conn *conn = bpf_map_lookup_elem(&conns, &slot);
	struct vnet_port_state *owner;
	__u32 port;

	if (!s || !conn)
		return 0;
	s->ct_key = conn->key[0];
	s->ct_reverse = conn->key[1];
	port = conn->port;
	if (!(gen & 1) || __sync_val_compare_and_swap(&conn->gen, gen, gen + 1) != gen)
		return 0;
	vnet_ct_unindex(&s->ct_key, slot);
	vnet_ct_unindex(&s->ct_reverse, slot);
	owner = bpf_map_lookup_elem(&port_state, &port);
	if (owner)
		__sync_fetch_and_add(&owner->conns, -1);
	bpf_map_push_elem(&free_conns, &slot, 0);
	return 0;
}

struct vnet_sweeping {
	struct vnet_ct_control *control;
	__u64 now;
	__u32 used;
	__u32 pad;
};

static long vnet_conn_sweep_one(__u32 index __attribute__((unused)), struct vnet_sweeping *sweeping)
{
	__u32 slot = __sync_fetch_and_add(&sweeping->control->hand, 1) % sweeping->used, gen;
	struct vnet_conn *conn = bpf_map_lookup_elem(&conns, &slot);

	if (!conn)
		return 1;
	gen = *(volatile __u32 *)&conn->gen;
	if (gen & 1 && vnet_conn_expired(conn, sweeping->now))
		vnet_conn_free(slot, gen);
	return 0;
}

/* Look at the next `count` slots for connections that have ended. */
static __always_inline void vnet_conn_sweep(struct vnet_ct_control *control, __u64 now, __u32 count)
{
	struct vnet_sweeping sweeping = {
		.control = control, .now = now, .used = control->fresh < VNET_CONNS ? control->fresh : VNET_CONNS
	};

	if (sweeping.used)
		bpf_loop(count, vnet_conn_sweep_one, &sweeping, 0);
}

/* How many slots a port over its quota looks at: many, but once a tick of the coarse clock. A flood would
 * spend more time on this than on its packets, and the others pay for it.
 */
static __always_inline __u32 vnet_sweep_over_quota(struct vnet_ct_control *control, __u64 now)
{
	__u32 tick = now >> VNET_TICK_SHIFT;

	if (control->tick == tick)
		return VNET_SWEEP;
	control->tick = tick;
	return VNET_SWEEP_HARD;
}

static __always_inline __u32 vnet_conn_slot(struct vnet_ct_control *control)
{
	__u32 slot;

	if (!bpf_map_pop_elem(&free_conns, &slot))
		return slot;
	if (control->fresh >= VNET_CONNS)
		return VNET_NO_SLOT;
	slot = __sync_fetch_and_add(&control->fresh, 1);
	return slot < VNET_CONNS ? slot : VNET_NO_SLOT;
}

static __always_inline int vnet_ct_key_less(const struct vnet_ct_key *a, const struct vnet_ct_key *b)
{
	const __u64 *x = (const void *)a, *y = (const void *)b;
	int i;

	for (i = 0; i < 4; i++)
		if (x[i] != y[i])
			return x[i] < y[i];
	return x[4] < y[4];
}

/* Let both tuples name the slot, the smaller one first: of two CPUs that commit one connection, be it
 * in opposite directions, one fails at the first tuple. A packet to its own sender has one tuple, and so no
 * replies. Returns 0 or a negative errno.
 */
static __always_inline int vnet_ct_index(struct vnet_scratch *s, __u32 slot)
{
	struct vnet_ct_ref forward = { .slot = slot }, back = { .slot = slot, .dir = 1 };
	int error;

	if (vnet_ct_key_less(&s->ct_key, &s->ct_reverse)) {
		error = bpf_map_update_elem(&conn_index, &s->ct_key, &forward, BPF_NOEXIST);
		return error ? error : bpf_map_update_elem(&conn_index, &s->ct_reverse, &back, BPF_NOEXIST);
	}
	if (vnet_ct_key_equal(&s->ct_key, &s->ct_reverse))
		return bpf_map_update_elem(&conn_index, &s->ct_key, &forward, BPF_NOEXIST);
	error = bpf_map_update_elem(&conn_index, &s->ct_reverse, &back, BPF_NOEXIST);
	return error ? error : bpf_map_update_elem(&conn_index, &s->ct_key, &forward, BPF_NOEXIST);
}

#endif
