extension ContentFinding {
  /// Why a disk or file with these contents is held; nil if nothing was found. The most telling finding speaks. Does not
  /// look at `readError`, and knows no remedy.
  public var holdReason: Reason? {
    if isAmbivalent { return Reason(.ambivalent, "It carries signatures that contradict one another.") }
    if let signature { return signature.reason }
    if let partitionTable { return partitionTable.reason }
    if let firstDataOffset { return Reason(.data, "It is not blank: there is data at byte \(firstDataOffset).") }
    return nil
  }
}

extension ContentFinding.PartitionTable {
  var reason: Reason {
    let count =
      switch entries.count {
      case 0: "no partitions"
      case 1: "1 partition"
      default: "\(entries.count) partitions"
      }
    return Reason(.partitionTable, "It has a partition table (\(KernelText.printable(type))) with \(count).")
  }
}

extension ContentFinding.Signature {
  var reason: Reason {
    let name = KernelText.printable(type)
    let title = label.map { ", labelled \"\(KernelText.printable($0))\"" } ?? ""
    return switch usage {
    case .fileSystem: Reason(.fileSystem, "It carries a file system (\(name)\(title)).")
    case .raid: Reason(.volumeMember, "It is a member of a volume (\(name)\(title)) that is not active here.")
    case .crypto: Reason(.encrypted, "It is encrypted (\(name)\(title)).")
    case .other: Reason(.signature, "It carries a signature (\(name)\(title)).")
    }
  }
}
