/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Where a packet can be followed on its way. The switch itself leaves no trace: these are nothing there.
 * trace.bpf.c, which is the same program in a copy of the switch's state, says what they are before.
 */
#ifndef VNET_STEPS_H
#define VNET_STEPS_H

#ifndef VNET_FOLLOW
#define VNET_FOLLOW(kind, rule, arg, value) /* VNET_STEP_* of trace.h */
#define VNET_FOLLOW_LEAVE(skb, port)        /* a copy of the packet leaves by a port */
#endif

#endif
