#ifndef CSYSTEM_PASSTHROUGH_H
#define CSYSTEM_PASSTHROUGH_H
// Commands to a disk past the block layer: SG_IO, NVMe passthrough, and the kernel's calls for persistent reservations.
#include <stdint.h>

/// The disk's protocol: what commands can be sent through the descriptor.
enum { SYSTEM_PROTOCOL_NONE = 0, SYSTEM_PROTOCOL_SCSI = 1, SYSTEM_PROTOCOL_NVME = 2 };

/// Which protocol the block device open as `fd` speaks; sends nothing to the disk. Of a multipath map that of a path.
int system_disk_protocol(int fd);

/// Whether it is a device of device-mapper: then commands go to a path of the kernel's choice.
int system_disk_is_map(int fd);

/// What became of a SCSI command.
struct system_scsi_result {
  uint8_t status;         // SAM-5 status byte
  uint8_t sense_bytes;    // how many of `sense` are valid
  uint16_t host_status;   // DID_…: 0 unless the command failed on its way
  uint16_t driver_status;
  uint32_t transferred;   // bytes of `data`
  uint8_t sense[96];
};

/// Sends a CDB and waits for its end, which the kernel's error handling may put off beyond `timeout_ms`.
/// 0: the kernel took it, see `result`; -errno: it did not.
int system_scsi_command(
    int fd, const uint8_t *cdb, unsigned cdb_bytes, void *data, unsigned data_bytes, int to_device, unsigned timeout_ms,
    struct system_scsi_result *result);

/// An NVMe command: for the namespace of the descriptor, or (`is_admin`) for its controller.
struct system_nvme_command {
  uint8_t opcode;
  uint8_t is_admin;
  uint32_t cdw10;
  uint32_t cdw11;
  void *data;
  uint32_t data_bytes;
  uint32_t timeout_ms;
};

/// Sends it and waits for its end. 0 or more: the status field of its completion (0: success); -errno: it was not sent,
/// or never completed.
int system_nvme_command(int fd, const struct system_nvme_command *command);

/// IOC_PR_REGISTER: of a multipath map on every path. `ignores_key`: whatever is registered now, else `old_key` must
/// be. These calls give 0, a positive status (SAM-5 or NVMe), or -errno.
int system_pr_register(int fd, uint64_t old_key, uint64_t new_key, int ignores_key);
/// IOC_PR_RESERVE, Write Exclusive - Registrants Only; likewise below.
int system_pr_reserve(int fd, uint64_t key);
int system_pr_release(int fd, uint64_t key);
/// IOC_PR_PREEMPT or IOC_PR_PREEMPT_ABORT.
int system_pr_preempt(int fd, uint64_t own, uint64_t victim, int aborts);
/// Has the kernel reset the SCSI logical unit behind a disk (no more than that): it drops what it still has of every
/// initiator. 0, or -errno: most disks cannot be told to.
int system_unit_reset(int fd);

#endif
