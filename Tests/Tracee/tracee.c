// A process for the tests of descriptor exchange: waits in some way, then says what it reads from descriptor 0.
//   tracee MODE     says `ready` first, `got TEXT` then, and ends; anything that should not be is said instead. `condition` and
//                   `mutex` wait at descriptor 4, for a mutex, and, having said `told`, at a condition variable in between
//   tracee begin WHERE…   becomes another program when it reads something, which connects and says where it came out:
//                         4:PORT, 6:PORT (the IPv6 form of 127.0.0.1), u:PORT (UDP), @NAME, in the first thread; tWHERE in another;
//                         iN (ioctl(2) FIONBIO of descriptor 5 with a pointer to N: whether it is not to block then);
//                         `alarms` for signals all the time, `threads` for threads that come and go
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t alarms;
static atomic_int stop;
static atomic_long spins;

static void count(int signal) { (void)signal; alarms++; }

static void *spin(void *unused) {
  (void)unused;
  while (!stop) spins++;
  return NULL;
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static atomic_int held, told, answered;

// Has the mutex, for a while or until something comes at descriptor 5; then answers what it was told, when something has come there.
static void *hold(void *asked) {
  char byte;
  struct timespec while_ = {0, 50000000}, glance = {0, 1000000};
  pthread_mutex_lock(&mutex);
  held = 1;
  if (!asked) nanosleep(&while_, NULL);
  else if (read(5, &byte, 1) != 1) printf("read of 5 errno %d\n", errno);
  pthread_mutex_unlock(&mutex);
  while (!told) nanosleep(&glance, NULL);
  // Not before the other thread waits for it: it would find its condition met, and never wait.
  if (!asked && read(5, &byte, 1) != 1) printf("read of 5 errno %d\n", errno);
  pthread_mutex_lock(&mutex);
  answered = 1;
  pthread_cond_signal(&condition);
  pthread_mutex_unlock(&mutex);
  return NULL;
}

static long milliseconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void filter(unsigned action) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_dup3, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, action),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void *connect_to(void *argument) {
  const char *where = argument;
  union {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
    struct sockaddr_un name;
  } address = {0}, before, peer = {0};
  socklen_t size, room = sizeof peer;
  uint16_t port = htons((uint16_t)atoi(where + 2));
  if (*where == '@') {
    address.name.sun_family = AF_UNIX;
    strcpy(address.name.sun_path + 1, where + 1);
    size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(where));
  } else if (*where == '6') {
    address.six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = port};
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &address.six.sin6_addr);
    size = sizeof address.six;
  } else {
    address.four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    size = sizeof address.four;
  }
  before = address;
  int descriptor = socket(address.any.sa_family, *where == 'u' ? SOCK_DGRAM : SOCK_STREAM, 0);
  if (connect(descriptor, &address.any, size) != 0) {
    printf("%s errno %d\n", where, errno);
  } else {
    getpeername(descriptor, &peer.any, &room);
    if (*where == '@') printf("%s is @%s\n", where, peer.name.sun_path + 1);
    else printf("%s is %d\n", where, ntohs(peer.four.sin_port));
  }
  if (memcmp(&before, &address, sizeof address)) printf("the address is another one\n");
  return NULL;
}

static void control(const char *word) {
  int value = atoi(word + 1), before = value;
  if (ioctl(5, FIONBIO, &value) != 0) printf("%s errno %d\n", word, errno);
  else printf("%s is %d\n", word, (fcntl(5, F_GETFL) & O_NONBLOCK) != 0);
  if (value != before) printf("the argument is another one\n");
}

static void *nothing(void *unused) { return unused; }
static void *make_threads(void *unused) {
  while (!stop) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, nothing, NULL) == 0) pthread_join(thread, NULL);
  }
  return unused;
}

static void every_half_millisecond(void) {
  struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
  struct itimerval every = {{0, 500}, {0, 500}};
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &every, NULL);
}

static int begun(char **words) {
  pthread_t thread, maker;
  int has_maker = 0;
  for (; *words; words++) {
    if (!strcmp(*words, "alarms")) every_half_millisecond();
    else if (!strcmp(*words, "threads")) has_maker = pthread_create(&maker, NULL, make_threads, NULL) == 0;
    else if (**words == 'i') control(*words);
    else if (**words == 't') pthread_create(&thread, NULL, connect_to, *words + 1), pthread_join(thread, NULL);
    else connect_to(*words);
  }
  char text[100];
  ssize_t size = read(0, text, sizeof text - 1);
  stop = 1;
  if (has_maker) pthread_join(maker, NULL);
  printf("got %.*s\n", (int)(size < 0 ? 0 : size), text);
  return 0;
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "begun")) {
    setvbuf(stdout, NULL, _IONBF, 0);
    return begun(argv + 2);
  }
  const char *mode = argc > 1 ? argv[1] : "read";
  pthread_t threads[3];
  int threadCount = 0, epoll = -1;
  setvbuf(stdout, NULL, _IONBF, 0);
  if (!strcmp(mode, "threads"))
    while (threadCount < 3) pthread_create(&threads[threadCount++], NULL, spin, NULL);
  if (!strcmp(mode, "alarms")) every_half_millisecond();
  if (!strcmp(mode, "epoll")) {
    struct epoll_event event = {.events = EPOLLIN};
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, 4, &event);
  }
  if (!strcmp(mode, "refused")) filter(SECCOMP_RET_ERRNO | EPERM);
  if (!strcmp(mode, "killed")) filter(SECCOMP_RET_KILL_PROCESS);
  int waits = !strcmp(mode, "condition") || !strcmp(mode, "mutex");
  if (waits) {
    pthread_create(&threads[0], NULL, hold, !strcmp(mode, "mutex") ? &mutex : NULL);
    while (!held) {}
  }
  double before = 1.0 / 3;
  printf("ready\n");
  if (waits) {
    char byte;
    if (read(4, &byte, 1) != 1) printf("read of 4 errno %d\n", errno);
    pthread_mutex_lock(&mutex);
    printf("told\n");
    told = 1;
    while (!answered) pthread_cond_wait(&condition, &mutex);
    pthread_mutex_unlock(&mutex);
    pthread_join(threads[0], NULL);
  }
  if (!strcmp(mode, "begin")) {
    char byte;
    if (read(0, &byte, 1) != 1) return 1;
    argv[1] = "begun";
    execv("/proc/self/exe", argv);
  }
  if (!strcmp(mode, "ppoll") || !strcmp(mode, "threads")) {
    sigset_t none;
    sigemptyset(&none);
    struct pollfd entry = {.fd = 0, .events = POLLIN};
    int result = ppoll(&entry, 1, NULL, &none);
    if (result != 1) printf("ppoll %d errno %d\n", result, errno);
  } else if (!strcmp(mode, "nanosleep")) {
    long start = milliseconds();
    struct timespec time = {0, 300000000};
    int result = nanosleep(&time, NULL);
    long slept = milliseconds() - start;
    if (result != 0 || slept < 300 || slept > 20000) printf("nanosleep %d after %ld ms, errno %d\n", result, slept, errno);
  } else if (!strcmp(mode, "epoll")) {
    struct epoll_event event;
    int result = epoll_wait(epoll, &event, 1, -1);
    // The one wait that the kernel does not begin anew after any signal or stop (signal(7)).
    if (result != 1 && errno != EINTR) printf("epoll_wait %d errno %d\n", result, errno);
  } else if (!strcmp(mode, "spin")) {
    for (long end = milliseconds() + 300; milliseconds() < end;) {}
  }
  char text[100];
  ssize_t size = read(0, text, sizeof text - 1);
  if (size < 0) printf("read errno %d\n", errno);
  text[size < 0 ? 0 : size] = 0;
  stop = 1;
  for (int i = 0; i < threadCount; i++) pthread_join(threads[i], NULL);
  if (threadCount && !spins) printf("no spins\n");
  if (!strcmp(mode, "alarms") && alarms < 10) printf("%d alarms\n", (int)alarms);
  sigset_t mask;
  sigprocmask(SIG_SETMASK, NULL, &mask);
  for (int signal = 1; signal < 32; signal++)
    if (sigismember(&mask, signal)) printf("signal %d is blocked\n", signal);
  if (before * 3 != 1.0) printf("floating point\n");
  printf("got %s\n", text);
  return 0;
}
