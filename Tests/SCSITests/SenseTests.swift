import Testing

@testable import SCSI

@Suite("Sense data")
struct SenseTests {
  @Test("Fixed format has 18 bytes, with INFORMATION in 3 to 6 and VALID set (SPC-5 §4.4.3)")
  func fixed() {
    #expect(
      Sense.unrecoveredReadError(lba: 0x1234_5678).encode(descriptorFormat: false)
        == [0xF0, 0, 0x03, 0x12, 0x34, 0x56, 0x78, 10, 0, 0, 0, 0, 0x11, 0x00, 0, 0, 0, 0])
  }

  @Test("INFORMATION that needs more than 32 bits is not VALID in fixed format (SPC-5 §4.4.3)")
  func wideInformation() {
    let data = Sense.unrecoveredReadError(lba: 1 << 32).encode(descriptorFormat: false)
    #expect(data[0] == 0x70)
    #expect(Array(data[3..<7]) == [0, 0, 0, 0])
  }

  @Test("The field pointer of INVALID FIELD IN CDB names byte and bit (SPC-5 §4.4.2.4.2)")
  func fieldPointer() {
    let data = Sense.invalidFieldInCDB(byte: 1, bit: 7).encode(descriptorFormat: false)
    #expect(Array(data[12...]) == [0x24, 0x00, 0, 0xC0 | 0x08 | 7, 0, 1])
    let list = Sense.invalidFieldInParameterList(byte: 0x0102).encode(descriptorFormat: false)
    #expect(Array(list[15...]) == [0x80, 1, 2])
  }

  @Test("Descriptor format carries an information and a sense-key-specific descriptor (SPC-5 §4.4.2)")
  func descriptors() {
    #expect(
      Sense.miscompareDuringVerifyOperation(offset: 0x200).encode(descriptorFormat: true)
        == [0x72, 0x0E, 0x1D, 0x00, 0, 0, 0, 12, 0x00, 0x0A, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x00])
    #expect(
      Sense.invalidFieldInCDB(byte: 2).encode(descriptorFormat: true)
        == [0x72, 0x05, 0x24, 0x00, 0, 0, 0, 8, 0x02, 0x06, 0, 0, 0xC0, 0, 2, 0])
    #expect(Sense.internalTargetFailure.encode(descriptorFormat: true) == [0x72, 0x04, 0x44, 0, 0, 0, 0, 0])
  }

  @Test("An error that may be of the way to the disk is not the medium's where another node has a way of its own")
  func paths() throws {
    let alone = try Bench().server
    let server = DeviceServer(
      deviceName: alone.deviceName, registry: alone.registry,
      portGroups: TargetPortGroups([.init(id: 1, relativeTargetPorts: [1])], own: [1]))
    #expect(server.sense(for: .device(lba: 7)) == .logicalUnitCommunicationFailure)
    #expect(server.sense(for: .device(lba: 7), isWrite: true) == .logicalUnitCommunicationFailure)
    #expect(server.sense(for: .medium(lba: 7)) == .unrecoveredReadError(lba: 7))
  }

  @Test("Every failure of the medium has its sense")
  func failures() throws {
    let server = try Bench().server
    #expect(server.sense(for: .medium(lba: 7)) == .unrecoveredReadError(lba: 7))
    #expect(server.sense(for: .medium(lba: 7), isWrite: true) == .writeError)
    #expect(server.sense(for: .device(lba: 7)) == .unrecoveredReadError(lba: 7))
    #expect(server.sense(for: .unreachable) == .logicalUnitCommunicationFailure)
    #expect(server.sense(for: .gone) == .logicalUnitNotSupported)
    #expect(server.sense(for: .writeProtected) == .writeProtected)
    #expect(server.sense(for: .noSpace) == .spaceAllocationFailedWriteProtect)
    #expect(server.sense(for: .hardware) == .internalTargetFailure)
    #expect(server.sense(for: .miscompare(offset: 3)) == .miscompareDuringVerifyOperation(offset: 3))
  }
}
