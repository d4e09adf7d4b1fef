/* A boot id that tests can set, for one process: load it with LD_PRELOAD. Where a broker looks for the kernel's own, it finds
 * what is in the file that TAFFRAIL_TEST_BOOT_ID names, without that in one of its volume: so a disk that has lost its power is found by a kernel that has another id, as it would be
 * after a real loss, although this machine's kernel has stayed up. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int opened(const char *path, int flags, va_list more) {
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
  if (path && !strcmp(path, "/proc/sys/kernel/random/boot_id")) {
    const char *named = getenv("TAFFRAIL_TEST_BOOT_ID");
    path = named ? named : "/var/lib/taffrail/boot_id";
  }
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  int file = opened(path, flags, more);
  va_end(more);
  return file;
}

int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  int file = opened(path, flags, more);
  va_end(more);
  return file;
}
