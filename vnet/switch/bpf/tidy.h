/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the agent has cleared away: here, because only the dataplane can do it without a race. */
#ifndef VNET_TIDY_H
#define VNET_TIDY_H

#include "conntrack.h"
#include "learn.h"

#define VNET_TIDY_CONNS 1 /* connections that a port opened */
#define VNET_TIDY_ZONE 2  /* connections of a zone, VNET_ALL_ZONES = of all */
#define VNET_TIDY_MACS 4  /* addresses learnt at a port, VNET_NO_PORT = at all */
#define VNET_TIDY_AGED 8  /* addresses that have aged */
#define VNET_ALL_ZONES 0x10000

struct vnet_tidying {
	__u64 now;
	__u32 what;
	__u32 port;
	__u32 zone;
	__u32 pad;
};

static long vnet_tidy_conn(__u32 slot, struct vnet_tidying *tidying)
{
	struct vnet_conn *conn = bpf_map_lookup_elem(&conns, &slot);
	__u32 gen;

	if (!conn)
		return 1;
	gen = *(volatile __u32 *)&conn->gen;
	if (!(gen & 1))
		return 0;
	if (tidying->what & VNET_TIDY_CONNS && conn->port != tidying->port)
		return 0;
	if (tidying->what & VNET_TIDY_ZONE && tidying->zone != VNET_ALL_ZONES && conn->key[0].zone != tidying->zone)
		return 0;
	vnet_conn_free(slot, gen);
	return 0;
}

static long vnet_tidy_frag(__u32 index, struct vnet_tidying *tidying)
{
	struct vnet_frag *f = bpf_map_lookup_elem(&frags, &index);

	if (!f)
		return 1;
	if (tidying->zone == VNET_ALL_ZONES || f->zone == tidying->zone)
		f->seen_ns = 0; /* long ago */
	return 0;
}

static long vnet_tidy_mac(void *map, struct vnet_mac_key *key, struct vnet_mac *known,
			  struct vnet_tidying *tidying)
{
	__u32 port = known->port;

	if (!(tidying->what & VNET_TIDY_AGED && tidying->now > known->seen_ns + VNET_MAC_AGE_NS) &&
	    !(tidying->what & VNET_TIDY_MACS && (tidying->port == VNET_NO_PORT || port == tidying->port)))
		return 0;
	if (!bpf_map_delete_elem(map, key))
		vnet_mac_count(port, -1);
	return 0;
}

#endif
