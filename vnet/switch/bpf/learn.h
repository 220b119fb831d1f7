/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The learning switch (OFPP_NORMAL): which MAC address of which VLAN was last seen at which port. Bounded
 * for each port, so that no port can fill the table; an entry that has aged is as good as none.
 */
#ifndef VNET_LEARN_H
#define VNET_LEARN_H

#include "parse.h"
#include "storm.h"

#define VNET_MAC_AGE_NS 300000000000ULL /* as bridges and Open vSwitch have it (IEEE 802.1Q, 8.8.3) */
#define VNET_MAC_TOUCH_NS 1000000000ULL /* an entry is not written more often */

static __always_inline void vnet_mac_count(__u32 port, __s64 by)
{
	struct vnet_port_state *state = bpf_map_lookup_elem(&port_state, &port);

	if (state)
		__sync_fetch_and_add(&state->macs, by);
}

static __always_inline int vnet_mac_room(__u32 number)
{
	struct vnet_port_state *state = bpf_map_lookup_elem(&port_state, &number);
	struct vnet_port *port = bpf_map_lookup_elem(&ports, &number);

	return state && port && state->macs < port->mac_quota;
}

static __always_inline void vnet_learn_source(struct vnet_mac_key *key, __u32 port, __u64 now)
{
	struct vnet_mac *known = bpf_map_lookup_elem(&macs, key);
	struct vnet_mac fresh = { .port = port, .seen_ns = now };

	if (known && known->port == port) {
		if (now > known->seen_ns + VNET_MAC_TOUCH_NS)
			known->seen_ns = now;
		return;
	}
	if (!vnet_mac_room(port))
		return;
	if (known) {
		vnet_mac_count(known->port, -1);
		known->port = port;
		known->seen_ns = now;
		vnet_mac_count(port, 1);
	} else if (!bpf_map_update_elem(&macs, key, &fresh, BPF_NOEXIST)) {
		vnet_mac_count(port, 1);
	}
}

/* One whom nobody knows is looked for at all ports, unless the sender has done that too often. */
static __always_inline __u32 vnet_unknown(struct __sk_buff *skb, struct vnet_scratch *s)
{
	if (!vnet_storm(skb, VNET_STORM_UNKNOWN))
		return 0;
	vnet_note_failure(s, VNET_DROP_STORM);
	return VNET_NO_PORT;
}

/* Learn where the packet's sender is, and tell where its receiver is: 0 = not known, or many;
 * VNET_NO_PORT = it is not to be forwarded.
 */
__noinline __u32 vnet_learn(struct __sk_buff *skb)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_mac_key key;
	struct vnet_port *port;
	struct vnet_mac *known;
	__u8 addresses[12];
	__u64 target, source, vlan, now = bpf_ktime_get_coarse_ns();
	__u32 number;

	if (!s || bpf_skb_load_bytes(skb, 0, addresses, 12) < 0)
		return VNET_NO_PORT;
	target = vnet_mac(addresses);
	source = vnet_mac(addresses + 6);
	vlan = s->vlan & 0xfff;
	if (target >> 4 == 0x0180c200000ULL) /* for the bridge itself (IEEE 802.1Q, table 8-1) */
		return VNET_NO_PORT;
	if (!(source >> 40 & 1) && s->in_port < VNET_PORTS) {
		key.mac = source << 16 | vlan;
		vnet_learn_source(&key, s->in_port, now);
	}
	if (target >> 40 & 1)
		return 0;
	key.mac = target << 16 | vlan;
	known = bpf_map_lookup_elem(&macs, &key);
	if (known && now <= known->seen_ns + VNET_MAC_AGE_NS) {
		number = known->port;
		port = bpf_map_lookup_elem(&ports, &number);
		if (port && port->flags & VNET_PORT_UP)
			return number;
	}
	return vnet_unknown(skb, s);
}

#endif
