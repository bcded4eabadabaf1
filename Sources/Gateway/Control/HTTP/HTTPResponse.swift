import Glibc

/// An answer, whole. It has its length in front, so a connection may go on after it.
struct HTTPResponse: Sendable {
  var status: Int
  var type = "text/plain; charset=utf-8"
  var body: [UInt8]

  /// An answer that is its status and a sentence.
  init(status: Int) {
    self.status = status
    body = Array("\(status) \(Self.reason(status))\n".utf8)
  }

  init(type: String, text: String) {
    status = 200
    self.type = type
    body = Array(text.utf8)
  }

  static let metricsType = "text/plain; version=0.0.4; charset=utf-8"

  static let page = HTTPResponse(
    type: "text/html; charset=utf-8",
    text: """
      <!DOCTYPE html>
      <html lang="en"><head><title>gatewayd</title></head>
      <body><h1>gatewayd</h1><p><a href="/metrics">Metrics</a></p></body></html>

      """)

  private static func reason(_ status: Int) -> String {
    switch status {
    case 200: "OK"
    case 400: "Bad Request"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 408: "Request Timeout"
    case 413: "Content Too Large"
    case 431: "Request Header Fields Too Large"
    case 503: "Service Unavailable"
    case 505: "HTTP Version Not Supported"
    default: "?"
    }
  }

  /// Status line and header fields with the empty line.
  /// - Parameter time: seconds of the wall clock, for Date (RFC 9110 §6.6.1).
  func head(keepsAlive: Bool, time: Int) -> [UInt8] {
    var lines = [
      "HTTP/1.1 \(status) \(Self.reason(status))", "Date: \(Self.date(time))", "Content-Type: \(type)",
      "Content-Length: \(body.count)", "Cache-Control: no-store", "X-Content-Type-Options: nosniff",
      "Connection: \(keepsAlive ? "keep-alive" : "close")",
    ]
    if status == 405 { lines.append("Allow: GET, HEAD") }
    return Array((lines.joined(separator: "\r\n") + "\r\n\r\n").utf8)
  }

  /// IMF-fixdate (RFC 9110 §5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
  static func date(_ time: Int) -> String {
    var time = time_t(time)
    var parts = tm()
    gmtime_r(&time, &parts)
    func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
    let day = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][Int(parts.tm_wday)]
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][Int(parts.tm_mon)]
    let clock = "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
    return "\(day), \(two(parts.tm_mday)) \(month) \(parts.tm_year + 1900) \(clock) GMT"
  }
}
