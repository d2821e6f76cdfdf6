// Sorts packets to a service into classes, and rejects in XDP, before the host knows of them.
//
// ssastore_filter   XDP where packets come in: judges, rejects, writes the class beside the packet
// ssastore_mark     tc at the same interface: the class becomes the queue's name (skb->priority)
// ssastore_answers  tc where the service's answers come in: which flows have proved where they come from
//
// What is told changes as a whole: a map of two entries, of which `active` names one, so that a change is one word.

#include "judge.bpf.h"
#include "packet.bpf.h"

// Why a packet is in its class: the verdicts on opening packets, and these. classes.py has the same table.
enum {
	FOREIGN = VERDICTS, // not of this service
	KNOWN, // of a flow that is known
	LATER, // of a flow that is not, to an address that keeps the rule
	STALE, // the same, to an address that does not
	FRAGMENT,
	UNJUDGED, // ICMPv6
	MALFORMED, // refused for its headers
	UNBOUND, // to the part of the front plane for clients without a rule, while there is an attack
	SUSPECT, // an order says so
	ATTACK, // orders that say which packets are rejected
	VULNERABILITY,
	INJECTED,
	REASONS,
	UNMARKED = REASONS, // the class could not be written beside the packet
	COUNTERS,
};

enum class { NO_CLASS, KNOWN_GOOD, ASSUMED_GOOD, POSSIBLY_BAD, REJECT };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct told);
} told SEC(".maps");

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

// Flows whose client has proved its address, and when a packet of theirs was last seen (ns since boot).
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS_MAX);
	__type(key, struct flow);
	__type(value, u64);
} flows SEC(".maps");

// What a client must acknowledge to prove that it has read our SYN-ACK.  A table of its own: who only opens
// connections must not push out those that are known.
struct opening {
	u64 at_ns;
	u32 expected, unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OPENINGS_MAX);
	__type(key, struct flow);
	__type(value, struct opening);
} openings SEC(".maps");

struct order_key {
	u32 bits; // of what follows
	u8 side, unused; // 0: source, 1: target
	__be16 port; // 0: any
	u64 address[2];
};

struct order {
	u64 until_ns;
	u32 reason, unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, ORDERS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct order_key);
	__type(value, struct order);
} orders SEC(".maps");

static __always_inline void count(u32 which)
{
	u64 *counter = bpf_map_lookup_elem(&counters, &which);
	if (counter)
		++*counter;
}

static __always_inline const struct told *what_is_told(void)
{
	u32 zero = 0;
	u32 *which = bpf_map_lookup_elem(&active, &zero);
	if (!which)
		return 0;
	u32 index = *which & 1;
	return bpf_map_lookup_elem(&told, &index);
}

static __always_inline enum class class_of(u32 reason)
{
	switch (reason) {
	case FOREIGN:
		return NO_CLASS;
	case KNOWN:
		return KNOWN_GOOD;
	case KEPT:
	case OPEN:
	case LATER:
		return ASSUMED_GOOD;
	case STALE:
	case FRAGMENT:
	case UNJUDGED:
	case UNBOUND:
	case SUSPECT:
		return POSSIBLY_BAD;
	default:
		return REJECT;
	}
}

static __always_inline int is_known(const struct flow *flow)
{
	u64 now = bpf_ktime_get_boot_ns();
	u64 *seen = bpf_map_lookup_elem(&flows, flow);
	if (!seen || now - *seen > FLOW_IDLE_S * 1000000000ULL)
		return 0;
	// Seldom: every core that sees the flow would else wait for the others.
	if (now - *seen > 1000000000ULL)
		*seen = now;
	return 1;
}

static __always_inline int proves_its_address(const struct packet *packet)
{
	u64 now = bpf_ktime_get_boot_ns();
	struct opening *opening = bpf_map_lookup_elem(&openings, &packet->flow);
	if (!opening || !packet->acknowledges || packet->answered != opening->expected ||
	    now - opening->at_ns > OPENING_S * 1000000000ULL)
		return 0;
	bpf_map_update_elem(&flows, &packet->flow, &now, BPF_ANY);
	bpf_map_delete_elem(&openings, &packet->flow);
	return 1;
}

static __noinline u32 ordered(const struct packet *packet, u32 side, __be16 port)
{
	if (!packet)
		return 0;
	struct order_key key = { .bits = 160, .side = side, .port = port };
	key.address[0] = side ? packet->target[0] : packet->source[0];
	key.address[1] = side ? packet->target[1] : packet->source[1];
	const struct order *order = bpf_map_lookup_elem(&orders, &key);
	return order && order->until_ns > bpf_ktime_get_boot_ns() ? order->reason : 0;
}

// What orders say of a packet: a reason to reject it, SUSPECT, or 0.
static __always_inline u32 what_is_ordered(const struct packet *packet)
{
	u32 found = 0;
	for (u32 n = 0; n < 4; n++) {
		if (n & 2 && !packet->port)
			break;
		u32 reason = ordered(packet, n & 1, n & 2 ? packet->port : 0);
		if (reason > SUSPECT)
			return reason;
		found |= reason;
	}
	return found;
}

static __always_inline u32 reason_by_rule(const struct told *known, enum kind kind, const struct packet *packet)
{
	if (kind == REST)
		return FRAGMENT;
	if (kind == ECHO)
		return UNJUDGED;
	if (kind == ERROR)
		return known->queued && is_known(&packet->flow) ? KNOWN : UNJUDGED;
	if (kind == SEGMENT) {
		if (packet->fragmented)
			return FRAGMENT;
		if (!known->queued)
			return LATER; // It passes in any case.
		if (is_known(&packet->flow) || proves_its_address(packet))
			return KNOWN;
	}
	u64 iid = bpf_be64_to_cpu(packet->target[1]);
	u32 verdict = judge(known, packet->source[0], iid);
	int is_good = verdict == KEPT || verdict == OPEN;
	if (is_good && iid >> 56 == 0xf0 && known->attacked)
		return UNBOUND;
	if (kind == SEGMENT)
		return is_good ? LATER : STALE;
	return is_good && packet->fragmented ? FRAGMENT : verdict;
}

static __always_inline u32 reason_of(struct xdp_md *given, const struct told *known)
{
	const u8 *data = (const u8 *)(long)given->data, *end = (const u8 *)(long)given->data_end;
	struct packet packet = {};
	enum kind kind = read_packet(data, end, known, &packet);
	if (kind == PASSING)
		return FOREIGN;
	if (kind == BROKEN)
		return MALFORMED;
	// Errors are never rejected: without Packet Too Big a connection hangs for ever.
	u32 order = known->orders && kind != ERROR ? what_is_ordered(&packet) : 0;
	if (order > SUSPECT)
		return order;
	u32 reason = reason_by_rule(known, kind, &packet);
	return order && class_of(reason) != REJECT ? SUSPECT : reason;
}

struct mark {
	u32 magic, class;
};
#define MAGIC 0x55a9f11e

SEC("xdp")
int ssastore_filter(struct xdp_md *given)
{
	const struct told *known = what_is_told();
	if (!known)
		return XDP_PASS;
	u32 reason = reason_of(given, known);
	count(reason);
	if (known->monitor)
		return XDP_PASS;
	enum class class = class_of(reason);
	if (class == REJECT)
		return XDP_DROP;
	if (!known->queued || class == NO_CLASS)
		return XDP_PASS;
	if (bpf_xdp_adjust_meta(given, -(int)sizeof(struct mark))) {
		count(UNMARKED);
		return XDP_PASS;
	}
	struct mark *mark = (void *)(long)given->data_meta;
	if ((void *)(mark + 1) <= (void *)(long)given->data) {
		mark->magic = MAGIC;
		mark->class = class;
	}
	return XDP_PASS;
}

// For tests: the reason itself, not what follows from it.
SEC("xdp")
int ssastore_reason(struct xdp_md *given)
{
	const struct told *known = what_is_told();
	return known ? reason_of(given, known) : FOREIGN;
}

SEC("tc")
int ssastore_mark(struct __sk_buff *given)
{
	const struct mark *mark = (const void *)(long)given->data_meta;
	if ((const void *)(mark + 1) <= (const void *)(long)given->data && mark->magic == MAGIC)
		given->priority = QDISC << 16 | mark->class;
	return -1; // Whatever else is attached goes on.
}

SEC("tc")
int ssastore_answers(struct __sk_buff *given)
{
	const struct told *known = what_is_told();
	const struct ethhdr *link = (const void *)(long)given->data;
	const struct ipv6hdr *ip = (const void *)(link + 1);
	const struct tcphdr *tcp = (const void *)(ip + 1);
	if (!known || (const u8 *)(tcp + 1) > (const u8 *)(long)given->data_end)
		return -1;
	struct flow flow = {};
	__builtin_memcpy(flow.service, &ip->saddr, 16);
	__builtin_memcpy(flow.client, &ip->daddr, 16);
	if (link->h_proto != bpf_htons(ETH_P_IPV6) || ip->nexthdr != IPPROTO_TCP ||
	    !is_of_service(known, flow.service[0]))
		return -1;
	flow.service_port = tcp->source;
	flow.client_port = tcp->dest;
	u64 now = bpf_ktime_get_boot_ns();
	if (tcp->rst) {
		bpf_map_delete_elem(&flows, &flow);
		bpf_map_delete_elem(&openings, &flow);
	} else if (tcp->syn && tcp->ack) {
		struct opening opening = { .at_ns = now, .expected = bpf_ntohl(tcp->seq) + 1 };
		bpf_map_update_elem(&openings, &flow, &opening, BPF_ANY);
	} else if (!tcp->syn && given->len > sizeof(*link) + sizeof(*ip) + tcp->doff * 4 && !is_known(&flow)) {
		// Data is sent to proved addresses only: so a filter that starts anew learns what goes on.
		bpf_map_update_elem(&flows, &flow, &now, BPF_ANY);
	}
	return -1;
}

char license_name[] SEC("license") = "GPL";
