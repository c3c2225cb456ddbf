// The guest's TPM 2.0, spoken to without a driver, which Debian's cloud kernel lacks: `tpm read PCR` and
// `tpm extend PCR TEXT` print the register (SHA-256), `tpm resets` how often the TPM was started.
// Source: TCG PC Client Platform TPM Profile, 6 (FIFO and CRB interface), TPM 2.0 Library, part 3 (commands).
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { address = 0xfed40000, locality_access = 0, status = 0x18, fifo = 0x24, interface_id = 0x30 };
enum { location_control = 8, control_request = 0x40, control_start = 0x4c, buffer = 0x80 };
static volatile uint8_t *tpm;
static uint8_t message[4096];
static size_t size;

static volatile uint32_t *word(int offset) { return (volatile uint32_t *)(tpm + offset); }

static void fail(const char *why) {
  printf("tpm: %s\n", why);
  exit(1);
}

// Key generation takes seconds; what is done here does not.
static void await(int offset, uint32_t mask, uint32_t value, const char *what) {
  for (int turn = 0; turn < 10000; turn++) {
    if (((mask > 0xff ? *word(offset) : tpm[offset]) & mask) == value) return;
    usleep(1000);
  }
  fail(what);
}

static void put(uint64_t value, int bytes) {
  while (bytes-- > 0) message[size++] = value >> 8 * bytes;
}

static uint32_t number(size_t offset) {
  return (uint32_t)message[offset] << 24 | message[offset + 1] << 16 | message[offset + 2] << 8 | message[offset + 3];
}

static void by_fifo(void) {
  tpm[locality_access] = 0x02;
  await(locality_access, 0xa0, 0xa0, "no locality");
  tpm[status] = 0x40;
  await(status, 0x40, 0x40, "not ready");
  for (size_t i = 0; i < size; i++) tpm[fifo] = message[i];
  tpm[status] = 0x20;
  await(status, 0x90, 0x90, "no answer");
  for (size = 0; tpm[status] & 0x10 && size < sizeof message; size++) message[size] = tpm[fifo];
  tpm[status] = 0x40;
  tpm[locality_access] = 0x20;
}

static void by_buffer(void) {
  *word(location_control) = 1;
  await(0, 0x02, 0x02, "no locality");
  *word(control_request) = 1;
  await(control_request, 0x01, 0, "not ready");
  for (size_t i = 0; i < size; i++) tpm[buffer + i] = message[i];
  *word(control_start) = 1;
  await(control_start, 0x01, 0, "no answer");
  for (size_t i = 0; i < 10; i++) message[i] = tpm[buffer + i];
  size = number(2) < sizeof message - buffer ? number(2) : 10;
  for (size_t i = 10; i < size; i++) message[i] = tpm[buffer + i];
  *word(control_request) = 2;
  *word(location_control) = 2;
}

// Sends the message, whose size is filled in, and gives the answer's code.
static uint32_t run(void) {
  for (int i = 0; i < 4; i++) message[2 + i] = size >> 8 * (3 - i);
  if ((*word(interface_id) & 0xf) == 1) by_buffer(); else by_fifo();
  if (size < 10) fail("half an answer");
  return number(6);
}

static void begin(uint16_t tag, uint32_t command) {
  size = 0;
  put(tag, 2), put(0, 4), put(command, 4);
}

static void check(const char *what) {
  uint32_t code = run();
  if (code == 0) return;
  printf("tpm: %s: 0x%x\n", what, code);
  exit(1);
}

int main(int count, char **words) {
  int memory = open("/dev/mem", O_RDWR | O_SYNC);
  tpm = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED, memory, address);
  if (count < 2 || tpm == MAP_FAILED) fail("usage, or no /dev/mem");
  begin(0x8001, 0x144), put(0, 2);  // Startup(CLEAR)
  uint32_t code = run();
  if (code != 0 && code != 0x100) fail("it does not start");  // It has been started before.
  if (!strcmp(words[1], "resets")) {
    begin(0x8001, 0x181);  // ReadClock
    check("read clock");
    printf("resets %u\n", number(26));
    return 0;
  }
  int pcr = count > 2 ? atoi(words[2]) : 0;
  if (!strcmp(words[1], "extend")) {
    char digest[32] = {0};
    strncpy(digest, count > 3 ? words[3] : "", sizeof digest);
    begin(0x8002, 0x182), put(pcr, 4);                         // PCR_Extend
    put(9, 4), put(0x40000009, 4), put(0, 2), put(0, 1), put(0, 2);  // an empty password
    put(1, 4), put(0x000b, 2);
    for (size_t i = 0; i < sizeof digest; i++) put(digest[i], 1);
    check("extend");
  }
  begin(0x8001, 0x17e), put(1, 4), put(0x000b, 2), put(3, 1);  // PCR_Read
  for (int i = 0; i < 3; i++) put(pcr / 8 == i ? 1 << pcr % 8 : 0, 1);
  check("read");
  printf("pcr %d ", pcr);
  for (size_t i = 30; i < 62 && i < size; i++) printf("%02x", message[i]);
  printf("\n");
}
