package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/muster-hub/muster/engine/wording"
)

type helpCmd struct {
	JSON    bool     `name:"json" help:"The whole command tree as JSON, for programs."`
	Command []string `arg:"" optional:"" help:"A command, such as device create."`
}

// Run shows help.
func (c *helpCmd) Run(a *app) error {
	node := a.kong.Model.Node
	for _, word := range c.Command {
		next := child(node, word)
		if next == nil {
			p := &problem{exit: ExitUsage, what: fmt.Sprintf("there is no command %q in %s", word, commandLine(node)), next: "`muster help` shows the commands."}
			if near := wording.Nearest(word, childNames(node)); near != "" {
				p.next = fmt.Sprintf("Did you mean `%s %s`?", commandLine(node), near)
			}
			return p
		}
		node = next
	}
	if c.JSON {
		return writeJSON(a.io.Out, describe(node))
	}
	args := append(slices.Clone(c.Command), "--help")
	trace, err := kong.Trace(a.kong, args)
	if err != nil {
		return err
	}
	return trace.PrintUsage(false)
}

func child(n *kong.Node, word string) *kong.Node {
	for _, c := range n.Children {
		if c.Name == word || slices.Contains(c.Aliases, word) {
			return c
		}
	}
	return nil
}

func childNames(n *kong.Node) []string {
	var names []string
	for _, c := range n.Children {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

// commandInfo describes a command for programs.
type commandInfo struct {
	Command  string        `json:"command"`
	Help     string        `json:"help"`
	Impact   string        `json:"impact,omitempty"`  // "read", "write"; leaves only
	Default  bool          `json:"default,omitempty"` // its own word may be left out
	Args     []valueInfo   `json:"args,omitempty"`
	Flags    []valueInfo   `json:"flags,omitempty"`
	Commands []commandInfo `json:"commands,omitempty"`
}

type valueInfo struct {
	Name       string   `json:"name"`
	Short      string   `json:"short,omitempty"`
	Help       string   `json:"help,omitempty"`
	Default    string   `json:"default,omitempty"`
	Enum       []string `json:"enum,omitempty"`
	Env        string   `json:"env,omitempty"`
	Repeatable bool     `json:"repeatable,omitempty"`
	Required   bool     `json:"required,omitempty"`
	Bool       bool     `json:"bool,omitempty"`
}

func describe(n *kong.Node) commandInfo {
	info := commandInfo{Command: commandLine(n), Help: n.Help, Default: n.Parent != nil && n.Parent.DefaultCmd == n}
	for _, p := range n.Positional {
		info.Args = append(info.Args, describeValue(p))
	}
	for _, f := range n.Flags {
		if f.Hidden || f.Name == "help" {
			continue
		}
		v := describeValue(f.Value)
		v.Env = envName(f.Name)
		if f.Short != 0 {
			v.Short = string(f.Short)
		}
		info.Flags = append(info.Flags, v)
	}
	for _, c := range n.Children {
		if !c.Hidden {
			info.Commands = append(info.Commands, describe(c))
		}
	}
	if n.Leaf() {
		info.Impact = impact(info.Command, n.Name)
	}
	return info
}

func describeValue(v *kong.Value) valueInfo {
	info := valueInfo{Name: v.Name, Help: v.Help, Default: v.Default, Required: v.Required, Repeatable: v.IsSlice(), Bool: v.IsBool()}
	if v.Enum != "" {
		info.Enum = v.EnumSlice()
	}
	return info
}

// impact says whether a command changes something of a hub. Most names mean the
// same everywhere.
func impact(command, name string) string {
	switch command {
	case "muster query run", "muster pattern test":
		return "read"
	}
	switch name {
	case "create", "update", "delete", "enable", "disable", "patch", "replace", "invoke", "rotate", "rotate-secret", "replay", "retry", "test", "serve", "start", "clean", "repair", "save", "declare", "drop",
		"import", "restore", "approve", "deny", "pause", "resume", "cancel", "undo", "clone", "apply", "rollback", "install", "default", "remove", "run", "add", "set", "send", "purge", "put", "simulate", "log-level":
		return "write"
	}
	return "read"
}

// Reference returns the command line's reference as Markdown: every command
// with its arguments, flags, environment variables and the exit codes.
func Reference() (string, error) {
	k, err := newParser(&root{}, io.Discard, io.Discard)
	if err != nil {
		return "", fmt.Errorf("build the command tree: %w", err)
	}
	var b strings.Builder
	b.WriteString("# Command line\n\n" +
		"Generated from the command tree; `muster help --json` prints the same for programs.\n\n" +
		"A flag's value comes from the command line, else from the environment (`MUSTER_` and the flag's name in capitals, `-` as `_`; " +
		"lists separated by commas), else from the config file (`--config`, else `./muster.yaml`, else `/etc/muster/muster.yaml`), else it is the default. " +
		"The config file is YAML with flag names as keys. It holds the settings of `serve` and, for the other commands, " + codeList(clientSettings()) + ".\n\n" +
		"## Exit codes\n\n| Code | Meaning |\n|---|---|\n")
	for _, c := range ExitCodes() {
		fmt.Fprintf(&b, "| %d | %s |\n", c.Code, c.Text)
	}
	b.WriteString("\n## Flags of every command\n\n")
	writeFlags(&b, k.Model.Flags)
	for _, n := range k.Model.Leaves(true) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n```\n%s\n```\n", commandLine(n), n.Help, synopsis(n))
		if len(n.Positional) > 0 {
			b.WriteString("\n| Argument | Meaning |\n|---|---|\n")
			for _, p := range n.Positional {
				fmt.Fprintf(&b, "| `%s` | %s |\n", p.Name, cellText(p.Help))
			}
		}
		if len(n.Flags) > 0 {
			b.WriteString("\n")
			writeFlags(&b, n.Flags)
		}
	}
	return b.String(), nil
}

func codeList(names []string) string {
	return "`" + strings.Join(names, "`, `") + "`"
}

func synopsis(n *kong.Node) string {
	var s strings.Builder
	s.WriteString(commandLine(n))
	if len(n.Flags) > 0 {
		s.WriteString(" [FLAGS]")
	}
	for _, p := range n.Positional {
		name := strings.ToUpper(p.Name)
		if p.IsSlice() {
			name += " ..."
		}
		if !p.Required {
			name = "[" + name + "]"
		}
		s.WriteString(" " + name)
	}
	return s.String()
}

func writeFlags(b *strings.Builder, flags []*kong.Flag) {
	b.WriteString("| Flag | Default | Environment | Meaning |\n|---|---|---|---|\n")
	for _, f := range flags {
		if f.Hidden {
			continue
		}
		name, env := "`--"+f.Name+"`", "`"+envName(f.Name)+"`"
		if f.Short != 0 {
			name = "`-" + string(f.Short) + "`, " + name
		}
		if f.Name == "help" {
			env = ""
		}
		def := ""
		if f.Default != "" {
			def = "`" + f.Default + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", name, def, env, cellText(f.Help))
	}
}

func cellText(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
