// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* The switch: one program at tc ingress of every port. */
#include "cache.h"
#include "execute.h"
#include "walk.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline void vnet_reset(struct vnet_scratch *s, __u32 in_port, __u32 version)
{
	__builtin_memset(s, 0, sizeof(*s));
	s->key[VNET_W_PORT] = (__u64)in_port << 32;
	s->in_port = in_port;
	s->version = version;
	s->now_ns = bpf_ktime_get_coarse_ns();
	s->ct_slot = VNET_NO_SLOT;
	s->cacheable = 1;
}

static __always_inline void vnet_count_rules(struct __sk_buff *skb, struct vnet_scratch *s)
{
	__u32 i, n = s->path.n_rules;

	for (i = 0; i < VNET_PATH_RULES; i++) {
		struct vnet_counter *counter;

		if (i >= n)
			break;
		counter = bpf_map_lookup_elem(&rule_counters, &s->path.rules[i]);
		if (counter) {
			counter->packets++;
			counter->bytes += skb->len;
		}
	}
}

static __always_inline int vnet_dropped(struct __sk_buff *skb, struct vnet_scratch *s)
{
	struct vnet_port_counter *counter = bpf_map_lookup_elem(&port_counters, &s->in_port);

	if (counter)
		counter->rx_dropped++;
	vnet_count(&drop_counters, s->path.reason);
	skb->cb[1] = s->path.reason; /* tells BPF_PROG_TEST_RUN why */
	return TC_ACT_SHOT;
}

/* From a parsed packet to its path: the cache, or the tables. */
static __always_inline void vnet_decide(struct __sk_buff *skb, struct vnet_scratch *s)
{
	if (vnet_cache_hit(skb, s))
		return;
	__builtin_memset(&s->path, 0, sizeof(s->path));
	s->path.version = s->version;
	s->path.reason = vnet_walk(skb, 0);
	s->path.ct_state = s->key[VNET_W_CT];
	if (s->path.reason && s->path.n_ops) { /* what was output before it failed has been output */
		s->path.reason = VNET_DROP_NONE;
		s->cacheable = 0;
	}
	s->path.ct_slot = s->ct_slot;
	s->path.ct_gen = s->ct_gen;
	s->path.ct_dir = s->ct_dir;
	vnet_cache_remember(s);
}

SEC("tc")
int vnet_ingress(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex, in_port, *number = bpf_map_lookup_elem(&port_by_ifindex, &ifindex);
	struct vnet_port_counter *counter;
	struct vnet_control *control = vnet_control();
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_port *port;
	int verdict;

	if (!s || !control)
		return TC_ACT_SHOT;
	in_port = number ? *number : 0;
	vnet_reset(s, in_port, *(volatile __u32 *)&control->version);
	port = bpf_map_lookup_elem(&ports, &in_port);
	counter = bpf_map_lookup_elem(&port_counters, &in_port);
	if (counter) {
		counter->rx_packets++;
		counter->rx_bytes += skb->len;
	}
	if (!number || !port || !(port->flags & VNET_PORT_UP)) {
		s->path.reason = VNET_DROP_PORT_CLOSED;
		return vnet_dropped(skb, s);
	}
	s->path.reason = vnet_parse(skb, s);
	if (!s->path.reason) {
		vnet_decide(skb, s);
		vnet_count_rules(skb, s);
	}
	vnet_observe(skb, s, port->flags);
	if (s->path.reason)
		return vnet_dropped(skb, s);
	verdict = vnet_execute(skb, s);
	if (s->path.reason)
		vnet_dropped(skb, s);
	return verdict;
}
