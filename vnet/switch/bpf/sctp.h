/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* SCTP's checksum (CRC32c, RFC 9260, appendix A) after four bytes changed, without reading the packet: the
 * sum is linear, so the change travels through the bytes behind it as a multiplication by x^(8n) modulo the
 * polynomial. Bit 31 stands for x^0.
 */
#ifndef VNET_SCTP_H
#define VNET_SCTP_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <linux/types.h>

#define VNET_CRC32C 0x82f63b78U

/* x^(8 * 2^k) for k = 0…16, each the square of the one before. */
static const __u32 vnet_crc_shift[17] = {
	0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a,
	0xb82be955, 0xb8fdb1e7, 0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a,
	0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc, 0xfe7740e6,
};

struct vnet_crc {
	__u32 change;
	__u32 length;
	__u32 product;
	__u32 factor;
};

/* One bit of one multiplication; a loop of the kernel's, because the verifier would unroll ours. */
static long vnet_crc_step(__u32 step, struct vnet_crc *crc)
{
	__u32 k = step >> 5, bit = step & 31;

	if (k >= 17 || !(crc->length >> k))
		return 1;
	if (!(crc->length >> k & 1))
		return 0;
	if (!bit) {
		crc->product = 0;
		crc->factor = crc->change;
	}
	if (vnet_crc_shift[k] & 1U << (31 - bit))
		crc->product ^= crc->factor;
	crc->factor = crc->factor & 1 ? crc->factor >> 1 ^ VNET_CRC32C : crc->factor >> 1;
	if (bit == 31)
		crc->change = crc->product;
	return 0;
}

/* How the sum changes if the first word of a packet of `length` bytes changes by `change` (both in the
 * packet's byte order).
 */
static __always_inline __u32 vnet_crc_change(__u32 change, __u32 length)
{
	struct vnet_crc crc = { .change = change, .length = length };

	bpf_loop(17 * 32, vnet_crc_step, &crc, 0);
	return crc.change;
}

#endif
