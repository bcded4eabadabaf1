/// What is going to happen, by time; of the same time in the order in which it was put in. Nothing else orders the world, so
/// a seed replays exactly.
struct EventQueue {
  typealias Body = () -> Void

  private struct Entry {
    var time: UInt64
    var number: UInt64
    var body: Body

    func isBefore(_ other: Entry) -> Bool { time == other.time ? number < other.number : time < other.time }
  }

  private var heap: [Entry] = []
  private var count: UInt64 = 0

  var nextTime: UInt64? { heap.first?.time }

  mutating func add(at time: UInt64, _ body: @escaping Body) {
    count += 1
    heap.append(Entry(time: time, number: count, body: body))
    var child = heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard heap[child].isBefore(heap[parent]) else { break }
      heap.swapAt(child, parent)
      child = parent
    }
  }

  mutating func takeFirst() -> (time: UInt64, body: Body)? {
    guard let first = heap.first else { return nil }
    let last = heap.removeLast()
    if !heap.isEmpty {
      heap[0] = last
      var parent = 0
      while true {
        var least = parent
        for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child].isBefore(heap[least]) {
          least = child
        }
        if least == parent { break }
        heap.swapAt(parent, least)
        parent = least
      }
    }
    return (first.time, first.body)
  }
}
