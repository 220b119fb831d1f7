/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Which taps want a packet: those of a port run their filters, in classic BPF as libpcap compiles it, on the
 * frame as a capture file shows it (with the tag that the kernel keeps beside it).
 *
 * One bpf_loop runs the filters of all taps, an instruction or the start of a tap in each round. Classic BPF jumps
 * forward only, so each filter ends within as many rounds as it has instructions. The machine's state is in a map:
 * the stack is nearly used up where packets leave.
 *
 * Source: bpf(4), libpcap's bpf_filter(): what lies beyond the frame, or divides by zero, is no match.
 */
#ifndef VNET_FILTER_H
#define VNET_FILTER_H

#include "maps.h"
#include <linux/filter.h>
#include <bpf/bpf_endian.h>

#define VNET_FILTER_ROUNDS (VNET_TAPS * (VNET_FILTER_INSNS + 1))
#define VNET_BETWEEN_TAPS 0xffffffff

struct vnet_filter_run {
	struct __sk_buff *skb;
};

static __always_inline struct vnet_filtering *vnet_filtering(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&filtering, &zero);
}

/* Bytes 0-19 of the frame, where a tag moves them. */
static __always_inline void vnet_filter_head(struct __sk_buff *skb, struct vnet_filtering *f)
{
	__be16 tag[2] = { skb->vlan_proto, bpf_htons(skb->vlan_tci) };

	bpf_skb_load_bytes(skb, 0, f->head, 12);
	__builtin_memcpy(f->head + 12, tag, sizeof(tag));
	if (bpf_skb_load_bytes(skb, 12, f->head + 16, 4) < 0)
		bpf_skb_load_bytes(skb, 12, f->head + 16, 2);
}

/* Set the machine up for the taps of a port; returns whether there are any. Then run it with bpf_loop. */
__noinline int vnet_filter_begin(struct __sk_buff *skb, __u32 point, __u32 port)
{
	__u32 *wanted = bpf_map_lookup_elem(&port_taps, &port);
	struct vnet_filtering *f = vnet_filtering();
	struct vnet_scratch *s = vnet_scratch();

	if (!s || !f || !wanted || !*wanted)
		return 0;
	f->left = *wanted;
	f->tap = 0;
	f->matched = 0;
	f->snaplen = 0;
	f->pc = VNET_BETWEEN_TAPS;
	f->point = point;
	f->reason = s->path.reason;
	f->table = s->path.table;
	f->tagged = skb->vlan_present;
	f->length = vnet_frame_bytes(skb);
	if (f->tagged)
		vnet_filter_head(skb, f);
	return 1;
}

/* Copy the packet to a port whose VM only listens. */
static __always_inline void vnet_mirror(struct __sk_buff *skb, __u32 to, struct vnet_tap_counter *counted)
{
	struct vnet_port *port = bpf_map_lookup_elem(&ports, &to);
	struct vnet_port_counter *counter;

	if (!port || !(port->flags & VNET_PORT_UP) || bpf_clone_redirect(skb, port->ifindex, 0)) {
		counted->lost++;
		return;
	}
	counter = bpf_map_lookup_elem(&port_counters, &to);
	if (counter) {
		counter->tx_packets++;
		counter->tx_bytes += vnet_frame_bytes(skb);
	}
}

static __always_inline void vnet_tap_end(struct __sk_buff *skb, struct vnet_filtering *f, __u32 wanted)
{
	__u32 number = f->tap;
	struct vnet_tap *tap = bpf_map_lookup_elem(&taps, &number);
	struct vnet_tap_counter *counted = bpf_map_lookup_elem(&tap_counters, &number);

	f->pc = VNET_BETWEEN_TAPS;
	f->left >>= 1;
	f->tap++;
	if (!wanted || !tap || !counted)
		return;
	counted->matched++;
	if (tap->to_port) {
		vnet_mirror(skb, tap->to_port, counted);
		return;
	}
	f->matched |= 1U << (number & (VNET_TAPS - 1));
	if (f->snaplen < tap->snaplen)
		f->snaplen = tap->snaplen;
}

static __always_inline void vnet_tap_begin(struct __sk_buff *skb, struct vnet_filtering *f)
{
	__u32 number = f->tap, i;
	struct vnet_tap *tap = bpf_map_lookup_elem(&taps, &number);
	struct vnet_tap_counter *counted = bpf_map_lookup_elem(&tap_counters, &number);

	if (!(f->left & 1) || !tap || !counted || !(tap->points & 1U << (f->point & 31)) ||
	    (f->reason ? f->table < tap->from_table : tap->dropped)) {
		f->left >>= 1;
		f->tap++;
		return;
	}
	counted->seen++;
	if (!tap->n_insns) {
		vnet_tap_end(skb, f, 1);
		return;
	}
	f->pc = 0;
	f->a = f->x = 0;
	for (i = 0; i < BPF_MEMWORDS; i++)
		f->memory[i] = 0;
}

/* 1, 2 or 4 bytes of the frame as a number; returns whether they are there. */
static __always_inline int vnet_filter_load(struct __sk_buff *skb, const struct vnet_filtering *f, __u32 at,
					    __u32 size, __u32 *value)
{
	__u32 word = 0;

	if (at > f->length || size > f->length - at)
		return 0;
	if (f->tagged && at < 16) {
		const __u8 *head = f->head + vnet_index(at, 16);

		word = (__u32)head[0] << 24 | head[1] << 16 | head[2] << 8 | head[3];
	} else {
		at -= f->tagged ? 4 : 0;
		asm volatile("" : "+r"(size));
		if (size < 1 || size > 4 || bpf_skb_load_bytes(skb, at, &word, size) < 0)
			return 0;
		word = bpf_ntohl(word);
	}
	*value = word >> (32 - 8 * size);
	return 1;
}

/* LD and LDX, but from the packet. */
static __always_inline __u32 vnet_filter_operand(const struct vnet_filtering *f, const struct vnet_filter_insn *insn)
{
	switch (BPF_MODE(insn->code)) {
	case BPF_MEM:
		return f->memory[vnet_index(insn->k, BPF_MEMWORDS)];
	case BPF_LEN:
		return f->length;
	}
	return insn->k;
}

static __always_inline int vnet_filter_ld(struct __sk_buff *skb, struct vnet_filtering *f,
					  const struct vnet_filter_insn *insn)
{
	__u32 size = BPF_SIZE(insn->code) == BPF_W ? 4 : BPF_SIZE(insn->code) == BPF_H ? 2 : 1;
	__u32 mode = BPF_MODE(insn->code), at = insn->k;

	if (mode != BPF_ABS && mode != BPF_IND) {
		f->a = vnet_filter_operand(f, insn);
		return 1;
	}
	if (mode == BPF_IND) {
		if (at > f->length || f->x > f->length - at)
			return 0;
		at += f->x;
	}
	return vnet_filter_load(skb, f, at, size, &f->a);
}

static __always_inline int vnet_filter_ldx(struct __sk_buff *skb, struct vnet_filtering *f,
					   const struct vnet_filter_insn *insn)
{
	__u32 byte;

	if (BPF_MODE(insn->code) != BPF_MSH) {
		f->x = vnet_filter_operand(f, insn);
		return 1;
	}
	if (!vnet_filter_load(skb, f, insn->k, 1, &byte))
		return 0;
	f->x = (byte & 0xf) << 2;
	return 1;
}

static __always_inline int vnet_filter_alu(struct vnet_filtering *f, const struct vnet_filter_insn *insn)
{
	__u32 a = f->a, b = BPF_SRC(insn->code) == BPF_X ? f->x : insn->k;

	switch (BPF_OP(insn->code)) {
	case BPF_ADD:
		a += b;
		break;
	case BPF_SUB:
		a -= b;
		break;
	case BPF_MUL:
		a *= b;
		break;
	case BPF_DIV:
		if (!b)
			return 0;
		a /= b;
		break;
	case BPF_MOD:
		if (!b)
			return 0;
		a %= b;
		break;
	case BPF_AND:
		a &= b;
		break;
	case BPF_OR:
		a |= b;
		break;
	case BPF_XOR:
		a ^= b;
		break;
	case BPF_LSH:
		a = b < 32 ? a << b : 0;
		break;
	case BPF_RSH:
		a = b < 32 ? a >> b : 0;
		break;
	case BPF_NEG:
		a = -a;
		break;
	default:
		return 0;
	}
	f->a = a;
	return 1;
}

static __always_inline int vnet_filter_jump(struct vnet_filtering *f, const struct vnet_filter_insn *insn)
{
	__u32 a = f->a, b = BPF_SRC(insn->code) == BPF_X ? f->x : insn->k, holds;

	switch (BPF_OP(insn->code)) {
	case BPF_JA:
		f->pc += insn->k;
		return 1;
	case BPF_JEQ:
		holds = a == b;
		break;
	case BPF_JGT:
		holds = a > b;
		break;
	case BPF_JGE:
		holds = a >= b;
		break;
	case BPF_JSET:
		holds = !!(a & b);
		break;
	default:
		return 0;
	}
	f->pc += holds ? insn->jt : insn->jf;
	return 1;
}

/* One instruction that is no RET; returns whether the filter goes on. */
static __always_inline int vnet_filter_execute(struct __sk_buff *skb, struct vnet_filtering *f,
					       const struct vnet_filter_insn *insn)
{
	switch (BPF_CLASS(insn->code)) {
	case BPF_LD:
		return vnet_filter_ld(skb, f, insn);
	case BPF_LDX:
		return vnet_filter_ldx(skb, f, insn);
	case BPF_ST:
		f->memory[vnet_index(insn->k, BPF_MEMWORDS)] = f->a;
		return 1;
	case BPF_STX:
		f->memory[vnet_index(insn->k, BPF_MEMWORDS)] = f->x;
		return 1;
	case BPF_ALU:
		return vnet_filter_alu(f, insn);
	case BPF_JMP:
		return vnet_filter_jump(f, insn);
	case BPF_MISC:
		if (BPF_MISCOP(insn->code) == BPF_TAX)
			f->x = f->a;
		else
			f->a = f->x;
		return 1;
	}
	return 0;
}

static long vnet_filter_step(__u32 round __attribute__((unused)), struct vnet_filter_run *run)
{
	struct vnet_filtering *f = vnet_filtering();
	const struct vnet_filter_insn *insn;
	__u32 at;

	if (!f || !f->left)
		return 1;
	if (f->pc == VNET_BETWEEN_TAPS) {
		vnet_tap_begin(run->skb, f);
		return 0;
	}
	at = f->tap * VNET_FILTER_INSNS + f->pc++;
	insn = bpf_map_lookup_elem(&tap_code, &at);
	if (!insn)
		vnet_tap_end(run->skb, f, 0);
	else if (BPF_CLASS(insn->code) == BPF_RET)
		vnet_tap_end(run->skb, f, BPF_RVAL(insn->code) == BPF_A ? f->a : insn->k);
	else if (!vnet_filter_execute(run->skb, f, insn))
		vnet_tap_end(run->skb, f, 0);
	return 0;
}

#endif
