import Glibc
import HA
import Testing
import Wire

@testable import Gateway

struct WatchdogNoteTests {
  private let directory = TemporaryDisks()
  private let two: Set = [UUID(bytes: [UInt8](repeating: 1, count: 16)), UUID(bytes: [UInt8](repeating: 2, count: 16))]

  private var file: WatchdogNoteFile {
    var file = WatchdogNoteFile(besides: directory.path + "/control.sock")
    file.bootIDPath = directory.path + "/boot_id"
    return file
  }

  private func write(_ text: String, to path: String) {
    guard let file = fopen(path, "w") else { return #expect(Bool(false)) }
    fputs(text, file)
    fclose(file)
  }

  @Test("What was kept is read in the same boot of the machine, and counts for nothing in another")
  func kept() {
    #expect(file.load() == WatchdogNote())
    write("6f9c\n", to: file.bootIDPath)
    let note = WatchdogNote(device: "/dev/watchdog1", disks: two)
    #expect(file.keep(note))
    #expect(file.load() == note)
    #expect(file.keep(WatchdogNote(disks: two)))
    #expect(file.load() == WatchdogNote(disks: two))
    #expect(file.keep(WatchdogNote()))
    #expect(file.load() == WatchdogNote())
    #expect(file.keep(note))
    write("another\n", to: file.bootIDPath)
    #expect(file.load() == WatchdogNote())
  }

  @Test("What cannot be read stands for a disk that is never seen")
  func unknown() {
    write("6f9c\n", to: file.bootIDPath)
    for text in ["6f9c", "6f9c\n", "6f9c\n/dev/watchdog0", "6f9c\n\nno disk\n", "6f9c\n\n\(two.first!)"] {
      write(text, to: file.path)
      let note = file.load()
      #expect(note.disks.count == 1 && note.disks.isDisjoint(with: two), "\(text)")
    }
    mkdir(file.path + ".new", 0o700)
    #expect(!file.keep(WatchdogNote()))
    rmdir(file.path + ".new")
    unlink(file.path)
    #expect(mkdir(file.path, 0o700) == 0)
    #expect(!file.keep(WatchdogNote(disks: two)))
    rmdir(file.path)
  }
}
