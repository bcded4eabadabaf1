import Glibc
import HA
import Testing
import Wire

@testable import Gateway

struct GuardedDisksTests {
  @Test("What was kept is read in the same boot of the machine, and counts for nothing in another")
  func kept() throws {
    let directory = TemporaryDisks()
    var disks = GuardedDisks(besides: directory.path + "/control.sock")
    disks.bootIDPath = directory.path + "/boot_id"
    #expect(disks.load().isEmpty)
    let write = { (text: String, path: String) in
      guard let file = fopen(path, "w") else { return }
      fputs(text, file)
      fclose(file)
    }
    write("6f9c\n", disks.bootIDPath)
    let two: Set = [UUID(bytes: [UInt8](repeating: 1, count: 16)), UUID(bytes: [UInt8](repeating: 2, count: 16))]
    disks.keep(two)
    #expect(disks.load() == two)
    disks.keep([])
    #expect(disks.load().isEmpty)
    disks.keep(two)
    write("another\n", disks.bootIDPath)
    #expect(disks.load().isEmpty)
    for text in ["", "\n", "another", "another\nno disk\n\u{0}\n"] {
      write(text, disks.path)
      #expect(disks.load().isEmpty)
    }
  }
}
