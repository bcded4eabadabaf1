/// The sense that this device server gives, under the names of SPC-5 annex F.
extension Sense {
  /// NO ADDITIONAL SENSE INFORMATION.
  public static let noAdditionalSenseInformation = Sense(.noSense, 0x0000)

  // NOT READY
  public static let notReadyInitializingCommandRequired = Sense(.notReady, 0x0402)
  public static let notReadyTargetPortInTransition = Sense(.notReady, 0x040A)
  public static let notReadyTargetPortInStandbyState = Sense(.notReady, 0x040B)
  public static let notReadyTargetPortInUnavailableState = Sense(.notReady, 0x040C)
  /// - Parameter progress: what is done, in 65536ths.
  public static func sanitizeInProgress(_ progress: UInt16) -> Sense {
    Sense(.notReady, 0x041B, field: FieldPointer(inCDB: false, byte: progress))
  }
  public static let mediumNotPresent = Sense(.notReady, 0x3A00)

  // MEDIUM ERROR, HARDWARE ERROR
  public static func unrecoveredReadError(lba: UInt64) -> Sense { Sense(.mediumError, 0x1100, information: lba) }
  /// Without an LBA: initiators take what lies before it for written (Linux's sd does), and a write's parts land in any order.
  public static let writeError = Sense(.mediumError, 0x0C00)
  public static let sanitizeCommandFailed = Sense(.mediumError, 0x3103)
  public static let internalTargetFailure = Sense(.hardwareError, 0x4400)
  /// SPC-5 §6.45: the states could not be had.
  public static let setTargetPortGroupsCommandFailed = Sense(.hardwareError, 0x670A)

  // ILLEGAL REQUEST
  public static let parameterListLengthError = Sense(.illegalRequest, 0x1A00)
  public static let invalidCommandOperationCode = Sense(
    .illegalRequest, 0x2000, field: FieldPointer(inCDB: true, byte: 0))
  public static let logicalBlockAddressOutOfRange = Sense(.illegalRequest, 0x2100)
  public static let logicalUnitNotSupported = Sense(.illegalRequest, 0x2500)
  public static let invalidReleaseOfPersistentReservation = Sense(.illegalRequest, 0x2604)
  public static let savingParametersNotSupported = Sense(.illegalRequest, 0x3900)
  public static let commandSequenceError = Sense(.illegalRequest, 0x2C00)
  public static let mediumRemovalPrevented = Sense(.illegalRequest, 0x5302)
  public static let operationInProgress = Sense(.illegalRequest, 0x0016)
  public static let insufficientResources = Sense(.illegalRequest, 0x5503)
  public static let tooManyTargetDescriptors = Sense(
    .illegalRequest, 0x2606, field: FieldPointer(inCDB: false, byte: 2))
  public static func unsupportedTargetDescriptorType(byte: Int) -> Sense {
    Sense(.illegalRequest, 0x2607, field: FieldPointer(inCDB: false, byte: UInt16(truncatingIfNeeded: byte)))
  }
  public static let tooManySegmentDescriptors = Sense(
    .illegalRequest, 0x2608, field: FieldPointer(inCDB: false, byte: 8))
  public static func unsupportedSegmentDescriptorType(byte: Int) -> Sense {
    Sense(.illegalRequest, 0x2609, field: FieldPointer(inCDB: false, byte: UInt16(truncatingIfNeeded: byte)))
  }
  public static let inlineDataLengthExceeded = Sense(
    .illegalRequest, 0x260B, field: FieldPointer(inCDB: false, byte: 12))
  public static let insufficientRegistrationResources = Sense(.illegalRequest, 0x5504)

  /// INVALID FIELD IN CDB, the field named by its first byte and, where it is part of a byte, its highest bit.
  public static func invalidFieldInCDB(byte: Int, bit: UInt8? = nil) -> Sense {
    Sense(.illegalRequest, 0x2400, field: FieldPointer(inCDB: true, byte: UInt16(byte), bit: bit))
  }

  /// INVALID FIELD IN PARAMETER LIST, the field named as above; `byte` counts from the start of the parameter list.
  public static func invalidFieldInParameterList(byte: Int, bit: UInt8? = nil) -> Sense {
    Sense(
      .illegalRequest, 0x2600,
      field: FieldPointer(inCDB: false, byte: UInt16(truncatingIfNeeded: byte), bit: bit))
  }

  // DATA PROTECT
  public static let writeProtected = Sense(.dataProtect, 0x2700)
  public static let logicalUnitSoftwareWriteProtected = Sense(.dataProtect, 0x2702)
  public static let spaceAllocationFailedWriteProtect = Sense(.dataProtect, 0x2707)

  // ABORTED COMMAND, MISCOMPARE
  public static let logicalUnitCommunicationFailure = Sense(.abortedCommand, 0x0800)
  public static let echoBufferOverwritten = Sense(.abortedCommand, 0x3F0F)
  public static let dataPhaseError = Sense(.abortedCommand, 0x4B00)
  public static func miscompareDuringVerifyOperation(offset: UInt64) -> Sense {
    Sense(.miscompare, 0x1D00, information: offset)
  }
}
