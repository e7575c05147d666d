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
    local IFS=$'\n' rest=$COMP_LINE line word gap before quote i
    local -a words=()
    COMPREPLY=()
    # Readline ends words at : and = too. Where no blank is between, it is one.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        gap=${rest%%[![:blank:]]*}
        rest=${rest:${#gap}}
        rest=${rest:${#word}}
        if ((i > 0)) && [[ -z $gap ]]; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
    done
    before=${words[${#words[@]}-1]}
    quote=${before:0:1}
    if [[ -z $word || -n ${word//[:=@]/} ]]; then # else readline replaces what comes after it
        before=${before%"$word"}
    fi
    for ((i = 0; i < ${#words[@]}; i++)); do
        case ${words[i]} in
        [\'\"]*) word=${words[i]#?} words[i]=${word%"${words[i]:0:1}"} ;;
        *) words[i]=${words[i]//\\/} ;;
        esac
    done
    while read -r line; do
        line=${line%%$'\t'*}
        line=${line#"${before//\\/}"}
        # Names are data, some chosen by devices: they must not become commands.
        case $quote in
        "'") line=${line//"'"/"'\\''"} ;;
        '"') line=${line//\\/\\\\} line=${line//'"'/'\"'} line=${line//'$'/'\$'} line=${line//'` + "`" + `'/'\` + "`" + `'} ;;
        *) printf -v line %q "$line" ;;
        esac
        COMPREPLY+=("$line")
    done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=.] ]]; then
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
    done < <("${words[1]}" __complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)
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
	ctx, stop := context.WithTimeout(a.ctx, a.tabTime)
	defer stop()
	for _, line := range a.complete(ctx, words) {
		name, text, tab := strings.Cut(line, "\t")
		if printable(name) != name {
			continue // nobody can type it
		}
		if tab {
			name += "\t" + printable(strings.Join(strings.Fields(text), " "))
		}
		if _, err := fmt.Fprintln(a.io.Out, name); err != nil {
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
