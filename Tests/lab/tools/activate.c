// activate PATH GROUP PROGRAM...: what a socket unit does. It listens at PATH (SOCK_SEQPACKET, mode 0660,
// of this group), and becomes the program, which finds the socket as descriptor 3 (sd_listen_fds(3)).
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int main(int count, char **words) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (count < 4 || strlen(words[1]) >= sizeof address.sun_path) errx(64, "PATH GROUP PROGRAM...");
  strcpy(address.sun_path, words[1]);
  unlink(words[1]);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0) err(1, "%s", words[1]);
  if (chown(words[1], 0, (gid_t)atoi(words[2])) < 0 || chmod(words[1], 0660) < 0) err(1, "%s", words[1]);
  if (listen(fd, 16) < 0 || dup2(fd, 3) < 0) err(1, "listen");
  char process[16];
  snprintf(process, sizeof process, "%d", getpid());
  setenv("LISTEN_PID", process, 1);
  setenv("LISTEN_FDS", "1", 1);
  execvp(words[3], words + 3);
  err(1, "%s", words[3]);
}
