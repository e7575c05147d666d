package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints the script. The scripts hold no commands: they ask the program,
// so they stay right when it changes.
func (c *completionCmd) Run(a *app) error {
	_, err := io.WriteString(a.io.Out, completionScripts()[c.Shell])
	return err
}

func completionScripts() map[string]string {
	return map[string]string{
		"bash": `# muster completion for bash. Use: source <(muster completion bash)
_muster() {
    local IFS=$'\n'
    COMPREPLY=()
    local line
    while read -r line; do
        COMPREPLY+=("${line%%$'\t'*}")
    done < <("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace
    fi
}
complete -o default -F _muster muster
`,
		"zsh": `#compdef muster
# muster completion for zsh. Use: source <(muster completion zsh)
_muster() {
    local -a lines
    local line
    while IFS= read -r line; do
        lines+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done < <("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#lines} )); then
        _describe 'muster' lines
    else
        _files
    fi
}
compdef _muster muster
`,
		"fish": `# muster completion for fish. Use: muster completion fish | source
function __muster_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    set -l current (commandline -ct)
    $program __complete -- $words "$current" 2>/dev/null
end
complete -c muster -a '(__muster_complete)'
`,
	}
}

type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:"" maybeempty:"" help:"The words of the command line so far."`
}

// completionTime bounds what a press of the tab key may cost.
const completionTime = 300 * time.Millisecond

// Run prints candidates for the last word, one a line, with a tab and help.
func (c *completeCmd) Run(a *app) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	ctx, stop := context.WithTimeout(a.ctx, completionTime)
	defer stop()
	for _, line := range a.complete(ctx, words) {
		if _, err := fmt.Fprintln(a.io.Out, line); err != nil {
			return err
		}
	}
	return nil
}

// complete walks the tree along the words and returns what can stand for the
// last one.
func (a *app) complete(ctx context.Context, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	node, position := a.kong.Model.Node, 0
	var given []string            // positional words
	values := map[string]string{} // flags seen, for --data and --hub
	for i := 0; i < len(words)-1; i++ {
		w := words[i]
		if strings.HasPrefix(w, "-") {
			name, value, whole := strings.Cut(strings.TrimLeft(w, "-"), "=")
			f := findFlag(node, name)
			if f == nil {
				continue
			}
			if !whole && !f.IsBool() {
				if i == len(words)-2 {
					if f.Enum == "" {
						return a.liveCandidates(ctx, wanted{node: node, flag: f.Name, given: given, last: last}, values)
					}
					return candidates(f.EnumSlice(), last)
				}
				i++
				value = words[i]
			}
			values[f.Name] = value
			continue
		}
		if next := child(node, w); next != nil && !next.Hidden {
			node, position, given = next, 0, nil
			continue
		}
		if node.DefaultCmd != nil {
			node = node.DefaultCmd
		}
		position++
		given = append(given, w)
	}
	if strings.HasPrefix(last, "-") {
		if node.DefaultCmd != nil {
			node = node.DefaultCmd
		}
		return flagCandidates(node, last)
	}
	var out []string
	for _, c := range node.Children {
		if !c.Hidden && strings.HasPrefix(c.Name, last) {
			out = append(out, c.Name+"\t"+c.Help)
		}
	}
	if node.DefaultCmd != nil {
		node = node.DefaultCmd
	}
	if len(node.Positional) == 0 {
		return out
	}
	arg := node.Positional[min(position, len(node.Positional)-1)]
	if arg.Enum != "" {
		return append(out, candidates(arg.EnumSlice(), last)...)
	}
	return append(out, a.liveCandidates(ctx, wanted{node: node, arg: arg.Name, given: given, last: last}, values)...)
}

func findFlag(n *kong.Node, name string) *kong.Flag {
	if n.DefaultCmd != nil {
		n = n.DefaultCmd
	}
	for ; n != nil; n = n.Parent {
		for _, f := range n.Flags {
			if f.Name == name || f.Short != 0 && string(f.Short) == name {
				return f
			}
		}
	}
	return nil
}

func flagCandidates(n *kong.Node, last string) []string {
	var out []string
	for ; n != nil; n = n.Parent {
		for _, f := range n.Flags {
			name := "--" + f.Name
			if !f.Hidden && strings.HasPrefix(name, last) {
				out = append(out, name+"\t"+f.Help)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func candidates(list []string, prefix string) []string {
	var out []string
	for _, s := range list {
		if s != "" && strings.HasPrefix(s, prefix) {
			out = append(out, s)
		}
	}
	return out
}
