// The guest's only program: shows on the serial console that the guest lives, keeps its time, its
// memory and its disk, and says so in lines a test can read. What to do is on the kernel's command line:
//
//   tick=MS      a line `tick N MICROSECONDS gap MICROSECONDS` so often (10): a counter, the guest's
//                monotonic clock, the longest time since the last line in which this program did not run
//   sample=US    how often to look at the clock for that (1000); 0: all the time
//   fill=MIB     fill that much memory before anything else, and check and rewrite it for ever:
//                `memory N passes`, or `MEMORY CORRUPT …`
//   churn=MIB    so much of it each second (16)
//   disk=1       count on /dev/vda: `synced N` once N is written and flushed
//   sync=MS      so often (20)
//   poweroff=S, panic=S   after so many seconds
//
// and on the console: `poweroff`, `panic`, `reboot`, `end agent`, `echo TEXT`.
//
// QEMU stops the guest's clocks with the guest, so no gap shows how long it was stopped. The hardware
// clock of a PC goes on. `second N MICROSECONDS lost MICROSECONDS within MICROSECONDS` is printed when
// it reaches its next second: what the monotonic clock has missed since the one before, and how
// exactly that is known.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static char commandLine[4096];

static long parameter(const char *name, long otherwise) {
  size_t length = strlen(name);
  for (char *at = commandLine; (at = strstr(at, name)); at += length)
    if ((at == commandLine || at[-1] == ' ') && at[length] == '=') return atol(at + length + 1);
  return otherwise;
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void sleepUntil(int64_t when) {
  struct timespec time = {when / 1000000, when % 1000000 * 1000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR) {}
}

// One write a line: lines of several threads do not mix.
static void say(const char *format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  if (length > (int)sizeof line - 2) length = sizeof line - 2;
  line[length++] = '\n';
  for (int done = 0; done < length;) {
    ssize_t count = write(1, line + done, length - done);
    if (count > 0) done += count;
    else if (errno != EINTR) return;
  }
}

static void start(void *(*body)(void *), int priority) {
  pthread_t thread;
  pthread_attr_t attributes;
  struct sched_param scheduling = {.sched_priority = priority};
  pthread_attr_init(&attributes);
  pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
  pthread_attr_setschedpolicy(&attributes, priority ? SCHED_FIFO : SCHED_OTHER);
  pthread_attr_setschedparam(&attributes, &scheduling);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  int error = pthread_create(&thread, &attributes, body, NULL);
  if (error) say("thread: %s", strerror(error));
}

// Time

static _Atomic int64_t longestGap;

static int hardwareSeconds(void) {
  outb(0, 0x70);
  int value = inb(0x71);
  return (value >> 4) * 10 + (value & 15);
}

static void *watchTime(void *unused) {
  int64_t sample = parameter("sample", 1000);
  int clock = ioperm(0x70, 2, 1) == 0;
  int seconds = clock ? hardwareSeconds() : 0;
  int64_t before = now(), edge = 0, within = 0, number = 0;
  for (;;) {
    int64_t time = now();
    if (time - before > longestGap) longestGap = time - before;
    // Around the hardware clock's next second look all the time: the edge is then known to
    // microseconds. Not otherwise, for each look takes QEMU's big lock.
    int64_t distance = edge ? time - (edge + 1000000) : -1000000;
    int near = distance > -500 && distance < 1500;
    if (clock && (near || time - before >= 200)) {
      int value = hardwareSeconds();
      if (value != seconds) {
        int passed = (value - seconds + 60) % 60;
        if (edge)
          say("second %ld %ld lost %ld within %ld", (long)(number += passed), (long)time,
              (long)(passed * 1000000 - (time - edge)), (long)(time - before + within));
        within = time - before;
        edge = time;
        seconds = value;
        near = 0;
      }
    }
    before = time;
    if (sample && !near) {
      int64_t next = time + sample, look = edge + 1000000 - 500;
      sleepUntil(edge && look > time && look < next ? look : next);
    }
  }
}

static void *tick(void *unused) {
  int64_t period = parameter("tick", 10) * 1000, next = now();
  for (long number = 1;; number++) {
    say("tick %ld %ld gap %ld", number, (long)now(), (long)atomic_exchange(&longestGap, 0));
    next += period;
    if (next < now()) next = now() + period;
    sleepUntil(next);
  }
}

// Memory

enum { pageWords = 4096 / 8 };
static uint64_t *memory;
static uint32_t *generations;  // what each page must hold, kept apart from it
static size_t pages;

// A page's words tell its number and generation, so a page that is lost, stale or in the wrong
// place is noticed; no two are equal and none is zero.
static uint64_t firstWord(size_t page) {
  return (page * 0x9e3779b97f4a7c15u) ^ ((uint64_t)generations[page] * 0xbf58476d1ce4e5b9u) | 1;
}

static void writePage(size_t page) {
  uint64_t word = firstWord(page), *at = memory + page * pageWords;
  for (int i = 0; i < pageWords; i++, word += 0x94d049bb133111ebu) at[i] = word;
}

static int checkPage(size_t page) {
  uint64_t word = firstWord(page), *at = memory + page * pageWords, wrong = 0;
  for (int i = 0; i < pageWords; i++, word += 0x94d049bb133111ebu) wrong |= at[i] ^ word;
  return wrong == 0;
}

static void fillMemory(void) {
  size_t mebibytes = parameter("fill", 0);
  if (!mebibytes) return;
  pages = mebibytes * 256;
  memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  generations = calloc(pages, sizeof *generations);
  if (memory == MAP_FAILED || !generations) {
    say("MEMORY MISSING: %zu MiB: %s", mebibytes, strerror(errno));
    pages = 0;
    return;
  }
  for (size_t page = 0; page < pages; page++) writePage(page);
  say("filled %zu MiB", mebibytes);
}

static void *churnMemory(void *unused) {
  // A hundred times a second: more at once would be a burst, and the bursts would be seen as gaps.
  size_t portion = parameter("churn", 16) * 256 / 100;
  if (!portion) return NULL;
  for (long passes = 0;;) {
    for (size_t page = 0; page < pages; page++) {
      if (!checkPage(page)) say("MEMORY CORRUPT page %zu generation %u", page, generations[page]);
      generations[page]++;
      writePage(page);
      if (page % portion == 0) sleepUntil(now() + 10000);
    }
    say("memory %ld passes", ++passes);
  }
}

// Disk

static void *countOnDisk(void *unused) {
  int disk = -1;
  for (int tries = 0; tries < 200 && (disk = open("/dev/vda", O_RDWR | O_DIRECT)) < 0; tries++)
    sleepUntil(now() + 10000);
  uint64_t *sector;
  off_t size = disk < 0 ? 0 : lseek(disk, 0, SEEK_END);
  if (size < 4096 || posix_memalign((void **)&sector, 4096, 4096)) {
    say("DISK MISSING: %s", strerror(errno));
    return NULL;
  }
  // Sector 0 holds the last number, the sectors after it a ring of all numbers before.
  uint64_t places = size / 512 - 1, number = 0;
  if (pread(disk, sector, 512, 0) == 512 && memcmp(sector, "MOULTLOG", 8) == 0) number = sector[1];
  say("disk from %lu", (unsigned long)number);
  int64_t period = parameter("sync", 20) * 1000;
  for (;;) {
    number++;
    memset(sector, 0, 512);
    memcpy(sector, "MOULTLOG", 8);
    sector[1] = number;
    off_t place = (off_t)(1 + (number - 1) % places) * 512;
    if (pwrite(disk, sector, 512, place) != 512 || fdatasync(disk) || pwrite(disk, sector, 512, 0) != 512 ||
        fdatasync(disk)) {
      say("DISK ERROR at %lu: %s", (unsigned long)number, strerror(errno));
      return NULL;
    }
    say("synced %lu", (unsigned long)number);
    sleepUntil(now() + period);
  }
}

// Ends

static void panic(void) {
  int trigger = open("/proc/sysrq-trigger", O_WRONLY);
  if (trigger < 0 || write(trigger, "c", 1) != 1) say("panic: %s", strerror(errno));
}

static void turnOff(void) {
  sync();
  reboot(RB_POWER_OFF);
}

static void endAgent(void) {
  pid_t child = fork();
  if (child == 0) {
    execl("/bin/busybox", "busybox", "killall", "qemu-ga", NULL);
    _exit(127);
  }
  int status = -1;
  waitpid(child, &status, 0);
  say("agent ended: %d", status);
}

static void *obey(void *unused) {
  char line[256];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\r\n")] = 0;
    if (strcmp(line, "poweroff") == 0) turnOff();
    else if (strcmp(line, "panic") == 0) panic();
    else if (strcmp(line, "reboot") == 0) reboot(RB_AUTOBOOT);
    else if (strcmp(line, "end agent") == 0) endAgent();
    else if (strncmp(line, "echo ", 5) == 0) say("%s", line);
  }
  return NULL;
}

int main(void) {
  int file = open("/proc/cmdline", O_RDONLY);
  if (file >= 0 && read(file, commandLine, sizeof commandLine - 1) < 0) return 1;
  close(file);
  struct termios terminal;
  if (tcgetattr(0, &terminal) == 0) {
    terminal.c_lflag &= ~ECHO;
    tcsetattr(0, TCSANOW, &terminal);
  }
  fillMemory();
  say("moult-guest ready");
  start(watchTime, 50);
  start(tick, 40);
  start(obey, 30);
  if (parameter("disk", 0)) start(countOnDisk, 20);
  if (pages) start(churnMemory, 0);
  long off = parameter("poweroff", 0), crash = parameter("panic", 0);
  if (off) {
    sleep(off);
    turnOff();
  }
  if (crash) {
    sleep(crash);
    panic();
  }
  for (;;) pause();
}
