/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Tuple-space search: one hash lookup per distinct mask of a table, ordered by the highest priority
 * under each mask, ending as soon as no later mask can beat the hit. Masks come from rules only, so
 * no packet can add one. Open vSwitch's lib/classifier.h explains the algorithm.
 */
#ifndef VNET_CLASSIFY_H
#define VNET_CLASSIFY_H

#include "maps.h"

/* The rule an entry shows to packets of `version`; 0 = none. */
static __always_inline __u32 vnet_entry_rule(const struct vnet_entry *entry, __u32 version)
{
	__u32 v0 = entry->version[0], v1 = entry->version[1];
	int first = v0 && v0 <= version, second = v1 && v1 <= version;

	if (first && second)
		return v0 > v1 ? entry->rule[0] : entry->rule[1];
	return first ? entry->rule[0] : second ? entry->rule[1] : 0;
}

/* The best rule of a table for the scratch's key; 0 = none. */
__noinline __u32 vnet_classify(__u32 table_index)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_table *table;
	__u32 best = 0, i, n;
	int best_priority = -1;

	if (!s)
		return 0;
	table_index = (table_index % VNET_TABLES) + (s->version & 1) * VNET_TABLES;
	table = bpf_map_lookup_elem(&tables, &table_index);
	if (!table)
		return 0;
	n = table->n_masks;
	if (table->beyond)
		s->cacheable = 0;
	for (i = 0; i < VNET_TABLE_MASKS; i++) {
		struct vnet_entry *entry;
		struct vnet_mask *mask;
		struct vnet_rule *rule;
		__u32 mask_id, *slot, id;
		int w;

		if (i >= n || (int)table->masks[i].max_priority <= best_priority)
			break;
		mask_id = table->masks[i].mask_id;
		mask = bpf_map_lookup_elem(&masks, &mask_id);
		if (!mask)
			continue;
		s->rule_key.mask_id = mask_id;
		s->rule_key.pad = 0;
		for (w = 0; w < VNET_MASK_WORDS; w++)
			s->rule_key.words[w] = s->key[mask->word[w] & (VNET_KEY_WORDS - 1)] & mask->mask[w];
		slot = bpf_map_lookup_elem(&rule_index, &s->rule_key);
		if (!slot)
			continue;
		entry = bpf_map_lookup_elem(&entries, slot);
		if (!entry)
			continue;
		id = vnet_entry_rule(entry, s->version);
		rule = id ? bpf_map_lookup_elem(&rules, &id) : 0;
		if (rule && (int)rule->priority > best_priority) {
			best_priority = rule->priority;
			best = id;
		}
	}
	return best;
}

#endif
