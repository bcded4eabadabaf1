#!/usr/bin/env python3
"""Writes the man pages: manual.py PROGRAM VERSION DATE DIRECTORY

Nothing is said twice: what the pages say is docs/COMMANDS.md and docs/SETTINGS.md, what there is of commands and
options is what PROGRAM itself tells (--experimental-dump-help). An option that a page does not describe has the
program's words.
"""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In the package the documents are elsewhere than in the repository.
DOCUMENTS = "/usr/share/doc/gatewayd"
# Options that every command below one has.
COMMON = ("control", "json")


# ---- Markdown: as much of it as these documents use ----------------------------------------------------------------

def cells(line):
    """The cells of a table's row; a bar behind a backslash is none of the table's."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def blocks(text):
    """("heading", (level, text)), ("text", text), ("code", [line]), ("item", (mark, text)) or ("table", [[cell]])."""
    lines = text.splitlines()
    i = 0
    while i < len(lines):
        line = lines[i]
        if not line.strip():
            i += 1
        elif line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            yield "heading", (level, line[level:].strip())
            i += 1
        elif line.startswith("|"):
            rows = []
            while i < len(lines) and lines[i].startswith("|"):
                rows.append(cells(lines[i]))
                i += 1
            yield "table", [rows[0]] + rows[2:]
        elif line.startswith("    "):
            code = []
            while i < len(lines) and (lines[i].startswith("    ") or (not lines[i] and code and i + 1 < len(lines)
                                                                     and lines[i + 1].startswith("    "))):
                code.append(lines[i][4:])
                i += 1
            yield "code", code
        else:
            mark = re.match(r"(- |\d+\. )", line)
            words = [line[mark.end():] if mark else line]
            i += 1
            while i < len(lines) and lines[i].strip() and not re.match(r"#|\||- |\d+\. ", lines[i]):
                words.append(lines[i].strip())
                i += 1
            text = " ".join(words)
            yield ("item", (mark.group().strip(), text)) if mark else ("text", text)


def sections(text, level):
    """The blocks by heading of this level: {heading: [block]}; what comes before the first is under ""."""
    found, name = {"": []}, ""
    for kind, value in blocks(text):
        if kind == "heading" and value[0] == level:
            name = value[1]
            found[name] = []
        elif kind == "heading" and value[0] < level:
            name = "" if value[0] == 1 else None
        elif name is not None:
            found[name].append((kind, value))
    return found


# ---- man(7) --------------------------------------------------------------------------------------------------------

def escape(text, hyphen="-"):
    text = text.replace("\\", "\\e").replace("-", hyphen)
    return "".join(c if ord(c) < 128 else f"\\[u{ord(c):04X}]" for c in text)


def literal(text):
    """Words to type are bold, what stands for something else (FILE, ADDR:PORT) is in italics."""
    words = text.split(" ")

    def font(word):
        stands = len(words) > 1 and re.fullmatch(r"[A-Z]{2,}(:[A-Z]+)*", word)
        return f"\\f{'I' if stands else 'B'}{escape(word, chr(92) + '-')}\\fP"
    return " ".join(font(word) for word in words)


def inline(text):
    text = re.sub(r"\[([^]]+)\]\(([^)]+)\)", r"\1", text)
    text = text.replace("`docs/gatewayd.toml`", f"`{DOCUMENTS}/examples/gatewayd.toml`")
    text = re.sub(r"(`?)(?:docs/)?\b([A-Z]{2,})\.md\b", rf"\1{DOCUMENTS}/\2.md", text)
    made = []
    for part in re.split(r"(`[^`]+`|\*\*[^*]+\*\*|\*[^*]+\*)", text):
        if part.startswith("`"):
            made.append(literal(part[1:-1]))
        elif part.startswith("**"):
            made.append(f"\\fB{escape(part[2:-2].replace('`', ''))}\\fP")
        elif part.startswith("*") and len(part) > 2:
            made.append(f"\\fI{escape(part[1:-1])}\\fP")
        else:
            made.append(escape(part))
    return re.sub(r"\b([a-z][a-z.-]+)\(([1-8])\)", r"\\fB\1\\fP(\2)", "".join(made))


def filled(text):
    """Lines of running text: a sentence begins a new one, and none is longer than 79 bytes or begins with a request."""
    made = []
    for sentence in re.split(r"(?<=[.!?:]) +(?=[A-Z\\])", text):
        made += textwrap.wrap(sentence, 79, break_long_words=False, break_on_hyphens=False)
    return ["\\&" + line if line[:1] in (".", "'") else line for line in made]


def code_lines(lines):
    made = [escape(line.rstrip(), "\\-") for line in lines]
    return [".PP", ".RS 4", ".nf"] + ["\\&" + x if x[:1] in (".", "'") else x for x in made] + [".fi", ".RE"]


def sentence(text):
    return text if not text or text[-1] in ".!?:" else text + "."


def table_lines(rows):
    """A row is a tagged paragraph: the first cell its tag, the others sentences with their column's name."""
    made, head = [], rows[0]
    for row in rows[1:]:
        if re.fullmatch(r"\*\*`?\[.*", row[0]):  # a row that names those below it
            made += [".PP", inline(row[0])] + filled(inline(sentence(" ".join(row[1:]).strip())))
            continue
        said = []
        for i, cell in enumerate(row[1:], 1):
            name = head[i] if i < len(head) else ""
            if not cell:
                continue
            if name in ("default", "labels", "why"):
                said.append(sentence(f"{name.capitalize()}: {cell}"))
            elif cell == "start":
                said.append("Taken at the next start only.")
            else:
                said.append(sentence(cell))
        tag, body = inline(row[0]) or "\\&", filled(inline(" ".join(said)))
        if not row[0] and made:
            made += [".IP"] + body
        else:
            made += [".TP", tag] + (body or ["\\&"])
    return made


def body_lines(found, depth=2):
    made = []
    for kind, value in found:
        if kind == "heading":
            made += [f'.{"SS" if value[0] > depth else "SH"} "{inline(value[1])}"']
        elif kind == "text":
            made += [".PP"] + filled(inline(value))
        elif kind == "item":
            mark = "\\(bu" if value[0] == "-" else value[0]
            made += [f".IP {mark} 3"] + filled(inline(value[1]))
        elif kind == "code":
            made += code_lines(value)
        else:
            made += table_lines(value)
    return made


def page(name, section, title, parts, version, date):
    """parts: [(heading, [line])]. A paragraph right behind a heading is one too many."""
    made = ['.\\" Made from the documents and the program by image/deb/manual.py',
            f'.TH "{name.upper()}" "{section}" "{date}" "gatewayd {version}" "gatewayd manual"',
            ".SH NAME"] + filled(f"{escape(name, chr(92) + '-')} \\- {escape(title)}")
    for heading, lines in parts:
        if lines:
            made += [f".SH {heading}"] + lines
    tidy = []
    for line in made:
        if line == ".PP" and tidy[-1].startswith((".SH", ".SS")):
            continue
        tidy.append(line)
    return "\n".join(tidy) + "\n"


# ---- The pages -----------------------------------------------------------------------------------------------------

def synopsis_lines(lines):
    """Of a synopsis: a command begins at the left, what is further in goes on with it."""
    commands = []
    for line in lines:
        if line.startswith(" "):
            commands[-1] += " " + line.strip()
        else:
            commands.append(line.strip())
    made = []
    for command in commands:
        words = command.split(" ")
        count = next((i for i, word in enumerate(words) if not re.fullmatch(r"[a-z]+", word)), len(words))
        rest = re.findall(r"\[[^]]*\](?:\.\.\.)?|\([^)]*\)|\S+", " ".join(words[count:]))
        made += [f'.SY "{" ".join(words[:count])}"']
        made += [re.sub(r"(?<!\\fI)\b([A-Z]{2,}(?::[A-Z]+)*)\b", r"\\fI\1\\fP", escape(word, "\\-").replace(" ", "\\~"))
                 for word in rest]
    return made + [".YS"] if made else []


def option_names(argument):
    names = [("--" if name["kind"] == "long" else "-") + name["name"] for name in argument.get("names", [])]
    value = f" {argument['valueName'].upper()}" if argument["kind"] == "option" else ""
    return ", ".join(sorted(names, key=len)) + value if names else argument["valueName"].upper()


def option_lines(command, described):
    """The arguments and options of a command: in the document's words where it has any, else in the program's."""
    made = []
    for argument in command.get("arguments", []):
        names = option_names(argument)
        if not argument.get("shouldDisplay", True) or names in ("--version", "-h, --help"):
            continue
        row = next((row for row in described if row[0].strip("`").split(" ")[0] == names.split(" ")[0]), None)
        if row:
            made += table_lines([["option", ""], row])
        else:
            words = sentence(argument.get("abstract", "")) + " " + sentence(argument.get("discussion", "") or "")
            made += table_lines([["option", ""], [f"`{names}`" if " " in names else f"**{names}**", words.strip()]])
    return made


def see_also(*names):
    return filled(", ".join(f"\\fB{escape(n, chr(92) + '-')}\\fP({s})" for n, s in names))


def command_page(command, document, synopsis):
    """The page of one command with those below it."""
    name = command["commandName"]
    mine = {heading: found for heading, found in document.items() if heading.split(" ")[0] == name}
    rows = [row for found in mine.values() for kind, table in found if kind == "table" and table[0][0] == "option"
            for row in table[1:]]
    description = [] if mine else body_lines(blocks(command.get("discussion", "")))
    for heading, found in mine.items():
        words = heading.split(" ")
        if len(words) > 1 and words[1].islower():
            description += [f'.SS "{inline(heading)}"']
        description += body_lines([b for b in found if not (b[0] == "table" and b[1][0][0] == "option")], depth=0)
    below = [c for c in command.get("subcommands", []) if c.get("shouldDisplay", True) and c["commandName"] != "help"]
    options = option_lines(command, rows)
    for sub in below:
        alone = [a for a in sub.get("arguments", []) if a.get("preferredName", {}).get("name") not in COMMON]
        options += [f'.SS "{name} {sub["commandName"]}"', escape(sentence(sub.get("abstract", "")))]
        options += option_lines({"arguments": alone}, rows)
    if below:
        common = {a["preferredName"]["name"]: a for sub in below for a in sub.get("arguments", [])
                  if a.get("preferredName", {}).get("name") in COMMON}
        options += [".SS \"All of them\""] + option_lines({"arguments": list(common.values())}, rows)
    own = [line for line in synopsis if re.match(rf"gatewayd {name}\b", line)]
    own = [text for line in own for text in (line, *continuation(synopsis, line))]
    parts = [("SYNOPSIS", synopsis_lines(own)), ("DESCRIPTION", description), ("OPTIONS", options)]
    parts += [("EXIT STATUS", filled("See \\fBgatewayd\\fP(8)."))]
    others = {"run": [("gatewayd-disks", 8), ("gatewayd-doctor", 8)], "disks": [("gatewayd-doctor", 8)],
              "settings": [], "attach": [("iscsiadm", 8), ("multipath", 8)], "detach": [("iscsiadm", 8)]}
    parts += [("SEE ALSO", see_also(("gatewayd", 8), ("gatewayd.toml", 5), *others.get(name, [])))]
    return parts


def continuation(lines, line):
    for following in lines[lines.index(line) + 1:]:
        if not following.startswith(" "):
            return
        yield following


def program_page(top, text):
    """gatewayd(8): what holds for all commands, and a line for each."""
    found = sections(text, 2)
    commands = []
    for command in top["subcommands"]:
        if command.get("shouldDisplay", True) and command["commandName"] != "help":
            commands += [".TP", f"\\fBgatewayd\\-{command['commandName']}\\fP(8)",
                         *filled(escape(sentence(command["abstract"])))]
    parts = [("SYNOPSIS", synopsis_lines(found["Synopsis"][0][1]))]
    for heading, lines in found.items():
        if heading == "Commands":
            parts.append(("COMMANDS", commands))
        elif heading not in ("", "Name", "Synopsis"):
            parts.append((heading.upper(), body_lines(lines)))
    return parts


def settings_page(text):
    found = sections(text, 2)
    example = ["[discovery]", 'only = ["/dev/disk/by-id/wwn-0x5000c500a1b2c3d4"]', "", "[access]",
               'networks = ["on-link", "10.20.0.0/16"]']
    parts = [("SYNOPSIS", ["\\fI/etc/gatewayd/gatewayd.toml\\fP"]), ("DESCRIPTION", body_lines(found[""])[0:])]
    parts += [(heading.upper(), body_lines(lines)) for heading, lines in found.items() if heading]
    parts += [("EXAMPLES", ["One disk, for hosts of two networks:"] + code_lines(example)),
              ("SEE ALSO", see_also(("gatewayd", 8), ("gatewayd-run", 8), ("gatewayd-settings", 8)))]
    return parts


def main():
    program, version, date, directory = sys.argv[1:5]
    said = subprocess.run([program, "--experimental-dump-help"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          timeout=30, check=True)
    top = json.loads(said.stdout)["command"]
    commands_text = (ROOT / "docs/COMMANDS.md").read_text()
    settings_text = (ROOT / "docs/SETTINGS.md").read_text()
    synopsis = sections(commands_text, 2)["Synopsis"][0][1]
    document = sections(commands_text, 3)
    pages = {"gatewayd.8": ("gatewayd", 8, top["abstract"], program_page(top, commands_text)),
             "gatewayd.toml.5": ("gatewayd.toml", 5, "settings of gatewayd", settings_page(settings_text))}
    for command in top["subcommands"]:
        if not command.get("shouldDisplay", True) or command["commandName"] == "help":
            continue
        parts = command_page(command, document, synopsis)
        name = f"gatewayd-{command['commandName']}"
        pages[f"{name}.8"] = (name, 8, command["abstract"], parts)
    for file, (name, section, title, parts) in pages.items():
        title = title.rstrip(".")
        (Path(directory) / file).write_text(page(name, section, title[0].lower() + title[1:], parts, version, date))


if __name__ == "__main__":
    main()
