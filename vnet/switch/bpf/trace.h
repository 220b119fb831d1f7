/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What a traced packet leaves behind: a record of each step, and the frames that would have been sent.
 * vnet/switch/trace.py has the same structs; a test compares both through the object's BTF.
 */
#ifndef VNET_TRACE_H
#define VNET_TRACE_H

#include "maps.h"

#define VNET_TRACE_STEPS 128  /* kept; more are counted */
#define VNET_TRACE_FRAMES 16
#define VNET_TRACE_BYTES 4096 /* of a frame; a power of two, and more than BPF_PROG_TEST_RUN takes */

enum vnet_step_kind {
	VNET_STEP_TABLE = 1,      /* a table was searched: rule = what it found, 0 = nothing; arg = table */
	VNET_STEP_CT = 2,         /* ct(): arg = zone | VNET_CT_* << 16, value = slot, rule = drop reason */
	VNET_STEP_METER = 3,      /* arg = meter, value = type of the band that was exceeded, 0 = none */
	VNET_STEP_BUCKET = 4,     /* of a group: rule = the bucket's */
	VNET_STEP_NORMAL = 5,     /* as a learning switch: arg = port, 0 = all, VNET_NO_PORT = nowhere */
	VNET_STEP_CONTROLLER = 6, /* a packet-in: rule, arg = reason, value = bytes */
	VNET_STEP_OUTPUT = 7,     /* arg = port, value = index of the frame */
	VNET_STEP_END = 8,        /* the walk is over: arg = drop reason, value = whether the sender is told */
};

/* The key is as the step found it; of ct() as it left it. */
struct vnet_step_record {
	__u32 kind;
	__u32 rule;
	__u32 arg;
	__u32 value;
	__u64 key[VNET_KEY_WORDS];
};

struct vnet_trace_frame {
	__u32 length;   /* without the tag below */
	__u32 captured;
	__u16 vlan_tci; /* of a tag not contained in data, if its TPID is not 0 */
	__u16 vlan_tpid;
	__u32 pad;
	__u8 data[VNET_TRACE_BYTES];
};

struct vnet_trace_log {
	__u32 n_steps;
	__u32 n_frames;
	struct vnet_step_record steps[VNET_TRACE_STEPS];
};

VNET_MAP(trace_log, BPF_MAP_TYPE_ARRAY, 1, __u32, struct vnet_trace_log, 0);
VNET_MAP(trace_frames, BPF_MAP_TYPE_ARRAY, VNET_TRACE_FRAMES, __u32, struct vnet_trace_frame, 0);

static __always_inline struct vnet_trace_log *vnet_trace_log_cell(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&trace_log, &zero);
}

static __always_inline void vnet_trace_note(struct vnet_trace_log *log, struct vnet_scratch *s, __u32 kind,
					    __u32 rule, __u32 arg, __u32 value)
{
	__u32 n = log->n_steps;
	struct vnet_step_record *step;

	log->n_steps = n + 1;
	if (n >= VNET_TRACE_STEPS)
		return;
	step = &log->steps[vnet_index(n, VNET_TRACE_STEPS)];
	step->kind = kind;
	step->rule = rule;
	step->arg = arg;
	step->value = value;
	__builtin_memcpy(step->key, s->key, sizeof(step->key));
}

__noinline int vnet_trace_step(__u32 kind, __u32 rule, __u32 arg, __u32 value)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_trace_log *log = vnet_trace_log_cell();

	if (!s || !log)
		return 0;
	s->cacheable = 0; /* nothing is to be remembered */
	vnet_trace_note(log, s, kind, rule, arg, value);
	return 0;
}

/* A copy of the packet would leave by a port. */
__noinline int vnet_trace_leave(struct __sk_buff *skb, __u32 port)
{
	struct vnet_scratch *s = vnet_scratch();
	struct vnet_trace_log *log = vnet_trace_log_cell();
	struct vnet_trace_frame *frame;
	__u32 n, last;

	if (!s || !log)
		return 0;
	n = log->n_frames;
	vnet_trace_note(log, s, VNET_STEP_OUTPUT, 0, port, n);
	log->n_frames = n + 1;
	frame = bpf_map_lookup_elem(&trace_frames, &n);
	if (!frame)
		return 0;
	frame->length = skb->len;
	frame->vlan_tci = skb->vlan_tci;
	frame->vlan_tpid = skb->vlan_present ? bpf_ntohs(skb->vlan_proto) : 0;
	last = skb->len - 1;
	asm volatile("" : "+r"(last));
	if (last >= VNET_TRACE_BYTES)
		last = VNET_TRACE_BYTES - 1;
	frame->captured = bpf_skb_load_bytes(skb, 0, frame->data, last + 1) < 0 ? 0 : last + 1;
	return 0;
}

#define VNET_FOLLOW(kind, rule, arg, value) vnet_trace_step(kind, rule, arg, value)
#define VNET_FOLLOW_LEAVE(skb, port) vnet_trace_leave(skb, port)

/* Nothing is sent. */
#define bpf_redirect(ifindex, flags) ((void)(ifindex), TC_ACT_REDIRECT)
#define bpf_clone_redirect(skb, ifindex, flags) ((void)(ifindex), 0)

#endif
