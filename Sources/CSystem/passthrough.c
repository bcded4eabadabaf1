#include "CSystem.h"

#include <errno.h>
#include <linux/nvme_ioctl.h>
#include <linux/pr.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int system_disk_protocol(int fd) {
  int version = 0;
  if (ioctl(fd, SG_GET_VERSION_NUM, &version) == 0) return SYSTEM_PROTOCOL_SCSI;
  return ioctl(fd, NVME_IOCTL_ID) > 0 ? SYSTEM_PROTOCOL_NVME : SYSTEM_PROTOCOL_NONE;
}

int system_disk_is_map(int fd) {
  struct stat status;
  if (fstat(fd, &status) < 0 || !S_ISBLK(status.st_mode)) return 0;
  char path[64];
  snprintf(path, sizeof path, "/sys/dev/block/%u:%u/dm", major(status.st_rdev), minor(status.st_rdev));
  return access(path, F_OK) == 0;
}

int system_scsi_command(
    int fd, const uint8_t *cdb, unsigned cdb_bytes, void *data, unsigned data_bytes, int to_device, unsigned timeout_ms,
    struct system_scsi_result *result) {
  memset(result, 0, sizeof *result);
  struct sg_io_hdr header = {
      .interface_id = 'S',
      .dxfer_direction = data_bytes == 0 ? SG_DXFER_NONE : to_device ? SG_DXFER_TO_DEV : SG_DXFER_FROM_DEV,
      .cmd_len = (unsigned char)cdb_bytes,
      .mx_sb_len = sizeof result->sense,
      .dxfer_len = data_bytes,
      .dxferp = data,
      .cmdp = (unsigned char *)cdb,
      .sbp = result->sense,
      .timeout = timeout_ms,
  };
  if (ioctl(fd, SG_IO, &header) < 0) return -errno;
  result->status = header.status;
  result->sense_bytes = header.sb_len_wr;
  result->host_status = header.host_status;
  result->driver_status = header.driver_status;
  result->transferred = data_bytes - (header.resid > 0 ? (unsigned)header.resid : 0);
  return 0;
}

int system_nvme_command(int fd, const struct system_nvme_command *command) {
  int nsid = ioctl(fd, NVME_IOCTL_ID);
  if (nsid < 0) return -errno;
  struct nvme_passthru_cmd passed = {
      .opcode = command->opcode,
      .nsid = (uint32_t)nsid,
      .addr = (uint64_t)(uintptr_t)command->data,
      .data_len = command->data_bytes,
      .cdw10 = command->cdw10,
      .cdw11 = command->cdw11,
      .timeout_ms = command->timeout_ms,
  };
  int status = ioctl(fd, command->is_admin ? NVME_IOCTL_ADMIN_CMD : NVME_IOCTL_IO_CMD, &passed);
  return status < 0 ? -errno : status;
}

static int outcome(int value) { return value < 0 ? -errno : value; }

int system_pr_register(int fd, uint64_t old_key, uint64_t new_key, int ignores_key) {
  struct pr_registration order = {
      .old_key = old_key, .new_key = new_key, .flags = ignores_key ? PR_FL_IGNORE_KEY : 0};
  return outcome(ioctl(fd, IOC_PR_REGISTER, &order));
}

int system_pr_reserve(int fd, uint64_t key) {
  struct pr_reservation order = {.key = key, .type = PR_WRITE_EXCLUSIVE_REG_ONLY};
  return outcome(ioctl(fd, IOC_PR_RESERVE, &order));
}

int system_pr_release(int fd, uint64_t key) {
  struct pr_reservation order = {.key = key, .type = PR_WRITE_EXCLUSIVE_REG_ONLY};
  return outcome(ioctl(fd, IOC_PR_RELEASE, &order));
}

int system_pr_preempt(int fd, uint64_t own, uint64_t victim, int aborts) {
  // The kernel's document has the keys the other way round; both sd and nvme send old_key as the preemptor's.
  struct pr_preempt order = {.old_key = own, .new_key = victim, .type = PR_WRITE_EXCLUSIVE_REG_ONLY};
  return outcome(ioctl(fd, aborts ? IOC_PR_PREEMPT_ABORT : IOC_PR_PREEMPT, &order));
}

#ifndef SG_SCSI_RESET_NO_ESCALATE
#define SG_SCSI_RESET_NO_ESCALATE 0x100
#endif

int system_unit_reset(int fd) {
  int what = SG_SCSI_RESET_DEVICE | SG_SCSI_RESET_NO_ESCALATE;
  return ioctl(fd, SG_SCSI_RESET, &what) == 0 ? 0 : -errno;
}
