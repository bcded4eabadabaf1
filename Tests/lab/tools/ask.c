// Asks the daemon at its control socket, and prints the reply. `gatewayd status` and the others do that too, and take
// most of a second of an emulated machine for it: too much for what is asked several times a second.
//
// usage: ask SOCKET COMMAND     ("status", "pair", …: a command without arguments)
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

int main(int count, char **arguments) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (count != 3 || strlen(arguments[1]) >= sizeof address.sun_path) return 2;
  strcpy(address.sun_path, arguments[1]);
  int daemon = socket(AF_UNIX, SOCK_STREAM, 0);
  // A daemon that stands still takes connections and answers none.
  struct timeval limit = {.tv_sec = 5};
  setsockopt(daemon, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(daemon, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (connect(daemon, (struct sockaddr *)&address, sizeof address) != 0) {
    perror(arguments[1]);
    return 1;
  }
  char data[4096];
  int length = snprintf(data, sizeof data, "{\"version\":1,\"command\":\"%s\"}\n", arguments[2]);
  if (length >= (int)sizeof data || write(daemon, data, (size_t)length) != length) return 1;
  ssize_t received;
  while ((received = read(daemon, data, sizeof data)) > 0) fwrite(data, 1, (size_t)received, stdout);
  return received != 0;
}
