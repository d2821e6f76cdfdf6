// What a packet is, by its headers: to the service or not, opening, later, a fragment, an error about another one.

#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include "judge.bpf.h"

enum kind { OPENING, SEGMENT, REST, ERROR, ECHO, PASSING, BROKEN };
// TCP with SYN alone, or UDP; other TCP; a fragment but the first; an ICMPv6 error; other ICMPv6;
// nothing of the service's; headers that nobody needs.

struct flow {
	u64 client[2], service[2];
	__be16 client_port, service_port;
	u32 unused;
};

struct packet {
	struct flow flow; // of the packet that is quoted, for an error
	u64 source[2], target[2];
	__be16 port; // where it wants to go; 0: it does not say
	u32 fragmented, answered; // answered: what it acknowledges, if it does that alone
	u32 acknowledges;
};

#define HEADERS_MAX 4
#define FRAGMENT_HEADER 44
#define TAGS_MAX 2
#define ERRORS_BELOW 128

static __always_inline int is_of_service(const struct told *known, u64 prefix)
{
	for (u32 n = 0; n < PREFIXES_MAX && n < known->prefixes; n++)
		if (known->prefix[n] == prefix)
			return 1;
	return 0;
}

// Whoever sends an error quotes what it is about: then it is of that flow.
static __always_inline void read_quoted(const u8 *at, const u8 *end, struct packet *packet)
{
	const struct ipv6hdr *ip = (const void *)(at + 8);
	const __be16 *ports = (const void *)(ip + 1);
	if ((const u8 *)(ports + 2) > end || ip->nexthdr != IPPROTO_TCP)
		return;
	__builtin_memcpy(packet->flow.service, &ip->saddr, 16);
	__builtin_memcpy(packet->flow.client, &ip->daddr, 16);
	packet->flow.service_port = ports[0];
	packet->flow.client_port = ports[1];
	// What the service sent comes back to where it was sent from.
	if (packet->flow.service[0] != packet->target[0] || packet->flow.service[1] != packet->target[1])
		packet->flow.client_port = packet->flow.service_port = 0;
}

static __always_inline enum kind read_tcp(const u8 *at, const u8 *end, struct packet *packet)
{
	const struct tcphdr *tcp = (const void *)at;
	if ((const u8 *)(tcp + 1) > end)
		return BROKEN;
	packet->port = tcp->dest;
	if (tcp->syn && !tcp->ack)
		return OPENING;
	__builtin_memcpy(packet->flow.client, packet->source, 16);
	__builtin_memcpy(packet->flow.service, packet->target, 16);
	packet->flow.client_port = tcp->source;
	packet->flow.service_port = tcp->dest;
	packet->acknowledges = tcp->ack && !tcp->syn && !tcp->rst;
	packet->answered = bpf_ntohl(tcp->ack_seq);
	return SEGMENT;
}

static __always_inline enum kind read_packet(const u8 *data, const u8 *end, const struct told *known, struct packet *packet)
{
	const struct ethhdr *link = (const void *)data;
	if ((const u8 *)(link + 1) > end)
		return PASSING;
	__be16 ether = link->h_proto;
	const u8 *at = (const u8 *)(link + 1);
	// The host takes off what names no network of its own (802.1p), and others where it has them.
	for (int n = 0; n < TAGS_MAX && (ether == bpf_htons(ETH_P_8021Q) || ether == bpf_htons(ETH_P_8021AD)); n++) {
		if (at + 4 > end)
			return PASSING;
		ether = *(const __be16 *)(at + 2);
		at += 4;
	}
	if (ether == bpf_htons(ETH_P_8021Q) || ether == bpf_htons(ETH_P_8021AD))
		return BROKEN; // The host would take off any number.
	const struct ipv6hdr *ip = (const void *)at;
	if (ether != bpf_htons(ETH_P_IPV6) || (const u8 *)(ip + 1) > end)
		return PASSING;
	__builtin_memcpy(packet->source, &ip->saddr, 16);
	__builtin_memcpy(packet->target, &ip->daddr, 16);
	if (!is_of_service(known, packet->target[0]))
		return PASSING;
	u8 next = ip->nexthdr;
	at = (const u8 *)(ip + 1);
	for (int n = 0; n < HEADERS_MAX; n++) {
		if (next == IPPROTO_TCP || next == IPPROTO_UDP || next == IPPROTO_ICMPV6)
			break;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS && next != FRAGMENT_HEADER)
			return BROKEN; // A routing header among them: nobody needs one to reach an object.
		if (at + 8 > end)
			return BROKEN;
		u8 first = at[0];
		packet->fragmented |= next == FRAGMENT_HEADER;
		// All headers are in the first fragment (RFC 7112), and no other one opens anything.
		if (next == FRAGMENT_HEADER && *(const __be16 *)(at + 2) & bpf_htons(0xfff8))
			return REST;
		at += next == FRAGMENT_HEADER ? 8 : 8 + at[1] * 8;
		next = first;
	}
	if (next == IPPROTO_TCP)
		return read_tcp(at, end, packet);
	if (next == IPPROTO_UDP) {
		if (at + 8 > end)
			return BROKEN;
		packet->port = *(const __be16 *)(at + 2);
		return OPENING;
	}
	if (next != IPPROTO_ICMPV6)
		return BROKEN; // More headers than anybody needs.
	if (at + 8 > end)
		return BROKEN;
	if (at[0] >= ERRORS_BELOW)
		return ECHO;
	read_quoted(at, end, packet);
	return ERROR;
}
