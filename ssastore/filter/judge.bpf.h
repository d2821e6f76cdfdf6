// The verdict on an address by the rule of a service (docs/reference/rules.md): hashes, locators, tails.
//
// rule.h is written from the service record: what is constant is compiled in, so that what a rule does not need is not
// there.

#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "rule.h"

typedef __u64 u64;
typedef __u32 u32;
typedef __u8 u8;

enum verdict { KEPT, OPEN, RESERVED, PLANE, LOCATOR, TAIL, VERDICTS };

struct key {
	u64 low, high;
};

// What the program is told while it runs; header.py packs it.
struct told {
	u64 prefix[PREFIXES_MAX]; // of the service, as they are in a packet
	u64 offset_us; // of Unix time from the time since boot
	u32 prefixes, publics, secrets;
	u32 monitor, queued, attacked, orders, unused;
	struct key public[2], secret[2];
};

#define ROTATED(x, by) ((x) << (by) | (x) >> (64 - (by)))
#define ROUND                                                                                                                  \
	do {                                                                                                                   \
		v0 += v1, v1 = ROTATED(v1, 13) ^ v0, v0 = ROTATED(v0, 32);                                                     \
		v2 += v3, v3 = ROTATED(v3, 16) ^ v2;                                                                           \
		v0 += v3, v3 = ROTATED(v3, 21) ^ v0;                                                                           \
		v2 += v1, v1 = ROTATED(v1, 17) ^ v2, v2 = ROTATED(v2, 32);                                                     \
	} while (0)

// SipHash-2-4 of 24 bytes. `source` is as it is in a packet; `second` and `third` are numbers.
static __noinline u64 sip(u64 low, u64 high, u64 source, u64 second, u64 third)
{
	u64 v0 = low ^ 0x736f6d6570736575, v1 = high ^ 0x646f72616e646f6d;
	u64 v2 = low ^ 0x6c7967656e657261, v3 = high ^ 0x7465646279746573;
	second = bpf_cpu_to_be64(second);
	third = bpf_cpu_to_be64(third);
	v3 ^= source;
	ROUND;
	ROUND;
	v0 ^= source;
	v3 ^= second;
	ROUND;
	ROUND;
	v0 ^= second;
	v3 ^= third;
	ROUND;
	ROUND;
	v0 ^= third;
	v3 ^= 24ULL << 56;
	ROUND;
	ROUND;
	v0 ^= 24ULL << 56;
	v2 ^= 0xff;
	ROUND;
	ROUND;
	ROUND;
	ROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

static __always_inline u64 letter(u64 which, u64 epoch)
{
	return which << 56 | epoch;
}

static __always_inline int is_reserved(u64 iid)
{
	return iid == 0 || (iid >= 0x02005efffe000000 && iid <= 0x02005efffeffffff) ||
	       (iid >= 0xfdffffffffffff80 && iid <= 0xfdffffffffffffff);
}

static __always_inline u64 unreserved(u64 iid)
{
	return is_reserved(iid) ? iid ^ 0x01000080 : iid;
}

// The keys that a binding hashes with, for one packet: public ones, or the tokens of its source.
struct in_use {
	u32 count;
	struct key key[2];
};

static __always_inline void in_use(const struct told *known, int binding, u64 source, struct in_use *keys)
{
	keys->count = binding == SOURCE ? known->publics : known->secrets;
	for (u32 n = 0; n < 2; n++) {
		if (binding == SOURCE) {
			keys->key[n] = known->public[n];
		} else if (n < keys->count) {
			const struct key *secret = &known->secret[n];
			keys->key[n].low = sip(secret->low, secret->high, source, letter('K', 0), 0);
			keys->key[n].high = sip(secret->low, secret->high, source, letter('K', 0), 1);
		}
	}
}

static __always_inline int has_locator(const struct in_use *keys, u64 source, u64 epoch, u64 iid)
{
	for (u32 n = 0; n < 2 && n < keys->count; n++) {
		const struct key key = keys->key[n];
		for (u32 choice = 0; choice < CHOICES; choice++) {
			u64 bits = sip(key.low, key.high, source, letter('L', epoch), choice) >> 36;
			if (iid >> 60 == 0xf)
				bits = 0x1000000 + (bits * 15 >> 4);
			if (iid >> 32 == ((iid >> 60) << 28 | bits))
				return 1;
		}
	}
	return 0;
}

static __always_inline int has_tail(const struct in_use *keys, u64 source, u64 epoch, u64 iid)
{
	for (u32 n = 0; n < 2 && n < keys->count; n++) {
		const struct key key = keys->key[n];
#if WORK_BITS
		if (!(sip(key.low, key.high, source, letter('P', epoch), iid) >> (64 - WORK_BITS)))
			return 1;
#else
		u64 place = iid >> 32 << 32;
		if (unreserved(place | (u32)sip(key.low, key.high, source, letter('T', epoch), place)) == iid)
			return 1;
#endif
	}
	return 0;
}

static __always_inline enum verdict judge_hashed(const struct told *known, int locator, int tail, u64 source, u64 iid)
{
	enum verdict verdict = LOCATOR;
	// A token is two hashes: once for a packet, not once for an epoch.
	struct in_use for_locator = {}, for_tail = {};
	if (locator == SOURCE || locator == KEYED)
		in_use(known, locator, source, &for_locator);
	in_use(known, tail, source, &for_tail);
	// By a clock of our own: whoever set the keys may be held up, or gone.
	u64 now = HOP_S ? (bpf_ktime_get_boot_ns() / 1000 + known->offset_us) / (HOP_S * 1000000ULL + !HOP_S) : 0;
	for (int step = 0; step < (HOP_S ? 3 : 1); step++) {
		u64 epoch = step == 1 ? now - 1 : step == 2 ? now + 1 : now;
		if (step == 1 && !now)
			continue;
		if ((locator == SOURCE || locator == KEYED) && !has_locator(&for_locator, source, epoch, iid))
			continue;
		if (has_tail(&for_tail, source, epoch, iid))
			return KEPT;
		verdict = TAIL;
	}
	return verdict;
}

// What docs/reference/rules.md says in "Check"; nobody here knows the name that is asked for.
static __always_inline enum verdict judge(const struct told *known, u64 source, u64 iid)
{
	u64 plane = iid >> 60;
	if (is_reserved(iid))
		return RESERVED;
	if (plane != 0xf && plane >= REPLICAS)
		return PLANE;
	if (iid >> 56 == 0xf0)
		return OPEN; // The part of the front plane for clients that know no rule.
	if (plane == 0xf) {
#if FRONT_LOCATOR == MATCH
		u64 prefix = bpf_be64_to_cpu(source);
		u64 place = 0xf0000000 | (0x1000000 + ((prefix >> 32 & 0xfffffff) * 15 >> 4));
		return unreserved(place << 32 | (u32)prefix) == iid ? KEPT : LOCATOR;
#elif FRONT_TAIL == SOURCE || FRONT_TAIL == KEYED
		return judge_hashed(known, FRONT_LOCATOR, FRONT_TAIL, source, iid);
#else
		return OPEN;
#endif
	}
#if DATA_TAIL == SOURCE || DATA_TAIL == KEYED
	return judge_hashed(known, CONTENT, DATA_TAIL, source, iid);
#else
	return OPEN;
#endif
}
