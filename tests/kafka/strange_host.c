/* Loaded before the C library: a clock on the wall that jumps by an hour to and fro, many times a
   second; names of hosts that nobody knows while a file is there; a disk that comes to the end of no
   sync while a file is there, beside which one by the name of .met then is. Other clocks are as they
   are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef int (*clock_call)(clockid_t, struct timespec *);

static int ask(clockid_t id, struct timespec *t) {
    static clock_call real;
    if (!real) real = (clock_call)dlsym(RTLD_NEXT, "clock_gettime");
    return real(id, t);
}

static long jump_s(void) {
    struct timespec t;
    if (!getenv("STRANGE_CLOCK") || ask(CLOCK_MONOTONIC, &t)) return 0;
    switch ((t.tv_sec * 1000 + t.tv_nsec / 1000000) / 70 % 3) {
        case 0: return 0;
        case 1: return 3600;
        default: return -3600;
    }
}

int clock_gettime(clockid_t id, struct timespec *t) {
    int failed = ask(id, t);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += jump_s();
    return failed;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int getaddrinfo(const char *restrict node, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    const char *flag = getenv("STRANGE_NAMES");
    if (flag && access(flag, F_OK) == 0) return EAI_NONAME;
    if (!real) real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real(node, service, hints, found);
}

int fsync(int file) {
    static int (*real)(int);
    const char *flag = getenv("STRANGE_DISK");
    if (flag && access(flag, F_OK) == 0) {
        char met[4096];
        snprintf(met, sizeof met, "%s.met", flag);
        int told = open(met, O_WRONLY | O_CREAT, 0600);
        if (told >= 0) close(told);
        while (access(flag, F_OK) == 0) usleep(20000);
    }
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    return real(file);
}
