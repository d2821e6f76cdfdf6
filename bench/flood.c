// Sends frames at a pace from an interface, over and over: flood INTERFACE FRAMES PER_S SECONDS HOLD
//
// FRAMES: a file of frames of FRAME_BYTES each; each time round they come from another address of the same /64.
// HOLD 1: whoever answers with SYN-ACK gets its ACK, and then
// nothing more, so that connections are open that nobody uses. Prints how many were sent and acknowledged, and
// the CPU time.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#define FRAME_BYTES 74
#define BATCH_MAX 256
#define IP 14
#define TCP (IP + 40)

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void set_checksum(uint8_t *frame)
{
	uint32_t sum = 20 + 6; // length and protocol of the pseudo header
	memset(frame + TCP + 16, 0, 2);
	for (int n = IP + 8; n < FRAME_BYTES; n += 2)
		sum += frame[n] << 8 | frame[n + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	frame[TCP + 16] = sum >> 8;
	frame[TCP + 17] = sum;
}

// The ACK to a SYN-ACK; 0: it is something else.
static int acknowledge(const uint8_t *got, ssize_t bytes, uint8_t *frame)
{
	if (bytes < FRAME_BYTES || got[IP + 6] != 6 || got[TCP + 13] != 0x12)
		return 0;
	memcpy(frame, got, FRAME_BYTES);
	memcpy(frame, got + 6, 6);
	memcpy(frame + 6, got, 6);
	frame[IP + 4] = 0;
	frame[IP + 5] = 20;
	memcpy(frame + IP + 8, got + IP + 24, 16);
	memcpy(frame + IP + 24, got + IP + 8, 16);
	memcpy(frame + TCP, got + TCP + 2, 2);
	memcpy(frame + TCP + 2, got + TCP, 2);
	uint32_t next;
	memcpy(&next, got + TCP + 4, 4);
	memcpy(frame + TCP + 4, got + TCP + 8, 4);
	next = htonl(ntohl(next) + 1);
	memcpy(frame + TCP + 8, &next, 4);
	frame[TCP + 12] = 0x50;
	frame[TCP + 13] = 0x10;
	set_checksum(frame);
	return 1;
}

int main(int count, char **words)
{
	if (count != 6)
		return 2;
	const double pace = atof(words[3]), seconds = atof(words[4]);
	const int hold = atoi(words[5]), file = open(words[2], O_RDONLY);
	struct stat about;
	if (file < 0 || fstat(file, &about))
		return perror(words[2]), 1;
	uint8_t *frames = mmap(0, about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
	const long kinds = about.st_size / FRAME_BYTES;
	if (kinds < 1)
		return fprintf(stderr, "%s: no frames\n", words[2]), 1;
	struct sockaddr_ll place = { .sll_family = AF_PACKET,
				     .sll_protocol = hold ? htons(ETH_P_IPV6) : 0,
				     .sll_ifindex = if_nametoindex(words[1]) };
	int sock = socket(AF_PACKET, SOCK_RAW, 0), yes = 1, room = 8 << 20;
	setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	setsockopt(sock, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof(yes));
	if (frames == MAP_FAILED || sock < 0 || bind(sock, (void *)&place, sizeof(place)))
		return perror(words[1]), 1;
	static uint8_t batch_frames[BATCH_MAX][FRAME_BYTES];
	static struct mmsghdr messages[BATCH_MAX];
	static struct iovec parts[BATCH_MAX];
	for (int n = 0; n < BATCH_MAX; n++) {
		parts[n].iov_base = batch_frames[n];
		parts[n].iov_len = FRAME_BYTES;
		messages[n].msg_hdr.msg_iov = &parts[n];
		messages[n].msg_hdr.msg_iovlen = 1;
	}
	long sent = 0, held = 0, failed = 0;
	const double begun = now();
	for (double elapsed = 0; elapsed < seconds; elapsed = now() - begun) {
		uint8_t got[256], frame[FRAME_BYTES];
		for (int n = 0; hold && n < BATCH_MAX; n++) {
			ssize_t bytes = recv(sock, got, sizeof(got), MSG_DONTWAIT);
			if (bytes < 0)
				break;
			if (acknowledge(got, bytes, frame) && send(sock, frame, sizeof(frame), 0) > 0)
				held++;
		}
		long wanted = (long)(elapsed * pace) - sent - failed;
		if (wanted <= 0) {
			usleep(500);
			continue;
		}
		int batch = wanted < BATCH_MAX ? wanted : BATCH_MAX;
		for (int n = 0; n < batch; n++) {
			long number = sent + failed + n, round = number / kinds;
			memcpy(batch_frames[n], frames + number % kinds * FRAME_BYTES, FRAME_BYTES);
			batch_frames[n][IP + 22] ^= round >> 8;
			batch_frames[n][IP + 23] ^= round;
			set_checksum(batch_frames[n]);
		}
		int done = sendmmsg(sock, messages, batch, 0);
		if (done > 0)
			sent += done;
		else
			failed += batch; // The interface is full: they are lost, as on a wire.
	}
	struct rusage used;
	getrusage(RUSAGE_SELF, &used);
	double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
	printf("{\"sent\": %ld, \"held\": %ld, \"cores\": %.3f, \"per_s\": %.0f}\n", sent, held, cpu / (now() - begun),
	       sent / (now() - begun));
	return 0;
}
