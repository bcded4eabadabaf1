/// What a TOML text says, and on which line it says it.
public struct TOMLDocument: Sendable {
  /// How deep tables and arrays may lie in each other: settings need six levels, and what follows the tree has a stack.
  static let depthMax = 64

  /// What may be done to a thing once it is there is a matter of how it came to be.
  enum Kind: UInt8 {
    case scalar
    /// `[[…]]` and `[…]`, or the file itself.
    case arrayOfTables, table
    /// A table that `[…]` only passed through: it may still be defined, once.
    case impliedTable
    /// A table that a dotted key made: dotted keys may go on in it, a header may not define it.
    case dottedTable
    /// `[…]` and `{…}` as values: complete where they end.
    case array, inlineTable
  }

  /// All of them lie in one array and name each other by index: a change copies nothing, and no chain of references is
  /// as long as the text wants it.
  struct Node: Sendable {
    var kind: Kind
    var depth: UInt8
    /// Where it is mentioned first; of a table that headers only passed through, where it is defined after that.
    var line: Int
    var scalar: SettingsValue?
    /// Of a table.
    var names: [String: Int] = [:]
    /// Of an array.
    var elements: [Int] = []
  }

  /// The file itself.
  static let root = 0
  private(set) var nodes = [Node(kind: .table, depth: 0, line: 1)]

  /// The tree without the lines.
  public var value: SettingsValue { value(Self.root) }

  private func value(_ index: Int) -> SettingsValue {
    let node = nodes[index]
    switch node.kind {
    case .scalar: return node.scalar ?? .other("nothing")
    case .array, .arrayOfTables: return .array(node.elements.map(value))
    case .table, .impliedTable, .dottedTable, .inlineTable: return .table(node.names.mapValues(value))
    }
  }

  /// The line, from 1, of the thing at `path`, or of the nearest thing around it; nil: none of it is in the text.
  public func line(of path: [String]) -> Int? {
    var index = Self.root
    for name in path {
      let node = nodes[index]
      if let child = node.names[name] {
        index = child
      } else if let element = Int(name), node.elements.indices.contains(element) {
        index = node.elements[element]
      } else {
        break
      }
    }
    return index == Self.root ? nil : nodes[index].line
  }
}

// What statements do to the tree. A name stands for itself and for what Unicode holds for the same text, as everywhere in
// Swift; TOML says nothing of that.
extension TOMLDocument {
  /// The place of a new value `a.b.c` in a table: what is before the last name are tables that dotted keys define.
  mutating func place(for names: [String], in table: Int, line: Int) throws(TOMLProblem) -> Int {
    var index = table
    for (count, name) in names.dropLast().enumerated() {
      guard let child = nodes[index].names[name] else {
        index = try add(name, to: index, .dottedTable, line)
        continue
      }
      switch nodes[child].kind {
      case .dottedTable: break
      case .impliedTable: (nodes[child].kind, nodes[child].line) = (.dottedTable, line)
      default:
        throw .notTOML(line, "\(Self.quote(names[...count])) of line \(nodes[child].line) cannot be extended here")
      }
      index = child
    }
    guard let name = names.last else { return index }
    if let other = nodes[index].names[name] { throw Self.twice(names[...], nodes[other].line, line) }
    return try add(name, to: index, .scalar, line)
  }

  /// The table that `[a.b.c]` begins.
  mutating func table(_ names: [String], line: Int) throws(TOMLProblem) -> Int {
    let parent = try parent(of: names, line: line)
    guard let name = names.last else { return parent }
    guard let index = nodes[parent].names[name] else { return try add(name, to: parent, .table, line) }
    guard nodes[index].kind == .impliedTable else { throw Self.twice(names[...], nodes[index].line, line) }
    (nodes[index].kind, nodes[index].line) = (.table, line)
    return index
  }

  /// The table that `[[a.b.c]]` begins.
  mutating func elementTable(_ names: [String], line: Int) throws(TOMLProblem) -> Int {
    let parent = try parent(of: names, line: line)
    guard let name = names.last else { return parent }
    let index: Int
    if let array = nodes[parent].names[name] {
      guard nodes[array].kind == .arrayOfTables else { throw Self.twice(names[...], nodes[array].line, line) }
      index = array
    } else {
      index = try add(name, to: parent, .arrayOfTables, line)
    }
    return try append(to: index, .table, line: line)
  }

  /// What a header passes through: tables, and the last table so far of an array of them.
  private mutating func parent(of names: [String], line: Int) throws(TOMLProblem) -> Int {
    var index = Self.root
    for (count, name) in names.dropLast().enumerated() {
      guard let child = nodes[index].names[name] else {
        index = try add(name, to: index, .impliedTable, line)
        continue
      }
      switch nodes[child].kind {
      case .table, .impliedTable, .dottedTable: index = child
      case .arrayOfTables: index = nodes[child].elements.last ?? child
      case .scalar, .array, .inlineTable:
        throw .notTOML(line, "\(Self.quote(names[...count])) of line \(nodes[child].line) cannot be extended here")
      }
    }
    return index
  }

  /// The place of an array's next element.
  mutating func append(to array: Int, _ kind: Kind = .scalar, line: Int) throws(TOMLProblem) -> Int {
    let index = try add(below: array, kind, line)
    nodes[array].elements.append(index)
    return index
  }

  mutating func set(_ index: Int, _ value: SettingsValue) { nodes[index].scalar = value }
  mutating func set(_ index: Int, _ kind: Kind) { nodes[index].kind = kind }

  private mutating func add(_ name: String, to table: Int, _ kind: Kind, _ line: Int) throws(TOMLProblem) -> Int {
    let index = try add(below: table, kind, line)
    nodes[table].names[name] = index
    return index
  }

  private mutating func add(below parent: Int, _ kind: Kind, _ line: Int) throws(TOMLProblem) -> Int {
    let depth = nodes[parent].depth + 1
    guard depth <= Self.depthMax else {
      throw TOMLProblem(line: line, message: "tables and lists lie more than \(Self.depthMax) deep in each other")
    }
    nodes.append(Node(kind: kind, depth: depth, line: line))
    return nodes.count - 1
  }

  private static func twice(_ names: ArraySlice<String>, _ first: Int, _ line: Int) -> TOMLProblem {
    .notTOML(line, "\(quote(names)) is there already, on line \(first)")
  }

  /// A key for a message: on one line, and no longer than one.
  private static func quote(_ names: ArraySlice<String>) -> String {
    let text = Printable.text(names.joined(separator: "."))
    return text.utf8.count <= 80 ? "'\(text)'" : "'\(text.prefix(60))…'"
  }
}
