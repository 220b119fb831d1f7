/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Connection tracking with Open vSwitch's meaning of ct_state.
 *
 * new: no reply seen yet (and for TCP: a SYN). est: a reply has been seen, this packet included.
 * rpl: against the direction that committed. inv: belongs to no connection and can start none.
 */
#ifndef VNET_CONNTRACK_H
#define VNET_CONNTRACK_H

#include "connections.h"
#include "fragment.h"
#include "nat.h"
#include "tcp.h"
#include "tuple.h"

#include <linux/errno.h>

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
	__u8 proto = s->ct_key.proto, type = s->key[VNET_W_L4] >> 48;
	int six = s->ct_key.family == 6;

	if (proto == IPPROTO_TCP &&
	    (s->tcp_flags & (VNET_TCP_SYN | VNET_TCP_ACK | VNET_TCP_RST | VNET_TCP_FIN)) != VNET_TCP_SYN)
		return VNET_CS_TRK | VNET_CS_INV;
	if (proto == (six ? IPPROTO_ICMPV6 : IPPROTO_ICMP) && type != (six ? 128 : 8))
		return VNET_CS_TRK | VNET_CS_INV; /* a reply nobody asked for */
	return VNET_CS_TRK | VNET_CS_NEW;
}

/* An echo whose identifier is the very number that stands for the answering side: a request in the direction of
 * the replies, or the other way round, has the tuple of the connection all the same.
 */
static __always_inline int vnet_ct_echo_crosses(const struct vnet_scratch *s, __u8 type, __u32 dir)
{
	__u8 proto = s->ct_key.proto;

	return s->ct_key.sport == 0x0800 && s->ct_key.dport == 0x0800 &&
	       (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) && (type == 8 || type == 128) == dir;
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
		if (!conn)
			state = vnet_ct_fresh(s);
		else if (vnet_ct_echo_crosses(s, type, ref.dir)) {
			state = VNET_CS_TRK | VNET_CS_INV;
			conn = 0;
		} else
			state = vnet_conn_update(conn, ref.dir, s->tcp_flags, vnet_frame_bytes(skb), s->now_ns);
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
	conn->bytes[0] = vnet_frame_bytes(skb);
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
	if (error != -EEXIST) /* else another CPU is about to commit the same tuple */
		return VNET_DROP_CT_FULL;
	return flags & (VNET_CT_SNAT | VNET_CT_DNAT) ? VNET_DROP_NAT_FULL : 0; /* nobody sees it untranslated */
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
