import HA
import Wire

/// Faults as they come and go.
extension World {
  func schedule(_ fault: Plan.Fault) {
    at(fault.at) { self.begin(fault) }
  }

  private func begin(_ fault: Plan.Fault) {
    log { "fault: \(fault.kind) for \(fault.duration / 1_000_000) ms" }
    let over = { (body: @escaping () -> Void) in self.after(fault.duration, body) }
    switch fault.kind {
    case .crash(let node):
      nodes[node].crash()
      over { self.nodes[node].boot() }
    case .kill(let node):
      nodes[node].kill()
      over { if self.nodes[node].hasPower { self.nodes[node].start() } }
    case .pause(let node): nodes[node].pause(fault.duration)
    case .pauseAt(let node, let action): pending.append((node, action, fault.duration, false))
    case .crashAt(let node, let action): pending.append((node, action, fault.duration, true))
    case .blackout:
      for node in nodes where node.index < 2 { node.crash() }
      for disk in disks { cutPower(disk) }
      over {
        for disk in self.disks { disk.regainPower(at: self.now) }
        for node in self.nodes where node.index < 2 && self.random.chance(80) {
          self.after(self.random.time(0...500)) { node.boot() }
        }
      }
    case .cut(let link, let from):
      for index in links.indices where link == links.count || link == index {
        for sender in 0..<3 where from == nil || from == sender { links[index].isCut[sender] = true }
        over { self.links[index].isCut = [false, false, false] }
      }
    case .lossy(let percent):
      for index in links.indices { links[index].loss = percent }
      over { for index in self.links.indices { self.links[index].loss = 0 } }
    case .delays(let time):
      for index in links.indices { links[index].delay = time }
      over { for index in self.links.indices { self.links[index].delay = 0 } }
    case .slow(let disk, let factor):
      disks[disk].slowness = factor
      over { self.disks[disk].slowness = 1 }
    case .path(let disk, let node, let isNoticed): cutPath(disk, node, isNoticed, fault.duration)
    case .power(let disk):
      cutPower(disks[disk])
      over { self.disks[disk].regainPower(at: self.now) }
    case .loseStatus(let percent):
      lostStatus = percent
      over { self.lostStatus = 0 }
    case .late(let percent):
      latePercent = percent
      over { self.latePercent = 0 }
    case .stuck(let percent, let disk):
      (stuckPercent, stuckDisk) = (percent, disk)
      over { self.stuckPercent = 0 }
    case .switchover(let node): nodes[node].run(nodes[node].instance) { self.nodes[node].step(.operate(.switchover)) }
    case .shutdown(let node):
      let instance = nodes[node].instance
      nodes[node].run(instance) { self.nodes[node].step(.shutdown) }
      after(min(fault.duration, 400_000_000)) { if self.nodes[node].instance == instance { self.nodes[node].kill() } }
      over { if self.nodes[node].hasPower { self.nodes[node].start() } }
    case .unreachable(let node):
      nodes[node].isReachable = false
      over { self.nodes[node].isReachable = true }
    case .partition(let lost):
      for disk in disks { cutPath(disk.index, lost >> disk.index & 1 == 1 ? 0 : 1, true, fault.duration) }
      for index in links.indices {
        links[index].isCut = [true, true, true]
        over { self.links[index].isCut = [false, false, false] }
      }
    case .force(let node, let lost, let areOff, let isNoticed):
      let gone = disks.filter { lost >> $0.index & 1 == 1 }
      for disk in gone where areOff { cutPower(disk) }
      for disk in gone where !areOff {
        for node in 0...1 { cutPath(disk.index, node, isNoticed, fault.duration) }
      }
      nodes[1 - node].crash()
      let isLost = gone.map(\.index)
      after(random.time(300...3000)) { self.force(node, without: isLost, until: fault.at + fault.duration) }
      after(fault.duration - 1) { self.checkForced(node, without: isLost) }
      over {
        for disk in gone where areOff { disk.regainPower(at: self.now) }
        self.after(self.random.time(0...500)) { self.nodes[1 - node].boot() }
      }
    case .third where plan.labelled < 2:
      // It would be the second, and who is meant to be that the third.
      break
    case .third:
      nodes[2].isStranger = random.chance(50)
      nodes[2].boot()
      over { self.nodes[2].crash() }
    case .replay:
      for _ in 0..<40 where !recorded.isEmpty {
        let old = recorded.randomElement(using: &random)!
        let node = nodes[old.to]
        after(random.time(0...Int(fault.duration / 1_000_000))) {
          node.run(node.instance) { self.deliver(old.bytes, nil, to: node, link: 0) }
        }
      }
    }
  }

  /// The operator asks again until it serves what is left: a disk may wait for that whose node had no watchdog.
  private func force(_ node: Int, without lost: [Int], until end: UInt64) {
    guard now + 2_000_000_000 < end else { return }
    let asked = nodes[node]
    asked.run(asked.instance) {
      let isWell = self.disks.allSatisfy { lost.contains($0.index) || asked.served[$0.index] }
      if asked.mode != .serving || !isWell { asked.step(.operate(.force)) }
    }
    after(2_000_000_000) { self.force(node, without: lost, until: end) }
  }

  private func cutPower(_ disk: SimDisk) {
    diskFaultAt = now
    disk.losePower { _ in self.random.chance(50) }
  }

  private func cutPath(_ disk: Int, _ node: Int, _ isNoticed: Bool, _ duration: UInt64) {
    disks[disk].path[node] = false
    let tell = { [self] (seen: Bool) in
      disks[disk].isSeen[node] = seen
      nodes[node].run(nodes[node].instance) { self.nodes[node].tellDisks() }
    }
    if isNoticed { after(random.time(20...300)) { if !self.disks[disk].path[node] { tell(false) } } }
    after(duration) {
      self.disks[disk].path[node] = true
      // What a drive has to tell of a loss of power stays until it is told.
      if self.random.chance(50) { self.disks[disk].attention[node] = true }
      if isNoticed { tell(true) }
    }
  }

  /// Called before each action of a node.
  func triggers(_ node: SimNode) {
    guard !pending.isEmpty, let index = pending.firstIndex(where: { $0.node == node.index }) else { return }
    if pending[index].action > 0 {
      pending[index].action -= 1
      return
    }
    let trigger = pending.remove(at: index)
    if trigger.crashes {
      node.crash()
      after(trigger.duration) { node.boot() }
    } else {
      node.pause(trigger.duration)
    }
  }

  /// From here on everything works. One of the nodes may stay away.
  func heal() {
    log { "all faults are over" }
    pending = []
    // Without a watchdog nobody takes over from who is away.
    let isOneAway = random.chance(20) && (plan.leaseDisks.isEmpty || plan.hasWatchdog)
    let away = Int.random(in: 0...1, using: &random)
    for disk in disks where !disk.hasPower { disk.regainPower(at: now) }
    for node in nodes where node.index < 2 {
      if isOneAway, node.index == away {
        node.crash()
      } else if !node.isRunning {
        node.boot()
      }
    }
  }
}
