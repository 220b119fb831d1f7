/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Connection tracking with Open vSwitch's meaning of ct_state.
 *
 * A connection is a slot of `conns`; both directions' tuples in `conn_index` name the slot. A slot
 * may be freed and reused while another CPU still holds its number, so who finds one through the
 * index compares the tuple, and who remembers or frees one compares the generation, which is odd
 * while the slot is in use.
 * Expired connections are treated as absent and swept by those who need a slot: nothing here
 * depends on a daemon being alive. A full table refuses; it never evicts somebody else's.
 *
 * new: no reply seen yet (and for TCP: a SYN). est: a reply has been seen, this packet included.
 * rpl: against the direction that committed. inv: belongs to no connection and can start none.
 */
#ifndef VNET_CONNTRACK_H
#define VNET_CONNTRACK_H

#include "classify.h"
#include "parse.h"

#include <linux/errno.h>
#include <stddef.h>

#define VNET_SECOND 1000000000ULL
#define VNET_SWEEP 4       /* slots looked at for each new connection */
#define VNET_SWEEP_HARD 64 /* when the table is full, or a port has as many as it may */
#define VNET_TICK_SHIFT 20 /* about 1 ms; the coarse clock ticks every 4 or 10 */

#define VNET_TCP_FIN 0x01
#define VNET_TCP_SYN 0x02
#define VNET_TCP_RST 0x04
#define VNET_TCP_PSH 0x08
#define VNET_TCP_ACK 0x10
#define VNET_TCP_URG 0x20

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

/* The tuple of an ICMP echo: the answering side is told by 0x0800 in place of a port, so that a
 * request in the other direction is another connection. Returns 0 if it is no echo.
 */
static __always_inline int vnet_ct_echo(struct vnet_ct_key *key, __u8 proto, __u8 type, __u16 id)
{
	__u8 request = proto == IPPROTO_ICMP ? 8 : 128, reply = proto == IPPROTO_ICMP ? 0 : 129;

	if (type != request && type != reply)
		return 0;
	key->sport = type == request ? id : 0x0800;
	key->dport = type == request ? 0x0800 : id;
	return 1;
}

/* ICMP errors (RFC 792: 3, 4, 11, 12; RFC 4443: 1-4) and redirects are about another packet. */
static __always_inline int vnet_ct_is_error(__u8 proto, __u8 type)
{
	if (proto == IPPROTO_ICMP)
		return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
	return proto == IPPROTO_ICMPV6 && type >= 1 && type <= 4;
}

/* Fill s->ct_key from the packet. Returns 0 if the packet can belong to no connection. */
static __always_inline int vnet_ct_key_of(struct vnet_scratch *s, __u16 zone)
{
	__u8 proto = s->key[VNET_W_PORT] >> 24, frag = s->key[VNET_W_PORT] >> 8;
	__u16 eth_type = s->key[VNET_W_SRC];
	__u64 l4 = s->key[VNET_W_L4];
	struct vnet_ct_key *key = &s->ct_key;

	if (eth_type != ETH_P_IP && eth_type != ETH_P_IPV6)
		return 0;
	if (frag == VNET_FRAG_LATER && !(s->key[VNET_W_PORT] & VNET_HAS_L4))
		return 0;
	key->src[0] = s->key[VNET_W_IP_SRC];
	key->src[1] = s->key[VNET_W_IP_SRC + 1];
	key->dst[0] = s->key[VNET_W_IP_DST];
	key->dst[1] = s->key[VNET_W_IP_DST + 1];
	key->sport = l4 >> 48;
	key->dport = l4 >> 32;
	key->zone = zone;
	key->proto = proto;
	key->family = eth_type == ETH_P_IP ? 4 : 6;
	if (proto == (eth_type == ETH_P_IP ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return vnet_ct_echo(key, proto, l4 >> 48, s->icmp_id);
	return 1;
}

/* The tuple of the packet an ICMP error quotes. Returns 0 if the quotation cannot be read, or if the
 * error is addressed to somebody else than the quoted sender.
 */
static __always_inline int vnet_ct_inner_key(struct __sk_buff *skb, struct vnet_scratch *s, __u16 zone)
{
	struct vnet_cursor c = { .offset = s->l4_offset + 8, .length = s->l4_length - 8 };
	struct vnet_ct_key *key = &s->ct_key;
	__u8 bytes[40], ports[8];
	__u16 eth_type = s->key[VNET_W_SRC];
	__u32 header = eth_type == ETH_P_IP ? 20 : 40;

	__builtin_memset(key, 0, sizeof(*key));
	key->zone = zone;
	if (c.length < header)
		return 0;
	if (eth_type == ETH_P_IP) {
		if (bpf_skb_load_bytes(skb, c.offset, bytes, 20) < 0)
			return 0;
		header = (bytes[0] & 15) * 4;
		if (bytes[0] >> 4 != 4 || header < 20 || header > c.length || (bytes[6] & 0x1f) || bytes[7])
			return 0;
		key->src[1] = vnet_be32(bytes + 12);
		key->dst[1] = vnet_be32(bytes + 16);
		key->family = 4;
		c.proto = bytes[9];
	} else {
		if (bpf_skb_load_bytes(skb, c.offset, bytes, 40) < 0 || bytes[0] >> 4 != 6)
			return 0;
		key->src[0] = vnet_be64(bytes + 8);
		key->src[1] = vnet_be64(bytes + 16);
		key->dst[0] = vnet_be64(bytes + 24);
		key->dst[1] = vnet_be64(bytes + 32);
		key->family = 6;
		c.proto = bytes[6];
	}
	if (key->src[0] != s->key[VNET_W_IP_DST] || key->src[1] != s->key[VNET_W_IP_DST + 1])
		return 0;
	c.offset += header;
	c.length -= header;
	if (key->family == 6) {
		s->cursor = c;
		if (vnet_skip_extensions(skb) < 0)
			return 0;
		c = s->cursor;
	}
	if (c.frag == VNET_FRAG_LATER || c.length < sizeof(ports) ||
	    bpf_skb_load_bytes(skb, c.offset, ports, sizeof(ports)) < 0)
		return 0;
	key->proto = c.proto;
	if (key->proto == (key->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return vnet_ct_echo(key, key->proto, ports[0], ports[4] << 8 | ports[5]);
	if (key->proto == IPPROTO_TCP || key->proto == IPPROTO_UDP || key->proto == IPPROTO_SCTP) {
		key->sport = ports[0] << 8 | ports[1];
		key->dport = ports[2] << 8 | ports[3];
	}
	return 1;
}

/* The connection s->ct_key belongs to, or NULL; *found says which slot and direction, s->ct_gen which
 * generation of the slot.
 */
static __always_inline struct vnet_conn *vnet_ct_find(struct vnet_scratch *s, struct vnet_ct_ref *found)
{
	struct vnet_ct_ref *ref = bpf_map_lookup_elem(&conn_index, &s->ct_key);
	struct vnet_conn *conn;

	if (!ref)
		return 0;
	*found = *ref;
	conn = bpf_map_lookup_elem(&conns, &found->slot);
	if (!conn)
		return 0;
	s->ct_gen = *(volatile __u32 *)&conn->gen;
	if (!(s->ct_gen & 1) || !vnet_ct_key_equal(&conn->key[found->dir & 1], &s->ct_key))
		return 0;
	return conn;
}

/* TCP flags that no stack sends together. */
static __always_inline int vnet_tcp_contradicts(__u8 flags)
{
	if (flags & VNET_TCP_SYN)
		return flags & (VNET_TCP_RST | VNET_TCP_FIN);
	if (flags & VNET_TCP_ACK)
		return 0;
	return !(flags & VNET_TCP_RST) || (flags & (VNET_TCP_FIN | VNET_TCP_PSH | VNET_TCP_URG));
}

/* Somebody goes on after a reset. Once both do it was none: forged, or outside the receiver's window, which
 * is for the guests' own stacks to check (RFC 5961, section 3).
 */
static __always_inline void vnet_tcp_goes_on(struct vnet_conn *conn, __u32 dir)
{
	conn->fin_seen |= VNET_GOES_ON << dir;
	if (conn->fin_seen < 3 * VNET_GOES_ON)
		return;
	conn->fin_seen &= 3;
	conn->tcp_state = conn->fin_seen == 3 ? VNET_TCP_TIME_WAIT :
			  conn->fin_seen ? VNET_TCP_FIN_WAIT : VNET_TCP_ESTABLISHED;
}

/* Advance the state machine (RFC 9293, section 3.3.2, as a bystander sees it). The state chooses the
 * timeout and admits reopening; sequence numbers are for the guests' own stacks to check.
 */
static __always_inline void vnet_tcp_update(struct vnet_conn *conn, __u32 dir, __u8 flags)
{
	if (flags & VNET_TCP_RST) {
		conn->tcp_state = VNET_TCP_CLOSED;
		conn->fin_seen &= 3;
	} else if (conn->tcp_state >= VNET_TCP_TIME_WAIT) {
		if (conn->tcp_state == VNET_TCP_CLOSED &&
		    (flags & (VNET_TCP_SYN | VNET_TCP_ACK | VNET_TCP_FIN)) == VNET_TCP_ACK)
			vnet_tcp_goes_on(conn, dir);
	} else if (flags & VNET_TCP_FIN) {
		conn->fin_seen |= 1 << dir;
		conn->tcp_state = (conn->fin_seen & 3) == 3 ? VNET_TCP_TIME_WAIT : VNET_TCP_FIN_WAIT;
	} else if (conn->tcp_state == VNET_TCP_SYN_SENT) {
		if (dir && (flags & VNET_TCP_SYN) && (flags & VNET_TCP_ACK))
			conn->tcp_state = VNET_TCP_SYN_RECV;
	} else if (conn->tcp_state == VNET_TCP_SYN_RECV) {
		if (!dir && (flags & VNET_TCP_ACK) && !(flags & VNET_TCP_SYN))
			conn->tcp_state = VNET_TCP_ESTABLISHED;
	}
}

/* Account a packet to its connection and tell its ct_state. */
static __always_inline __u8 vnet_conn_update(struct vnet_conn *conn, __u32 dir, __u8 flags, __u32 length,
					     __u64 now)
{
	dir &= 1;
	if (conn->key[0].proto == IPPROTO_TCP)
		vnet_tcp_update(conn, dir, flags);
	conn->last_seen_ns = now;
	__sync_fetch_and_add(&conn->packets[dir], 1);
	__sync_fetch_and_add(&conn->bytes[dir], length);
	if (dir)
		conn->seen_reply = 1;
	return VNET_CS_TRK | (conn->seen_reply ? VNET_CS_EST : VNET_CS_NEW) | (dir ? VNET_CS_RPL : 0);
}

/* A SYN that opens a connection anew, whose predecessor of the same tuple has ended. */
static __always_inline int vnet_conn_reopened(const struct vnet_conn *conn, __u8 flags)
{
	return conn->key[0].proto == IPPROTO_TCP && conn->tcp_state >= VNET_TCP_TIME_WAIT &&
	       (flags & (VNET_TCP_SYN | VNET_TCP_ACK | VNET_TCP_RST | VNET_TCP_FIN)) == VNET_TCP_SYN;
}

/* What a packet without a connection may do: start one, or nothing. */
static __always_inline __u8 vnet_ct_fresh(const struct vnet_scratch *s)
{
	__u8 proto = s->ct_key.proto;

	if (proto == IPPROTO_TCP &&
	    (s->tcp_flags & (VNET_TCP_SYN | VNET_TCP_ACK | VNET_TCP_RST | VNET_TCP_FIN)) != VNET_TCP_SYN)
		return VNET_CS_TRK | VNET_CS_INV;
	if (proto == (s->ct_key.family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) && s->ct_key.dport != 0x0800)
		return VNET_CS_TRK | VNET_CS_INV; /* a reply nobody asked for */
	return VNET_CS_TRK | VNET_CS_NEW;
}

/* Translation (ovs-actions(7), nat): write into the key what packets of a direction look like on the
 * other side: the reverse of what the other direction's packets look like there.
 */
static __always_inline void vnet_nat_apply(struct vnet_scratch *s, const struct vnet_conn *conn, __u32 dir)
{
	const struct vnet_ct_key *other = &conn->key[(dir & 1) ^ 1];
	__u8 proto = s->key[VNET_W_PORT] >> 24, nat = conn->nat;

	if (!nat)
		return;
	if (dir & 1)
		nat = (nat & VNET_CS_SNAT ? VNET_CS_DNAT : 0) | (nat & VNET_CS_DNAT ? VNET_CS_SNAT : 0);
	if (nat & VNET_CS_SNAT) { /* who sends an error about another's packet may be none of the two */
		s->key[VNET_W_IP_SRC] = other->dst[0];
		s->key[VNET_W_IP_SRC + 1] = other->dst[1];
	}
	if (nat & VNET_CS_DNAT) {
		s->key[VNET_W_IP_DST] = other->src[0];
		s->key[VNET_W_IP_DST + 1] = other->src[1];
	}
	s->key[VNET_W_CT] |= nat;
	if (s->key[VNET_W_CT] & VNET_CS_REL)
		return;
	if (proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP)
		s->key[VNET_W_L4] = (s->key[VNET_W_L4] & 0xffffffffULL) | (__u64)other->dport << 48 |
				    (__u64)other->sport << 32;
	else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6)
		s->icmp_id = other->dport == 0x0800 ? other->sport : other->dport;
}

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

/* Which packets the flow cache must not decide from a remembered connection: those that may change what
 * the tracker says, and those that its key does not tell apart.
 */
static __always_inline int vnet_ct_special(const struct vnet_scratch *s)
{
	__u8 proto = s->key[VNET_W_PORT] >> 24;

	if (proto == IPPROTO_TCP &&
	    (s->tcp_flags & (VNET_TCP_SYN | VNET_TCP_FIN | VNET_TCP_RST | VNET_TCP_ACK)) != VNET_TCP_ACK)
		return 1;
	return vnet_is_fragment(s) || proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6;
}

/* Forget what the tracker said. */
static __always_inline void vnet_ct_clear(__u64 *key)
{
	key[VNET_W_CT] = 0;
	key[VNET_W_ZONE] = 0;
	key[VNET_W_LABEL] = 0;
	key[VNET_W_LABEL + 1] = 0;
	key[VNET_W_CT_SRC] = 0;
	key[VNET_W_CT_SRC + 1] = 0;
	key[VNET_W_CT_DST] = 0;
	key[VNET_W_CT_DST + 1] = 0;
}

/* Tell the original direction of the packet's connection, which without one is its own. Of ICMP the ports
 * are type and code, as in Open vSwitch.
 */
static __always_inline void vnet_ct_tell(struct vnet_scratch *s, const struct vnet_conn *conn)
{
	const __u64 *addresses = conn ? conn->key[0].src : &s->key[VNET_W_IP_SRC];
	__u8 proto = conn ? conn->key[0].proto : s->key[VNET_W_PORT] >> 24;
	int six = conn ? conn->key[0].family == 6 : (__u16)s->key[VNET_W_SRC] == ETH_P_IPV6;
	__u64 ports = s->key[VNET_W_L4] & ~0xffffffffULL;

	if (proto == (six ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		ports = (six ? 128ULL : 8ULL) << 48;
	else if (conn)
		ports = (__u64)conn->key[0].sport << 48 | (__u64)conn->key[0].dport << 32;
	s->key[VNET_W_ZONE] = ports | (__u64)proto << 24 | (six ? 6 : 4) << 16 | (__u16)s->key[VNET_W_ZONE];
	s->key[VNET_W_CT_SRC] = addresses[0];
	s->key[VNET_W_CT_SRC + 1] = addresses[1];
	s->key[VNET_W_CT_DST] = addresses[2];
	s->key[VNET_W_CT_DST + 1] = addresses[3];
}

/* Send the packet through the tracker: sets ct_state, ct_mark, ct_label and ct_zone in the key. Returns 0
 * or a drop reason.
 */
__noinline int vnet_ct_lookup(struct __sk_buff *skb, __u32 zone)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_ct_ref ref = { .slot = VNET_NO_SLOT };
	struct vnet_conn *conn = 0;
	__u8 state, proto, type;
	int reason;

	if (!s)
		return 0;
	proto = s->key[VNET_W_PORT] >> 24;
	type = s->key[VNET_W_L4] >> 48;
	if (s->tracked) /* the cache watches over one connection */
		s->cacheable = 0;
	s->tracked = 1;
	s->ct_slot = VNET_NO_SLOT;
	s->ct_gen = 0;
	s->ct_dir = 0;
	vnet_ct_clear(s->key);
	if (vnet_is_fragment(s)) {
		reason = vnet_ct_fragment(zone);
		if (reason == VNET_FRAG_VOID) {
			s->key[VNET_W_CT] = VNET_CS_TRK | VNET_CS_INV;
			s->key[VNET_W_ZONE] = zone & 0xffff;
			return 0;
		}
		if (reason)
			return reason;
	}
	if (vnet_ct_is_error(proto, type)) {
		state = VNET_CS_TRK | VNET_CS_INV;
		s->cacheable = 0;
		if (vnet_ct_inner_key(skb, s, zone)) {
			vnet_ct_reverse(&s->ct_key, &s->ct_reverse);
			s->ct_key = s->ct_reverse;
			conn = vnet_ct_find(s, &ref);
			if (conn && !vnet_conn_expired(conn, s->now_ns))
				state = VNET_CS_TRK | VNET_CS_REL | (ref.dir ? VNET_CS_RPL : 0);
			else
				conn = 0;
		}
	} else if (!vnet_ct_key_of(s, zone) ||
		   (proto == IPPROTO_TCP && !s->later && vnet_tcp_contradicts(s->tcp_flags))) {
		state = VNET_CS_TRK | VNET_CS_INV;
		s->cacheable = 0;
	} else {
		conn = vnet_ct_find(s, &ref);
		if (conn && (vnet_conn_expired(conn, s->now_ns) || vnet_conn_reopened(conn, s->tcp_flags))) {
			vnet_conn_free(ref.slot, s->ct_gen);
			vnet_ct_key_of(s, zone);
			conn = 0;
		}
		if (conn)
			state = vnet_conn_update(conn, ref.dir, s->tcp_flags, skb->len, s->now_ns);
		else
			state = vnet_ct_fresh(s);
	}
	s->key[VNET_W_CT] = state;
	s->key[VNET_W_ZONE] = zone & 0xffff;
	if (!conn)
		return 0;
	s->ct_slot = ref.slot;
	s->ct_dir = ref.dir;
	s->key[VNET_W_CT] |= (__u64)conn->mark << 32;
	s->key[VNET_W_LABEL] = conn->label[0];
	s->key[VNET_W_LABEL + 1] = conn->label[1];
	return 0;
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
 * in opposite directions, one fails at the first tuple. Returns 0 or a negative errno.
 */
static __always_inline int vnet_ct_index(struct vnet_scratch *s, __u32 slot)
{
	struct vnet_ct_ref forward = { .slot = slot }, back = { .slot = slot, .dir = 1 };
	int error;

	if (vnet_ct_key_less(&s->ct_key, &s->ct_reverse)) {
		error = bpf_map_update_elem(&conn_index, &s->ct_key, &forward, BPF_NOEXIST);
		return error ? error : bpf_map_update_elem(&conn_index, &s->ct_reverse, &back, BPF_NOEXIST);
	}
	error = bpf_map_update_elem(&conn_index, &s->ct_reverse, &back, BPF_NOEXIST);
	return error ? error : bpf_map_update_elem(&conn_index, &s->ct_key, &forward, BPF_NOEXIST);
}

/* Choose what replies look like under a translation: an address and a port of the range (records `at` and
 * on) that no other connection's replies have. Returns 0 or a drop reason; s->ct_reverse is the choice.
 */
__noinline int vnet_nat_choose(__u32 at, __u32 flags)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_action *high, *low, *ports;
	__u32 at_low = at + 1, at_ports = at + 2, first = 0, count = 1, i;
	__u64 hash, span;
	__u16 port;

	if (!s)
		return VNET_DROP_ACTION_FAILED;
	high = bpf_map_lookup_elem(&actions, &at);
	low = bpf_map_lookup_elem(&actions, &at_low);
	ports = bpf_map_lookup_elem(&actions, &at_ports);
	if (!high || !low || !ports)
		return VNET_DROP_ACTION_FAILED;
	hash = (s->ct_key.src[1] ^ s->ct_key.dst[1] << 13 ^ (__u64)s->ct_key.sport << 32 ^ s->ct_key.dport) *
	       0x9e3779b97f4a7c15ULL;
	span = low->mask - low->value + 1;
	if (flags & VNET_CT_NAT_ADDRESS) {
		__u64 chosen = low->value + (span ? (hash >> 32) % span : 0);

		if (flags & VNET_CT_SNAT) {
			s->ct_reverse.dst[0] = high->value;
			s->ct_reverse.dst[1] = chosen;
		} else {
			s->ct_reverse.src[0] = high->value;
			s->ct_reverse.src[1] = chosen;
		}
	}
	port = flags & VNET_CT_SNAT ? s->ct_reverse.dport : s->ct_reverse.sport;
	if (port == 0x0800 && s->ct_key.proto != IPPROTO_TCP && s->ct_key.proto != IPPROTO_UDP &&
	    s->ct_key.proto != IPPROTO_SCTP)
		return bpf_map_lookup_elem(&conn_index, &s->ct_reverse) ? VNET_DROP_NAT_FULL : 0;
	if (flags & VNET_CT_NAT_PORT) {
		first = (__u16)ports->value;
		count = (__u16)ports->mask - first + 1;
		if (port < first || port >= first + count)
			port = first + (__u32)(hash >> 40) % (count ? count : 1);
	} else if (flags & VNET_CT_SNAT) { /* who may have had a low port keeps one */
		first = port < 512 ? 1 : port < 1024 ? 600 : 1024;
		count = port < 512 ? 511 : port < 1024 ? 424 : 64512;
	}
	for (i = 0; i < 64; i++) {
		if (flags & VNET_CT_SNAT)
			s->ct_reverse.dport = port;
		else
			s->ct_reverse.sport = port;
		if (!bpf_map_lookup_elem(&conn_index, &s->ct_reverse))
			return 0;
		if (i >= count)
			break;
		port = port < first || (__u32)port + 1 >= first + count ? first : port + 1;
	}
	return VNET_DROP_NAT_FULL;
}

/* Enter the packet's connection into the table. `at` is where a translation's records begin. Returns 0 or
 * a drop reason.
 */
__noinline int vnet_ct_create(struct __sk_buff *skb, __u32 zone, __u32 flags, __u32 at)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_ct_control *control;
	struct vnet_port_state *owner;
	struct vnet_port *port;
	struct vnet_conn *conn;
	__u32 zero = 0, in_port, slot;
	int error;

	if (!s)
		return VNET_DROP_ACTION_FAILED;
	in_port = s->in_port < VNET_PORTS ? s->in_port : 0; /* a controller's packet counts for nobody */
	control = bpf_map_lookup_elem(&ct_control, &zero);
	owner = bpf_map_lookup_elem(&port_state, &in_port);
	port = bpf_map_lookup_elem(&ports, &in_port);
	if (!control || !owner || !port)
		return VNET_DROP_ACTION_FAILED;
	vnet_conn_sweep(control, s->now_ns,
			owner->conns < port->conn_quota ? VNET_SWEEP : vnet_sweep_over_quota(control, s->now_ns));
	if (in_port && owner->conns >= port->conn_quota)
		return VNET_DROP_CT_QUOTA;
	slot = vnet_conn_slot(control);
	if (slot == VNET_NO_SLOT) {
		vnet_conn_sweep(control, s->now_ns, VNET_SWEEP_HARD);
		slot = vnet_conn_slot(control);
	}
	conn = bpf_map_lookup_elem(&conns, &slot);
	if (slot == VNET_NO_SLOT || !conn)
		return VNET_DROP_CT_FULL;
	vnet_ct_key_of(s, zone); /* sweeping used the scratch's key */
	vnet_ct_reverse(&s->ct_key, &s->ct_reverse);
	conn->nat = 0;
	if (flags & (VNET_CT_SNAT | VNET_CT_DNAT)) {
		error = vnet_nat_choose(at, flags);
		if (error) {
			bpf_map_push_elem(&free_conns, &slot, 0);
			return error;
		}
		conn->nat = flags & VNET_CT_SNAT ? VNET_CS_SNAT : VNET_CS_DNAT;
	}
	conn->key[0] = s->ct_key;
	conn->key[1] = s->ct_reverse;
	conn->created_ns = s->now_ns;
	conn->last_seen_ns = s->now_ns;
	conn->packets[0] = 1;
	conn->packets[1] = 0;
	conn->bytes[0] = skb->len;
	conn->bytes[1] = 0;
	conn->label[0] = 0;
	conn->label[1] = 0;
	conn->mark = 0;
	conn->port = in_port;
	conn->tcp_state = s->ct_key.proto == IPPROTO_TCP ? VNET_TCP_SYN_SENT : VNET_TCP_NONE;
	conn->seen_reply = 0;
	conn->fin_seen = 0;
	__sync_fetch_and_add(&owner->conns, 1);
	s->ct_gen = __sync_fetch_and_add(&conn->gen, 1) + 1; /* from here on it may be found */
	s->ct_dir = 0;
	s->ct_slot = slot;
	error = vnet_ct_index(s, slot);
	if (!error)
		return 0;
	vnet_conn_free(slot, s->ct_gen);
	s->ct_slot = VNET_NO_SLOT;
	return error == -EEXIST ? 0 : VNET_DROP_CT_FULL; /* another CPU is about to commit the same tuple */
}

/* Write mark and label. Paths that were taken under others are out of date: a new generation makes the
 * cache forget them.
 */
static __always_inline void vnet_conn_write(struct vnet_scratch *s, struct vnet_conn *conn,
					    const struct vnet_action *mark, __u32 flags, __u32 at)
{
	int moved = flags & VNET_CT_MOVED;
	__u32 wanted = (moved ? s->moved[0] : mark->value) & mark->mask;
	__u32 at_low = at + 1, new_mark = (conn->mark & ~(__u32)mark->mask) | wanted;
	__u64 high = conn->label[0], low = conn->label[1];

	if (flags & VNET_CT_LABEL) {
		struct vnet_action *data = bpf_map_lookup_elem(&actions, &at);

		if (data)
			high = (high & ~data->mask) | ((moved ? s->moved[1] : data->value) & data->mask);
		data = bpf_map_lookup_elem(&actions, &at_low);
		if (data)
			low = (low & ~data->mask) | ((moved ? s->moved[2] : data->value) & data->mask);
	}
	if (conn->mark == new_mark && conn->label[0] == high && conn->label[1] == low)
		return;
	conn->mark = new_mark;
	conn->label[0] = high;
	conn->label[1] = low;
	s->ct_gen = __sync_fetch_and_add(&conn->gen, 2) + 2;
	s->cacheable = 0; /* this packet was still decided by what was there before */
}

/* A forced commit of a reply, or of an error about a packet of the opener: the connection is forgotten, and
 * the packet is what it is without one.
 */
static __always_inline void vnet_ct_start_anew(struct vnet_scratch *s, __u32 zone)
{
	vnet_conn_free(s->ct_slot, s->ct_gen);
	s->ct_slot = VNET_NO_SLOT;
	s->ct_dir = 0;
	s->ct_translated = 0;
	s->key[VNET_W_CT] = vnet_ct_key_of(s, zone) ? vnet_ct_fresh(s) : VNET_CS_TRK | VNET_CS_INV;
	s->key[VNET_W_LABEL] = 0;
	s->key[VNET_W_LABEL + 1] = 0;
	s->ct_word = s->key[VNET_W_CT];
	s->cacheable = 0;
}

/* The ct() action s->action, whose DATA records begin at `at`, up to its resumption. Returns 0 or a drop
 * reason.
 */
__noinline int vnet_ct(struct __sk_buff *skb, __u32 at)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_conn *conn;
	__u32 flags, zone;
	int reason;

	if (!s)
		return VNET_DROP_ACTION_FAILED;
	flags = s->action.a;
	zone = s->action.b & 0xffff;
	if (flags & VNET_CT_MOVED) {
		s->moved[0] = s->key[VNET_W_CT] >> 32;
		s->moved[1] = s->key[VNET_W_LABEL];
		s->moved[2] = s->key[VNET_W_LABEL + 1];
	}
	if (flags & VNET_CT_ZONE_FIELD) {
		struct vnet_action *data = bpf_map_lookup_elem(&actions, &at);

		if (!data)
			return VNET_DROP_ACTION_FAILED;
		if ((data->value & 31) >= VNET_W_MORE ||
		    ((data->value & 31) >= VNET_W_SHA && (data->value & 31) < VNET_W_METADATA))
			s->cacheable = 0;
		zone = s->key[data->value & (VNET_KEY_WORDS - 1)] >> (data->value >> 8 & 63) & data->mask & 0xffff;
		at++;
	}
	if (!s->tracked || s->ct_zone != zone) {
		reason = vnet_ct_lookup(skb, zone);
		if (reason)
			return reason;
		s->ct_zone = zone;
		s->ct_translated = 0;
		s->ct_word = s->key[VNET_W_CT];
	} else {
		s->key[VNET_W_CT] = s->ct_word;
		s->key[VNET_W_ZONE] = zone;
	}
	if (flags & VNET_CT_FORCE && s->ct_slot != VNET_NO_SLOT && s->ct_dir)
		vnet_ct_start_anew(s, zone);
	if (s->key[VNET_W_CT] & VNET_CS_INV)
		return 0;
	if (flags & VNET_CT_COMMIT) {
		if (!(s->key[VNET_W_CT] & VNET_CS_REL) && s->ct_slot == VNET_NO_SLOT) {
			reason = vnet_ct_create(skb, zone, flags, at + (flags & VNET_CT_LABEL ? 2 : 0));
			if (reason)
				return reason;
		}
		conn = bpf_map_lookup_elem(&conns, &s->ct_slot);
		if (conn)
			vnet_conn_write(s, conn, &s->action, flags, at);
	}
	conn = bpf_map_lookup_elem(&conns, &s->ct_slot);
	if (flags & VNET_CT_RECIRC)
		vnet_ct_tell(s, conn);
	if (!conn)
		return 0;
	if (flags & VNET_CT_NAT && !s->ct_translated && conn->nat) {
		s->ct_translated = 1;
		s->ct_nat_inner = !!(s->key[VNET_W_CT] & VNET_CS_REL);
		vnet_nat_apply(s, conn, s->ct_dir);
	}
	s->key[VNET_W_CT] = (__u32)s->key[VNET_W_CT] | (__u64)conn->mark << 32;
	s->key[VNET_W_LABEL] = conn->label[0];
	s->key[VNET_W_LABEL + 1] = conn->label[1];
	s->ct_word = s->key[VNET_W_CT];
	return 0;
}

#endif
