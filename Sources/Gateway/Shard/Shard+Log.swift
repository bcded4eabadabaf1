import SCSI
import Storage
import Synchronization

/// LOG SENSE: what the logical unit has done is counted by each shard for itself, and added up when somebody asks.
extension Shard {
  func gatherLog(_ index: Int, _ query: LogQuery, _ port: UnitPort) {
    let totals = LogTotals()
    let export = port.export
    let generation = commands[index].pointee.generation
    context.onEveryShard(origin: handle.index) { shard, done in
      for case let port? in shard.ports where port.export === export { totals.add(port) }
      done()
    } then: { shard in
      guard shard.commands[index].pointee.generation == generation, !shard.commands[index].pointee.isAborted else {
        return
      }
      let facts = totals.facts
      shard.ask(index, export) {
        export.disk.space
      } then: { shard, space in
        var facts = facts
        // The label area is none of the initiators'.
        if let space {
          let own = export.label == nil ? 0 : LabelArea.byteCount
          facts.usedBytes = space.used - min(space.used, own)
          facts.availableBytes = space.available
        }
        shard.answer(index, shard.configuration.deviceServer.logPage(query, export.unit, facts))
      }
    }
  }
}

private final class LogTotals: Sendable {
  private let sum = Mutex(LogFacts())

  var facts: LogFacts { sum.withLock { $0 } }

  func add(_ port: UnitPort) {
    let (reads, writes, read, written) = (port.readCommands, port.writeCommands, port.readBytes, port.writtenBytes)
    sum.withLock { sum in
      sum.readCommands += reads
      sum.writeCommands += writes
      sum.transmittedBytes += read
      sum.receivedBytes += written
    }
  }
}
