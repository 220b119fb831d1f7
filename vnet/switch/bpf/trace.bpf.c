// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* The program of every port once more, to ask what it would do with a packet: it tells each step and sends
 * nothing. What it writes are maps of its own, filled with a copy of the switch's state beforehand
 * (vnet/switch/live/sandbox.py); of the switch's maps it has only those that packets read and never write.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include "trace.h"

#define VNET_ONLY_INGRESS
#define vnet_ingress vnet_trace
#include "switch.bpf.c"
