import TestSupport
import Testing

@testable import Gateway

@Suite("Settings: sizes, addresses and names in texts")
struct SettingsTextTests {
  @Test(
    "Sizes are powers of 1024",
    arguments: [
      ("4096", 4096), ("512M", 512 << 20), ("4GiB", 4 << 30), ("1T", 1 << 40), ("2k", 2048), ("1PiB", 1 << 50),
      ("0", 0), ("9223372036854775807", Int64.max),
    ] as [(String, Int64)])
  func sizes(text: String, bytes: Int64) throws {
    #expect(try ByteCount.parse(text) == UInt64(bytes))
  }

  @Test(
    "What is not a size says what is allowed",
    arguments: ["", "M", "4GB", "4 G", "-1", "+1", "1.5G", "0x10", "18446744073709551616", "16777216T", "٣"])
  func badSizes(text: String) {
    let error = #expect(throws: ValueError.self) { try ByteCount.parse(text) }
    #expect(error?.description.contains("allowed") == true || error?.description.contains("too large") == true)
  }

  @Test(
    "Sizes for people",
    arguments: [
      (0, "0 B"), (512, "512 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (512 << 20, "512 MiB"), (3 << 39, "1.5 TiB"),
      ((1 << 40) - 1, "1023 GiB"), (1000 << 30, "1000 GiB"),
    ] as [(UInt64, String)])
  func sizeTexts(bytes: UInt64, text: String) {
    #expect(ByteCount.describe(bytes) == text)
  }

  @Test("Disks are given by path or by form")
  func disks() throws {
    #expect(try DiskSpecification(parsing: "/dev/sda") == .path("/dev/sda"))
    #expect(try DiskSpecification(parsing: "disk.img") == .path("disk.img"))
    #expect(
      try DiskSpecification(parsing: "/dev/disk/by-path/pci-0000:00:1") == .path("/dev/disk/by-path/pci-0000:00:1"))
    #expect(try DiskSpecification(parsing: "./memory:1") == .path("./memory:1"))
    #expect(try DiskSpecification(parsing: "memory:512M") == .memory(bytes: 512 << 20))
    #expect(try DiskSpecification(parsing: "null:1T") == .null(bytes: 1 << 40))
    #expect(try DiskSpecification(parsing: "slow:1M:250") == .slow(bytes: 1 << 20, milliseconds: 250))
    #expect(
      try DiskSpecification(parsing: "faulty:1M:read@8:medium,write@9")
        == .faulty(bytes: 1 << 20, rules: "read@8:medium,write@9"))
  }

  @Test(
    "A disk that is none of the forms is refused",
    arguments: [
      "", "memory:", "memory:0", "memory:513", "null:x", "slow:1M", "slow:1M:x", "slow:1M:-1", "foo:1M", "a\u{0}",
    ])
  func badDisks(text: String) {
    #expect(throws: ValueError.self) { try DiskSpecification(parsing: text) }
  }

  @Test(
    "Addresses to listen on",
    arguments: [
      ("[::]:3260", "::", 3260), ("0.0.0.0:3260", "0.0.0.0", 3260), ("127.0.0.1:0", "127.0.0.1", 0),
      ("3261", "::", 3261), ("10.1.2.3", "10.1.2.3", 3260), ("[fd00::1]", "fd00::1", 3260),
      ("fd00::1", "fd00::1", 3260),
      ("[fe80::1%eth0]:860", "fe80::1%eth0", 860),
    ] as [(String, String, UInt16)])
  func addresses(text: String, host: String, port: UInt16) throws {
    let address = try ListenAddress(parsing: text)
    #expect(address == ListenAddress(host: host, port: port))
    #expect(try ListenAddress(parsing: address.description) == address)
  }

  @Test(
    "What is not an address is refused",
    arguments: [
      "", ":", ":3260", "[::]:", "[::", "::]:1", "[10.0.0.1]:3260", "localhost:3260", "1.2.3:3260", "1.2.3.4:65536",
      "1.2.3.4:+1", "1.2.3.4:-1", "65536", "[fe80::1%]:1", "10.0.0.1%eth0:1", "1.2.3.4:3260\u{0}",
    ])
  func badAddresses(text: String) {
    #expect(throws: ValueError.self) { try ListenAddress(parsing: text) }
  }

  @Test("A network contains its addresses, IPv4 ones also as they arrive on IPv6 sockets (RFC 4291 §2.5.5.2)")
  func networks() throws {
    let network = try IPNetwork(parsing: "10.16.0.0/12")
    #expect(network.contains([10, 31, 255, 255]))
    #expect(!network.contains([10, 32, 0, 0]))
    #expect(network.contains([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 17, 0, 1]))
    #expect(!network.contains([]))
    #expect(try IPNetwork(parsing: "0.0.0.0/0").contains([1, 2, 3, 4]))
    let wide = try IPNetwork(parsing: "fd00::/8")
    #expect(wide.contains([0xFD] + [UInt8](repeating: 0xFF, count: 15)))
    #expect(!wide.contains([10, 0, 0, 1]))
    #expect(wide.description == "fd00::/8")
    for bad in ["10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "/8", "10.0.0.1/8", "example.org/8", "::/129"] {
      #expect(throws: ValueError.self) { try IPNetwork(parsing: bad) }
    }
  }

  @Test(
    "Globs match whole texts",
    arguments: [
      ("*", "", true), ("a*c", "abc", true), ("a*c", "abcd", false), ("a?c", "abc", true), ("a?c", "ac", false),
      ("*:a*b", "x:aab", true), ("/dev/sd*", "/dev/disk/sda", false), ("*/by-id/*", "/dev/disk/by-id/x", true),
      ("", "a", false), ("**a", "ba", true), ("[a]", "a", false),
    ])
  func globs(pattern: String, text: String, matches: Bool) {
    #expect(Glob.matches(pattern, text) == matches)
  }

  @Test("A hostile name cannot make a glob backtrack without end")
  func globIsBounded() {
    let pattern = String(repeating: "*a", count: 100) + "b"
    #expect(!Glob.matches(pattern, String(repeating: "a", count: 10_000)))
  }

  @Test("Neighbouring spellings are near")
  func spelling() {
    #expect(Spelling.distance("listen", "lisen") == 1)
    #expect(Spelling.distance("listen", "litsen") == 1)
    #expect(Spelling.distance("", "abc") == 3)
    #expect(Spelling.distance("kitten", "sitting") == 3)
  }
}
