/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Meters (OpenFlow 1.3.5, section 5.7): each band is a bucket of tokens that fills at the band's rate; a
 * packet that finds too few has exceeded the band. One that costs more than there is room for passes when the
 * bucket is full, and those behind it wait until it is paid for.
 */
#ifndef VNET_METER_H
#define VNET_METER_H

#include "maps.h"

static __always_inline void vnet_count_band(struct __sk_buff *skb, __u32 meter, __u32 band)
{
	__u32 index = meter * (VNET_BANDS + 1) + band;
	struct vnet_counter *counter = bpf_map_lookup_elem(&meter_counters, &index);

	if (counter) {
		counter->packets++;
		counter->bytes += vnet_frame_bytes(skb);
	}
}

/* What is in a bucket when time has passed. It may be years: their tokens would not fit into a number. */
static __always_inline __s64 vnet_fill(const struct vnet_band *band, __s64 tokens, __u64 passed)
{
	__s64 burst = band->burst;

	if (passed >= band->full_ns)
		return burst;
	tokens += passed * band->rate;
	return tokens < burst ? tokens : burst;
}

/* Let a packet pass a meter. Returns 0, or the type of the band of the highest rate that it exceeded. */
__noinline int vnet_meter(struct __sk_buff *skb, __u32 number, __u32 *precedence)
{
	struct vnet_meter *meter = bpf_map_lookup_elem(&meters, &number);
	struct vnet_meter_state *state = bpf_map_lookup_elem(&meter_state, &number);
	__u64 now = bpf_ktime_get_ns(), passed;
	__u32 i, n, highest = 0, exceeded = VNET_BANDS;
	__s64 cost;

	if (!meter || !state || !precedence)
		return 0;
	vnet_count_band(skb, number, 0);
	cost = meter->flags & VNET_METER_PKTPS ? 1000000000ULL * (skb->gso_segs ? skb->gso_segs : 1)
					       : 8000000ULL * vnet_frame_bytes(skb);
	n = meter->n_bands;
	bpf_spin_lock(&state->lock);
	if (!state->started) {
		state->started = 1;
		state->last_ns = now;
		for (i = 0; i < VNET_BANDS; i++)
			state->tokens[i] = meter->bands[i].burst;
	}
	passed = now > state->last_ns ? now - state->last_ns : 0;
	if (now > state->last_ns)
		state->last_ns = now;
	for (i = 0; i < VNET_BANDS; i++) {
		const struct vnet_band *band = &meter->bands[i];
		__s64 tokens = vnet_fill(band, state->tokens[i], passed), burst = band->burst;

		if (i >= n)
			break;
		if (tokens >= cost || tokens == burst) {
			tokens -= cost;
		} else if (band->rate >= highest) {
			highest = band->rate;
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

/* Does a meter change packets? */
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
