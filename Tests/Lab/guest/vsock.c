// Tells whoever connects by vsock the guest's CID, a line, and sends back what it gets: `vsock PORT`.
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void serve(int connection) {
  char bytes[2048];
  unsigned cid = 0;
  int device = open("/dev/vsock", O_RDONLY);
  if (device < 0 || ioctl(device, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) < 0) perror("cid");
  ssize_t length = snprintf(bytes, sizeof bytes, "cid %u\n", cid);
  while (length > 0 && write(connection, bytes, length) == length) length = read(connection, bytes, sizeof bytes);
}

int main(int count, char **words) {
  int descriptor = socket(AF_VSOCK, SOCK_STREAM, 0);
  struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_port = count > 1 ? atoi(words[1]) : 0, .svm_cid = VMADDR_CID_ANY};
  if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&address, sizeof address) < 0 || listen(descriptor, 8) < 0) return 1;
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int connection = accept(descriptor, NULL, NULL);
    if (connection >= 0 && fork() == 0) {
      serve(connection);
      return 0;
    }
    close(connection);
  }
}
