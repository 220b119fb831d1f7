/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Tuple-space search: one hash lookup per distinct mask of a table, ordered by the highest priority
 * under each mask, ending as soon as no later mask can beat the hit. Masks come from rules only, so
 * no packet can add one. Open vSwitch's lib/classifier.h explains the algorithm.
 */
#ifndef VNET_CLASSIFY_H
#define VNET_CLASSIFY_H

#include "parse.h"

/* The rule an entry shows to packets of `version`; 0 = none. */
static __always_inline __u32 vnet_entry_rule(const struct vnet_entry *entry, __u32 version)
{
	__u32 v0 = entry->version[0], v1 = entry->version[1];
	int first = v0 && v0 <= version, second = v1 && v1 <= version;

	if (first && second)
		return v0 > v1 ? entry->rule[0] : entry->rule[1];
	return first ? entry->rule[0] : second ? entry->rule[1] : 0;
}

/* What the key says the packet has, VNET_TRAIT_*. */
static __always_inline __u32 vnet_traits(const struct vnet_scratch *s)
{
	__u32 traits = (__u8)s->key[VNET_W_CT] * VNET_TRAIT_CT;
	__u64 port = s->key[VNET_W_PORT];

	switch ((__u16)s->key[VNET_W_SRC]) {
	case ETH_P_IP:
		traits |= VNET_TRAIT_IPV4;
		break;
	case ETH_P_IPV6:
		traits |= VNET_TRAIT_IPV6;
		break;
	case ETH_P_ARP:
		traits |= VNET_TRAIT_ARP;
	}
	switch ((__u8)(port >> 24)) {
	case IPPROTO_TCP:
		traits |= VNET_TRAIT_TCP;
		break;
	case IPPROTO_UDP:
		traits |= VNET_TRAIT_UDP;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		traits |= VNET_TRAIT_ICMP;
		break;
	case IPPROTO_SCTP:
		traits |= VNET_TRAIT_SCTP;
	}
	return traits | (port & VNET_FRAG_LATER_BIT << 8 ? VNET_TRAIT_LATER : 0);
}

struct vnet_searching {
	struct vnet_table *table;
	__u32 best;
	int best_priority;
};

/* Look the key up under one mask of a table. */
static long vnet_search_mask(__u32 index, struct vnet_searching *searching)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_table *table = searching->table;
	struct vnet_entry *entry;
	struct vnet_mask *mask;
	struct vnet_rule *rule;
	__u32 mask_id, *slot, id, at = vnet_index(index, VNET_TABLE_MASKS);
	int w;

	if (!s || (int)table->masks[at].max_priority <= searching->best_priority)
		return 1;
	if (table->masks[at].traits & s->lacks)
		return 0;
	mask_id = table->masks[at].mask_id;
	mask = bpf_map_lookup_elem(&masks, &mask_id);
	if (!mask)
		return 0;
	s->rule_key.mask_id = mask_id;
	s->rule_key.pad = 0;
	for (w = 0; w < VNET_SMALL_WORDS; w++)
		s->rule_key.words[w] = s->key[mask->word[w] & (VNET_KEY_WORDS - 1)] & mask->mask[w];
	if (mask->n_words <= VNET_SMALL_WORDS) {
		slot = bpf_map_lookup_elem(&small_index, &s->rule_key);
	} else {
		for (; w < VNET_MASK_WORDS; w++)
			s->rule_key.words[w] = s->key[mask->word[w] & (VNET_KEY_WORDS - 1)] & mask->mask[w];
		slot = bpf_map_lookup_elem(&rule_index, &s->rule_key);
	}
	entry = slot ? bpf_map_lookup_elem(&entries, slot) : 0;
	id = entry ? vnet_entry_rule(entry, s->version) : 0;
	rule = id ? bpf_map_lookup_elem(&rules, &id) : 0;
	if (rule && (int)rule->priority > searching->best_priority) {
		searching->best_priority = rule->priority;
		searching->best = id;
	}
	return 0;
}

/* The best rule of a table for the scratch's key; 0 = none. */
__noinline __u32 vnet_classify(__u32 table_index)
{
	struct vnet_searching searching = { .best_priority = -1 };
	struct vnet_scratch *s = vnet_scratch();
	__u32 n;

	if (!s)
		return 0;
	table_index = vnet_index(table_index, VNET_TABLES) + (s->version & 1) * VNET_TABLES;
	searching.table = bpf_map_lookup_elem(&tables, &table_index);
	if (!searching.table)
		return 0;
	if (searching.table->beyond & s->kinds)
		s->cacheable = 0;
	s->lacks = ~vnet_traits(s);
	n = searching.table->n_masks;
	if (n > VNET_TABLE_MASKS)
		n = VNET_TABLE_MASKS;
	bpf_loop(n, vnet_search_mask, &searching, 0);
	return searching.best;
}

#endif
