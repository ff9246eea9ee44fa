/* Frames between two nodes: whole and unaltered, or an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/bytes.h"
#include "repair/wire.h"

#define HEAD 16

static bool stop_now;

static bool stop(void *arg)
{
	(void)arg;
	return stop_now;
}

struct pair {
	struct wrep_wire a, b;
};

static void start(struct pair *p)
{
	int fds[2];

	alarm(60);
	stop_now = false;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	wrep_wire_init(&p->a, fds[0], stop, NULL);
	wrep_wire_init(&p->b, fds[1], stop, NULL);
}

static void end(struct pair *p)
{
	close(p->a.fd);
	close(p->b.fd);
	wrep_wire_clear(&p->a);
	wrep_wire_clear(&p->b);
}

static uint8_t large[3u << 20];

static void *send_large(void *arg)
{
	return (void *)(intptr_t)wrep_wire_send(arg, WREP_STREAM_PAGES, large, sizeof(large));
}

static void frames_arrive_whole_and_in_order(void **state)
{
	struct pair p;
	pthread_t thread;
	void *rc;

	(void)state;
	start(&p);
	for (size_t i = 0; i < sizeof(large); i++)
		large[i] = (uint8_t)(i * 7 + i / 999);
	assert_int_equal(wrep_wire_send(&p.a, WREP_STREAM_OPEN, "", 0), 0);
	assert_int_equal(wrep_wire_send(&p.a, WREP_STREAM_REFUSED, "not yet", 7), 0);
	assert_int_equal(wrep_wire_receive(&p.b), 0);
	assert_int_equal(p.b.type, WREP_STREAM_OPEN);
	assert_int_equal(p.b.len, 0);
	assert_int_equal(wrep_wire_receive(&p.b), 0);
	assert_int_equal(p.b.type, WREP_STREAM_REFUSED);
	assert_memory_equal(p.b.body, "not yet", 7);
	/* more than the socket takes at once */
	assert_int_equal(pthread_create(&thread, NULL, send_large, &p.a), 0);
	assert_int_equal(wrep_wire_receive(&p.b), 0);
	pthread_join(thread, &rc);
	assert_ptr_equal(rc, NULL);
	assert_int_equal(p.b.len, sizeof(large));
	assert_memory_equal(p.b.body, large, sizeof(large));
	end(&p);
}

static void altered_body_refused(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < 7 * 8; bit++) {
		uint8_t frame[HEAD + 7];
		struct pair p;

		start(&p);
		assert_int_equal(wrep_wire_send(&p.a, WREP_STREAM_SUMS, "content", 7), 0);
		assert_int_equal(recv(p.b.fd, frame, sizeof(frame), MSG_WAITALL), sizeof(frame));
		frame[HEAD + bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(send(p.a.fd, frame, sizeof(frame), 0), sizeof(frame));
		assert_int_equal(wrep_wire_receive(&p.b), -EBADMSG);
		end(&p);
	}
}

static void body_without_measure_refused(void **state)
{
	uint8_t head[HEAD] = {WREP_STREAM_PAGES};
	struct pair p;

	(void)state;
	start(&p);
	wrep_put32(head + 4, WREP_STREAM_BODY_MAX + 1);
	assert_int_equal(send(p.a.fd, head, sizeof(head), 0), sizeof(head));
	assert_int_equal(wrep_wire_receive(&p.b), -EBADMSG);
	assert_null(p.b.body);
	end(&p);
}

static void closed_in_the_middle_is_an_error(void **state)
{
	struct pair p;

	(void)state;
	start(&p);
	assert_int_equal(send(p.a.fd, "half a head", 11, 0), 11);
	shutdown(p.a.fd, SHUT_RDWR);
	assert_int_equal(wrep_wire_receive(&p.b), -ECONNRESET);
	end(&p);
}

static void silence_ends_when_told_to_stop(void **state)
{
	struct pair p;

	(void)state;
	start(&p);
	stop_now = true;
	assert_int_equal(wrep_wire_receive(&p.b), -ECANCELED);
	end(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_arrive_whole_and_in_order),
		cmocka_unit_test(altered_body_refused),
		cmocka_unit_test(body_without_measure_refused),
		cmocka_unit_test(closed_in_the_middle_is_an_error),
		cmocka_unit_test(silence_ends_when_told_to_stop),
	};

	return cmocka_run_group_tests_name("walrepl_stream", tests, NULL, NULL);
}
