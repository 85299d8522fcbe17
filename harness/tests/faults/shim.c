/* Makes one call of a program fail once: the one with this number among those that are counted.
 *
 *   FAULT_KVM=1      counts KVM's ioctls
 *   FAULT_FILES=DIR  counts calls about files below DIR
 *   FAULT_AT=N       the call that fails, from 0
 *   FAULT_EVERY=NAME every call of this name fails instead
 *   FAULT_ERRNO=E    how
 *   FAULT_LOG=FILE   the name of each call that was counted, a line each
 *   FAULT_THREADS=1  no thread can be had
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long count;
static char ours[1024];

static int fails(const char *name)
{
    const char *at = getenv("FAULT_AT"), *log = getenv("FAULT_LOG"), *how = getenv("FAULT_ERRNO");
    const char *every = getenv("FAULT_EVERY");
    long number = __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
    if (log) {
        char line[64];
        int length = snprintf(line, sizeof line, "%s\n", name);
        long fd = syscall(SYS_open, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        syscall(SYS_write, fd, line, length);
        syscall(SYS_close, fd);
    }
    if (every ? strcmp(every, name) == 0 : at && atol(at) == number) {
        errno = how ? atoi(how) : EIO;
        return 1;
    }
    return 0;
}

static int below(const char *path)
{
    const char *directory = getenv("FAULT_FILES");
    return directory && path && strncmp(path, directory, strlen(directory)) == 0;
}

static int own(int fd)
{
    return fd >= 0 && fd < (int)sizeof ours && ours[fd];
}

static int mark(int fd, int is)
{
    if (fd >= 0 && fd < (int)sizeof ours)
        ours[fd] = is;
    return fd;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (getenv("FAULT_KVM") && (request >> 8 & 0xff) == 0xAE) {
        char name[32];
        snprintf(name, sizeof name, "%lx", request & 0xff);
        if (fails(name))
            return -1;
    }
    return NEXT(ioctl)(fd, request, argument);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*start)(void *), void *argument)
{
    if (getenv("FAULT_THREADS"))
        return EAGAIN;
    return NEXT(pthread_create)(thread, how, start, argument);
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list list;                                                                              \
        va_start(list, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;                     \
        va_end(list);                                                                              \
        int is = below(path);                                                                      \
        if (is && fails("open"))                                                                   \
            return -1;                                                                             \
        return mark(NEXT(name)(path, flags, mode), is);                                            \
    }
OPEN(open)
OPEN(open64)

#define DUPLICATE(name)                                                                            \
    int name(int fd, int command, ...)                                                             \
    {                                                                                              \
        va_list list;                                                                              \
        va_start(list, command);                                                                   \
        void *argument = va_arg(list, void *);                                                     \
        va_end(list);                                                                              \
        int is = own(fd) && (command == F_DUPFD || command == F_DUPFD_CLOEXEC);                     \
        if (is && fails("dup"))                                                                    \
            return -1;                                                                             \
        int result = NEXT(name)(fd, command, argument);                                            \
        return is ? mark(result, 1) : result;                                                      \
    }
DUPLICATE(fcntl)
DUPLICATE(fcntl64)

int close(int fd)
{
    mark(fd, 0);
    return NEXT(close)(fd);
}

#define BY_FD(type, name, what, parameters, ...)                                                   \
    type name parameters                                                                           \
    {                                                                                              \
        if (own(fd) && fails(what))                                                                \
            return -1;                                                                             \
        return NEXT(name)(__VA_ARGS__);                                                            \
    }
BY_FD(ssize_t, read, "read", (int fd, void *to, size_t length), fd, to, length)
BY_FD(ssize_t, write, "write", (int fd, const void *from, size_t length), fd, from, length)
BY_FD(ssize_t, pread64, "read", (int fd, void *to, size_t length, off64_t at), fd, to, length, at)
BY_FD(ssize_t, pread, "read", (int fd, void *to, size_t length, off_t at), fd, to, length, at)
BY_FD(ssize_t, pwrite64, "write", (int fd, const void *from, size_t length, off64_t at), fd, from,
      length, at)
BY_FD(ssize_t, pwrite, "write", (int fd, const void *from, size_t length, off_t at), fd, from,
      length, at)
BY_FD(int, ftruncate64, "truncate", (int fd, off64_t length), fd, length)
BY_FD(int, ftruncate, "truncate", (int fd, off_t length), fd, length)
BY_FD(int, fsync, "sync", (int fd), fd)
BY_FD(int, fdatasync, "sync", (int fd), fd)
BY_FD(int, flock, "lock", (int fd, int operation), fd, operation)
BY_FD(int, fstatvfs64, "room", (int fd, struct statvfs64 *to), fd, to)
BY_FD(off64_t, lseek64, "seek", (int fd, off64_t at, int from), fd, at, from)

int fallocate64(int fd, int mode, off64_t at, off64_t length)
{
    if (own(fd) && fails(mode & FALLOC_FL_PUNCH_HOLE ? "punch" : "reserve"))
        return -1;
    return NEXT(fallocate64)(fd, mode, at, length);
}

#define MAP(name, offset)                                                                          \
    void *name(void *at, size_t length, int protection, int flags, int fd, offset from)            \
    {                                                                                              \
        if (own(fd) && fails("map"))                                                               \
            return MAP_FAILED;                                                                     \
        return NEXT(name)(at, length, protection, flags, fd, from);                                \
    }
MAP(mmap, off_t)
MAP(mmap64, off64_t)

int rename(const char *from, const char *to)
{
    return below(from) && fails("rename") ? -1 : NEXT(rename)(from, to);
}

int unlink(const char *path)
{
    return below(path) && fails("unlink") ? -1 : NEXT(unlink)(path);
}

int statx(int at, const char *path, int flags, unsigned mask, struct statx *to)
{
    /* The standard library asks with no path whether there is such a call. */
    const char *volatile given = path;
    const char *name = given;
    int is = below(name) || (own(at) && name && name[0] == 0);
    return is && fails("stat") ? -1 : NEXT(statx)(at, path, flags, mask, to);
}

DIR *opendir(const char *path)
{
    return below(path) && fails("list") ? NULL : NEXT(opendir)(path);
}

int mkdir(const char *path, mode_t mode)
{
    return below(path) && fails("mkdir") ? -1 : NEXT(mkdir)(path, mode);
}
