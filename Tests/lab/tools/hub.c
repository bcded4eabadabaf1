// A lossless Ethernet switch for QEMU's "-netdev stream": each connection to its UNIX socket is a port. Frames come as
// a length of 4 bytes and so many bytes. A port that does not read holds the others up for a moment (the senders' own
// sockets fill), then loses its frames: a stopped machine must not stop the rest.
//
// Orders come as datagrams to SOCKET.orders, each is answered with "ok" or "no". FROM and TO are Ethernet addresses, or
// "any":
//   cut FROM TO     frames of FROM do not reach TO
//   hold FROM TO    they wait
//   mend FROM TO    takes back what was ordered with the same words; what waited for it is delivered
//
// usage: hub SOCKET
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ports_max = 16, addresses_max = 64, frame_max = 70000, patience_ms = 200 };
static const size_t input_bytes = 1u << 20;
static const size_t queue_bytes = 64u << 20;

struct port {
  int socket;
  uint8_t *input, *queue;
  size_t input_used, queue_start, queue_used;
  int is_stuck;
};
struct address {
  uint8_t bytes[6];
  int port;
};
static struct port ports[ports_max];
static struct address addresses[addresses_max];
static int address_count;

enum { rules_max = 32 };
static const size_t held_bytes_max = 64u << 20;
static const uint8_t any_address[6];
struct rule {
  int is_used, is_hold;
  uint8_t from[6], to[6];
};
// A frame that waits, in the order of arrival.
struct held {
  struct held *next;
  int rule, port;
  size_t bytes;
  uint8_t frame[];
};
static struct rule rules[rules_max];
static struct held *first_held, **last_held = &first_held;
static size_t held_bytes;

static void drop_port(int number) {
  close(ports[number].socket);
  ports[number].socket = -1;
  for (int i = 0; i < address_count; i++)
    if (addresses[i].port == number) addresses[i].port = -1;
}

static void learn(const uint8_t *source, int port) {
  for (int i = 0; i < address_count; i++)
    if (memcmp(addresses[i].bytes, source, 6) == 0) {
      addresses[i].port = port;
      return;
    }
  if (address_count == addresses_max) return;
  memcpy(addresses[address_count].bytes, source, 6);
  addresses[address_count++].port = port;
}

static int port_of(const uint8_t *destination) {
  if (destination[0] & 1) return -1;
  for (int i = 0; i < address_count; i++)
    if (memcmp(addresses[i].bytes, destination, 6) == 0) return addresses[i].port;
  return -1;
}

static void flush(struct port *port) {
  while (port->queue_used > 0) {
    ssize_t sent = send(port->socket, port->queue + port->queue_start, port->queue_used, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent <= 0) return;
    port->queue_start += (size_t)sent;
    port->queue_used -= (size_t)sent;
  }
  port->queue_start = 0;
  port->is_stuck = 0;
}

static void enqueue(struct port *port, const uint8_t *frame, size_t bytes) {
  if (port->socket < 0 || port->queue_used + bytes > queue_bytes) return;
  if (port->queue_start + port->queue_used + bytes > queue_bytes) {
    memmove(port->queue, port->queue + port->queue_start, port->queue_used);
    port->queue_start = 0;
  }
  memcpy(port->queue + port->queue_start + port->queue_used, frame, bytes);
  port->queue_used += bytes;
}

static int is_of(const uint8_t *wanted, const uint8_t *address) {
  return memcmp(wanted, any_address, 6) == 0 || memcmp(wanted, address, 6) == 0;
}

static int is_at(const uint8_t *wanted, int port) {
  if (memcmp(wanted, any_address, 6) == 0) return 1;
  for (int i = 0; i < address_count; i++)
    if (addresses[i].port == port && memcmp(addresses[i].bytes, wanted, 6) == 0) return 1;
  return 0;
}

static void hold(int rule, int port, const uint8_t *frame, size_t bytes) {
  struct held *held = held_bytes + bytes > held_bytes_max ? NULL : malloc(sizeof *held + bytes);
  if (held == NULL) return;
  *held = (struct held){.rule = rule, .port = port, .bytes = bytes};
  memcpy(held->frame, frame, bytes);
  held_bytes += bytes;
  *last_held = held;
  last_held = &held->next;
}

// Whether a rule keeps the frame from the port.
static int is_kept(int port, const uint8_t *frame, size_t bytes) {
  int holder = -1;
  for (int i = 0; i < rules_max; i++) {
    if (!rules[i].is_used || !is_of(rules[i].from, frame + 10) || !is_at(rules[i].to, port)) continue;
    if (!rules[i].is_hold) return 1;
    holder = i;
  }
  if (holder < 0) return 0;
  hold(holder, port, frame, bytes);
  return 1;
}

static void release(int rule) {
  struct held **place = &first_held;
  while (*place != NULL) {
    struct held *held = *place;
    if (held->rule != rule) {
      place = &held->next;
      continue;
    }
    *place = held->next;
    held_bytes -= held->bytes;
    enqueue(&ports[held->port], held->frame, held->bytes);
    free(held);
  }
  last_held = place;
}

static int read_address(const char *text, uint8_t *address) {
  memset(address, 0, 6);
  if (strcmp(text, "any") == 0) return 1;
  unsigned bytes[6];
  char rest;
  int count = sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", bytes, bytes + 1, bytes + 2, bytes + 3,
                     bytes + 4, bytes + 5, &rest);
  if (count != 6) return 0;
  for (int i = 0; i < 6; i++) address[i] = (uint8_t)bytes[i];
  return 1;
}

static int obey(const char *order) {
  char verb[8], from[24], to[24];
  struct rule rule = {.is_used = 1};
  if (sscanf(order, "%7s %23s %23s", verb, from, to) != 3) return 0;
  if (!read_address(from, rule.from) || !read_address(to, rule.to)) return 0;
  if (strcmp(verb, "mend") == 0) {
    for (int i = 0; i < rules_max; i++) {
      if (!rules[i].is_used || memcmp(rules[i].from, rule.from, 12) != 0) continue;
      rules[i].is_used = 0;
      release(i);
    }
    return 1;
  }
  rule.is_hold = strcmp(verb, "hold") == 0;
  if (!rule.is_hold && strcmp(verb, "cut") != 0) return 0;
  for (int i = 0; i < rules_max; i++)
    if (!rules[i].is_used) {
      rules[i] = rule;
      return 1;
    }
  return 0;
}

static void take_order(int orders) {
  char text[128];
  struct sockaddr_un from;
  socklen_t length = sizeof from;
  ssize_t got = recvfrom(orders, text, sizeof text - 1, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
  if (got < 0) return;
  text[got] = 0;
  sendto(orders, obey(text) ? "ok" : "no", 2, MSG_DONTWAIT, (struct sockaddr *)&from, length);
}

static void forward(int from, const uint8_t *frame, size_t bytes) {
  if (bytes < 4 + 14) return;
  learn(frame + 10, from);
  int to = port_of(frame + 4);
  for (int i = 0; i < ports_max; i++)
    if (i != from && (to < 0 || to == i) && !is_kept(i, frame, bytes)) enqueue(&ports[i], frame, bytes);
}

static void receive(int number) {
  struct port *port = &ports[number];
  ssize_t got = recv(port->socket, port->input + port->input_used, input_bytes - port->input_used, MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) {
    drop_port(number);
    return;
  }
  port->input_used += (size_t)got;
  size_t start = 0;
  while (port->input_used - start >= 4) {
    uint32_t length;
    memcpy(&length, port->input + start, 4);
    length = ntohl(length);
    if (length > frame_max) {
      fprintf(stderr, "hub: port %d sends a frame of %u bytes\n", number, length);
      drop_port(number);
      return;
    }
    if (port->input_used - start < 4 + (size_t)length) break;
    forward(number, port->input + start, 4 + (size_t)length);
    start += 4 + (size_t)length;
  }
  memmove(port->input, port->input + start, port->input_used - start);
  port->input_used -= start;
}

static void admit(int listener) {
  int peer = accept(listener, NULL, NULL), size = 2 << 20;
  if (peer < 0) return;
  setsockopt(peer, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  for (int i = 0; i < ports_max; i++) {
    struct port *port = &ports[i];
    if (port->socket >= 0) continue;
    if (port->input == NULL) port->input = malloc(input_bytes), port->queue = malloc(queue_bytes);
    if (port->input == NULL || port->queue == NULL) break;
    port->socket = peer;
    port->input_used = port->queue_start = port->queue_used = 0;
    port->is_stuck = 0;
    return;
  }
  close(peer);
}

static int is_full(const struct port *port) {
  return port->socket >= 0 && port->queue_used > queue_bytes / 2 && !port->is_stuck;
}

int main(int count, char **arguments) {
  static const char suffix[] = ".orders";
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), orders = socket(AF_UNIX, SOCK_DGRAM, 0);
  if (count != 2 || strlen(arguments[1]) + sizeof suffix > sizeof name.sun_path) return 2;
  strcpy(name.sun_path, arguments[1]);
  strcat(name.sun_path, suffix);
  if (orders < 0 || bind(orders, (struct sockaddr *)&name, sizeof name) != 0) {
    perror("hub");
    return 1;
  }
  strcpy(name.sun_path, arguments[1]);
  for (int i = 0; i < ports_max; i++) ports[i].socket = -1;
  if (listener < 0 || bind(listener, (struct sockaddr *)&name, sizeof name) != 0 || listen(listener, ports_max) != 0) {
    perror("hub");
    return 1;
  }
  for (;;) {
    struct pollfd polled[ports_max + 2];
    int any_full = 0;
    for (int i = 0; i < ports_max; i++) any_full |= is_full(&ports[i]);
    for (int i = 0; i < ports_max; i++) {
      short events = (short)((any_full ? 0 : POLLIN) | (ports[i].queue_used > 0 ? POLLOUT : 0));
      polled[i] = (struct pollfd){.fd = ports[i].socket, .events = events};
    }
    polled[ports_max] = (struct pollfd){.fd = listener, .events = POLLIN};
    polled[ports_max + 1] = (struct pollfd){.fd = orders, .events = POLLIN};
    if (poll(polled, ports_max + 2, any_full ? patience_ms : -1) == 0)
      for (int i = 0; i < ports_max; i++) ports[i].is_stuck |= is_full(&ports[i]);
    for (int i = 0; i < ports_max; i++) {
      if (polled[i].revents & POLLOUT) flush(&ports[i]);
      if (polled[i].revents & (POLLIN | POLLHUP | POLLERR)) receive(i);
    }
    for (int i = 0; i < ports_max; i++)
      if (ports[i].socket >= 0) flush(&ports[i]);
    if (polled[ports_max].revents & POLLIN) admit(listener);
    if (polled[ports_max + 1].revents & POLLIN) take_order(orders);
  }
}
