/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* How far a TCP connection has come. */
#ifndef VNET_TCP_H
#define VNET_TCP_H

#include "maps.h"

#define VNET_TCP_FIN 0x01
#define VNET_TCP_SYN 0x02
#define VNET_TCP_RST 0x04
#define VNET_TCP_PSH 0x08
#define VNET_TCP_ACK 0x10
#define VNET_TCP_URG 0x20

/* TCP flags that no stack sends together. */
static __always_inline int vnet_tcp_contradicts(__u8 flags)
{
	if (flags & VNET_TCP_SYN)
		return flags & (VNET_TCP_RST | VNET_TCP_FIN);
	if (flags & VNET_TCP_ACK)
		return 0;
	return !(flags & VNET_TCP_RST) || (flags & (VNET_TCP_FIN | VNET_TCP_PSH | VNET_TCP_URG));
}

/* Somebody goes on after a reset. Once both do it was none: forged, or outside the receiver's window, which
 * is for the guests' own stacks to check (RFC 5961, section 3).
 */
static __always_inline void vnet_tcp_goes_on(struct vnet_conn *conn, __u32 dir)
{
	conn->fin_seen |= VNET_GOES_ON << dir;
	if (conn->fin_seen < 3 * VNET_GOES_ON)
		return;
	conn->fin_seen &= 3;
	conn->tcp_state = conn->fin_seen == 3 ? VNET_TCP_TIME_WAIT :
			  conn->fin_seen ? VNET_TCP_FIN_WAIT : VNET_TCP_ESTABLISHED;
}

/* Advance the state machine (RFC 9293, section 3.3.2, as a bystander sees it). The state chooses the
 * timeout and admits reopening; sequence numbers are for the guests' own stacks to check.
 */
static __always_inline void vnet_tcp_update(struct vnet_conn *conn, __u32 dir, __u8 flags)
{
	if (flags & VNET_TCP_RST) {
		conn->tcp_state = VNET_TCP_CLOSED;
		conn->fin_seen &= 3;
	} else if (conn->tcp_state >= VNET_TCP_TIME_WAIT) {
		if (conn->tcp_state == VNET_TCP_CLOSED &&
		    (flags & (VNET_TCP_SYN | VNET_TCP_ACK | VNET_TCP_FIN)) == VNET_TCP_ACK)
			vnet_tcp_goes_on(conn, dir);
	} else if (flags & VNET_TCP_FIN) {
		conn->fin_seen |= 1 << dir;
		conn->tcp_state = (conn->fin_seen & 3) == 3 ? VNET_TCP_TIME_WAIT : VNET_TCP_FIN_WAIT;
	} else if (conn->tcp_state == VNET_TCP_SYN_SENT) {
		if (dir && (flags & VNET_TCP_SYN) && (flags & VNET_TCP_ACK))
			conn->tcp_state = VNET_TCP_SYN_RECV;
	} else if (conn->tcp_state == VNET_TCP_SYN_RECV) {
		if (!dir && (flags & VNET_TCP_ACK) && !(flags & VNET_TCP_SYN))
			conn->tcp_state = VNET_TCP_ESTABLISHED;
	}
}

#endif
