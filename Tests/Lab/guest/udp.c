// A datagram goes back to whoever has sent it: `udp PORT`.
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int count, char **words) {
  int descriptor = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(count > 1 ? atoi(words[1]) : 0)};
  if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&address, sizeof address) < 0) return 1;
  for (;;) {
    char bytes[2048];
    socklen_t size = sizeof address;
    ssize_t length = recvfrom(descriptor, bytes, sizeof bytes, 0, (struct sockaddr *)&address, &size);
    if (length >= 0) sendto(descriptor, bytes, length, 0, (struct sockaddr *)&address, size);
  }
}
