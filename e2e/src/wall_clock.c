/* A wall clock that tests can set, for one process and its libraries: load it with LD_PRELOAD.
 *
 * TAFFRAIL_TEST_WALL_CLOCK names a file of eight bytes, by how many seconds the clock is ahead (native byte order). It may
 * change at any time. Clocks that only go forward are the kernel's.
 *
 * Nothing here allocates or looks up symbols: an allocator asks for the time before it can serve anybody. libfaketime does
 * both and hangs under jemalloc for that. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Less than this since 1970 is no wall time but time since the kernel started. */
#define NO_WALL_TIME (10L * 365 * 24 * 3600)

static const volatile long *ahead;

__attribute__((constructor)) static void begin(void) {
  const char *name = getenv("TAFFRAIL_TEST_WALL_CLOCK");
  int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) _exit(99);
  void *at = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
  if (at == MAP_FAILED) _exit(99);
  ahead = at;
  close(file);
}

static long seconds_ahead(void) { return ahead ? *ahead : 0; }

int clock_gettime(clockid_t clock, struct timespec *at) {
  int failed = (int)syscall(SYS_clock_gettime, clock, at);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += seconds_ahead();
  return failed;
}

int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}

/* The kernel ends these waits by its own clock. */
int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
  struct timespec real = *until;
  if (real.tv_sec < NO_WALL_TIME) return pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &real);
  real.tv_sec -= seconds_ahead();
  return pthread_cond_clockwait(condition, mutex, CLOCK_REALTIME, &real);
}
