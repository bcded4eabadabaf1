/// SCSI status codes (SAM-5 §5.3.1).
public struct Status: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt8

  @inlinable
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let good = Status(rawValue: 0x00)
  public static let checkCondition = Status(rawValue: 0x02)
  public static let conditionMet = Status(rawValue: 0x04)
  public static let busy = Status(rawValue: 0x08)
  public static let reservationConflict = Status(rawValue: 0x18)
  public static let taskSetFull = Status(rawValue: 0x28)
  public static let acaActive = Status(rawValue: 0x30)
  public static let taskAborted = Status(rawValue: 0x40)
}

/// Sense keys (SPC-5 table 48).
public enum SenseKey: UInt8, Sendable {
  case noSense = 0x0
  case recoveredError = 0x1
  case notReady = 0x2
  case mediumError = 0x3
  case hardwareError = 0x4
  case illegalRequest = 0x5
  case unitAttention = 0x6
  case dataProtect = 0x7
  case blankCheck = 0x8
  case copyAborted = 0xA
  case abortedCommand = 0xB
  case volumeOverflow = 0xD
  case miscompare = 0xE
}
