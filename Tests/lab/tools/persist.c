// Changes the persistent reservation of a disk again and again, until a command is not answered with GOOD, and says
// how many changes were acknowledged: whoever serves next has the table as after the last of them, or after one more.
//
// usage: persist DEVICE
//   change n = 3m + 1: REGISTER AND IGNORE EXISTING KEY, with the key 3m + 1
//   change n = 3m + 2: RESERVE with type m mod 6 of the six
//   change n = 3m + 3: RELEASE of that
#include <errno.h>
#include <fcntl.h>
#include <scsi/sg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { register_and_ignore = 6, reserve = 1, release = 2, list_bytes = 24, attentions_max = 16, unit_attention = 6 };
static const uint8_t types[] = {1, 3, 5, 6, 7, 8};

// The SCSI status, or what else came instead of one as a number above 255.
static int persistent_reserve_out(int device, uint8_t action, uint8_t type, uint64_t key, uint64_t service_key) {
  uint8_t cdb[10] = {0x5F, action, type, 0, 0, 0, 0, 0, list_bytes, 0}, list[list_bytes] = {0}, sense[32] = {0};
  for (int i = 0; i < 8; i++) {
    list[i] = (uint8_t)(key >> (56 - 8 * i));
    list[8 + i] = (uint8_t)(service_key >> (56 - 8 * i));
  }
  // APTPL.
  if (action == register_and_ignore) list[20] = 1;
  for (int attentions = 0;; attentions++) {
    sg_io_hdr_t request = {.interface_id = 'S', .dxfer_direction = SG_DXFER_TO_DEV, .cmd_len = sizeof cdb,
                           .mx_sb_len = sizeof sense, .dxfer_len = sizeof list, .dxferp = list, .cmdp = cdb,
                           .sbp = sense, .timeout = 60000};
    if (ioctl(device, SG_IO, &request) != 0) return 256 + errno;
    if (request.host_status != 0) return 512 + request.host_status;
    int is_attention = request.status == 2 && (sense[2] & 15) == unit_attention && (sense[0] & 0x7E) == 0x70;
    if (!is_attention || attentions == attentions_max) return request.status;
  }
}

int main(int count, char **arguments) {
  int device = count == 2 ? open(arguments[1], O_RDWR | O_NONBLOCK) : -1;
  if (device < 0) {
    perror("persist: DEVICE");
    return 2;
  }
  for (uint64_t done = 0;; done++) {
    uint64_t round = done / 3, key = 3 * round + 1;
    uint8_t type = types[round % sizeof types];
    int status = done % 3 == 0   ? persistent_reserve_out(device, register_and_ignore, 0, 0, key)
                 : done % 3 == 1 ? persistent_reserve_out(device, reserve, type, key, 0)
                                 : persistent_reserve_out(device, release, type, key, 0);
    if (status == 0) continue;
    printf("acknowledged: %llu then %d\n", (unsigned long long)done, status);
    return 0;
  }
}
