// Judges packets to a service by the rule of its addresses (docs/rules.md), in XDP: before the host knows of them.
//
// rule.h is written from the service record: what is constant is compiled in, so that what a rule does not need is not
// there.  Keys are in a map of two entries, of which `active` names one: a change is one word.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "rule.h"

typedef __u64 u64;
typedef __u32 u32;
typedef __u8 u8;

enum verdict { KEPT, OPEN, RESERVED, PLANE, LOCATOR, TAIL, VERDICTS };
// What was seen besides: not of this service, not an opening packet, passed on unjudged, refused for its headers.
enum { FOREIGN = VERDICTS, LATER, UNJUDGED, MALFORMED, COUNTERS };

struct key {
	u64 low, high;
};

struct keys {
	u64 prefix; // of the service, as it is in a packet
	u64 offset_us; // of Unix time from the time since boot
	u32 publics, secrets;
	struct key public[2], secret[2];
	u32 monitor, unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct keys);
} keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} active SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, u64);
} counters SEC(".maps");

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

static __always_inline void in_use(const struct keys *known, int binding, u64 source, struct in_use *keys)
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

static __always_inline enum verdict judge_hashed(const struct keys *known, int locator, int tail, u64 source, u64 iid)
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

// What docs/rules.md says in "Check"; nobody here knows the name that is asked for.
static __always_inline enum verdict judge(const struct keys *known, u64 source, u64 iid)
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

static __always_inline void count(u32 which)
{
	u64 *counter = bpf_map_lookup_elem(&counters, &which);
	if (counter)
		++*counter;
}

static __always_inline const struct keys *known_keys(void)
{
	u32 zero = 0;
	u32 *which = bpf_map_lookup_elem(&active, &zero);
	if (!which)
		return 0;
	u32 index = *which & 1;
	return bpf_map_lookup_elem(&keys, &index);
}

#define HEADERS_MAX 4
#define FRAGMENT 44
#define TAGS_MAX 2

// Which counter a packet belongs to.
static __always_inline u32 sort(struct xdp_md *packet)
{
	const u8 *data = (const u8 *)(long)packet->data, *end = (const u8 *)(long)packet->data_end;
	const struct keys *known = known_keys();
	const struct ethhdr *link = (const void *)data;
	if (!known || (const u8 *)(link + 1) > end)
		return FOREIGN;
	__be16 kind = link->h_proto;
	const u8 *at = (const u8 *)(link + 1);
	// The host takes off what names no network of its own (802.1p), and others where it has them.
	for (int n = 0; n < TAGS_MAX && (kind == bpf_htons(ETH_P_8021Q) || kind == bpf_htons(ETH_P_8021AD)); n++) {
		if (at + 4 > end)
			return FOREIGN;
		kind = *(const __be16 *)(at + 2);
		at += 4;
	}
	if (kind == bpf_htons(ETH_P_8021Q) || kind == bpf_htons(ETH_P_8021AD))
		return MALFORMED; // The host would take off any number.
	const struct ipv6hdr *ip = (const void *)at;
	if (kind != bpf_htons(ETH_P_IPV6) || (const u8 *)(ip + 1) > end)
		return FOREIGN;
	u64 address[4];
	__builtin_memcpy(address, &ip->saddr, sizeof(address));
	if (address[2] != known->prefix)
		return FOREIGN;
	u8 next = ip->nexthdr;
	at = (const u8 *)(ip + 1);
	for (int n = 0; n < HEADERS_MAX; n++) {
		if (next == IPPROTO_TCP || next == IPPROTO_UDP || next == IPPROTO_ICMPV6)
			break;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS && next != FRAGMENT)
			return MALFORMED; // A routing header among them: nobody needs one to reach an object.
		if (at + 8 > end)
			return MALFORMED;
		u8 first = at[0];
		// All headers are in the first fragment (RFC 7112), and no other one opens anything.
		if (next == FRAGMENT && *(const __be16 *)(at + 2) & bpf_htons(0xfff8))
			return UNJUDGED;
		at += next == FRAGMENT ? 8 : 8 + at[1] * 8;
		next = first;
	}
	// Errors are about a packet that they quote.
	if (next == IPPROTO_ICMPV6)
		return UNJUDGED;
	if (next == IPPROTO_TCP) {
		const struct tcphdr *tcp = (const void *)at;
		if ((const u8 *)(tcp + 1) > end)
			return MALFORMED;
		if (!tcp->syn || tcp->ack)
			return LATER;
	} else if (next != IPPROTO_UDP) {
		return MALFORMED; // More headers than anybody needs.
	}
	return judge(known, address[0], bpf_be64_to_cpu(address[3]));
}

SEC("xdp")
int ssastore_filter(struct xdp_md *packet)
{
	const struct keys *known = known_keys();
	u32 found = sort(packet);
	count(found);
	if (!known || known->monitor || found <= OPEN || (found > TAIL && found != MALFORMED))
		return XDP_PASS;
	return XDP_DROP;
}

// For tests: the counter itself, not what follows from it.
SEC("xdp")
int ssastore_verdict(struct xdp_md *packet)
{
	return sort(packet);
}

char license_name[] SEC("license") = "GPL";
