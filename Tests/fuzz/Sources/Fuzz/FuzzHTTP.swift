import Gateway

/// The bytes of a connection to the metrics' server: the first byte says in how large parts they come. The same requests come
/// of them however they are cut, and no more is held than may be.
@Sendable func fuzzHTTP(_ data: UnsafeRawBufferPointer) {
  guard let first = data.first else { return }
  let bytes = Array(data.dropFirst())
  let whole = requests(bytes, step: bytes.count)
  let parts = requests(bytes, step: Int(first % 64) + 1)
  precondition(whole.found == parts.found && whole.fault == parts.fault)
}

private func requests(_ bytes: [UInt8], step: Int) -> (found: [HTTPRequest], fault: HTTPFault?) {
  var reader = HTTPRequestReader()
  var found: [HTTPRequest] = []
  var rest = bytes[...]
  do throws(HTTPFault) {
    while !rest.isEmpty {
      precondition(reader.space > 0)
      let part = rest.prefix(min(step, reader.space))
      reader.append(part)
      rest = rest.dropFirst(part.count)
      while let request = try reader.next() {
        precondition(request.path.utf8.first == UInt8(ascii: "/"))
        found.append(request)
      }
    }
    return (found, nil)
  } catch { return (found, error) }
}
