/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Meters (OpenFlow 1.3.5, section 5.7): each band is a bucket of tokens that fills at the band's rate; a
 * packet that finds too few has exceeded the band.
 */
#ifndef VNET_METER_H
#define VNET_METER_H

#include "maps.h"

#define VNET_METER_MAX_NS 1000000000ULL /* a bucket fills for no longer than this at once */

static __always_inline void vnet_count_band(struct __sk_buff *skb, __u32 meter, __u32 band)
{
	__u32 index = meter * (VNET_BANDS + 1) + band;
	struct vnet_counter *counter = bpf_map_lookup_elem(&meter_counters, &index);

	if (counter) {
		counter->packets++;
		counter->bytes += skb->len;
	}
}

/* Let a packet pass a meter. Returns 0, or the type of the band of the highest rate that it exceeded. */
__noinline int vnet_meter(struct __sk_buff *skb, __u32 number, __u32 *precedence)
{
	struct vnet_meter *meter = bpf_map_lookup_elem(&meters, &number);
	struct vnet_meter_state *state = bpf_map_lookup_elem(&meter_state, &number);
	__u64 now = bpf_ktime_get_ns(), passed, cost, highest = 0;
	__u32 i, n, exceeded = VNET_BANDS;

	if (!meter || !state || !precedence)
		return 0;
	vnet_count_band(skb, number, 0);
	cost = meter->flags & VNET_METER_PKTPS ? 1000000000ULL * (skb->gso_segs ? skb->gso_segs : 1)
					       : 8000000ULL * skb->len;
	n = meter->n_bands;
	bpf_spin_lock(&state->lock);
	if (!state->started) {
		state->started = 1;
		state->last_ns = now;
		for (i = 0; i < VNET_BANDS; i++)
			state->tokens[i] = meter->bands[i].burst;
	}
	passed = now > state->last_ns ? now - state->last_ns : 0;
	if (passed > VNET_METER_MAX_NS)
		passed = VNET_METER_MAX_NS;
	if (now > state->last_ns)
		state->last_ns = now;
	for (i = 0; i < VNET_BANDS; i++) {
		__u64 tokens = state->tokens[i] + passed * meter->bands[i].rate, burst = meter->bands[i].burst;

		if (i >= n)
			break;
		if (tokens > burst)
			tokens = burst;
		if (tokens >= cost) {
			tokens -= cost;
		} else if (meter->bands[i].rate >= highest) {
			highest = meter->bands[i].rate;
			exceeded = i;
		}
		state->tokens[i] = tokens;
	}
	bpf_spin_unlock(&state->lock);
	if (exceeded >= VNET_BANDS)
		return 0;
	vnet_count_band(skb, number, exceeded + 1);
	*precedence = meter->bands[exceeded].precedence;
	return meter->bands[exceeded].type;
}

/* Does a meter change packets? Then nobody knows before what becomes of the next one. */
static __always_inline int vnet_remarks(__u32 number)
{
	struct vnet_meter *meter = bpf_map_lookup_elem(&meters, &number);
	__u32 i;

	for (i = 0; meter && i < VNET_BANDS; i++)
		if (meter->bands[i].type == VNET_BAND_REMARK)
			return 1;
	return 0;
}

/* Raise the drop precedence of an assured-forwarding class (RFC 2597, section 6). */
static __always_inline void vnet_remark(struct vnet_scratch *s, __u32 by)
{
	__u8 dscp = s->key[VNET_W_PORT] >> 18 & 0x3f, drop = dscp >> 1 & 3;

	if (dscp & 1 || dscp < 8 || dscp >= 40 || !drop)
		return;
	drop = drop + by > 3 ? 3 : drop + by;
	dscp = (dscp & 0x38) | drop << 1;
	s->key[VNET_W_PORT] = (s->key[VNET_W_PORT] & ~0xfc0000ULL) | (__u64)dscp << 18;
}

#endif
