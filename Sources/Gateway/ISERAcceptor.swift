import Datamover
import Discovery

/// Connections over RDMA: lets them in by the same rules as those over TCP, and gives each with its events to a shard.
final class ISERAcceptor: Sendable {
  let listener: VerbsListener

  /// Listens where the acceptor does, under the same port numbers: they are other ports (RDMA_PS_TCP).
  init(acceptor: Acceptor, context: ShardContext) {
    let addresses = acceptor.listeners.compactMap { listener in
      SocketAddress(listener.address).map { address in
        VerbsListener.Address(
          bytes: address.withBytes { Array(UnsafeRawBufferPointer(start: $0, count: Int($1))) },
          text: listener.address.description)
      }
    }
    listener = VerbsListener(addresses: addresses) { [unowned acceptor] request in
      guard let peer = request.peer.withUnsafeBytes({ SocketAddress($0) }),
        let local = request.local.withUnsafeBytes({ SocketAddress($0) }),
        // The thread has the events of all connections to tell.
        let ticket = acceptor.admit(peer, isPatient: false)
      else { return request.reject() }
      let shard = acceptor.takeShard()
      request.setOwner(shard: shard.index)
      shard.post(.verbsConnection(request, peer: peer.text, local: local.text, ticket: ticket))
    } onEvent: { shard, number, event in
      context.handles[shard].post(.perform { $0.verbsEvent(number, event) })
    }
  }
}
